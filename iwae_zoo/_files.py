"""Files that appear whole or not at all, and those that do not."""

import contextlib
import errno
import importlib
import json
import os
import pathlib
import zipfile


@contextlib.contextmanager
def whole(path):
    """Yields a path beside `path` to write to; what was written there takes the place of `path` at the end.

    A link stays, and what it leads to is written; so is a pipe or a device itself. A folder is an IsADirectoryError.
    """
    name = pathlib.Path(path).name  # Its ending tells writers the format, whatever a link leads to.
    if os.path.isdir(path):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    path = pathlib.Path(path).resolve()
    if path.exists() and not path.is_file():
        yield path
        return
    partial = path.with_name(f".partial-{name}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path, text):
    """Writes a text file that appears whole or not at all."""
    with whole(path) as partial:
        partial.write_text(text)


def read_json(path):
    """What a JSON file holds, a dict; raises ValueError if it is damaged, or holds something else."""
    try:
        found = json.loads(pathlib.Path(path).read_text())
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}.") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} is damaged: it holds no table of names and values.")
    return found


def load_model(path, **options):
    """As `keras.saving.load_model`; a network of one's own is imported first, where a config.json beside names it.

    Raises:
      ValueError: on a file that is damaged, or of classes that nobody here knows, with the module that is missing; of
        one that has been cut off Keras says that there is none.
    """
    import keras  # Not for those who only write files.

    path = pathlib.Path(path)
    if path.suffix == ".keras" and path.is_file() and not zipfile.is_zipfile(path):
        raise ValueError(f"The model file {path} is damaged: it is no whole .keras file.")
    missing = _import_network(path.with_name("config.json"))
    try:
        return keras.saving.load_model(path, **options)
    except (zipfile.BadZipFile, KeyError, TypeError) as error:
        if missing:
            raise ValueError(f"The model file {path} is of classes that are not here: {missing}.") from error
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"The model file {path} is damaged, or of somebody else's classes: {reason}") from error


def _import_network(path):
    """Imports the module of a network "module:attribute" that the configuration of a run names, if it does.

    Returns:
      The error, or None: a network of one's own may be of everybody's classes.
    """
    try:
        network = json.loads(path.read_text())["config"]["network"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    module, colon, _ = str(network).partition(":")
    try:
        if colon:
            importlib.import_module(module)
    except Exception as error:  # Whatever a module of the user's own does.
        return error
    return None
