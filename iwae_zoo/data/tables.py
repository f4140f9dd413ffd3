"""Tables: data sets from a .csv or .parquet file, whose columns are each of their own kind."""

import csv
import os
import re
import warnings

import numpy as np

from iwae_zoo import columns as columns_
from iwae_zoo._checks import LostDigits
from iwae_zoo._rows import progress
from iwae_zoo.data import streamed
from iwae_zoo.data.dataset import Dataset
from iwae_zoo.data.splits import filled, split

__all__ = ["ENDINGS", "as_texts", "batches", "from_cells", "holds_numbers", "load", "read", "rows"]

ENDINGS = (".csv", ".parquet")
# Rows that are held as text at once.
_BATCH = 1000
# A cell of a CSV file as it stands there: quoted, with quotes inside doubled, or not.
_RAW = re.compile(r'(?:"(?:[^"]|"")*"|[^,]*)(?:,|$)', re.DOTALL)


def load(path, columns=None, stream_above=streamed.DEFAULT):
    """The data set in a file: 80 % / 10 % / 10 % of its rows, permuted once.

    Args:
      path: of the file.
      columns: str, kinds as `columns.overridden` takes them, of columns that are not what they look like; or the
        `Column`s that a model was trained on.
      stream_above: float, GiB; of larger tables no more than some rows are in memory at once. They are read twice, to
        see what the columns hold and to write numbers to a temporary file.

    Returns:
      `Dataset` of kind "table".

    Raises:
      ValueError: on a file that is no table, or a cell that its column does not take, with column and row.
      FileNotFoundError: if the file is not there.
      OSError: if there is no room for the temporary file, or the table changes while it is read.
    """
    name = os.path.splitext(os.path.basename(path))[0]
    parts = batches(path)  # Before its size is looked at, for the error if it is not there.
    if streamed.is_streamed(_size(path), stream_above):
        x, columns = _spooled(path, columns)
        return _dataset(name, x, columns, path)
    names, cells = _gathered(parts, path)
    return from_cells(name, names, cells, columns, path)


def from_cells(name, names, cells, columns=None, where=None):
    """The data set in cells.

    Args:
      name: str, the data set's.
      names: list of str, the columns'.
      cells: list of arrays, one for each name, as `columns.seen` takes them.
      columns: as in `load`.
      where: str, what is read, for messages; by default the name.

    Returns:
      `Dataset` of kind "table".

    Raises:
      ValueError: on cells that make no table, or one that its column does not take, with column and row.
    """
    where = where or name
    columns = _columns([(names, cells, None)], columns, where)
    lost = LostDigits()
    x = rows(columns, names, cells, where, lost=lost)
    lost.warn()
    return _dataset(name, x, columns, where)


def _columns(parts, columns, where):
    """The `Column`s of a table: those that are given, or as its parts have them."""
    if not (columns is None or isinstance(columns, str)):
        return columns
    of_table: list[columns_.Seen] = []
    for names, cells, _ in parts:
        if not of_table:
            chosen = columns_.overridden(columns) if columns else {}
            unknown = sorted(set(chosen) - set(names))
            if unknown:
                raise ValueError(f"{where} has no column {unknown[0]!r}: it has {', '.join(names)}.")
            kinds = {name: "ignore" for name in names if columns_.is_index(name)} | chosen
            of_table = [columns_.Seen(name, kinds.get(name)) for name in names]
        for of_column, of_name in zip(of_table, cells, strict=True):
            of_column.add(of_name)
    return [of_column.column() for of_column in of_table]


def _spooled(path, columns):
    """The numbers of a table in a temporary file, `Rows`, and its columns."""
    unchanged = streamed.Unchanged(path, path)
    columns = _columns(_shown(path), columns, path)
    if not columns:
        raise ValueError(f"{path} holds no rows.")
    spool, first, lost = streamed.Spool([len(columns_.used(columns))], np.float32, path), 0, LostDigits()
    for names, cells, _ in _shown(path):
        spool.append(rows(columns, names, cells, path, first, lost))
        first += len(cells[0])
    unchanged.check()
    lost.warn()
    return spool.rows(), columns


def _shown(path):
    """As `batches`, with a progress bar."""
    bar, count = progress(None, "row"), 0
    for part in batches(path):
        yield part
        count += len(part[1][0])
        bar.update(count)
    bar.update(count, finalize=True)


def _size(path):
    """Bytes that a table takes in memory, about: its text, or all cells as numbers."""
    if path.endswith(".csv"):
        return os.path.getsize(path)
    with _opened(path) as file:
        return 8 * file.metadata.num_rows * file.metadata.num_columns


def _dataset(name, x, columns, where):
    """The `Dataset` of numbers, an array or `Rows` [N, V]."""
    if not x.shape[1]:
        raise ValueError(f"{where} must have a column to learn from: received columns {', '.join(map(str, columns))}.")
    train, validation, test = filled(split(x, 0.1, 0.1), where)
    return Dataset(name, train, validation, test, "table", columns=tuple(columns))


def rows(columns, names, cells, where, first=0, lost=None):
    """Numbers for a model: float32 array [N, V], NaN where missing.

    Args:
      columns: sequence of `Column`, those of the model.
      names: list of str, those of the table.
      cells: list of arrays, one for each name.
      where: str, the table, for messages.
      first: int, index of the first row, for messages.
      lost: `LostDigits` that looks at the numbers, or None.

    Raises:
      ValueError: on other columns, or a cell that its column does not take, with column and row.
    """
    places = columns_.in_order(columns, names, where)
    of_columns = zip(columns_.used(columns), places, strict=True)
    encoded = [columns_.encoded(column, cells[place], first, lost) for column, place in of_columns]
    return np.stack(encoded, axis=1) if encoded else np.zeros([len(cells[0]) if cells else 0, 0], np.float32)


