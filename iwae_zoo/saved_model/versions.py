"""The versions of a served model: folders whose names are integers, as TensorFlow Serving looks for them."""

import os
import re

import tensorflow as tf

__all__ = ["of", "publish"]


def of(directory):
    """Those in a directory: dict from number to path. TensorFlow Serving takes no other names."""
    return {number: path for number, path in _numbered(directory).items() if path.is_dir()}


def _numbered(directory):
    """Whatever has the name of a version."""
    numbers = {path: int(path.name) for path in directory.iterdir() if re.fullmatch("[0-9]{1,19}", path.name)}
    return {number: path for path, number in numbers.items() if number <= tf.int64.max}


def publish(partial, directory):
    """Renames a finished folder to the next version of a directory; returns its path."""
    while True:
        target = directory / str(max(_numbered(directory), default=0) + 1)
        try:
            os.rename(partial, target)
            return target
        except OSError:
            if not target.exists():  # Otherwise another export was faster: the next number then.
                raise
