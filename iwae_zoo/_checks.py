"""Checks of what users pass, with errors that say what was received and what to do."""

import ast
import difflib
import math
import numbers
import operator
import typing
import warnings
from collections.abc import Mapping

import numpy as np

# Smaller numbers of single precision are zeros to processors.
LEAST_SINGLE = float(np.finfo(np.float32).tiny)
# Share of a column's standard deviation that rounding may take.
_LOST = 1e-3
# What a text can be said to be or not to be.
_PLAIN = frozenset((bool, int, float, str, type(None)))


def look_up(table, name, what):
    """Returns `table[name]`, or raises an error that lists the known names.

    Args:
      table: mapping from name to value; or names alone, of which the one asked for is returned.
      name: str, the name asked for.
      what: str, what the names stand for, for the error message.

    Raises:
      ValueError: if `name` is not in `table`; the message suggests the nearest name.
    """
    if isinstance(name, str) and name in table:
        return table[name] if isinstance(table, Mapping) else name
    near = difflib.get_close_matches(str(name), table, n=1)
    suggestion = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"Unknown {what}: received {name!r}.{suggestion} Known: {', '.join(table)}.")


def parse(identifier, what, table, settings):
    """The row of a table, and its settings, that a text such as "normal,spread=column" names.

    Args:
      identifier: str.
      what: as in `look_up`.
      table: as in `look_up`.
      settings: function from a row to a mapping from its settings to their types; or to their names alone, where the
        row looks at the values itself.

    Returns:
      The row, and a dict from setting to value: a Python literal, or else the text.

    Raises:
      ValueError: on an unknown name, or a setting that the row does not have, or a value of another type.
    """
    name, *parts = str(identifier).split(",")
    row = look_up(table, name, what)
    known = settings(row)
    values = {}
    for part in parts:
        setting, _, text = part.partition("=")
        look_up(list(known), setting, f"setting of {name}")
        if setting in values:
            raise ValueError(f"{setting} of {name} is given twice: received {identifier!r}.")
        values[setting] = value = _literal(text)
        if isinstance(known, Mapping) and not _is_of(value, known[setting]):
            kind = getattr(known[setting], "__name__", known[setting])
            raise ValueError(f"{setting} of {name} must be a value of type {kind}: received {value!r}.")
    return row, values


def _is_of(value, kind):
    """Whether a literal is of a type such as `str | float`: integers are floats, and True is no integer."""
    kinds = typing.get_args(kind) or (kind,)
    return type(value) in kinds or (type(value) is int and float in kinds) or not _PLAIN.issuperset(kinds)


def _literal(text):
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # All that its documentation names.
        return text


def integer(name, value, least=1):
    """Returns `value` as an int.

    Raises:
      ValueError: if it is not an integer of at least `least`.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least or isinstance(value, bool):
        raise ValueError(f"{name} must be an integer of at least {least}: received {value!r}.")
    return number


def checked_seed(seed):
    """Returns `seed` as an int.

    Raises:
      ValueError: if it is not an integer from 0 to 2^31 - 1.
    """
    number = integer("seed", seed, least=0)
    if number >= 2**31:
        raise ValueError(f"seed must be an integer from 0 to 2^31 - 1: received {seed!r}.")
    return number


def number(name, value):
    """Returns `value` as a float.

    Raises:
      ValueError: if it is not a real number.
    """
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise ValueError(f"{name} must be a number: received {value!r}.")
    return float(value)


def positive(name, value):
    """Returns `value`.

    Raises:
      ValueError: if it is not a positive finite number.
    """
    number = float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else math.nan
    if not 0.0 < number < math.inf:
        raise ValueError(f"{name} must be a positive number: received {value!r}.")
    return value


def below_half(name, value):
    """Returns `value`.

    Raises:
      ValueError: if it is not a number in (0, 1/2).
    """
    if positive(name, value) >= 0.5:
        raise ValueError(f"{name} must be below 1/2: received {value!r}.")
    return value


def fraction(name, value, hint=""):
    """Returns `value` as a float.

    Raises:
      ValueError: if it is not a number in [0, 1]; the message ends with the hint.
    """
    if not isinstance(value, numbers.Real) or isinstance(value, bool) or not 0.0 <= float(value) <= 1.0:
        raise ValueError(f"{name} must be in [0, 1]: received {value!r}.{hint}")
    return float(value)


def single(array):
    """An array of numbers in single precision: infinity beyond its range, and 0 below `LEAST_SINGLE`."""
    with np.errstate(over="ignore", under="ignore"):
        rounded = array.astype(np.float32)
    if array.dtype.kind == "f":
        rounded[np.abs(rounded) < LEAST_SINGLE] = 0.0
    return rounded


def warn_of_lost_digits(table, rounded, columns):
    """Warns of columns whose numbers differ by little beside their size, such as times in seconds since 1970.

    Args:
      table: array [N, P], NaN where missing.
      rounded: float32 array [N, P], the same.
      columns: sequence of P str or int, what they are called.

    Warns:
      UserWarning: for each of which float32 has not the digits to tell its numbers apart.
    """
    lost = LostDigits()
    for name, exact, single in zip(columns, np.transpose(table), np.transpose(rounded), strict=True):
        lost.add(name, exact, single)
    lost.warn()


class LostDigits:
    """`warn_of_lost_digits` for columns that are looked at in parts, with one warning after the last."""

    def __init__(self):
        self._seen = {}

    def add(self, name, exact, single):
        """Looks at some numbers of a column [N], NaN where missing, and at what float32 makes of them."""
        there = np.isfinite(exact)
        values, kept = exact[there].astype(np.float64), single[there].astype(np.float64)
        before = self._seen.get(name, (0, (0.0, 0.0), (0.0, 0.0)))
        if len(values):
            merged = [
                _merged(before[0], moments, v) for moments, v in zip(before[1:], (values, kept - values), strict=True)
            ]
            self._seen[name] = (before[0] + len(values), *merged)

    def warn(self):
        """Warns as `warn_of_lost_digits`."""
        for name, (count, (mean, squares), (_, lost)) in self._seen.items():
            if count > 1 and math.sqrt(lost) > _LOST * math.sqrt(squares):
                warnings.warn(
                    f"The numbers of column {name} differ by so little beside their size that float32, in which models "
                    f"compute, loses what tells them apart: mean {mean:.10g}, standard deviation "
                    f"{math.sqrt(squares / count):.3g}. Subtract a constant, such as their mean, first.",
                    stacklevel=5,
                )


def _merged(count, moments, values):
    """Mean and sum of squares around it, of so many numbers that have these moments and of more."""
    (mean, squares), own = moments, np.mean(values)
    share = len(values) / (count + len(values))
    spread = np.sum(np.square(values - own)) + (own - mean) ** 2 * count * share
    return mean + (own - mean) * share, squares + spread
