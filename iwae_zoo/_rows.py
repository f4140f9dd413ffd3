"""Rows that may be more than memory holds: read when they are asked for, looked at block by block.

What a head is fitted to goes through here, whether it lies in memory or not, so that both come to the same bits.
"""

import math
import sys
import time

import numpy as np

__all__ = ["Rows", "mapped", "progress", "taken"]

# Values in a block, of those that are looked at one after the other.
_BLOCK = 2**24
# Values that are looked at together, where there is no way to do it in parts.
_SAMPLE = 2**26
# Seconds after which a look at all of them shows how far it is.
_PATIENCE = 3.0


def progress(total, unit):
    """A progress bar by `update`, where output is a terminal."""
    import keras

    return keras.utils.Progbar(total, verbose=int(sys.stdout.isatty()), unit_name=unit)


class Rows:
    """Rows [N, ...] that stay where they are until they are asked for: `rows[3:5]` and `rows[indices]` are arrays.

    Args:
      read: function of a slice, or of an integer array [B], that returns these rows, [B, ...].
      shape: of all rows, (N, ...).
      dtype: of the rows.
      block: int, how many rows are looked at at once; by default what is about a hundred megabytes.
      complete: bool, whether nothing can be missing, as NaN; by default that of whole numbers.
      shown: bool, whether a long look at all of them shows a progress bar: where they are read from a disk.

    Attributes:
      error: what a batch could not be read for in `tensor`, or None.
    """

    def __init__(self, read, shape, dtype, block=None, complete=None, shown=False):
        self._read = read
        self.shape = tuple(shape)
        self.dtype = np.dtype(dtype)
        self.block = block or max(1, _BLOCK // max(1, math.prod(self.shape[1:])))
        self.complete = self.dtype.kind != "f" if complete is None else complete
        self.error: OSError | None = None
        self._shown = shown

    @staticmethod
    def of(data):
        """Those of an array; `Rows` are returned as they are."""
        if isinstance(data, Rows):
            return data
        data = np.asarray(data)
        return Rows(data.__getitem__, data.shape, data.dtype)

    @property
    def ndim(self):
        return len(self.shape)

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, which):
        return self._read(which)

    def map(self, function, dtype=np.float64, shape=None):
        """The same rows through a function of an array of some of them, when they are asked for.

        Args:
          function: of an array [B, ...], row by row; of numbers it makes numbers, and NaN of NaN.
          dtype: of what it returns.
          shape: of one row of that, if it is another one.
        """
        shape = self.shape if shape is None else (len(self), *shape)
        return Rows(lambda which: function(self._read(which)), shape, dtype, self.block, self.complete, self._shown)

    def take(self, order):
        """The rows at the places of an integer array, or of a slice."""
        order = np.arange(len(self))[order] if isinstance(order, slice) else np.asarray(order)
        shape = (len(order), *self.shape[1:])
        return Rows(lambda which: self._read(order[which]), shape, self.dtype, self.block, self.complete, self._shown)

    def tensor(self, which):
        """Rows at the places of an integer tensor [B], as `tf.gather` has them, within a `tf.data` pipeline.

        Whatever cannot be read is an error of TensorFlow's there, and kept as it was in `error`.
        """
        import tensorflow as tf

        def read(which):
            try:
                return self[which]
            except OSError as error:
                self.error = error
                raise

        rows = tf.numpy_function(read, [which], tf.as_dtype(self.dtype), stateful=False)
        return tf.ensure_shape(rows, [None, *self.shape[1:]])

    def blocks(self):
        """Yields all rows in order, in arrays of `block` rows."""
        done, bar, start = 0, None, time.monotonic()
        try:
            while done < len(self):
                last = min(done + self.block, len(self))
                yield self[done:last]
                done = last
                if self._shown and not bar and time.monotonic() - start > _PATIENCE:
                    bar = progress(len(self), "row")
                if bar:
                    bar.update(done, finalize=False)
        finally:  # Who looks for one row may have found it.
            if bar:
                bar.update(done, finalize=True)

    def mean(self, axis=(0,), dtype=None):
        """As `np.mean`: of one block to the bit, of several in float64 and by one after the other."""
        if len(self) <= self.block:
            return np.mean(self[:], axis=axis, dtype=dtype)
        total = sum(np.sum(block, axis=axis, dtype=np.float64) for block in self.blocks())
        return total / math.prod(self.shape[i] for i in axis)

    def std(self, axis=(0,), dtype=None):
        """As `np.std`, and as `mean`: in a second pass, around the mean."""
        if len(self) <= self.block:
            return np.std(self[:], axis=axis, dtype=dtype)
        mean = self.mean(axis)
        return np.sqrt(self.map(lambda block: np.square(block - mean)).mean(axis))

    def any_missing(self):
        """Whether there is NaN anywhere."""
        return not self.complete and any(np.isnan(block).any() for block in self.blocks())

    def missing(self):
        """How often each place of a row is NaN: int array of the shape of one row."""
        if self.complete:
            return np.zeros(self.shape[1:], np.int64)
        return np.asarray(sum(np.sum(np.isnan(block), axis=0) for block in self.blocks()))

    def sampled(self):
        """All rows as one array; of more than 64 Mi values so many evenly spaced ones."""
        return self[:: max(1, -(-math.prod(self.shape) // _SAMPLE))]


def mapped(data, function, dtype=np.float64):
    """An array, or `Rows`, through a function of arrays that goes row by row; of `Rows` nothing is read."""
    return data.map(function, dtype) if isinstance(data, Rows) else function(data)


def taken(data, order):
    """The rows of an array or of `Rows` at the places of an integer array or a slice; of `Rows` nothing is read."""
    return data.take(order) if isinstance(data, Rows) else data[order]
