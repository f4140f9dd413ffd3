"""Models of tables as scikit-learn estimators: log p(x) of each row, and what is missing from it.

They work in pipelines and under searches. How far an answer can be trusted they cannot say there: for errors, effective
sample sizes and intervals ask `likelihood.estimate_log_prob` and `imputation.impute` about the fitted `model_`.
"""

import dataclasses
import zlib

import keras
import numpy as np
from sklearn.base import BaseEstimator, DensityMixin, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import assert_all_finite, check_is_fitted, validate_data

from iwae_zoo import data, objectives, presets
from iwae_zoo._checks import integer, look_up, positive, single, warn_of_lost_digits
from iwae_zoo._precision import tensor_float_32
from iwae_zoo.estimation import imputation, likelihood, sampling
from iwae_zoo.training import schedules

__all__ = ["Imputer", "LikelihoodEstimator"]

# Columns are real numbers, as everywhere in scikit-learn.
_KIND = "real"
_ARCHITECTURE = ("latent_size", "hidden_sizes", "activation")
_TRAINING = ("epochs", "batch_size", "learning_rate", "schedule")
# Seeds of models: `presets.build` takes a thousand seeds of layers for each, below 2^31.
_NUM_SEEDS = 2**21


class LikelihoodEstimator(DensityMixin, BaseEstimator):
    """log p(x) of the rows of a table of real numbers, NaN where missing; then it is that of what was observed.

    Fitted models take missing values, whether or not there were any in `fit`. Columns need not be scaled: densities are
    per unit of each column.

    Args:
      objective: name of an objective, or an `Objective`, which has an `m` and a `k` of its own.
      m: int, number of groups of particles in training.
      k: int, number of particles in a group.
      preset: name of an architecture with its settings; the next eight are instead of its own where they are not None.
      likelihood: name of a likelihood of real numbers, with settings where it has some, or a `likelihoods.Likelihood`.
      latent_size: int, or a tuple of the sizes of stacked stochastic layers.
      hidden_sizes: tuple of int, or one for each stochastic layer.
      activation: Keras activation of the hidden layers.
      epochs: int, passes over the table.
      batch_size: int.
      learning_rate: float, of Adam for both networks; the highest where it changes.
      schedule: how the learning rate changes over the run; a name of `training.schedules`.
      num_samples: int, importance samples for each row that is asked about.
      method: how log p(x) is estimated: "auto" anneals the rows that importance samples cannot answer, "importance"
        takes these as they are, which is faster.
      random_state: int, `RandomState` or None, of the weights, of training and of `sample`. With the same int, fits are
        the same.
      verbose: 0, 1 or 2, as Keras' `fit` has it.

    Attributes:
      model_: `ImportanceWeightedAutoencoder`, built and trained.
      seed_: int, of the model and of the answers about it.
      n_features_in_: int.
      feature_names_in_: array of str, where `fit` was given column names.

    #### Examples
    >>> X = np.random.RandomState(0).normal(size=(20, 3))
    >>> estimator = LikelihoodEstimator(hidden_sizes=(4,), epochs=1, num_samples=10, method="importance").fit(X)
    >>> estimator.score_samples(X).shape, estimator.sample(5).shape
    ((20,), (5, 3))
    """

    def __init__(
        self,
        *,
        objective="dreg",
        m=1,
        k=20,
        preset="table",
        likelihood="normal,spread=column",
        latent_size=None,
        hidden_sizes=None,
        activation=None,
        epochs=None,
        batch_size=None,
        learning_rate=None,
        schedule=None,
        num_samples=1000,
        method="auto",
        random_state=None,
        verbose=0,
    ):
        self.objective = objective
        self.m = m
        self.k = k
        self.preset = preset
        self.likelihood = likelihood
        self.latent_size = latent_size
        self.hidden_sizes = hidden_sizes
        self.activation = activation
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.schedule = schedule
        self.num_samples = num_samples
        self.method = method
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X, y=None):
        """Trains a model.

        Args:
          X: array or data frame [N, P], NaN where missing.
          y: ignored.

        Returns:
          The estimator.

        Raises:
          ValueError: on a parameter out of range, infinity, or a column without any value.
          tf.errors.InvalidArgumentError: if training diverged.
        """
        X = validate_data(self, X, **_TABLE, ensure_min_samples=2)
        x = _float32(X)
        warn_of_lost_digits(X, x, range(X.shape[1]))
        empty = np.isnan(x).all(axis=0)
        if empty.any():
            names = getattr(self, "feature_names_in_", np.arange(x.shape[1]))
            raise ValueError(f"There is no observed value in column {', '.join(map(str, names[empty]))}. Leave it out.")
        chosen = {name: getattr(self, name) for name in (*_ARCHITECTURE, *_TRAINING)}
        preset = presets.get(self.preset, **chosen)
        epochs, batch_size = integer("epochs", preset.epochs), integer("batch_size", preset.batch_size)
        integer("num_samples", self.num_samples)
        look_up(likelihood.METHODS, self.method, "method of estimating log p(x)")
        table = data.Dataset("X", x, x[:0], x[:0], _KIND)
        head = presets.choose_likelihood(self.preset, self.likelihood, table)
        steps = table.steps_per_epoch(batch_size)
        rate = schedules.get(preset.schedule, positive("learning_rate", preset.learning_rate), epochs * steps)
        seed = int(check_random_state(self.random_state).randint(_NUM_SEEDS))
        model = presets.build(
            self.preset,
            data=table,
            objective=objectives.get(self.objective, m=self.m, k=self.k),
            seed=seed,
            likelihood=dataclasses.replace(head, missing=True),
            **{name: chosen[name] for name in _ARCHITECTURE},
        )
        model.compile(keras.optimizers.Adam(rate))
        batches = table.training_batches(batch_size, seed)
        with tensor_float_32(False):
            model.fit(batches, steps_per_epoch=steps, epochs=epochs, shuffle=False, verbose=self.verbose)
        self.model_, self.seed_ = model, seed
        return self

    def score_samples(self, X):
        """log p(x) of each row.

        An answer depends on its row alone, bit for bit, wherever it stands.

        Args:
          X: array or data frame [N, P], NaN where missing.

        Returns:
          float64 array [N], nats.
        """
        x = _float32(self._table(X))
        answer = likelihood.estimate_log_prob(
            self.model_, x, self.num_samples, self.seed_, method=self.method, rows=_streams(x)
        )
        return answer.log_prob

    def score(self, X, y=None):
        """Mean of `score_samples`, nats: what a search maximises.

        Args:
          X: array or data frame [N, P], NaN where missing.
          y: ignored.

        Returns:
          float.
        """
        return float(np.mean(self.score_samples(X)))

    def sample(self, n_samples=1):
        """Draws rows from the model; with an int for `random_state` the same at each call.

        Args:
          n_samples: int.

        Returns:
          float32 array [n_samples, P].
        """
        check_is_fitted(self, "model_")
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        return sampling.sample(self.model_, integer("n_samples", n_samples), seed).x

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def _table(self, X):
        """A table to be asked about: float array [N, P], float64 or float32 as it is."""
        check_is_fitted(self, "model_")
        return validate_data(self, X, **_TABLE, reset=False)


