"""Columns of tables: what each holds, seen in its cells, and the way from cells to numbers and back.

Nothing here knows of a model or of files; both keep `Column`s.
"""

import csv
import dataclasses
import io
import math
import re
import shlex
from collections.abc import Callable, Iterable

import numpy as np

from iwae_zoo._checks import LEAST_SINGLE, look_up, single

__all__ = [
    "KINDS",
    "Column",
    "Seen",
    "decoded",
    "encoded",
    "in_order",
    "is_index",
    "is_missing",
    "overridden",
    "quoted",
    "seen",
    "used",
]

# What a column may be, and what its cells may hold.
KINDS = {
    "real": "finite numbers of single precision",
    "positive": "numbers of single precision above 0",
    "count": "whole numbers from 0",
    "binary": "0 and 1, or one of two names",
    "categorical": "one of its names",
    "ignore": "anything",
}
# Which finite numbers columns without names take.
_HOLDS: dict[str, Callable] = {
    "real": np.isfinite,
    "positive": lambda numbers: numbers > 0.0,
    "count": lambda numbers: (numbers >= 0.0) & (np.floor(numbers) == numbers),
    "binary": lambda numbers: np.isin(numbers, (0.0, 1.0)),
}
# Cells that hold nothing, in small letters.
_NOTHING = frozenset(("", "nan", "na", "n/a", "null"))
# Whole numbers above are amounts and not counts; more names than this are no classes.
_LARGEST_COUNT, _MOST_NAMES = 100_000, 100
# Of floats: whole numbers from here on cannot be told apart.
_LARGEST_WHOLE = 2.0**53
# Texts that are longer are no numbers that are worth an array of texts of that length.
_LONGEST_NUMBER = 64
# What pandas calls the index of a data frame in a Parquet file.
_INDEX = re.compile(r"__index_level_\d+__")
_SHOWN = 8


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
      name: str.
      kind: one of `KINDS`.
      categories: names that its cells may hold, whose places are their numbers; none where cells hold numbers.
    """

    name: str
    kind: str
    categories: tuple[str, ...] = ()

    def __post_init__(self):
        look_up(KINDS, self.kind, f"kind of column {self.name!r}")
        object.__setattr__(self, "categories", tuple(self.categories))

    def __str__(self):
        names = f" ({len(self.categories)})" if self.kind == "categorical" else ""
        return f"{self.name}:{self.kind}{names}"


def used(columns):
    """Those that are not ignored: list of `Column`, in the order of the values of x."""
    return [column for column in columns if column.kind != "ignore"]


def is_missing(text):
    """Whether a cell holds nothing: it is empty, or says NaN, NA, N/A or null."""
    return text.strip().lower() in _NOTHING


def overridden(text):
    """The kinds that a user gave, as "age:count,city:categorical": dict from name to kind.

    It is a line of CSV: a name with a comma or a quotation mark stands in quotation marks.

    Raises:
      ValueError: on anything else, or an unknown kind.

    #### Examples
    >>> overridden("age:count,id:ignore")
    {'age': 'count', 'id': 'ignore'}
    >>> overridden('"width, mm":real,id:ignore')
    {'width, mm': 'real', 'id': 'ignore'}
    """
    chosen = {}
    parts = [part for line in csv.reader(io.StringIO(text, newline="")) for part in line]
    for part in parts or [""]:
        name, colon, kind = part.rpartition(":")
        if not colon:
            raise ValueError(f"columns must be NAME:KIND with commas between them: received {part!r}.")
        chosen[name.strip()] = look_up(list(KINDS), kind.strip(), f"kind of column {name!r}")
    return chosen


def quoted(text):
    """A cell as CSV has it: str."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\r\n").writerow([text])  # It quotes those line ends alone that it writes.
    return buffer.getvalue().removesuffix("\r\n")


def _flag(name, kind):
    """How a user says on a command line what a column is."""
    return shlex.quote(f"--columns={quoted(name)}:{kind}")


