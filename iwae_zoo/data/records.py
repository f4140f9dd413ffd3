"""Rows of TFRecord shards, read by their places: where each record begins is looked up once."""

import functools
import os
import struct
import threading

import numpy as np
import tensorflow as tf

from iwae_zoo._rows import Rows, progress
from iwae_zoo.data import streamed

__all__ = ["rows"]

# A record is its length, a checksum of that, as many bytes, and a checksum of these.
_LENGTH, _AROUND = struct.Struct("<Q"), 16
# Shards that are open at once.
_OPEN = 64
# Records between two looks at the progress bar.
_SHOWN = 10_000


def rows(paths, counts, decode, shape, dtype, name):
    """The rows of shards, one shard after the other.

    Args:
      paths: of the shards.
      counts: list of int, how many records each has to have.
      decode: function of a string tensor [B], records, that returns their rows, a tensor [B, ...].
      shape: of one row.
      dtype: of the rows.
      name: str, the data set for messages.

    Returns:
      `Rows`.

    Raises:
      OSError: if a shard is not there, or not of so many whole records.
    """
    shards = _Shards([str(path) for path in paths], list(counts), name)
    function = tf.function(decode, input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
    total = sum(counts)

    def read(which):
        records = shards.read(streamed.indices(which, total))
        try:
            return function(tf.constant(records, tf.string, [len(records)])).numpy()
        except (tf.errors.InvalidArgumentError, tf.errors.DataLossError) as error:
            raise OSError(f"A record of {name} cannot be decoded: {error.message.splitlines()[0]}") from error

    return Rows(read, (total, *shape), dtype, shown=True)


class _Shards:
    """Records by number, over all shards."""

    def __init__(self, paths, counts, name):
        self._paths = paths
        self._name = name
        self._unchanged = [streamed.Unchanged(path, path) for path in paths]
        self._firsts = np.cumsum([0, *counts])
        bar = progress(int(self._firsts[-1]), "record")
        self._places = np.concatenate(
            [self._index(i, count, bar) for i, count in enumerate(counts)] or [np.zeros(0, np.int64)]
        )
        self._lock = threading.Lock()
        self._reader = functools.lru_cache(_OPEN)(_random_reader)

    def _index(self, shard, count, bar):
        """Where the records of a shard begin: int64 array, bytes."""
        path, size = self._paths[shard], self._unchanged[shard].size
        places, place = np.zeros(count, np.int64), 0
        with open(path, "rb", buffering=0) as file:
            for i in range(count):
                places[i] = place
                head = os.pread(file.fileno(), _LENGTH.size, place)
                if len(head) == _LENGTH.size:
                    place += _AROUND + _LENGTH.unpack(head)[0]
                if len(head) < _LENGTH.size or place > size:
                    raise self._damaged(path, f"ends within record {i} of {count}, at byte {size}")
                if not (i + 1) % _SHOWN or i + 1 == count:
                    bar.update(int(self._firsts[shard]) + i + 1)
        if place != size:
            raise self._damaged(path, f"goes on after the last of {count} records, from byte {place} to {size}")
        return places

    def read(self, which):
        """Records as list of bytes."""
        shards = np.searchsorted(self._firsts, which, side="right") - 1
        for shard in np.unique(shards):
            self._unchanged[shard].check()
        with self._lock:  # A reader has one place in its file.
            return [self._record(int(i), int(shard)) for i, shard in zip(which, shards, strict=True)]

    def _record(self, i, shard):
        path = self._paths[shard]
        try:
            return self._reader(path).read(int(self._places[i]))[0]
        except (tf.errors.OpError, IndexError) as error:
            raise self._damaged(path, f"does not give record {i - self._firsts[shard]} ({error})") from error

    def _damaged(self, path, what):
        return OSError(f"The shard {path} of {self._name} is damaged: it {what}. Prepare the data set again.")


def _random_reader(path):
    """Reads a record at a place and checks it against its checksum, which nothing public does."""
    from tensorflow.python.lib.io import tf_record

    return tf_record.tf_record_random_reader(path)
