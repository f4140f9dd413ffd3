"""The command line, `iwae-zoo train|evaluate|export`, and a quiet start for every program.

This module lies outside the package because it runs before TensorFlow is imported, which the package does.
"""

import contextlib
import importlib
import os
import sys
import tempfile

__all__ = ["main", "quiet", "run"]

# A program is a module of `iwae_zoo.programs`, and a row.
PROGRAMS = {
    "train": "train a model and leave everything about the run in a work directory",
    "evaluate": "evaluate a trained model: log p(x) with its errors",
    "export": "export the model of a work directory for TensorFlow Serving",
}


def is_verbose():
    """Whether the command line asks for TensorFlow's own messages."""
    return any(argument in ("-v", "--v", "-verbose", "--verbose") for argument in sys.argv[1:])


@contextlib.contextmanager
def quiet():
    """Inside, imports say nothing on stderr, unless the command line asks for it or one fails."""
    if is_verbose():
        yield
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    # TensorFlow's libraries write to the file descriptor, whatever sys.stderr is.
    with tempfile.TemporaryFile() as said:
        stderr = os.dup(2)
        os.dup2(said.fileno(), 2)
        try:
            yield
        except BaseException:
            sys.stderr.flush()
            said.seek(0)
            os.write(stderr, said.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)


def run(program, name, arguments):
    """Runs a program of the package.

    Args:
      program: a key of `PROGRAMS`.
      name: str, what the user called, for messages.
      arguments: list of str.
    """
    with quiet():
        module = importlib.import_module(f"iwae_zoo.programs.{program}")
    module.run(name, arguments)


def main():
    """The command `iwae-zoo`."""
    program, *arguments = sys.argv[1:] or [""]
    if program in PROGRAMS:
        run(program, f"iwae-zoo {program}", arguments)
    elif program in ("-h", "--help", "-help", "help"):
        print("usage: iwae-zoo PROGRAM --FLAG=VALUE ...\n")
        for known, purpose in PROGRAMS.items():
            print(f"  {known:10}{purpose}")
        print("\niwae-zoo PROGRAM --help lists its flags.")
    elif program == "--version":
        from importlib import metadata

        print(metadata.version("iwae_zoo"))
    else:
        sys.exit(f"iwae-zoo: unknown program {program!r}. Known: {', '.join(PROGRAMS)}; --help says what they do.")