def read(path):
    """A whole table.

    Returns:
      (names, cells): list of str, and a list of arrays as `columns.seen` takes them.
    """
    return _gathered(batches(path), path)


def _gathered(of_table, path):
    names: list[str] = []
    parts = []
    for of_part, cells, _ in of_table:
        names = of_part
        parts.append(cells)
    if not parts:
        raise ValueError(f"{path} holds no rows.")
    return names, [np.concatenate(of_column) for of_column in zip(*parts, strict=True)]


def batches(path, size=_BATCH):
    """A table in parts.

    Args:
      path: of the file.
      size: int, most rows of a part.

    Yields:
      (names, cells, source): as `read`, and of CSV the rows' own text, lists of the cells as they stand in the file; of
      Parquet the `pyarrow.RecordBatch`.

    Raises:
      ValueError: on a file that cannot be read as a table.
      FileNotFoundError: if the file is not there.
    """
    if not os.path.exists(path):
        raise FileNotFoundError(f"There is no data file {path!r}.")
    return _batches_of_csv(path, size) if path.endswith(".csv") else _batches_of_parquet(path, size)


def _batches_of_csv(path, size):
    with open(path, newline="", encoding="utf-8-sig") as file:
        records = _records(file, path)
        header = next(records, None)
        if header is None:
            raise ValueError(f"{path} is empty: its first line must name the columns.")
        names = _checked([name.strip() for name in header[0]], path)
        _warn_of_no_header(names, path)
        texts, raw = [], []
        for row, (cells, raw_cells, after_empty_line) in enumerate(records):
            if after_empty_line and len(names) == 1:
                raise ValueError(
                    f"{path}, before row {row}: in a table of one column an empty line may be a row without a value. "
                    "Write NA there, or take the line out."
                )
            if len(cells) != len(names):
                raise ValueError(f"{path}, row {row}: received {len(cells)} cells for {len(names)} columns.")
            texts.append([None if columns_.is_missing(cell) else cell for cell in cells])
            raw.append(raw_cells)
            if len(texts) == size:
                yield names, _transposed(texts, names), raw
                texts, raw = [], []
        if texts:
            yield names, _transposed(texts, names), raw


def _warn_of_no_header(names, path):
    """Warns where the first line of a file may be its first row: all are numbers, and do not count the columns."""
    try:
        numbers = [float(name) for name in names]
    except ValueError:
        return
    first = numbers[0] if numbers else 0.0
    if numbers != [first + i for i in range(len(numbers))] or first not in (0.0, 1.0):
        warnings.warn(
            f"The first line of {path} is taken for the columns' names, and reads as numbers: {', '.join(names[:4])}. "
            "If it is a row, put a line of names above it.",
            stacklevel=2,
        )


def _records(file, path):
    """The cells of each record, the same as they stand in the file, and whether an empty line is above."""
    lines, after_empty_line = [], False

    def kept():
        for line in file:
            lines.append(line)
            yield line

    try:
        for cells in csv.reader(kept(), strict=True):
            text, lines[:] = "".join(lines).rstrip("\r\n"), []
            if cells:
                yield cells, [cell.removesuffix(",") for cell in _RAW.findall(text)][: len(cells)], after_empty_line
            after_empty_line = not cells
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as CSV in UTF-8 with commas: {error}.") from error


def _transposed(texts, names):
    cells = np.empty([len(texts), len(names)], object)
    cells[:] = texts
    return list(cells.T)


def _batches_of_parquet(path, size):
    import pyarrow

    with _opened(path) as file:
        names, row = _checked(file.schema_arrow.names, path), 0
        parts = file.iter_batches(size)
        while True:
            try:
                batch = next(parts, None)
            except (pyarrow.ArrowException, OSError) as error:
                raise ValueError(f"{path} cannot be read as Parquet after row {row}: {error}") from error
            if batch is None:
                return
            yield names, [_of_arrow(column) for column in batch.columns], batch
            row += len(batch)


def _opened(path):
    """The `pyarrow.parquet.ParquetFile`."""
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} cannot be read as Parquet: {error}") from error


def holds_numbers(column):
    """Whether a `pyarrow.Array` is one of numbers."""
    from pyarrow import types

    return types.is_integer(column.type) or types.is_floating(column.type) or types.is_decimal(column.type)


def as_texts(column):
    """A `pyarrow.Array` as one of strings: lists, structures and bytes too."""
    import pyarrow

    try:
        return column.cast(pyarrow.string())
    except pyarrow.ArrowException:
        return pyarrow.array([None if value is None else str(value) for value in column.to_pylist()], pyarrow.string())


def _of_arrow(column):
    import pyarrow

    if column.type == pyarrow.float32():
        return column.to_numpy(zero_copy_only=False)
    if holds_numbers(column):
        return column.cast(pyarrow.float64(), safe=False).to_numpy(zero_copy_only=False)
    texts = as_texts(column).to_pylist()
    cells = np.empty(len(texts), object)
    cells[:] = [None if text is None or columns_.is_missing(text) else text for text in texts]
    return cells


def _checked(names, path):
    if len(set(names)) < len(names) or "" in names:
        raise ValueError(f"{path} must have a different name for each column: received {', '.join(map(repr, names))}.")
    return list(names)
