"""A data set: three splits, and pipelines of x."""

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from iwae_zoo._checks import look_up
from iwae_zoo.columns import Column, used
from iwae_zoo.data import kinds
from iwae_zoo.data.splits import SPLITS

__all__ = ["Dataset"]

# Places that are named, of those where most is missing.
_SHOWN = 4


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Examples in three splits.

    Attributes:
      name: str.
      train: array [N, ...], float or uint8; of binary data and intensities, 0 to 255 then stands for 0 to 1.
      validation: the same, of the same trailing shape.
      test: the same.
      kind: name of the kind of data, as `kinds` has it.
      binarize: whether intensities are probabilities, of which each batch is a fresh draw.
      columns: the `Column`s of a table.

    NaN stands for what is missing.

    Raises:
      ValueError: on an unknown kind.
    """

    name: str
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    kind: str
    binarize: bool = True
    columns: tuple[Column, ...] = ()

    def __post_init__(self):
        kinds.get(self.kind)

    @property
    def data_shape(self):
        """Shape of one x."""
        return self.train.shape[1:]

    @property
    def kind_of_x(self):
        """Name of the kind of x: of what is drawn, binary."""
        return "binary" if self._draw else self.kind

    @property
    def description(self):
        """str, a line about the data for people."""
        shape = " x ".join(map(str, self.data_shape))
        sizes = " / ".join(f"{len(part):,}" for part in (self.train, self.validation, self.test))
        drawn = ", binarised afresh for each batch" if self._draw else ""
        said = f"{self.name}: {sizes} examples of {shape}, kind {self.kind} ({kinds.get(self.kind).values}){drawn}"
        return said + self._missing() + (f"; columns {', '.join(map(str, self.columns))}" if self.columns else "")

    def _missing(self):
        """How much is missing where."""
        missing = np.isnan(self.train) if self.train.dtype.kind == "f" else np.zeros(self.train.shape, bool)
        if not missing.any():
            return ""
        of_places = missing.reshape(len(missing), -1).mean(axis=0)
        names = [column.name for column in used(self.columns)] or [str(place) for place in range(len(of_places))]
        most = np.argsort(-of_places, kind="stable")[:_SHOWN]
        where = ", ".join(f"{names[place]} {of_places[place]:.1%}" for place in most if of_places[place])
        return f"; {missing.mean():.1%} of the training values missing, most in {where}"

    @property
    def train_mean(self):
        """Mean of the training examples, of shape `data_shape`; of what was observed."""
        return np.nanmean(self.train, axis=0) / self._unit

    def without(self, share, seed=0):
        """The same with a share of all values taken away, each with that probability, whatever its value.

        Raises:
          ValueError: if the share is not between 0 and 1.
        """
        if not 0.0 < share < 1.0:
            raise ValueError(f"The share of values to take away must be between 0 and 1: received {share!r}.")
        holes: dict[str, Any] = {}
        for i, name in enumerate(SPLITS):
            values = self._scaled(getattr(self, name))
            gone = np.random.RandomState([seed, i]).random_sample(values.shape) < share
            holes[name] = np.where(gone, np.float32(np.nan), values)
        return dataclasses.replace(self, **holes)

    def _scaled(self, values):
        return np.asarray(values / self._unit, np.float32)

    @property
    def training_values(self):
        """The training examples, array [N, ...]; of what is drawn afresh for each batch, the expectations."""
        return self.train if self._unit == 1.0 else self.train / self._unit

    def binarized_once(self):
        """The same with each example drawn once, for good, as `evaluation_array` draws it: a binary data set."""
        drawn = {name: self.evaluation_array(name) for name in SPLITS}
        return dataclasses.replace(self, kind="binary", **drawn)

    def steps_per_epoch(self, batch_size):
        """Number of training batches of an epoch; the last one may be smaller, none is dropped."""
        return -(-len(self.train) // batch_size)

    def training_batches(self, batch_size, seed, first_epoch=0, first_step=0):
        """Endless epochs of shuffled batches, freshly drawn where the kind says so.

        The order and the draws of epoch e depend on (`seed`, e) alone, so that training can go on at any step as if it
        had never stopped.

        Args:
          batch_size: int.
          seed: int.
          first_epoch: int, the epoch to begin with.
          first_step: int, the batch of that epoch to begin with; those before it are not made.

        Returns:
          `tf.data.Dataset` of float32 [B, ...]; use it with `steps_per_epoch`.
        """
        examples = tf.constant(self.train)

        def epoch(number):
            epoch_seed = tf.random.experimental.stateless_fold_in(tf.constant([0, seed], tf.int64), number)
            order = tf.random.experimental.stateless_shuffle(tf.range(len(self.train)), seed=epoch_seed)
            batches = tf.data.Dataset.from_tensor_slices(order).batch(batch_size).enumerate()
            return batches.skip(tf.where(number == first_epoch, tf.cast(first_step, tf.int64), 0)).map(
                lambda step, rows: self._drawn(
                    tf.gather(examples, rows), tf.random.experimental.stateless_fold_in(epoch_seed, step)
                ),
                num_parallel_calls=tf.data.AUTOTUNE,
            )

        return tf.data.Dataset.counter(first_epoch).flat_map(epoch).prefetch(tf.data.AUTOTUNE)

    def evaluation_array(self, split, seed=0):
        """A whole split, in order, drawn once: the same for the same seed.

        Args:
          split: "train", "validation" or "test".
          seed: int.

        Returns:
          float32 array [N, ...] of x.
        """
        examples = getattr(self, look_up({name: name for name in SPLITS}, split, "split"))
        return self._drawn(tf.constant(examples), tf.constant([SPLITS.index(split), seed], tf.int64)).numpy()

    @property
    def _draw(self):
        return kinds.get(self.kind).draw if self.binarize else None

    @property
    def _unit(self):
        """The number that stands for 1."""
        return kinds.get(self.kind).byte_unit if self.train.dtype == np.uint8 else 1.0

    def _drawn(self, examples, seed):
        values = tf.cast(examples, tf.float32) / self._unit
        return values if self._draw is None else self._draw(values, seed)
