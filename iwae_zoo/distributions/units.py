"""Units: x as its user has it, and standardised inside a head."""

import dataclasses

import numpy as np
import tensorflow as tf

from iwae_zoo._rows import Rows
from iwae_zoo.distributions.values import limited

__all__ = ["Standardized"]


@dataclasses.dataclass(frozen=True)
class Standardized:
    """What a head that knows its data's units keeps of them; without any, values are taken as they are.

    Args:
      shift: floats, the mean of each column: of each entry of the last axis, which of an image are its channels.
      scale: positive floats, the standard deviation of each column.
    """

    shift: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()

    def __post_init__(self):
        for name in ("shift", "scale"):
            object.__setattr__(self, name, tuple(map(float, getattr(self, name))))
        if len(self.shift) != len(self.scale) or not all(0.0 < scale < np.inf for scale in self.scale):
            raise ValueError(
                f"shift and scale must have a number for each column, each scale positive: received {self.shift} and "
                f"{self.scale}."
            )

    def standardized(self, values):
        """(values - shift) / scale of floats whose last axis is the columns, or the whole of x, flattened."""
        if not self.shift:
            return values
        shift, scale = self._tiled(values.shape[-1], getattr(values, "dtype", tf.float64))
        return (values - shift) / scale

    def in_units(self, values, shifted=True):
        """The inverse of `standardized`; of differences if not `shifted`."""
        if not self.shift:
            return values
        shift, scale = self._tiled(values.shape[-1], values.dtype)
        return scale * values + shift if shifted else scale * values

    def log_scales(self, size):
        """Log of the unit of each of so many standardised values, in units of x: float array [size], or 0."""
        return np.tile(np.log(self.scale), size // len(self.scale)) if self.scale else 0.0

    def standardized_features(self, values):
        """As `standardized`, kept from infinity: what a network is given."""
        return limited(self.standardized(values), 1e6)

    @staticmethod
    def of(values):
        """The units of data [N, ..., columns], an array or `Rows`: a dict with `shift` and `scale`.

        A column that is constant has no scale: that of its value then, or else 1.
        """
        rows = Rows.of(values)
        axes = tuple(range(rows.ndim - 1))
        mean = np.asarray(rows.mean(axes, np.float64))
        deviation = np.asarray(rows.std(axes, np.float64))
        size = np.abs(mean)
        constant = np.where(size > 0.0, size, 1.0)
        scale = np.where(deviation > 1e-7 * size, deviation, constant)
        return {"shift": tuple(mean.tolist()), "scale": tuple(scale.tolist())}

    def _tiled(self, size, dtype):
        columns = len(self.scale)
        if size % columns:
            raise ValueError(f"The likelihood was fitted to {columns} columns: received x with {size}.")
        dtype = tf.as_dtype(dtype).as_numpy_dtype
        return (np.tile(np.array(numbers, dtype), size // columns) for numbers in (self.shift, self.scale))
