"""Data sets by name or path, split once.

Splits never depend on a training seed, so that runs with different seeds are comparable:

    digits            1,797 8x8 images that scikit-learn ships: 1,258 / 180 / 359, permuted once
    mnist             70,000 28x28 images: 55,000 / the last 5,000 of the training set / 10,000
    binarized_mnist   the fixed binarisation of Larochelle & Murray (2011): 50,000 / 10,000 / 10,000
    PATH.npy          [N, ...]: 80 % / 10 % / 10 %, permuted once
    PATH.npz          arrays "train" and, where present, "validation" and "test" (split off "train" if missing);
                      or one array, as .npy
"""

import os

import numpy as np
import sklearn.datasets

from iwae_zoo._checks import look_up
from iwae_zoo.data import files
from iwae_zoo.data.dataset import SPLITS, Dataset
from iwae_zoo.data.splits import split

__all__ = ["TABLE", "load", "load_rows", "names"]


def names():
    """Names of the data sets that `load` knows; it takes paths too."""
    return tuple(TABLE)


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
        return files.load(str(name))
    return look_up(TABLE, name, "data set (or path of a .npy or .npz file)")(data_dir)


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
    train, validation, test = split(images.astype(np.float32), 0.1, 0.2)
    return Dataset("digits", train, validation, test, "intensity")


def _load_mnist(data_dir):
    train, test = _load_tfds("mnist", ("train", "test"), data_dir)
    return Dataset("mnist", train[:-5000], train[-5000:], test, "intensity")


def _load_binarized_mnist(data_dir):
    splits = [(images > 0).astype(np.uint8) * 255 for images in _load_tfds("binarized_mnist", SPLITS, data_dir)]
    train, validation, test = splits
    return Dataset("binarized_mnist", train, validation, test, "binary")


# A new data set is a function of `data_dir` and a row.
TABLE = {"digits": _load_digits, "mnist": _load_mnist, "binarized_mnist": _load_binarized_mnist}


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
    for part in splits:
        examples = builder.as_dataset(split=part).map(lambda example: example["image"])
        arrays.append(np.concatenate([batch.numpy() for batch in examples.batch(1000)]))
    return arrays