def seen(name, cells, kind=None):
    """What a column holds.

    Args:
      name: str.
      cells: array [N], of floats (NaN where missing) or of str (None where missing).
      kind: one of `KINDS`, if the user says so.

    Returns:
      `Column`.

    Raises:
      ValueError: if numbers and text are mixed and nobody says which is meant, or a kind with names has other names
        than it can.

    #### Examples
    >>> str(seen("size", np.array([1.5, np.nan]))), str(seen("city", np.array(["Rome", "Oslo", "Bonn", "Rome"] * 3)))
    ('size:positive', 'city:categorical (3)')
    """
    of_column = Seen(name, kind)
    of_column.add(cells)
    return of_column.column()


class Seen:
    """What a column holds, whose cells come in parts; arguments as `seen`."""

    def __init__(self, name, kind=None):
        self._name, self._kind = name, kind
        self._rows = self._numbers = self._wrong = 0
        self._first_wrong, self._wrong_texts = "", set()
        self._least, self._most, self._zeros_and_ones, self._whole = math.inf, -math.inf, True, True
        self._texts: set[str] = set()

    def add(self, cells):
        """Looks at the next cells, as `seen` takes them."""
        if self._kind == "ignore":
            return
        numbers, wrong = as_numbers(cells)
        there = numbers[~np.isnan(numbers)]
        if wrong and not self._wrong:
            self._first_wrong = f"{self._rows + wrong[0]}: {cells[wrong[0]]!r}"
        if len(self._wrong_texts) < 2:
            self._wrong_texts.update(cells[row].strip() for row in wrong)
        self._rows += len(cells)
        self._numbers += len(there)
        self._wrong += len(wrong)
        if len(there):
            self._least, self._most = min(self._least, there.min()), max(self._most, there.max())
            self._zeros_and_ones = self._zeros_and_ones and bool(np.isin(there, (0.0, 1.0)).all())
            self._whole = self._whole and math.isfinite(self._most) and bool((there % 1 == 0.0).all())
        # More names than a column can have are only of interest if they are asked for.
        asked = self._kind in ("binary", "categorical")
        if asked or (self._kind is None and cells.dtype.kind != "f" and len(self._texts) <= _MOST_NAMES):
            self._texts.update(text for text in _texts(self._name, cells) if text is not None)

    def column(self):
        """The `Column`; raises ValueError as `seen`."""
        kind, names = self._kind, _sorted(self._texts)
        # One text among several numbers stands for what is missing, however often; names may be numbers in part.
        stands_in = len(self._wrong_texts) == 1 and self._least < self._most
        if kind is None and self._wrong and (self._numbers > self._wrong or stands_in):
            raise ValueError(
                f"Column {self._name!r} holds numbers, and text in {self._wrong} rows, the first at row "
                f"{self._first_wrong}. Mend them, leave them empty, or say what it is: "
                f"{_flag(self._name, 'categorical')}."
            )
        if kind is None:
            kind = self._kind_of_names() if self._wrong else self._kind_of_numbers()
        if kind != "categorical" and not (kind == "binary" and self._wrong):
            return Column(self._name, kind)
        if not names or (kind == "binary" and len(names) != 2):
            raise ValueError(
                f"Column {self._name!r} cannot be {kind}, {KINDS[kind]}: its cells hold {len(names)} different names, "
                f"{_shown(names) or 'none'}."
            )
        return Column(self._name, kind, names)

    def _kind_of_names(self):
        count, rows = len(self._texts), self._numbers + self._wrong
        if count == 2:
            return "binary"
        return "categorical" if 2 < count <= min(_MOST_NAMES, rows / 2) else "ignore"

    def _kind_of_numbers(self):
        if not self._numbers:
            return "ignore"
        if self._zeros_and_ones:
            return "binary"
        if self._least >= 0.0 and self._most <= _LARGEST_COUNT and self._whole:
            return "count"
        return "positive" if self._least >= LEAST_SINGLE else "real"


