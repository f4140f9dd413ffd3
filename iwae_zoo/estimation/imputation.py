"""What is missing, given what was observed: E[x_mis | x_obs], draws and intervals, from importance samples.

    p(x_mis | x_obs) = E_{p(z | x_obs)}[ p(x_mis | z) ]

Particles from the encoder, weighed by p(x_obs, z) / q(z | x_obs), stand for p(z | x_obs). The same ones give
log p(x_obs) and say how far all of it can be trusted.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from iwae_zoo._checks import checked_seed, integer
from iwae_zoo._precision import tensor_float_32
from iwae_zoo._tracing import Networks, per_model
from iwae_zoo.distributions import moments
from iwae_zoo.estimation import importance, psis, tiles
from iwae_zoo.estimation.rows import by_rows, checked_answers, numbered, swapped
from iwae_zoo.estimation.streaming import Observer, checked_counts, observed, race
from iwae_zoo.model import examples, particles

__all__ = ["Imputation", "central_interval", "check_takes_missing", "impute", "outputs", "row"]

# Sub-streams of a row's seed, beside those of its chunks, which are numbered from 0.
_DRAWING = -1
# Particles whose weighing takes as much memory as the moments of one, in double precision.
MOMENTS = 4


class Imputation(NamedTuple):
    """What stands for the missing values of each example. What was observed stays as it is.

    Attributes:
      mean: float array [B, ...], E[x_mis | x_obs]. Of zeros and ones it is the probability of a one.
      stddev: float array [B, ...], standard deviation of x_mis given x_obs; 0 where observed.
      draws: float array [R, B, ...], draws of x_mis given x_obs.
      point: float array [B, ...], one value for each: the most probable one of zeros and ones and of classes, the mean
        of other numbers.
      probability: float array [B, ...], of that value where it is a zero, a one or a class; NaN for other numbers; 1
        where observed.
      log_prob: float64 array [B], log p(x_obs), nats: 0 within its error where nothing was observed.
      standard_error: float64 array [B], of `log_prob`, nats.
      ess: float64 array [B], effective number (Kong) of the particles.
      pareto_k: float64 array [B], Pareto shape of the largest weights.
      in_support: bool array [B]; where it is false, everything that was missing is NaN.
      num_samples: int array [B].
    """

    mean: np.ndarray
    stddev: np.ndarray
    draws: np.ndarray
    point: np.ndarray
    probability: np.ndarray
    log_prob: np.ndarray
    standard_error: np.ndarray
    ess: np.ndarray
    pareto_k: np.ndarray
    in_support: np.ndarray
    num_samples: np.ndarray

    @property
    def trusted(self):
        """bool array [B], whether the particles can stand for p(z | x_obs).

        Pareto k is at most 0.7, and float32 has the digits of log p(x_obs), as `likelihood.Estimate` has it.
        """
        sure = (self.pareto_k <= importance.PARETO_K_LIMIT) | (self.standard_error == 0.0)
        return sure & self.in_support & ~importance.rounded(self.log_prob, self.standard_error)

    def rows(self, start, stop):
        """The same of some of the examples."""
        values = {name: value[start:stop] for name, value in self._asdict().items()}
        return Imputation(**{**values, "draws": self.draws[:, start:stop]})

    @classmethod
    def joined(cls, parts):
        """One of the examples of several."""
        axes = {name: int(name == "draws") for name in cls._fields}
        return cls(**{name: np.concatenate([getattr(p, name) for p in parts], axis) for name, axis in axes.items()})

    def interval(self, level=0.9):
        """Central intervals that cover a missing value with a probability, from the draws: `central_interval`.

        Args:
          level: float, between 0 and 1.

        Returns:
          (low, high): float arrays [B, ...].

        Raises:
          ValueError: if there are too few draws for the level.
        """
        least = int(np.ceil(2.0 / (1.0 - level) - 1.0 - 1e-9)) if 0.0 < level < 1.0 else np.inf
        if len(self.draws) < least:
            raise ValueError(
                f"An interval of level {level} takes num_imputations of at least {least}: received {len(self.draws)}."
                if least < np.inf
                else f"level must be between 0 and 1: received {level!r}."
            )
        return central_interval(self.draws, level)


def central_interval(draws, level):
    """Low and high ends [...] of intervals from draws [R, ...].

    They are order statistics, at (R + 1) (1 -+ level) / 2, so that a draw more from the same distribution is covered
    with the probability `level`.
    """
    low, high = np.quantile(draws, [0.5 - level / 2, 0.5 + level / 2], axis=0, method="weibull")
    return low, high


@tensor_float_32(False)
def impute(
    model, x, num_samples=1000, num_imputations=5, seed=0, chunk_size=None, *, first_row=0, rows=None, tile_rows=None
):
    """Answers what is missing from x, with how far the answer can be trusted.

    Args:
      model: `ImportanceWeightedAutoencoder` whose networks take missing values, as one from `presets.build` that was
        given data with holes.
      x: array [B, ...], NaN where missing.
      num_samples: int, number S of particles per example; any number, memory does not grow with it.
      num_imputations: int, number R of draws. They are of the same particles, and independent given these.
      seed: int, 0 <= seed < 2^31. Example i draws from the stateless seed (`first_row` + i, `seed`), whatever the other
        examples are.
      chunk_size: int, number of particles decoded at once, at most `num_samples`; None chooses.
      first_row: int, index of the first example within a larger data set.
      rows: int array [B], the rows that examples draw for, instead of `first_row` + i.
      tile_rows: int, as in `likelihood.estimate_log_prob`.

    Returns:
      `Imputation`.

    Raises:
      ValueError: on a number out of range, an x of another shape or with infinity in it, a model that takes no missing
        values, or one whose weights are NaN.
      MemoryError: if the device is out of memory; the message has a `chunk_size` that would fit.

    #### Examples
    >>> from iwae_zoo import presets
    >>> holes = np.array([[1.0, np.nan, 2.0]], np.float32)
    >>> model = presets.build("real_small", data_shape=(3,), likelihood="normal,missing=True")
    >>> filled = impute(model, holes, num_samples=10, num_imputations=2)
    >>> filled.mean.shape, filled.draws.shape, filled.mean[0, 0]
    ((1, 3), (2, 1, 3), np.float32(1.0))

    #### References
    Mattei, Frellsen. MIWAE: Deep Generative Modelling and Imputation of Incomplete Data Sets. ICML 2019, section 3.
    https://arxiv.org/abs/1812.02633
    Rubin. Multiple Imputation for Nonresponse in Surveys. 1987.
    """
    num_imputations = integer("num_imputations", num_imputations)
    check_takes_missing(model)
    num_samples, chunk_size = checked_counts(chunk_size, num_samples=num_samples)
    x, seed = examples.fitting(model, x), checked_seed(seed)
    rows = numbered(len(x), first_row, rows)
    tile_rows = tiles.choose(tile_rows, model, MOMENTS * chunk_size)
    answer = _rows_function(model, chunk_size, psis.capacity(num_samples), num_imputations, tile_rows)
    with tiles.enough(tile_rows, model, chunk_size, copies=MOMENTS):
        answers = {name: value.numpy() for name, value in answer(rows, seed, x, num_samples).items()}
    checked_answers(answers["log_prob"])
    answers["draws"] = np.moveaxis(answers["draws"], 1, 0)
    return Imputation(**{name: answers[name] for name in Imputation._fields})


def check_takes_missing(model):
    """Raises ValueError if a model takes no missing values."""
    if not particles.takes_missing(model.decoder):
        raise ValueError(
            "The model takes no missing values. Train one on data with holes, or with a likelihood such as "
            "'normal,missing=True'."
        )


def outputs(data_shape, num_imputations):
    """dict of `tf.TensorSpec`, what `row` returns."""
    values = dict.fromkeys(("mean", "stddev", "point", "probability"), tf.TensorSpec(data_shape))
    draws = {"draws": tf.TensorSpec([num_imputations, *data_shape])}
    return {**values, **draws, **{name: spec for name, spec in importance.OUTPUTS.items() if name != "elbo"}}


def row(networks, x, num_samples, seed, chunk_size, capacity, num_imputations):
    """The imputation of one example, or of a tile; TensorFlow operations only, for graphs.

    Args:
      networks: anything with `encoder`, `decoder` and `prior`, such as a model.
      x: float tensor [...], one example; or a tile [T, ...], from an encoder whose draws take seeds by row.
      num_samples: int tensor [], number of particles; or [T].
      seed: stateless seed [2]; or [T, 2].
      chunk_size: int, particles decoded at once.
      capacity: int, as in `streaming.stream`.
      num_imputations: int.

    Returns:
      dict of tensors by the names of `outputs`; of a tile with the axis of its rows first.
    """
    tile = list(seed.shape[:-1])
    observer = _observer(networks, num_imputations, tile[0] if tile else 1)
    tolerance = tf.constant(0.0, tf.float64)
    answer, state = observed(networks, x, num_samples, seed, tolerance, chunk_size, capacity, observer=observer)
    mean, mean_square, probabilities, (_, z) = (
        state if tile else tf.nest.map_structure(lambda of_rows: of_rows[0], state)
    )

    def drawn(z, seed):
        return tf.cast(networks.decoder.likelihood(z).sample(seed=seed), x.dtype)

    seed = particles.derive_seed(seed, _DRAWING)
    specification = tf.TensorSpec([num_imputations, *x.shape[len(tile) :]], x.dtype)
    draws = tf.map_fn(lambda row: drawn(*row), (z, seed), fn_output_signature=specification) if tile else drawn(z, seed)
    point, probability = mean, tf.fill(tf.shape(mean), tf.constant(np.nan, mean.dtype))
    for of_classes in probabilities:
        is_class = tf.reduce_sum(of_classes, axis=-1) > 0.0
        point = tf.where(is_class, tf.cast(tf.argmax(of_classes, axis=-1), mean.dtype), mean)
        probability = tf.where(is_class, tf.reduce_max(of_classes, axis=-1), probability)
    stddev = tf.sqrt(tf.maximum(mean_square - tf.square(mean), 0.0))
    usable = tf.reshape(answer["in_support"], [*tile, *[1] * specification.shape[1:].rank])

    def filled(values, there, axis=None):
        """Values where x is missing, with an axis more than x where one is given; elsewhere what is there."""
        holes, kept, known = tf.math.is_nan(x), there, usable
        if axis is not None:
            holes, kept, known = (tf.expand_dims(value, axis) for value in (holes, kept, known))
        return tf.where(holes, tf.where(known, tf.cast(values, x.dtype), tf.constant(np.nan, x.dtype)), kept)

    answer |= {
        "mean": filled(mean, x),
        "stddev": filled(stddev, tf.zeros_like(x)),
        "draws": filled(draws, x, axis=len(tile)),
        "point": filled(point, x),
        "probability": filled(probability, tf.ones_like(x)),
    }
    return {name: value for name, value in answer.items() if name != "elbo"}


def _observer(networks, num_imputations, rows):
    """What is learned of the particles: moments and probabilities of x, and z of the draws."""
    prior = networks.prior.distribution()
    draws = race(prior, num_imputations, rows)
    p = networks.decoder.likelihood(tf.zeros([1, *prior.event_shape], prior.dtype))
    size, dtype = [rows, *p.event_shape], tf.float64
    begin = (
        tf.zeros(size, dtype),
        tf.zeros(size, dtype),
        [tf.zeros([rows, *of_classes.shape[1:]], dtype) for of_classes in _probabilities(p)],
        draws.state,
    )

    def update(state, z, log_weights, before, after, seed):
        mean, mean_square, probabilities, drawn = state
        p = networks.decoder.likelihood(z)
        # Self-normalised weights, of the chunk's particles and of all before; 0 where none has any.
        weights, rest = (
            tf.where(after[:, tf.newaxis] == -np.inf, tf.zeros_like(logs), tf.exp(logs - after[:, tf.newaxis]))
            for logs in (log_weights, before[:, tf.newaxis])
        )
        # They add up to 1, but for log weights so large that `after` is rounded by more than their number.
        total = tf.reduce_sum(weights, axis=1, keepdims=True) + rest
        weights, rest = (tf.math.divide_no_nan(share, total) for share in (weights, rest))

        def average(so_far, values):
            flat = swapped(tf.reshape(tf.cast(values, dtype), [*log_weights.shape[::-1], -1]))
            added = tf.matmul(weights[:, tf.newaxis], flat)[:, 0]
            return tf.reshape(rest * tf.reshape(so_far, [rows, -1]) + added, so_far.shape)

        means, stddevs = (tf.cast(values, dtype) for values in (moments.mean(p), moments.stddev(p)))
        return (
            average(mean, means),
            average(mean_square, tf.square(means) + tf.square(stddevs)),
            [average(*of_classes) for of_classes in zip(probabilities, _probabilities(p), strict=True)],
            draws.update(drawn, z, log_weights, before, after, seed),
        )

    return Observer(begin, update)


def _probabilities(p):
    """Probabilities of classes [..., *event, C], zeros for values that are none; an empty list where no value is."""
    probabilities = p.class_probabilities() if hasattr(p, "class_probabilities") else None
    return [] if probabilities is None else [probabilities]


@per_model
def _rows_function(model, chunk_size, capacity, num_imputations, tile_rows):
    """The traced function that imputes each example of a batch."""
    networks = Networks.of(model)

    def one(seed, x, num_samples):
        counts = tf.fill(seed.shape[:-1], num_samples)
        return row(networks, x, counts, seed, chunk_size, capacity, num_imputations)

    inputs, shared = [tf.TensorSpec(model.data_shape)], [tf.TensorSpec([], tf.int32)]
    return by_rows(model, one, inputs, shared, outputs(model.data_shape, num_imputations), tile_rows)
