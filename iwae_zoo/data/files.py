"""Data sets from a user's .npy or .npz file."""

import os
import tokenize
import zipfile
import zlib

import numpy as np

from iwae_zoo.data import kinds, streamed
from iwae_zoo.data.dataset import Dataset
from iwae_zoo.data.splits import SPLITS, filled, three

__all__ = ["array", "load"]

# What numpy says of a file that is no array, or not all of one.
_DAMAGED = (ValueError, EOFError, zipfile.BadZipFile, zlib.error, tokenize.TokenError)


def load(path, kind=None, stream_above=streamed.DEFAULT):
    """The data set in a file; arguments and errors as `data.load`."""
    if not os.path.exists(path):
        raise FileNotFoundError(f"There is no data file {path!r}.")
    try:
        if path.endswith(".npy") and streamed.is_streamed(os.path.getsize(path), stream_above):
            arrays = {"": streamed.npy(path)}
        else:
            with open(path, "rb") as file:  # One that numpy opens stays open if it is damaged.
                loaded = np.load(file, allow_pickle=False)
                # What it is called does not say what it is.
                arrays = {key: loaded[key] for key in loaded.files} if hasattr(loaded, "files") else {"": loaded}
    except (OSError, *_DAMAGED) as error:
        raise ValueError(f"{path} cannot be read as a {path[-4:]} file of numbers: {error}") from error
    if not arrays or (len(arrays) > 1 and not {"train"} <= set(arrays) <= set(SPLITS)):
        raise ValueError(
            f"{path} must hold one array, or arrays named 'train' and, optionally, 'validation' and 'test': received "
            f"{sorted(arrays)}."
        )
    for key, array in arrays.items():
        _check(f"{path}[{key!r}]" if key else path, array)
    kind = kind or kinds.seen(*arrays.values())
    if kind is None:
        raise ValueError(f"{path} must hold finite numbers: received infinity.")
    arrays = kinds.cast(arrays, kind, path)
    splits = three({"train": next(iter(arrays.values()))} if len(arrays) == 1 else arrays)
    shapes = {part.shape[1:] for part in splits}
    if len(shapes) > 1:
        raise ValueError(
            f"The arrays in {path} must agree in all but the first axis: received shapes {sorted(shapes)}."
        )
    train, validation, test = filled(splits, path)
    return Dataset(os.path.splitext(os.path.basename(path))[0], train, validation, test, kind)


def array(path):
    """The array [N, ...] of real numbers in a .npy file.

    Raises:
      ValueError: if the file holds something else, or no row.
      OSError: if it cannot be opened.
    """
    try:
        with open(path, "rb") as file:
            found = np.load(file, allow_pickle=False)
    except _DAMAGED as error:
        raise ValueError(f"{path} cannot be read as .npy: {error}") from error
    if not isinstance(found, np.ndarray):
        raise ValueError(f"{path} must be a .npy file with one array [N, ...].")
    _check(path, found)
    return found


def _check(name, array):
    if isinstance(array, bytes):  # A member of an archive that is no .npy.
        raise ValueError(f"{name} must be an array of real numbers: received a file of something else.")
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} must hold real numbers: received dtype {array.dtype}.")
    if array.ndim < 2 or 0 in array.shape:
        raise ValueError(f"{name} must have shape [N, ...] with at least one example: received {list(array.shape)}.")
    if kinds.none_there(array):
        raise ValueError(f"{name} holds NaN only: nothing was observed.")
