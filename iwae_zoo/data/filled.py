"""Tables with their holes filled: read and written in parts, what was observed to the byte as it was.

Beside each column, NAME, there are NAME.stddev or, of names and of zeros and ones, NAME.probability, empty where the
cell was observed; NAME.draw1, ... with several imputations; and for each row the log p of what was observed in nats,
its standard error, ESS, Pareto k, and whether the row's answers can be trusted.
"""

import contextlib
from typing import Any, NamedTuple

import numpy as np

from iwae_zoo import columns as columns_
from iwae_zoo.data import tables

__all__ = ["OF_ROWS", "Part", "parts", "writer"]

# What is said of a row: attributes of an answer.
OF_ROWS = ("log_prob", "standard_error", "ess", "pareto_k", "trusted")


class Part(NamedTuple):
    """Some rows of a table.

    Attributes:
      path: of the table.
      names: list of str, its columns.
      x: float32 array [N, V], the values of the columns that a model looks at.
      source: what `tables.batches` gives of these rows.
    """

    path: str
    names: list
    x: np.ndarray
    source: Any


def parts(path, columns, size=1000):
    """Yields each `Part` of a table; arguments and errors as `tables.batches` and `tables.rows`."""
    first = 0
    for names, cells, source in tables.batches(path, size):
        x = tables.rows(columns, names, cells, path, first)
        yield Part(path, names, x, source)
        first += len(x)


@contextlib.contextmanager
def writer(path, columns, num_imputations):
    """Yields a function (`Part`, answer) that appends rows to a new table.

    Args:
      path: of the new table, whose ending says what it is.
      columns: sequence of `Column`, those of the model.
      num_imputations: int, how many draws of an answer are written.

    An answer has mean, stddev, point, probability [N, V], draws [R, N, V], and [N] by the names of `OF_ROWS`.
    """
    with contextlib.ExitStack() as stack:
        if str(path).endswith(".csv"):
            file = stack.enter_context(open(path, "w", newline="", encoding="utf-8"))

            def write(part, answer):
                lines = _csv_rows(part, answer, columns, num_imputations)
                if not file.tell():
                    file.write(_line(columns_.quoted(name) for name in _header(part.names, columns, num_imputations)))
                file.writelines(lines)

        else:
            import pyarrow.parquet

            opened: list[Any] = []

            def write(part, answer):
                table = _arrow_table(part, answer, columns, num_imputations)
                if not opened:
                    opened.append(stack.enter_context(pyarrow.parquet.ParquetWriter(path, table.schema)))
                opened[0].write_table(table)

        yield write


def _added(column, num_imputations):
    """The columns beside a column: (name, function of (answer, place) that gets it, whether it is of draws)."""
    sure = "probability" if column.kind in ("binary", "categorical") else "stddev"
    yield f"{column.name}.{sure}", lambda answer, place: getattr(answer, sure)[:, place], False
    for r in range(num_imputations):
        yield f"{column.name}.draw{r + 1}", lambda answer, place, r=r: answer.draws[r][:, place], True


def _header(names, columns, num_imputations):
    added = [name for column in columns_.used(columns) for name, *_ in _added(column, num_imputations)]
    header = [*names, *added, *OF_ROWS]
    if len(set(header)) < len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise ValueError(f"The table has a column {twice!r}, which would be written beside its own: rename it.")
    return header


def _csv_rows(part, answer, columns, num_imputations):
    """Lines of CSV: the cells as they stand in the source, or what stands for them."""
    used, missing = columns_.used(columns), np.isnan(part.x)
    places = [part.names.index(column.name) for column in used]
    added = [
        (place, column, of(answer, place), drawn)
        for place, column in enumerate(used)
        for _, of, drawn in _added(column, num_imputations)
    ]
    for row, raw in enumerate(part.source):
        cells = list(raw)
        for hole in map(int, np.flatnonzero(missing[row])):
            cells[places[hole]] = _cell(used[hole], answer.point[row, hole])
        for place, column, values, drawn in added:
            if not missing[row, place]:
                cells.append("")
            elif drawn:
                cells.append(_cell(column, values[row]))
            else:
                cells.append(f"{values[row]:.6g}")
        cells += [f"{getattr(answer, name)[row]:.6g}" for name in OF_ROWS[:-1]]
        yield _line([*cells, str(bool(answer.trusted[row])).lower()])


def _cell(column, value):
    return "" if np.isnan(value) else columns_.quoted(columns_.decoded(column, value))


def _line(cells):
    return ",".join(cells) + "\n"


def _arrow_table(part, answer, columns, num_imputations):
    """The rows as a `pyarrow.Table`: columns with numbers become float64, so that what stands for them fits."""
    import pyarrow

    used, missing = columns_.used(columns), np.isnan(part.x)
    arrays = dict(zip(part.names, part.source.columns, strict=True))

    def values_of(column, numbers):
        texts = [None if np.isnan(number) else columns_.decoded(column, number) for number in numbers]
        return texts if column.categories else [None if text is None else float(text) for text in texts]

    for place, column in enumerate(used):
        array, holes, hole = arrays[column.name], missing[:, place], pyarrow.array(missing[:, place])
        if column.categories:  # Whose names are the model's, of numbers too.
            codes = np.where(holes, answer.point[:, place], part.x[:, place])
            arrays[column.name] = pyarrow.array(values_of(column, codes), pyarrow.string())
            continue
        filled = pyarrow.array(values_of(column, answer.point[:, place]), pyarrow.float64())
        if not tables.holds_numbers(array):  # Of text, what a hole holds may say so in words.
            numbers, _ = columns_.as_numbers(np.array(tables.as_texts(array).to_pylist(), object))
            array = pyarrow.array(numbers, from_pandas=True)
        observed = pyarrow.compute.if_else(hole, pyarrow.scalar(None, array.type), array)
        try:
            observed = observed.cast(pyarrow.float64(), safe=pyarrow.types.is_integer(array.type))
        except pyarrow.ArrowInvalid as error:
            raise ValueError(
                f"Column {column.name!r} holds whole numbers beyond 2^53, which cannot stand beside fractions in "
                "Parquet: make it text, or the table CSV."
            ) from error
        arrays[column.name] = pyarrow.compute.if_else(hole, filled, observed)
    for place, column in enumerate(used):
        for name, of, drawn in _added(column, num_imputations):
            values = np.where(missing[:, place], of(answer, place), np.nan)
            arrays[name] = (
                pyarrow.array(values_of(column, values), pyarrow.string())
                if drawn and column.categories
                else pyarrow.array(values.astype(np.float64), from_pandas=True)
            )
    for name in OF_ROWS:
        arrays[name] = pyarrow.array(np.asarray(getattr(answer, name)))
    _header(part.names, columns, num_imputations)
    return pyarrow.table(arrays)
