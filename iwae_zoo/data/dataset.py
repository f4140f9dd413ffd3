"""A data set: three splits, and pipelines of x."""

import dataclasses
import functools
import hashlib
import math
import warnings
from typing import Any

import numpy as np
import tensorflow as tf

from iwae_zoo._checks import look_up
from iwae_zoo._deferred import Deferred, Plan
from iwae_zoo._rows import Rows, mapped, taken
from iwae_zoo.columns import Column, used
from iwae_zoo.data import kinds
from iwae_zoo.data.splits import SPLITS

__all__ = ["Dataset"]

# Examples of a split that go into the fingerprint, at most, and how many of them are read at once.
_SAMPLED, _AT_ONCE = 5000, 100
# Of functions in which AutoGraph finds nothing to rewrite, and looks for it at the start of each program.
_as_it_is = tf.autograph.experimental.do_not_convert
# Places that are named, of those where most is missing.
_SHOWN = 4


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Examples in three splits.

    Attributes:
      name: str.
      train: array [N, ...], float or uint8; of binary data and intensities, 0 to 255 then stands for 0 to 1. Or `Rows`,
        of a set that is streamed: they stay where they are and are read batch by batch.
      validation: array of the same trailing shape; `Rows` are read.
      test: the same.
      kind: name of the kind of data, as `kinds` has it.
      binarize: whether intensities are probabilities, of which each batch is a fresh draw.
      columns: the `Column`s of a table.

    NaN stands for what is missing.

    Raises:
      ValueError: on an unknown kind.
    """

    name: str
    train: np.ndarray | Rows
    validation: np.ndarray
    test: np.ndarray
    kind: str
    binarize: bool = True
    columns: tuple[Column, ...] = ()

    def __post_init__(self):
        kinds.get(self.kind)
        for name in SPLITS[1:]:
            object.__setattr__(self, name, getattr(self, name)[:])

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
        drawn += ", streamed" if self.is_streamed else ""
        said = f"{self.name}: {sizes} examples of {shape}, kind {self.kind} ({kinds.get(self.kind).values}){drawn}"
        return said + self._missing() + (f"; columns {', '.join(map(str, self.columns))}" if self.columns else "")

    @property
    def fingerprint(self):
        """str, by which other data are told from these: their sizes, their columns, and a sample of each split."""
        splits = [getattr(self, name) for name in SPLITS]
        sizes = [len(examples) for examples in splits]
        digest = hashlib.sha256(repr((sizes, tuple(self.data_shape), self.kind_of_x, self.columns)).encode())
        for examples in splits:
            places = np.unique(np.linspace(0, len(examples) - 1, _SAMPLED).astype(int))
            for some in np.array_split(places, -(-len(places) // _AT_ONCE)):
                digest.update(np.asarray(taken(examples, some)[:], np.float32).tobytes())
        return f"{sizes[0]:,} training examples, {digest.hexdigest()[:16]}"

    def _missing(self):
        """How much is missing where."""
        of_places = np.ravel(self._holes) / len(self.train)
        if not of_places.any():
            return ""
        names = self._names
        most = np.argsort(-of_places, kind="stable")[:_SHOWN]
        where = ", ".join(f"{names[place]} {of_places[place]:.1%}" for place in most if of_places[place])
        return f"; {of_places.mean():.1%} of the training values missing, most in {where}"

    @property
    def _names(self):
        """What the places of a row are called."""
        return [column.name for column in used(self.columns)] or [str(i) for i in range(math.prod(self.data_shape))]

    @functools.cached_property
    def _holes(self):
        """In how many training rows each place is missing: looked for once, since they may lie on a disk."""
        return Rows.of(self.train).missing()

    def warn_of_unobserved(self):
        """Warns of places that no training row has a value of: a model invents what it says of them."""
        never = np.flatnonzero(self._holes == len(self.train))
        if len(never):
            names = self._names
            warnings.warn(
                f"No training row of {self.name} has a value of {', '.join(names[place] for place in never[:_SHOWN])}"
                f"{f' and {len(never) - _SHOWN} more' if len(never) > _SHOWN else ''}: what a model says there is "
                "invented. Take it out; of a table with columns='NAME:ignore'.",
                stacklevel=3,
            )

    @property
    def is_streamed(self):
        """Whether the training examples stay where they are, and are read batch by batch."""
        return isinstance(self.train, Rows)

    @property
    def has_missing(self):
        """Whether a value is missing in any split."""
        return any(Rows.of(part).any_missing() for part in (self.validation, self.test)) or bool(self._holes.any())

    @property
    def train_mean(self):
        """Mean of the training examples, of shape `data_shape`; of what was observed."""
        rows = Rows.of(self.train)
        total = sum(np.nansum(block, axis=0, dtype=np.float64) for block in rows.blocks())
        return total / (len(rows) - self._holes) / self._unit

    def check_gathered(self, what):
        """Raises ValueError if the training examples are streamed, for which there is not what was asked for."""
        if self.is_streamed:
            raise ValueError(
                f"{what} is for training examples in memory: those of {self.name} are streamed. Leave it out, or raise "
                "--stream_above."
            )

    def without(self, share):
        """The same with a share of all values taken away, each with that probability, whatever its value.

        Raises:
          ValueError: if the share is not between 0 and 1, or the data are streamed.
        """
        self.check_gathered(f"missing={share!r}")
        if not 0.0 < share < 1.0:
            raise ValueError(f"The share of values to take away must be between 0 and 1: received {share!r}.")
        holes: dict[str, Any] = {}
        for i, name in enumerate(SPLITS):
            values = self._scaled(getattr(self, name))
            gone = np.random.RandomState([0, i]).random_sample(values.shape) < share
            holes[name] = np.where(gone, np.float32(np.nan), values)
        return dataclasses.replace(self, **holes)

    def _scaled(self, values):
        return np.asarray(values / self._unit, np.float32)

    @property
    def training_values(self):
        """The training examples, array [N, ...] or `Rows`; of what is drawn afresh for each batch, the expectations."""
        unit = self._unit
        if unit == 1.0:
            return self.train
        return mapped(self.train, lambda block: block / unit)

    def binarized_once(self):
        """The same with each example drawn once, for good, as `evaluation_array` draws it: a binary data set.

        Raises:
          ValueError: if the data are streamed.
        """
        self.check_gathered("binarize='fixed'")
        drawn = {name: self.evaluation_array(name) for name in SPLITS}
        return dataclasses.replace(self, kind="binary", **drawn)

    def steps_per_epoch(self, batch_size):
        """Number of training batches of an epoch; the last one may be smaller, none is dropped."""
        return -(-len(self.train) // batch_size)

    def training_batches(self, batch_size, seed, first_epoch=0, first_step=0, on_device=False):
        """Endless epochs of shuffled batches, freshly drawn where the kind says so.

        The order and the draws of epoch e depend on (`seed`, e) alone, so that training can go on at any step as if it
        had never stopped.

        Args:
          batch_size: int.
          seed: int.
          first_epoch: int, the epoch to begin with.
          first_step: int, the batch of that epoch to begin with; those before it are not made.
          on_device: bool, whether all rows lie on the device that trains, where the same batches are then made.

        Returns:
          `tf.data.Dataset` of float32 [B, ...], or, on the device, the `Deferred` that the model's `fit` takes, too.
          Use it with `steps_per_epoch`.

        Raises:
          ValueError: if streamed data are to lie on the device.
        """

        @_as_it_is
        def epoch(number):
            epoch_seed = tf.random.experimental.stateless_fold_in(tf.constant([0, seed], tf.int64), number)
            order = tf.random.experimental.stateless_shuffle(tf.range(len(self.train)), seed=epoch_seed)
            batches = tf.data.Dataset.from_tensor_slices(order).batch(batch_size).enumerate()
            return batches.skip(tf.where(number == first_epoch, tf.cast(first_step, tf.int64), 0)).map(
                _as_it_is(lambda step, rows: Plan(rows, tf.random.experimental.stateless_fold_in(epoch_seed, step)))
            )

        plans = tf.data.Dataset.counter(first_epoch).flat_map(epoch)
        if on_device:
            self.check_gathered("data_on=device")
            return Deferred(plans.prefetch(tf.data.AUTOTUNE), self._made_on_device, (None, *self.data_shape))
        made = plans.map(self._made(self.train, "CPU:0"), num_parallel_calls=tf.data.AUTOTUNE)
        return made.prefetch(tf.data.AUTOTUNE)

    @functools.cached_property
    def _made_on_device(self):
        """Once, so that the rows lie there once."""
        device = "GPU:0" if tf.config.list_logical_devices("GPU") else "CPU:0"
        train = self.train
        if isinstance(train, np.ndarray) and train.dtype == np.uint8:
            # TensorFlow gathers no bytes on a GPU, but halves, which have these 256 numbers as they are.
            train = train.astype(np.float16)
        return self._made(train, device)

    def _made(self, train, device):
        """The function of a `Plan` that makes a batch of x, of training examples that lie on a device."""
        if isinstance(train, Rows):
            examples = train.tensor
        else:
            with tf.device(device):
                gathered = tf.constant(train)

            def examples(rows):
                return tf.gather(gathered, rows)

        return _as_it_is(lambda plan: self._drawn(examples(plan.rows), plan.seed))

    def evaluation_array(self, split, seed=0):
        """A whole split, in order, drawn once: the same for the same seed.

        Args:
          split: "train", "validation" or "test".
          seed: int.

        Returns:
          float32 array [N, ...] of x.
        """
        examples = getattr(self, look_up(SPLITS, split, "split"))[:]
        return self._drawn(tf.constant(examples), tf.constant([SPLITS.index(split), seed], tf.int64)).numpy()

    @property
    def _draw(self):
        return kinds.get(self.kind).draw if self.binarize else None

    @property
    def _unit(self):
        """The number that stands for 1."""
        return kinds.get(self.kind).byte_unit if self.train.dtype == np.uint8 else 1.0

    def _drawn(self, examples, seed):
        values = tf.cast(examples, tf.float32)
        if self._unit != 1.0:  # Looked up: a quotient may be rounded otherwise on another device.
            values = tf.gather(np.arange(256, dtype=np.float32) / np.float32(self._unit), tf.cast(values, tf.int32))
        return values if self._draw is None else self._draw(values, seed)
