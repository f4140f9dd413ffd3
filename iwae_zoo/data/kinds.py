"""Kinds of data: what a data set's numbers are, and how x is made of them. The table at the end is the only list."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from iwae_zoo._checks import look_up, single, warn_of_lost_digits
from iwae_zoo._rows import Rows, mapped

__all__ = ["TABLE", "Kind", "cast", "get", "names", "none_there", "seen"]


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of data.

    Attributes:
      values: str, what the numbers may be.
      holds: function of an array, of what is not missing; whether each of its numbers is of this kind.
      draw: function (values float32 [...], stateless seed [2]) that returns binary x, or None where the values are x.
      of_dtype: function of a numpy dtype; whether numbers of it are taken for this kind if nobody says so.
      byte_unit: float, the number that stands for 1 in arrays of unsigned bytes.
      floats_below: float, where floating-point numbers end that are taken for this kind if nobody says so.
    """

    values: str
    holds: Callable
    draw: Callable | None = None
    of_dtype: Callable = lambda dtype: True
    byte_unit: float = 1.0
    floats_below: float = math.inf


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
    # By name, so that every device draws the same bits.
    uniform = tf.random.stateless_uniform(tf.shape(intensities), seed, alg="philox")
    drawn = tf.cast(uniform < intensities, tf.float32)
    return tf.where(tf.math.is_nan(intensities), intensities, drawn)


# From the narrowest to the widest. A new kind of data is a row.
TABLE = {
    "binary": Kind("0 and 1", _is_binary, byte_unit=255.0),
    "byte": Kind("whole numbers from 0 to 255", _is_byte, of_dtype=lambda dtype: dtype == np.uint8),
    "intensity": Kind("values in [0, 1]", _is_intensity, _binarized, byte_unit=255.0),
    "count": Kind("whole numbers from 0", _is_count, floats_below=2.0**24),  # From there all float32 are whole.
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
        if all(kind.of_dtype(array.dtype) and all(_suggests(kind, b) for b in _there(array)) for array in arrays):
            return name
    return None


def _suggests(kind, block):
    return kind.holds(block) and (block.dtype.kind != "f" or block.max() < kind.floats_below)


def none_there(array):
    """Whether all numbers of an array or of `Rows` are missing."""
    return not any(True for _ in _there(array))


def _there(array):
    """Yields the numbers of an array or of `Rows` that are not missing, block by block."""
    rows = Rows.of(array)
    for block in rows.blocks():
        there = block if rows.complete or not np.isnan(block).any() else block[~np.isnan(block)]
        if there.size:
            yield there


def cast(arrays, name, what):
    """Arrays as a data set of a kind keeps them: bytes that stand for themselves or for intensities, else float32.

    Intensities become bytes by rounding.

    Args:
      arrays: dict from name to an array of numbers, or to `Rows`, which are cast when they are read.
      name: of the kind.
      what: str, what the arrays are, for messages.

    Returns:
      dict of the same.

    Raises:
      ValueError: if they hold other numbers, or some unsigned bytes and others not.

    Warns:
      UserWarning: of columns whose numbers float32 cannot tell apart, by the first block of the first array.
    """
    kind = get(name)
    if len({array.dtype == np.uint8 for array in arrays.values()}) > 1:
        dtypes = ", ".join(f"{key}: {array.dtype}" for key, array in arrays.items())
        raise ValueError(f"{what} must hold unsigned bytes in all arrays or in none: received {dtypes}.")
    is_byte = all(array.dtype == np.uint8 for array in arrays.values())
    if name == "byte" and not is_byte and all(_is_intensity(there) for a in arrays.values() for there in _there(a)):
        whole = all(sum(there.size for there in _there(array)) == math.prod(array.shape) for array in arrays.values())
        dtype: Any = np.uint8 if whole else np.float32
        return {k: mapped(a, lambda block: np.rint(255.0 * block).astype(dtype), dtype) for k, a in arrays.items()}
    for key, array in arrays.items():
        if not all(kind.holds(there / 255.0 if is_byte and kind.draw else single(there)) for there in _there(array)):
            low, high = min(there.min() for there in _there(array)), max(there.max() for there in _there(array))
            raise ValueError(
                f"{f'{what}[{key!r}]' if key else what} must hold {kind.values} to be of kind {name}: received values "
                f"from {low:g} to {high:g}."
            )
    if is_byte and (kind.draw or name == "byte"):
        return dict(arrays)
    first = next(Rows.of(next(iter(arrays.values()))).blocks())
    if first.ndim == 2 and not np.can_cast(first.dtype, np.float32):
        warn_of_lost_digits(first, single(first), range(first.shape[1]))
    return {key: mapped(array, single, np.float32) for key, array in arrays.items()}