class Imputer(OneToOneFeatureMixin, TransformerMixin, LikelihoodEstimator):
    """Fills in the missing values of a table of real numbers with E[x_mis | x_obs], the mean of what they can be.

    It is fitted to the table with its holes and gives each row the answer that what was observed in it calls for. As a
    `LikelihoodEstimator` it has a score, log p of what was observed in held-out rows, by which a search can choose its
    parameters. Parameters and attributes are those of `LikelihoodEstimator`.

    #### Examples
    >>> X = np.random.RandomState(0).normal(size=(20, 3))
    >>> X[0, 1] = np.nan
    >>> filled = Imputer(hidden_sizes=(4,), epochs=1, num_samples=10).fit_transform(X)
    >>> filled.shape, bool(np.isnan(filled).any()), bool(filled[0, 0] == X[0, 0])
    ((20, 3), False, True)
    """

    def transform(self, X):
        """Fills in missing values.

        Args:
          X: array or data frame [N, P], NaN where missing.

        Returns:
          Array [N, P] of X's float type (float64 for integers), or a data frame where `set_output` says so. What was
          observed is unchanged; an answer depends on its row alone.
        """
        filled = self._table(X).copy()
        missing = np.isnan(filled)
        rows = missing.any(axis=1)
        if rows.any():
            x = _float32(filled[rows])
            answer = imputation.impute(self.model_, x, self.num_samples, 1, self.seed_, rows=_streams(x))
            filled[missing] = answer.mean[missing[rows]]
        return filled

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


# What scikit-learn checks of a table.
_TABLE = {"dtype": [np.float64, np.float32], "ensure_all_finite": "allow-nan"}


def _float32(X):
    """A table as models take it.

    Raises:
      ValueError: if a number is too large for that.
    """
    x = single(X)
    assert_all_finite(x, allow_nan=True, input_name="X")
    return x


def _streams(x):
    """For each row of a float32 table, by its content, a stream of random numbers: int32 array [N]."""
    same = np.where(np.isnan(x), np.float32(np.nan), x)  # One NaN is as good as another; `single` leaves no -0.
    return np.array([zlib.crc32(row.tobytes()) >> 1 for row in same], np.int32)
