"""Data sets by name or path, split once.

Splits never depend on a training seed, so that runs with different seeds are comparable:

    digits            1,797 8x8 images that scikit-learn ships: 1,258 / 180 / 359, permuted once
    mnist             70,000 28x28 images: 55,000 / the last 5,000 of the training set / 10,000
    binarized_mnist   the fixed binarisation of Larochelle & Murray (2011): 50,000 / 10,000 / 10,000
    breast_cancer     569 tumours that scikit-learn ships, a table of 30 columns: 80 % / 10 % / 10 %, permuted once
    PATH.npy          [N, ...]: 80 % / 10 % / 10 %, permuted once
    PATH.npz          arrays "train" and, where present, "validation" and "test" (split off "train" if missing);
                      or one array, as .npy
    PATH.csv          a table with a header: 80 % / 10 % / 10 % of its rows, permuted once; .parquet too
    tfds:NAME         the images of a prepared TensorFlow data set: its own splits, and what is missing as in .npz
"""

import dataclasses

import numpy as np
import sklearn.datasets

from iwae_zoo._checks import look_up
from iwae_zoo._rows import mapped, taken
from iwae_zoo.data import files, kinds, prepared, streamed, tables
from iwae_zoo.data.dataset import Dataset
from iwae_zoo.data.splits import SPLITS, split

__all__ = ["BINARIZE", "TABLE", "load", "load_rows", "names"]

# What can be made of intensities: a fresh draw for each batch, one draw for good, or themselves.
BINARIZE = ("dynamic", "fixed", "none")
_TFDS = "tfds:"


def names():
    """Names of the data sets that `load` knows; it takes paths too."""
    return tuple(TABLE)


def load(name, data_dir=None, kind=None, binarize=None, columns=None, missing=None, stream_above=streamed.DEFAULT):
    """Loads a data set.

    Args:
      name: one of `names()`, the path of a .npy, .npz, .csv or .parquet file, or "tfds:" and the name of a set of
        images that TensorFlow Datasets has prepared. NaN, or an empty cell, is a missing value.
      data_dir: folder of prepared TensorFlow Datasets. Default: TensorFlow Datasets' own, where "mnist" and
        "binarized_mnist" are downloaded to if there is a network.
      kind: name of the kind of data, as `kinds` has it. Default: the data set's own, or as values and dtype have it.
        Of intensities that are to be bytes the nearest are taken.
      binarize: what becomes of intensities: "dynamic", the default, a fresh binary draw for each batch; "fixed", one
        draw for good; "none", they stay as they are.
      columns: of a table, what its columns hold where they do not look like it, as "age:count,id:ignore"; or the
        `Column`s of a model that was trained on another.
      missing: float, share of all values to take away at random, for studies of what is missing.
      stream_above: float, GiB; the training examples of a larger set stay on disk and are read batch by batch, of a
        table from a temporary file. The same bits in the same order. A .npz file, and what scikit-learn ships, is
        gathered in any case.

    Returns:
      `Dataset`.

    Raises:
      ValueError: on an unknown name, numbers that are not of the kind, a `binarize` for another kind than
        intensities, or a file whose values, shape or dtype cannot be used.
      FileNotFoundError: if the file is not there, or `data_dir`.
      OSError: if a shard is damaged, or there is no room for a temporary file.
      RuntimeError: if a data set is neither prepared nor can be downloaded; the message says what to do.
    """
    if kind is not None:
        kinds.get(kind)
    if binarize is not None:
        look_up(BINARIZE, binarize, "binarize")
    if str(name).endswith((".npy", ".npz")):
        dataset = files.load(str(name), kind, stream_above)
    elif str(name).endswith(tables.ENDINGS):
        dataset = tables.load(str(name), columns, stream_above)
    elif str(name).startswith(_TFDS):
        dataset = prepared.load(str(name).removeprefix(_TFDS), data_dir, stream_above)
    else:
        dataset = look_up(TABLE, name, "data set (or path of a .npy, .npz, .csv or .parquet file, or tfds:NAME)")(
            data_dir, stream_above
        )
    # A model's own columns are those of the data it was trained on.
    if columns and not str(name).endswith(tables.ENDINGS) and tuple(columns) != dataset.columns:
        received = columns if isinstance(columns, str) else f"the {len(columns)} columns of a model"
        there = ", ".join(map(str, dataset.columns)) or "none"
        raise ValueError(f"columns are those of a .csv or .parquet file: received {received}, and {name} has {there}.")
    if dataset.columns and kind not in (None, "table"):
        ways = f"are set with columns, such as {dataset.columns[0].name}:{kind}"
        if not str(name).endswith(tables.ENDINGS):
            ways = f"of {name} are its own. Leave out kind={kind!r}"
        raise ValueError(f"The kinds of a table's columns {ways}.")
    if kind == "table" and not dataset.columns:
        raise ValueError(f"kind='table' is for .csv and .parquet files, whose columns have names: received {name}.")
    if kind not in (None, dataset.kind):
        parts = {part: getattr(dataset, part) for part in SPLITS}
        dataset = dataclasses.replace(dataset, kind=kind, **kinds.cast(parts, kind, f"The data set {name}"))
    if binarize and not kinds.get(dataset.kind).draw:
        raise ValueError(f"binarize={binarize!r} is for data of kind intensity: {name} is of kind {dataset.kind}.")
    if missing is not None:
        dataset = dataset.without(missing)
    if binarize == "fixed":
        return dataset.binarized_once()
    return dataclasses.replace(dataset, binarize=binarize != "none")


