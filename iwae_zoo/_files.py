"""Files that appear whole or not at all, and those that do not."""

import contextlib
import os
import pathlib
import zipfile


@contextlib.contextmanager
def whole(path):
    """Yields a path beside `path` to write to; what was written there takes the place of `path` at the end."""
    path = pathlib.Path(path)
    partial = path.with_name(f".partial-{path.name}")  # The ending stays: it tells writers the format.
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def check_model(path):
    """Raises ValueError if a .keras file has been cut off, of which Keras says that there is none."""
    path = pathlib.Path(path)
    if path.suffix == ".keras" and path.is_file() and not zipfile.is_zipfile(path):
        raise ValueError(f"The model file {path} is damaged: it is no whole .keras file.")
