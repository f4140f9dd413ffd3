"""Rows that stay on disk: of a .npy file, or spooled to a temporary one; read by their places, never mapped.

A file that is cut off under a memory map ends the process. A read says so.
"""

import math
import os
import tempfile

import numpy as np

from iwae_zoo._rows import Rows

__all__ = ["DEFAULT", "Spool", "Unchanged", "indices", "is_streamed", "npy"]

# GiB, of data that are gathered in memory.
DEFAULT = 4.0


def is_streamed(size, stream_above):
    """Whether data of so many bytes are more than so many GiB."""
    return size > stream_above * 2**30


class Unchanged:
    """What a file was when its rows were counted; it has to stay so.

    Args:
      file: its path, or a file descriptor.
      name: str, the file for messages.
    """

    def __init__(self, file, name):
        self._file = file
        self._name = name
        self._stamp = self._now()

    def _now(self):
        found = os.stat(self._file)
        return found.st_size, found.st_mtime_ns, found.st_ino

    @property
    def size(self):
        """int, bytes."""
        return self._stamp[0]

    def check(self):
        """Raises OSError if it has changed."""
        try:
            now = self._now()
        except OSError as error:
            raise OSError(f"{self._name} is gone while it is read: {error}. {_HOW_TO}") from error
        if now != self._stamp:
            raise OSError(
                f"{self._name} changed while it is read: {self._stamp[0]} bytes before and {now[0]} now. {_HOW_TO}"
            )


_HOW_TO = "A streamed data set must stay as it is until the run has ended: put the file back, and pass --resume."


class _File:
    """An open file of rows of one size; closed with its last reader.

    Args:
      descriptor: int, of the file.
      name: str, the file for messages.
      offset: int, the byte where the rows begin.
      shape: of one row.
      dtype: of the rows.
      unchanged: optional `Unchanged`, looked at before each reading.
    """

    def __init__(self, descriptor, name, offset, shape, dtype, unchanged=None):
        self._descriptor = descriptor
        self._name = name
        self._offset = offset
        self._shape = tuple(shape)
        self._dtype = np.dtype(dtype)
        self._size = self._dtype.itemsize * math.prod(self._shape)
        self._unchanged = unchanged

    def __del__(self):
        os.close(self._descriptor)

    def rows(self, count):
        """The `Rows` of so many."""

        def read(which):
            if self._unchanged:
                self._unchanged.check()
            return self._read(indices(which, count))

        return Rows(read, (count, *self._shape), self._dtype, shown=True)

    def append(self, rows):
        """Writes rows at the end."""
        left = _bytes(rows)
        while left:
            left = left[os.write(self._descriptor, left) :]

    def _read(self, which):
        rows = np.empty((len(which), *self._shape), self._dtype)
        room = _bytes(rows)
        ends = [*(np.flatnonzero(np.diff(which) != 1) + 1), len(which)]
        for start, end in zip([0, *ends], ends, strict=False):  # Each of rows that follow each other.
            place = self._offset + int(which[start]) * self._size if end > start else 0
            part = room[start * self._size : end * self._size]
            while part:
                count = os.preadv(self._descriptor, [part], place)
                if not count:
                    size = os.fstat(self._descriptor).st_size
                    raise OSError(f"{self._name} ends at byte {size}, before its last row: it was cut off. {_HOW_TO}")
                part, place = part[count:], place + count
        return rows


def _bytes(array):
    return memoryview(array.reshape(-1).view(np.uint8))


def indices(which, count):
    """The places, int64 array [B], that a slice or an integer array names, of rows that are so many.

    Raises:
      IndexError: if there are none such.
    """
    if isinstance(which, slice):
        return np.arange(*which.indices(count))
    which = np.asarray(which, np.int64)
    if which.size and not 0 <= which.min() <= which.max() < count:
        raise IndexError(f"There are {count} rows: received places from {which.min()} to {which.max()}.")
    return which


def npy(path):
    """The rows of a .npy file.

    Raises:
      ValueError: if it is none, an archive of several, is shorter than it says, or keeps its columns together.
    """
    array = np.load(path, allow_pickle=False, mmap_mode="r")
    if not isinstance(array, np.memmap):
        array.close()
        raise ValueError("it is an archive of arrays: call it .npz, or raise --stream_above")
    shape, dtype, offset = array.shape, array.dtype, array.offset
    if not shape:
        raise ValueError("it holds one number and no rows")
    if not array.flags.c_contiguous:
        raise ValueError(
            f"{path} keeps its columns together (Fortran's order), and can only be streamed row by row. Save it again "
            "with np.save(path, np.ascontiguousarray(array)), or raise --stream_above."
        )
    descriptor = os.open(path, os.O_RDONLY)
    return _File(descriptor, path, offset, shape[1:], dtype, Unchanged(descriptor, path)).rows(shape[0])


class Spool:
    """Rows in a temporary file, as they come.

    The file has lost its name before anything is in it, so that nothing is left, however the process ends.

    Args:
      shape: of one row.
      dtype: of the rows.
      name: str, whose rows they are, for messages.
    """

    def __init__(self, shape, dtype, name):
        self._shape, self._dtype, self._name = tuple(shape), np.dtype(dtype), name
        self._count = 0
        descriptor, path = tempfile.mkstemp()
        os.unlink(path)
        self._file = _File(descriptor, f"the temporary file of {name}", 0, self._shape, self._dtype)

    def append(self, rows):
        """Writes rows after those before.

        Raises:
          OSError: if there is no room for them.
        """
        try:
            self._file.append(np.ascontiguousarray(rows, self._dtype))
        except OSError as error:
            raise OSError(
                f"The rows of {self._name} do not fit into the temporary folder {tempfile.gettempdir()} after "
                f"{self._count} of them: {error}. Set TMPDIR to a folder with more room."
            ) from error
        self._count += len(rows)

    def rows(self):
        """The `Rows` of all of them."""
        return self._file.rows(self._count)
