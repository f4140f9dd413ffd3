"""Programs called in the tests' own process, which has imported and traced already what a new one would have to."""

import contextlib
import io
import os
import sys
import warnings
from typing import NamedTuple


class Ended(NamedTuple):
    """How a program ended: its exit status, what it printed, and what it would say on stderr at its end."""

    returncode: int
    stdout: str
    stderr: str


def unsilenced():
    """The environment for a program of its own process: the tests' own silences TensorFlow, as programs have to."""
    return {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}


def call(program, *flags, cwd):
    """Runs a module's `run` with flags in a folder."""
    for flag in program._FLAGS:  # What an earlier call has set.
        program._FLAGS[flag].unparse()
    show, before, path = warnings.formatwarning, os.getcwd(), sys.path[:]
    printed = io.StringIO()
    status, message = 0, ""
    try:
        os.chdir(cwd)
        with contextlib.redirect_stdout(printed):
            program.run("the_program", [str(flag) for flag in flags])
    except SystemExit as end:
        status, message = (end.code, "") if isinstance(end.code, int) else (1, f"{end.code}\n")
    finally:
        os.chdir(before)
        sys.path[:] = path
        warnings.formatwarning = show
    return Ended(status, printed.getvalue(), message)
