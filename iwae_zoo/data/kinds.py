"""Kinds of data: what a data set's numbers are, and how x is made of them. The table at the end is the only list."""

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from iwae_zoo._checks import look_up

__all__ = ["TABLE", "Kind", "cast", "get", "names", "seen"]


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of data.

    Attributes:
      values: str, what the numbers may be.
      holds: function of an array, of what is not missing; whether all of its numbers are of this kind.
      draw: function (values float32 [...], stateless seed [2]) that returns binary x, or None where the values are x.
      of_dtype: function of a numpy dtype; whether numbers of it are taken for this kind if nobody says so.
      byte_unit: float, the number that stands for 1 in arrays of unsigned bytes.
    """

    values: str
    holds: Callable
    draw: Callable | None = None
    of_dtype: Callable = lambda dtype: True
    byte_unit: float = 1.0


def _is_binary(array):
    return np.isin(array, (0, 1)).all()


def _is_intensity(array):
    return array.min() >= 0 and array.max() <= 1


def _is_count(array):
    return array.min() >= 0 and np.isfinite(array).all() and (array.dtype.kind in "biu" or (array % 1 == 0).all())


def _is_byte(array):
    return array.max() <= 255 and _is_count(array)


def _is_real(array):
    return np.isfinite(array).all()


def _is_positive(array):
    return array.min() > 0 and np.isfinite(array).all()


def _binarized(intensities, seed):
    """A fresh binary image: the intensities are its probabilities. What is missing stays so."""
    drawn = tf.cast(tf.random.stateless_uniform(tf.shape(intensities), seed) < intensities, tf.float32)
    return tf.where(tf.math.is_nan(intensities), intensities, drawn)


# From the narrowest to the widest. A new kind of data is a row.
TABLE = {
    "binary": Kind("0 and 1", _is_binary, byte_unit=255.0),
    "byte": Kind("whole numbers from 0 to 255", _is_byte, of_dtype=lambda dtype: dtype == np.uint8),
    "intensity": Kind("values in [0, 1]", _is_intensity, _binarized, byte_unit=255.0),
    "count": Kind("whole numbers from 0", _is_count),
    "class": Kind("whole numbers from 0, as names", _is_count, of_dtype=lambda dtype: False),
    "positive": Kind("finite numbers above 0", _is_positive, of_dtype=lambda dtype: False),
    "real": Kind("finite numbers", _is_real),
    "table": Kind("columns, each of its own kind", _is_real, of_dtype=lambda dtype: False),
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
    """Name of the narrowest kind that holds all arrays and that their dtypes suggest, or None.

    #### Examples
    >>> seen(np.array([0, 1, 1])), seen(np.array([0.0, 0.5])), seen(np.array([7])), seen(np.array([7], np.uint8))
    ('binary', 'intensity', 'count', 'byte')
    >>> seen(np.array([-3.5])), seen(np.array([np.inf]))
    ('real', None)
    """
    for name, kind in TABLE.items():
        if all(kind.of_dtype(array.dtype) and kind.holds(_there(array)) for array in arrays):
            return name
    return None


def _there(array):
    """The numbers of an array that are not missing."""
    return array[~np.isnan(array)] if array.dtype.kind == "f" and np.isnan(array).any() else array


def cast(array, name, what):
    """An array as a data set of a kind keeps it: bytes that stand for themselves or for intensities, else float32.

    Intensities become bytes by rounding.

    Args:
      array: of numbers.
      name: of the kind.
      what: str, what the array is, for messages.

    Raises:
      ValueError: if it holds other numbers.
    """
    kind = get(name)
    is_byte = array.dtype == np.uint8
    there = _there(array)
    if name == "byte" and not is_byte and _is_intensity(there):
        bytes_ = np.rint(255.0 * array)
        return bytes_.astype(np.uint8 if there.size == array.size else np.float32)
    if not kind.holds(there / 255.0 if is_byte and kind.draw else there):
        raise ValueError(
            f"{what} must hold {kind.values} to be of kind {name}: received values from {there.min():g} to "
            f"{there.max():g}."
        )
    return array if is_byte and (kind.draw or name == "byte") else array.astype(np.float32)
