"""Data sets from a user's .npy or .npz file."""

import os

import numpy as np

from iwae_zoo.data import kinds, streamed
from iwae_zoo.data.dataset import Dataset
from iwae_zoo.data.splits import SPLITS, three

__all__ = ["load"]


def load(path, kind=None, stream_above=streamed.DEFAULT):
    """The data set in a file; arguments and errors as `data.load`."""
    if not os.path.exists(path):
        raise FileNotFoundError(f"There is no data file {path!r}.")
    try:
        if path.endswith(".npz"):
            loaded = np.load(path, allow_pickle=False)
            arrays = {key: loaded[key] for key in loaded.files}
        elif streamed.is_streamed(os.path.getsize(path), stream_above):
            arrays = {"": streamed.npy(path)}
        else:
            arrays = {"": np.load(path, allow_pickle=False)}
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path} cannot be read as a {path[-4:]} file of numbers: {error}") from error
    if not arrays or (len(arrays) > 1 and "train" not in arrays):
        raise ValueError(
            f"{path} must hold one array, or arrays named 'train' and, optionally, 'validation' and 'test': received "
            f"{sorted(arrays)}."
        )
    labels = {key: f"{path}[{key!r}]" if key else path for key in arrays}
    for key, array in arrays.items():
        _check(labels[key], array)
    kind = kind or kinds.seen(*arrays.values())
    if kind is None:
        raise ValueError(f"{path} must hold finite numbers: received infinity.")
    arrays = {key: kinds.cast(array, kind, labels[key]) for key, array in arrays.items()}
    splits = three({"train": next(iter(arrays.values()))} if len(arrays) == 1 else arrays)
    shapes = {part.shape[1:] for part in splits}
    if len(shapes) > 1:
        raise ValueError(
            f"The arrays in {path} must agree in all but the first axis: received shapes {sorted(shapes)}."
        )
    for name, part in zip(SPLITS, splits, strict=True):
        if not len(part):
            raise ValueError(f"{path} has too few examples: nothing is left for the {name} split.")
    train, validation, test = splits
    return Dataset(os.path.splitext(os.path.basename(path))[0], train, validation, test, kind)


def _check(name, array):
    if not (np.issubdtype(array.dtype, np.number) or array.dtype == bool) or array.dtype.kind == "c":
        raise ValueError(f"{name} must hold real numbers: received dtype {array.dtype}.")
    if array.ndim < 2 or 0 in array.shape:
        raise ValueError(f"{name} must have shape [N, ...] with at least one example: received {list(array.shape)}.")
    if kinds.none_there(array):
        raise ValueError(f"{name} holds NaN only: nothing was observed.")
