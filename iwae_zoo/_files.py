"""Files that appear whole or not at all."""

import contextlib
import os
import pathlib


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