def encoded(column, cells, first=0, lost=None):
    """Cells as numbers.

    Args:
      column: `Column`.
      cells: as in `seen`.
      first: int, index of the first row, for messages.
      lost: `LostDigits` that looks at the numbers and at what float32 makes of them, or None.

    Returns:
      float32 array [N], NaN where missing.

    Raises:
      ValueError: on a cell that the column does not take; the message names the column and the row.
    """
    if column.categories:
        codes = {category: float(code) for code, category in enumerate(column.categories)}
        texts = _texts(column.name, cells)
        if cells.dtype.kind == "f":  # Older models have shorter names for numbers.
            texts = [t if t is None or t in codes else f"{number:.10g}" for t, number in zip(texts, cells, strict=True)]
        numbers = np.array([np.nan if text is None else codes.get(text, -1.0) for text in texts], np.float32)
        _refuse(column, cells, first, numbers == -1.0, f"one of {_shown(column.categories)}")
        return numbers
    numbers, wrong = as_numbers(cells)
    rounded = single(numbers)
    refused = ~(_HOLDS[column.kind](rounded) & np.isfinite(rounded)) & ~np.isnan(numbers)
    refused[wrong] = True
    _refuse(column, cells, first, refused, KINDS[column.kind])
    if lost is not None:
        lost.add(column.name, numbers, rounded)
    return rounded


def decoded(column, value):
    """A number of x as a cell: str."""
    if column.categories:
        return column.categories[int(value)]
    return f"{value:.7g}"


def is_index(name):
    """Whether a column is the numbering of rows that pandas writes into a Parquet file: nothing to learn from."""
    return _INDEX.fullmatch(name) is not None


def in_order(columns, names, where):
    """Places of a table's columns in `names`, those of another table with the same columns: list of int.

    Args:
      columns: sequence of `Column`.
      names: list of str.
      where: str, what has these names, for messages.

    Raises:
      ValueError: if a column is missing, stands there twice, or is unknown. Those that are ignored may be missing.
    """
    known = {column.name for column in columns}
    lost = [column.name for column in used(columns) if names.count(column.name) != 1]
    strange = [name for name in names if name not in known and not is_index(name)]
    if lost or strange:
        raise ValueError(
            f"{where} must have the columns that the model was trained on, {_shown([c.name for c in used(columns)])}: "
            + "; ".join(
                f"{what} {_shown(of_them)}"
                for what, of_them in (("missing or repeated are", lost), ("unknown are", strange))
                if of_them
            )
            + "."
        )
    return [names.index(column.name) for column in used(columns)]


def as_numbers(cells):
    """float64 [N], NaN where missing or no number; and the rows of text that is none."""
    if cells.dtype.kind == "f":
        return cells.astype(np.float64), []
    there = np.array([cell is not None for cell in cells], bool)
    numbers = np.full(len(cells), np.nan)
    texts = cells[there]
    # Python reads 1_2 as 12, which nobody else does.
    if max(map(len, texts), default=0) <= _LONGEST_NUMBER and not any("_" in text for text in texts):
        try:
            numbers[there] = texts.astype(str).astype(np.float64)
            return numbers, []
        except ValueError:
            pass
    wrong = []
    for row in np.flatnonzero(there):
        try:
            numbers[row] = float(cells[row].replace("_", "?"))
        except ValueError:
            wrong.append(int(row))
    return numbers, wrong


def _texts(name, cells):
    """Cells as str, None where missing."""
    if cells.dtype.kind == "f":
        return [None if math.isnan(number) else _text(name, number) for number in cells]
    return [None if cell is None else cell.strip() for cell in cells]


def _text(name, number):
    """A number as a name."""
    if abs(number) >= _LARGEST_WHOLE:
        raise ValueError(f"Column {name!r} holds numbers as large as {number:.0f}, which are no names: make them text.")
    return f"{number:.0f}" if number % 1 == 0.0 else str(number)  # Of float32 the shorter one.


def _sorted(names):
    """Different names, sorted: numbers by their size."""
    try:
        return tuple(sorted(names, key=lambda name: (float(name), name)))  # There may be both 1 and 01.
    except ValueError:
        return tuple(sorted(names))


def _refuse(column, cells, first, refused, takes):
    rows = np.flatnonzero(refused)
    if len(rows):
        raise ValueError(
            f"Column {column.name!r} ({column.kind}), row {first + rows[0]}: received {cells[rows[0]]!r}. It takes "
            f"{takes}, and nothing where the value is missing. There are {len(rows)} such rows."
        )


def _shown(names: Iterable[str]):
    names = list(names)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(repr, names[:_SHOWN])) + more
