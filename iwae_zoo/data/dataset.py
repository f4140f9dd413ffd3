"""Data sets by name or path: arrays of intensities in [0, 1], split once, and pipelines of binary x.

Splits never depend on a training seed, so that runs with different seeds are comparable:

    digits            1,797 8x8 images that scikit-learn ships: 1,258 / 180 / 359, permuted once
    mnist             70,000 28x28 images: 55,000 / the last 5,000 of the training set / 10,000
    binarized_mnist   the fixed binarisation of Larochelle & Murray (2011): 50,000 / 10,000 / 10,000
    PATH.npy          [N, ...]: 80 % / 10 % / 10 %, permuted once
    PATH.npz          arrays "train" and, where present, "validation" and "test" (split off "train" if missing);
                      or one array, as .npy
"""

import dataclasses
import os

import numpy as np
import sklearn.datasets
import tensorflow as tf

from iwae_zoo._checks import look_up

__all__ = ["Dataset", "load", "load_rows", "names"]

_SPLIT_SEED = 20180213
_SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Images, or anything else in [0, 1], in three splits.

    Attributes:
      name: str.
      train: array [N, ...], uint8 in 0..255 or float in [0, 1].
      validation: the same, of the same trailing shape.
      test: the same.
      binary: whether every value is 0 or 1 already; otherwise values are probabilities, and each batch is a fresh draw.
    """

    name: str
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    binary: bool

    @property
    def data_shape(self):
        """Shape of one x."""
        return self.train.shape[1:]

    @property
    def train_mean(self):
        """Mean of the training intensities, of shape `data_shape`, in [0, 1]."""
        return self.train.mean(axis=0) / _white(self.train)

    def steps_per_epoch(self, batch_size):
        """Number of training batches of an epoch; the last one may be smaller, none is dropped."""
        return -(-len(self.train) // batch_size)

    def training_batches(self, batch_size, seed, first_epoch=0):
        """Endless epochs of shuffled, freshly binarised batches.

        The order and the draws of epoch e depend on (`seed`, e) alone, so that training can go on at any epoch as if it
        had never stopped.

        Args:
          batch_size: int.
          seed: int.
          first_epoch: int, the epoch to begin with.

        Returns:
          `tf.data.Dataset` of float32 [B, ...]; use it with `steps_per_epoch`.
        """
        images = tf.constant(self.train)

        def epoch(number):
            epoch_seed = tf.random.experimental.stateless_fold_in(tf.constant([0, seed], tf.int64), number)
            order = tf.random.experimental.stateless_shuffle(tf.range(len(self.train)), seed=epoch_seed)
            batches = tf.data.Dataset.from_tensor_slices(order).batch(batch_size).enumerate()
            return batches.map(
                lambda step, rows: self._binarized(
                    tf.gather(images, rows), tf.random.experimental.stateless_fold_in(epoch_seed, step)
                ),
                num_parallel_calls=tf.data.AUTOTUNE,
            )

        return tf.data.Dataset.counter(first_epoch).flat_map(epoch).prefetch(tf.data.AUTOTUNE)

    def evaluation_array(self, split, seed=0):
        """A whole split, in order, binarised once: the same for the same seed.

        Args:
          split: "train", "validation" or "test".
          seed: int.

        Returns:
          float32 array [N, ...] of zeros and ones.
        """
        images = getattr(self, look_up({name: name for name in _SPLITS}, split, "split"))
        return self._binarized(tf.constant(images), tf.constant([_SPLITS.index(split), seed], tf.int64)).numpy()

    def _binarized(self, images, seed):
        probabilities = tf.cast(images, tf.float32) / _white(images)
        if self.binary:
            return probabilities
        uniform = tf.random.stateless_uniform(tf.shape(probabilities), seed)
        return tf.cast(uniform < probabilities, tf.float32)


def names():
    """Names of the data sets that `load` knows; it takes paths too."""
    return tuple(_LOADERS)


def load(name, data_dir=None):
    """Loads a data set.

    Args:
      name: one of `names()`, or the path of a .npy or .npz file with values in [0, 1].
      data_dir: folder of prepared TensorFlow Datasets, for "mnist" and "binarized_mnist". Default: TensorFlow Datasets'
        own, where they are downloaded to if there is a network.

    Returns:
      `Dataset`.

    Raises:
      ValueError: on an unknown name, or a file whose values, shape or dtype cannot be used.
      FileNotFoundError: if the file is not there.
      RuntimeError: if a data set is neither prepared nor can be downloaded; the message says what to do.
    """
    if str(name).endswith((".npy", ".npz")):
        return _load_file(str(name))
    return look_up(_LOADERS, name, "data set (or path of a .npy or .npz file)")(data_dir)


def load_rows(path, name, data_dir=None, split="test"):
    """Rows to ask a model about: those of a file as they are, or else a split of a data set, binarised once.

    Args:
      path: of a .npy file with an array [N, ...], or None.
      name: as in `load`, if there is no path.
      data_dir: as in `load`.
      split: "train", "validation" or "test".

    Returns:
      Float32 array [N, ...].

    Raises:
      ValueError: if the file holds no array of numbers, or as `load`.
      FileNotFoundError: if the file is not there.
      RuntimeError: as `load`.
    """
    if path is None:
        return load(name, data_dir).evaluation_array(split)
    rows = np.load(path, allow_pickle=False)
    if not isinstance(rows, np.ndarray) or rows.ndim < 2 or not (np.isrealobj(rows) and rows.dtype.kind in "biuf"):
        raise ValueError(f"{path} must be a .npy file with an array [N, ...] of real numbers.")
    return rows.astype(np.float32)


def _load_digits(data_dir):
    del data_dir
    images = sklearn.datasets.load_digits().images[..., np.newaxis] / 16.0
    train, validation, test = _split(images.astype(np.float32), 0.1, 0.2)
    return Dataset("digits", train, validation, test, binary=False)


def _load_mnist(data_dir):
    train, test = _load_tfds("mnist", ("train", "test"), data_dir)
    return Dataset("mnist", train[:-5000], train[-5000:], test, binary=False)


def _load_binarized_mnist(data_dir):
    splits = [(images > 0).astype(np.uint8) * 255 for images in _load_tfds("binarized_mnist", _SPLITS, data_dir)]
    train, validation, test = splits
    return Dataset("binarized_mnist", train, validation, test, binary=True)


_LOADERS = {"digits": _load_digits, "mnist": _load_mnist, "binarized_mnist": _load_binarized_mnist}


def _load_tfds(name, splits, data_dir):
    import tensorflow_datasets as tfds  # Slow to import, and needed for these data sets only.

    # The copy on a public bucket is of no use without a network, and asking for it takes minutes to fail.
    builder = tfds.builder(name, data_dir=data_dir, try_gcs=False)
    if not os.path.isdir(builder.data_dir):
        try:
            builder.download_and_prepare()
        except Exception as error:
            raise RuntimeError(
                f"The data set {name!r} is not prepared in {builder.data_dir}, and it could not be downloaded "
                f'({type(error).__name__}). On a machine with a network run `python -c "import tensorflow_datasets as '
                f"tfds; tfds.load('{name}', data_dir='DIR')\"`, copy DIR here and pass --data_dir=DIR; or use "
                "--dataset=digits, which needs no download."
            ) from error
    arrays = []
    for split in splits:
        examples = builder.as_dataset(split=split).map(lambda example: example["image"])
        arrays.append(np.concatenate([batch.numpy() for batch in examples.batch(1000)]))
    return arrays


def _load_file(path):
    if not os.path.exists(path):
        raise FileNotFoundError(f"There is no data file {path!r}.")
    try:
        loaded = np.load(path, allow_pickle=False)
        arrays = {key: loaded[key] for key in loaded.files} if path.endswith(".npz") else {"": loaded}
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path} cannot be read as a {path[-4:]} file of numbers: {error}") from error
    if not arrays or (len(arrays) > 1 and "train" not in arrays):
        raise ValueError(
            f"{path} must hold one array, or arrays named 'train' and, optionally, 'validation' and 'test': received "
            f"{sorted(arrays)}."
        )
    arrays = {key: _checked_array(f"{path}[{key!r}]" if key else path, array) for key, array in arrays.items()}
    if len(arrays) == 1:
        (train,) = arrays.values()
        splits = _split(train, 0.1, 0.1)
    else:
        train = arrays["train"]
        for key in ("validation", "test"):
            if key not in arrays:
                train, held_out, _ = _split(train, 0.1, 0.0)
                arrays[key] = held_out
        splits = (train, arrays["validation"], arrays["test"])
    shapes = {split.shape[1:] for split in splits}
    if len(shapes) > 1:
        raise ValueError(
            f"The arrays in {path} must agree in all but the first axis: received shapes {sorted(shapes)}."
        )
    for name, split in zip(_SPLITS, splits, strict=True):
        if not len(split):
            raise ValueError(f"{path} has too few examples: nothing is left for the {name} split.")
    binary = all(np.isin(split, (0.0, 1.0)).all() for split in splits)
    train, validation, test = splits
    return Dataset(os.path.splitext(os.path.basename(path))[0], train, validation, test, binary)


def _checked_array(name, array):
    if not (np.issubdtype(array.dtype, np.number) or array.dtype == bool) or np.iscomplexobj(array):
        raise ValueError(f"{name} must hold real numbers: received dtype {array.dtype}.")
    if array.ndim < 2 or 0 in array.shape:
        raise ValueError(f"{name} must have shape [N, ...] with at least one example: received {list(array.shape)}.")
    array = array.astype(np.float32)
    if np.isnan(array).any():
        rows = np.flatnonzero(np.isnan(array.reshape(len(array), -1)).any(axis=1))
        raise ValueError(f"{name} holds NaN in {len(rows)} of {len(array)} examples, the first at row {rows[0]}.")
    if array.min() < 0 or array.max() > 1:
        raise ValueError(
            f"{name} must hold values in [0, 1]: received values from {array.min():g} to {array.max():g}. Rescale "
            "them, for 8-bit images by x / 255."
        )
    return array


def _split(images, validation_share, test_share):
    """Permutes by a fixed seed and cuts; RandomState's stream is the one numpy promises never to change."""
    order = np.random.RandomState(_SPLIT_SEED).permutation(len(images))
    test = round(test_share * len(images))
    validation = round(validation_share * len(images))
    train = len(images) - validation - test
    return images[order[:train]], images[order[train : train + validation]], images[order[train + validation :]]


def _white(images):
    """The value that stands for intensity 1."""
    return 255.0 if images.dtype == np.uint8 else 1.0
