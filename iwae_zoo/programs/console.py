"""What the programs share: parsing flags, and how they speak."""

import os
import sys
import warnings

import tensorflow as tf
from absl import flags

__all__ = ["fail", "flag_values", "is_interactive", "run"]


def flag_values():
    """Flags of one program, with those that every program has."""
    values = flags.FlagValues()
    flags.DEFINE_bool("verbose", False, "Show TensorFlow's own messages.", short_name="v", flag_values=values)
    flags.DEFINE_bool("help", False, "Show these flags.", short_name="h", flag_values=values)
    flags.DEFINE_string("flagfile", "", "A file with more flags, one on a line.", flag_values=values)
    return values


def run(main, values, about, name, arguments):
    """Parses the flags and calls `main(name)`; a wrong flag is one line on stderr.

    Args:
      main: function of the program's name.
      values: `flag_values()` with the program's flags.
      about: str, what --help begins with.
      name: str, what the user called.
      arguments: list of str.
    """
    if {"--help", "-help", "-h"} & set(arguments):  # Whatever else is missing.
        print(f"{about.strip()}\n{values.get_help(include_special_flags=False)}")
        return
    try:
        left = values([name, *arguments])[1:]
    except flags.Error as error:
        fail(name, " ".join(str(error).split()))
    if left:
        fail(name, f"unexpected arguments {left}; flags are written --name=value.")
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
    tf.get_logger().setLevel("INFO" if values.verbose else "ERROR")
    try:
        main(name)
        sys.stdout.flush()
    except BrokenPipeError:  # Whoever read the output has had enough, as with `| head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def fail(name, error):
    """Ends the program with a line on stderr."""
    sys.exit(f"{name}: {error}")


def is_interactive():
    """Whether somebody watches: otherwise progress bars would fill a file."""
    return sys.stdout.isatty()
