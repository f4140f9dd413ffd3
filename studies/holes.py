"""Tables of real numbers, three ways to lose cells of them, and models that are trained on what is left."""

import keras
import numpy as np
import scipy.optimize
import scipy.special
import sklearn.datasets

from iwae_zoo import data, presets
from iwae_zoo._checks import look_up
from iwae_zoo._precision import tensor_float_32
from iwae_zoo.training import schedules

__all__ = ["MECHANISMS", "TABLES", "fit", "load", "remove", "standardised"]

# That of Mattei & Frellsen's notebook, so that what it lost is lost here.
_SEED = 1234
# How strongly a value, in standard deviations, decides whether a cell is lost: the slope of its log odds.
_SLOPE = 2.0
# A constant spread of each column: with one for each row, a few columns that are known well decide everything.
_LIKELIHOOD = "normal,spread=column,missing=True"
_PRESET = "table"


def _digits():
    """The pixels that are in use: in the others, nearly always white, a standard deviation is no unit."""
    x = sklearn.datasets.load_digits().data
    return x[:, x.std(axis=0) >= 1.0]


# A new table is a function that returns an array [N, C] of numbers, and a row.
TABLES = {
    "breast_cancer": lambda: sklearn.datasets.load_breast_cancer().data,
    "wine": lambda: sklearn.datasets.load_wine().data,
    "diabetes": lambda: sklearn.datasets.load_diabetes().data,
    "digits": _digits,
}


def load(name):
    """A table in units of its columns' standard deviations: float32 [N, C].

    Raises:
      ValueError: on an unknown name.
    """
    x = np.float32(look_up(TABLES, name, "table")())
    return standardised(x, x)


def standardised(x, by):
    """x, float32 [N, C], centred, and in units of standard deviations, by the columns of another array [N', C]."""
    return np.float32((x - by.mean(axis=0)) / np.maximum(by.std(axis=0), 1e-6))


def _completely_at_random(x, rate, rng):
    """That share of all cells, as in the notebook."""
    gone = np.zeros(x.size, bool)
    gone[rng.choice(x.size, int(x.size * rate), replace=False)] = True
    return gone.reshape(x.shape)


def _at_random(x, rate, rng):
    """Of rows with a high first column, which is always observed, more is lost: nothing that was not seen decides."""
    gone = rng.random_sample(x.shape) < _chances(x[:, :1], rate)
    gone[:, 0] = False
    return gone


def _by_own_value(x, rate, rng):
    """High values are lost more often, which no column tells."""
    return rng.random_sample(x.shape) < np.concatenate([_chances(x[:, [c]], rate) for c in range(x.shape[1])], axis=1)


# A new mechanism is a function (x [N, C], rate, RandomState) of what is lost, bool [N, C], and a row.
MECHANISMS = {"mcar": _completely_at_random, "mar": _at_random, "mnar": _by_own_value}


def remove(x, mechanism, rate):
    """What is lost of a table in units of its columns, always the same.

    Args:
      x: float array [N, C].
      mechanism: "mcar", completely at random; "mar", by the first column, which is kept; "mnar", by the own value.
      rate: float, share of the cells; with "mar", of those of the other columns.

    Returns:
      bool array [N, C].

    Raises:
      ValueError: on an unknown mechanism, or a rate that is not between 0 and 1.
    """
    if not 0.0 < rate < 1.0:
        raise ValueError(f"The share of missing cells must be between 0 and 1: received {rate!r}.")
    return look_up(MECHANISMS, mechanism, "mechanism")(x, rate, np.random.RandomState(_SEED))


def fit(rows, objective, seed=0, epochs=None):
    """A model of preset `table`, trained on all rows.

    Args:
      rows: float32 array [N, C], NaN where missing.
      objective: `Objective`.
      seed: int.
      epochs: int; None for the preset's.

    Returns:
      `ImportanceWeightedAutoencoder`.
    """
    preset = presets.get(_PRESET)
    epochs = preset.epochs if epochs is None else epochs
    dataset = data.Dataset("rows", rows, rows[:1], rows[:1], "real")
    model = presets.build(_PRESET, data=dataset, objective=objective, seed=seed, likelihood=_LIKELIHOOD)
    steps = dataset.steps_per_epoch(preset.batch_size)
    rate = schedules.get(preset.schedule, preset.learning_rate, epochs * steps)
    model.compile(keras.optimizers.Adam(rate), steps_per_execution=steps)
    batches = dataset.training_batches(preset.batch_size, seed)
    with tensor_float_32(False):  # As scikit-learn's estimators train.
        model.fit(batches, steps_per_epoch=steps, epochs=epochs, shuffle=False, verbose=0)
    return model


def _chances(x, rate):
    """Probabilities [N, 1] that rise with x [N, 1] and are `rate` on average."""

    def excess(offset):
        return scipy.special.expit(offset + _SLOPE * x).mean() - rate

    return scipy.special.expit(scipy.optimize.brentq(excess, -100.0, 100.0) + _SLOPE * x)
