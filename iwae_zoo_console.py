"""The command line, `iwae-zoo PROGRAM`, and what every program shares: a quiet start, flags, errors.

This module lies outside the packages because it runs before TensorFlow is imported, which they do.
"""

import contextlib
import gc
import importlib
import os
import pathlib
import re
import sys
import tempfile
import warnings
from typing import NamedTuple

from absl import flags

__all__ = [
    "check_writable",
    "fail",
    "flag_values",
    "is_interactive",
    "main",
    "parse",
    "quiet",
    "run",
    "share_gpus",
    "start",
]


class Program(NamedTuple):
    """Where a program is, what it is for, and the extra of the package that has what it imports."""

    module: str
    purpose: str
    extra: str | None = None


# A program is a module with `run(name, arguments)`, and a row.
PROGRAMS = {
    "train": Program("iwae_zoo.programs.train", "train a model and leave everything about the run in a work directory"),
    "evaluate": Program("iwae_zoo.programs.evaluate", "evaluate a trained model: log p(x) with its errors"),
    "impute": Program(
        "iwae_zoo.programs.impute", "fill the holes of a table, and say how far each answer can be trusted"
    ),
    "export": Program(
        "iwae_zoo.programs.export", "export the model of a work directory or preset for TensorFlow Serving"
    ),
    "serve": Program("iwae_zoo_serving.programs.serve", "serve an exported model on this machine", "serving"),
    "query": Program("iwae_zoo_serving.programs.query", "ask a server about every row of a file", "serving"),
}


def is_verbose():
    """Whether the command line asks for TensorFlow's own messages."""
    return any(re.fullmatch("--?(v|verbose)(=(true|t|1))?", argument) for argument in sys.argv[1:])


@contextlib.contextmanager
def quiet():
    """Inside, imports say nothing on stderr, unless the command line asks for it or one fails, and take less time."""
    with _uncollected(), contextlib.nullcontext() if is_verbose() else _silenced():
        yield


@contextlib.contextmanager
def _uncollected():
    """Inside, nothing is looked for that could be freed: what is imported stays, and looking takes as long again."""
    if "tensorflow" in sys.modules or not gc.isenabled():  # Or else little is imported.
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextlib.contextmanager
def _silenced():
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    # TensorFlow's libraries write to the file descriptor, whatever sys.stderr is.
    with tempfile.TemporaryFile() as said:
        stderr = os.dup(2)
        os.dup2(said.fileno(), 2)
        try:
            yield
        except KeyboardInterrupt:
            sys.exit(130)
        except BaseException:
            sys.stderr.flush()
            said.seek(0)
            os.write(stderr, said.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)


def share_gpus():
    """Lets TensorFlow take a GPU's memory as it needs it, in this process and those that it starts, instead of all.

    So several can share a card. It has to be called before TensorFlow sets up its devices, and does nothing where the
    environment says otherwise: TF_FORCE_GPU_ALLOW_GROWTH=false takes all memory at once.
    """
    # Unlike `tf.config.experimental.set_memory_growth`, it goes with logical devices, and without any.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")


def flag_values():
    """Flags of one program, with those that every program has."""
    values = flags.FlagValues()
    flags.DEFINE_bool("verbose", False, "Show TensorFlow's own messages.", short_name="v", flag_values=values)
    flags.DEFINE_bool("help", False, "Show these flags.", short_name="h", flag_values=values)
    flags.DEFINE_string("flagfile", "", "A file with more flags, one on a line.", flag_values=values)
    return values


def run(program, values, about, name, arguments):
    """Parses the flags and calls `program(name)`; a wrong flag is one line on stderr. GPUs are shared.

    Modules of the current folder can be imported, as after `python -m`.

    Args:
      program: function of the program's name.
      values: `flag_values()` with the program's flags.
      about: str, what --help begins with.
      name: str, what the user called.
      arguments: list of str.
    """
    if {"--help", "-help", "-h"} & set(arguments):  # Whatever else is missing.
        with _as_long_as_somebody_reads():
            print(f"{about.strip()}\n{values.get_help(include_special_flags=False)}")
        return
    parse(values, name, arguments)
    if os.getcwd() not in sys.path:  # For networks of one's own; last, so that nothing else is taken from there.
        sys.path.append(os.getcwd())
    share_gpus()
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
    flags.FLAGS.mark_as_parsed()  # Absl's logging looks there, and warns that nobody has.
    if tensorflow := sys.modules.get("tensorflow"):
        tensorflow.get_logger().setLevel("INFO" if values.verbose else "ERROR")
    try:
        with _as_long_as_somebody_reads():
            program(name)
    except KeyboardInterrupt:
        sys.exit(130)


def parse(values, name, arguments):
    """Reads a command line, all of it flags; a wrong one ends the program with a line on stderr.

    Args:
      values: `flags.FlagValues` that get what was read.
      name: str, what the user called.
      arguments: list of str.
    """
    try:
        left = values([name, *arguments])[1:]
    except (flags.Error, UnicodeDecodeError) as error:  # The latter of a --flagfile.
        fail(name, " ".join(str(error).split()))
    if left:
        fail(name, f"unexpected arguments {left}; flags are written --name=value.")


@contextlib.contextmanager
def _as_long_as_somebody_reads():
    """Inside, the program ends quietly where whoever read its output has had enough, as with `| head`."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def fail(name, error):
    """Ends the program with a line on stderr."""
    sys.exit(f"{name}: {error}")


def check_writable(path):
    """Raises OSError if no file could be written there, or where a link leads; before what is written is computed."""
    target = pathlib.Path(path).resolve()
    if not target.parent.is_dir():
        raise FileNotFoundError(f"There is no folder for {path}.")
    if target.is_dir():
        raise IsADirectoryError(f"{path} is a folder: give it the name of a file.")
    if not target.exists() or target.is_file():  # Neither a pipe nor a device.
        trial = target.with_name(f".partial-{os.getpid()}-{target.name}")
        trial.touch()
        trial.unlink()


def is_interactive():
    """Whether somebody watches: otherwise progress bars would fill a file."""
    return sys.stdout.isatty()


def start(program, name, arguments):
    """Runs a program; where the extra that it needs is not installed, it ends with a line on stderr.

    Args:
      program: a key of `PROGRAMS`.
      name: str, what the user called, for messages.
      arguments: list of str.
    """
    module, _, extra = PROGRAMS[program]
    missing = None
    with quiet():
        try:
            found = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if extra is None or "." in str(error.name):  # A part of an installed package: another fault.
                raise
            missing = error.name
    if missing:
        fail(name, f"{missing} is not installed: pip install 'iwae_zoo[{extra}]'")
    found.run(name, arguments)


def main():
    """The command `iwae-zoo`."""
    program, *arguments = sys.argv[1:] or ["--help"]
    if program in PROGRAMS:
        start(program, f"iwae-zoo {program}", arguments)
    elif program in ("-h", "--help", "-help", "help"):
        print("usage: iwae-zoo PROGRAM --FLAG=VALUE ...\n")
        for known, row in PROGRAMS.items():
            print(f"  {known:10}{row.purpose}")
        print("\niwae-zoo PROGRAM --help lists its flags.")
    elif program == "--version":
        from importlib import metadata

        print(metadata.version("iwae_zoo"))
    else:
        sys.exit(f"iwae-zoo: unknown program {program!r}. Known: {', '.join(PROGRAMS)}; --help says what they do.")
