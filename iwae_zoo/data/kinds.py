"""Kinds of data: what a data set's numbers are, and how x is made of them. The table at the end is the only list."""

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from iwae_zoo._checks import look_up

__all__ = ["TABLE", "Kind", "get", "names", "seen"]


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of data.

    Attributes:
      values: str, what the numbers may be.
      holds: function of an array; whether all of its numbers are of this kind.
      draw: function (values float32 [...], stateless seed [2]) that returns x, or None where the values are x.
    """

    values: str
    holds: Callable
    draw: Callable | None = None


def _is_binary(array):
    return np.isin(array, (0, 1)).all()


def _is_intensity(array):
    return array.min() >= 0 and array.max() <= 1


def _binarized(intensities, seed):
    """A fresh binary image: the intensities are its probabilities."""
    return tf.cast(tf.random.stateless_uniform(tf.shape(intensities), seed) < intensities, tf.float32)


# From the narrowest to the widest. A new kind of data is a row.
TABLE = {
    "binary": Kind("0 and 1", _is_binary),
    "intensity": Kind("values in [0, 1]", _is_intensity, _binarized),
}


def names():
    """Every name that `get` accepts."""
    return tuple(TABLE)


def get(name):
    """Returns a `Kind` by name.

    Raises:
      ValueError: on an unknown name.
    """
    return look_up(TABLE, name, "kind of data")


def seen(*arrays):
    """Name of the narrowest kind that holds all arrays, or None.

    #### Examples
    >>> seen(np.array([0, 1, 1])), seen(np.array([0.0, 0.5])), seen(np.array([-3.0]))
    ('binary', 'intensity', None)
    """
    return next((name for name, kind in TABLE.items() if all(kind.holds(array) for array in arrays)), None)
