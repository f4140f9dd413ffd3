"""Learning rates over a run, by name: Keras' own schedules, functions of the step, so that a run resumes anywhere."""

import keras
import numpy as np

from iwae_zoo._checks import look_up

__all__ = ["TABLE", "get", "names"]


def _constant(learning_rate, steps):
    del steps
    return learning_rate


def _cosine(learning_rate, steps):
    """From the learning rate to zero along half a cosine (Loshchilov & Hutter 2017, arXiv 1608.03983)."""
    return keras.optimizers.schedules.CosineDecay(learning_rate, steps)


def _burda(learning_rate, steps):
    """3^i epochs at the learning rate times 10^(-i / 7), i = 0 ... 7, scaled to the run (Burda et al. 2016)."""
    ends = np.cumsum(3.0 ** np.arange(8))
    # A boundary is the last step of its part.
    boundaries = np.maximum(np.ceil(steps * ends[:-1] / ends[-1]).astype(int) - 1, 0)
    values = [learning_rate * 10.0 ** (-i / 7) for i in range(8)]
    return keras.optimizers.schedules.PiecewiseConstantDecay(boundaries.tolist(), values)


# A new schedule is a function of learning rate and number of steps, and a row.
TABLE = {"constant": _constant, "cosine": _cosine, "burda": _burda}


def names():
    """Every name that `get` accepts."""
    return tuple(TABLE)


def get(name, learning_rate, steps):
    """Returns the learning rate of a run by name.

    Args:
      name: one of `names()`.
      learning_rate: float, the highest.
      steps: int, number of steps of the whole run.

    Returns:
      float, or `keras.optimizers.schedules.LearningRateSchedule`.

    Raises:
      ValueError: on an unknown name.
    """
    return look_up(TABLE, name, "schedule")(learning_rate, steps)