def load_rows(path, name, data_dir=None, split="test", **settings):
    """Rows to ask a model about: those of a file as they are, or else a split of a data set, drawn once.

    Args:
      path: of a .npy file with an array [N, ...], or None.
      name: as in `load`, if there is no path.
      data_dir: as in `load`.
      split: "train", "validation" or "test".
      **settings: `kind`, `binarize`, `columns` and `missing` of `load`.

    Returns:
      Float32 array [N, ...].

    Raises:
      ValueError: if the file holds no array of numbers with at least one row, or as `load`.
      FileNotFoundError: if the file is not there.
      RuntimeError: as `load`.
    """
    if path is None:
        return load(name, data_dir, **settings).evaluation_array(split)
    return files.array(path).astype(np.float32)


def _load_digits(data_dir, stream_above):
    del data_dir, stream_above
    images = sklearn.datasets.load_digits().images[..., np.newaxis] / 16.0
    train, validation, test = split(images.astype(np.float32), 0.1, 0.2)
    return Dataset("digits", train, validation, test, "intensity")


def _load_mnist(data_dir, stream_above):
    train, test = prepared.arrays("mnist", ("train", "test"), data_dir, stream_above)
    return Dataset("mnist", taken(train, slice(-5000)), taken(train, slice(-5000, None)), test, "intensity")


def _load_binarized_mnist(data_dir, stream_above):
    def bytes_of(images):
        return (images > 0).astype(np.uint8) * 255

    parts = prepared.arrays("binarized_mnist", SPLITS, data_dir, stream_above)
    train, validation, test = (mapped(part, bytes_of, np.uint8) for part in parts)
    return Dataset("binarized_mnist", train, validation, test, "binary")


def _load_breast_cancer(data_dir, stream_above):
    del data_dir, stream_above
    loaded = sklearn.datasets.load_breast_cancer()
    return tables.from_cells("breast_cancer", [str(name) for name in loaded.feature_names], list(loaded.data.T))


# A new data set is a function of `data_dir` and of the GiB above which it is streamed, and a row.
TABLE = {
    "digits": _load_digits,
    "mnist": _load_mnist,
    "binarized_mnist": _load_binarized_mnist,
    "breast_cancer": _load_breast_cancer,
}
