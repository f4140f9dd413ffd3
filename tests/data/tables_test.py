"""Tables from files, and back with their holes filled."""

import csv
import tracemalloc
import types
import warnings

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from iwae_zoo import data
from iwae_zoo.columns import Column, encoded, seen
from iwae_zoo.data import filled, tables

TEXT = 'id,age,"size, cm",town\r\np1,3,1.50,"Rome, IT"\r\np2,,nan,Oslo\r\np3,4,2,"a ""b"""\r\n\r\np4,1,1e-3,\r\n'
COLUMNS = [
    Column("id", "ignore"),
    Column("age", "count"),
    Column("size, cm", "positive"),
    Column("town", "categorical", ('a "b"', "Oslo", "Rome, IT")),
]
X = np.array([[3, 1.5, 2], [np.nan, np.nan, 1], [4, 2, 0], [1, 1e-3, np.nan]], np.float32)


def written(path, text=TEXT):
    path.write_bytes(text.encode())
    return str(path)


def parquet(path):
    town = pyarrow.array(["Rome, IT", "Oslo", 'a "b"', None]).dictionary_encode()
    columns = {"id": ["p1", "p2", "p3", "p4"], "age": [3, None, 4, 1], "size, cm": [1.5, float("nan"), 2.0, 1e-3]}
    pyarrow.parquet.write_table(pyarrow.table({**columns, "town": town}), path)
    return str(path)


@pytest.mark.parametrize("size", [1, 3, 100])
@pytest.mark.parametrize(("ending", "write"), [("csv", written), ("parquet", parquet)])
def test_rows(ending, write, size, tmp_path):
    path = write(tmp_path / f"t.{ending}")
    parts = [tables.rows(COLUMNS, names, cells, path) for names, cells, _ in tables.batches(path, size)]
    np.testing.assert_array_equal(np.concatenate(parts), X)


def answer_for(x, draws=2):
    """Any answer, which says 1 everywhere."""
    ones = np.ones(x.shape)
    names = dict.fromkeys(("log_prob", "standard_error", "ess", "pareto_k"), np.ones(len(x)))
    fields = {"point": ones, "stddev": 0.5 * ones, "probability": 0.25 * ones, "draws": np.stack([2 * ones] * draws)}
    return types.SimpleNamespace(**fields, **names, trusted=np.arange(len(x)) != 1)


def test_csv_is_filled_and_the_rest_untouched(tmp_path):
    path = written(tmp_path / "t.csv")
    with filled.writer(tmp_path / "out.csv", COLUMNS, num_imputations=1) as write:
        for part in filled.parts(path, COLUMNS, size=3):
            write(part, answer_for(part.x))
    source = [line for line in TEXT.split("\r\n") if line]
    received = (tmp_path / "out.csv").read_text().splitlines()
    for before, after, holes in zip(source, received, [False, False, True, False, True], strict=True):
        assert holes or after.startswith(before + ",")
    assert received[2].startswith("p2,1,1,Oslo,0.5,2,0.5,2,,,1,1,1,1,false")
    assert received[4].startswith("p4,1,1e-3,Oslo,,,,,0.25,")
    rows = list(csv.DictReader(received))
    assert rows[3]["town"] == "Oslo" and rows[3]["town.draw1"] == "Rome, IT" and rows[0]["town.probability"] == ""


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_names_with_line_breaks_and_those_like_the_writers_own(ending, tmp_path):
    names = ("yes\r\nor no", "prize.drawn")
    columns = [Column(names[0], "binary", ("no\nnever", "yes")), Column(names[1], "categorical", ("a", "b", "c"))]
    path = str(tmp_path / f"t.{ending}")
    cells = {names[0]: ["yes", None], names[1]: ["c", None]}
    if ending == "csv":
        with open(path, "w", newline="") as file:
            csv.writer(file).writerows(
                [names, *zip(*([value or "" for value in of] for of in cells.values()), strict=True)]
            )
    else:
        pyarrow.parquet.write_table(pyarrow.table(cells), path)
    output = tmp_path / f"out.{ending}"
    with filled.writer(output, columns, num_imputations=1) as write:
        for part in filled.parts(path, columns):
            answer = answer_for(part.x)
            answer.point[:, 0], answer.draws[..., 0] = 0.0, 1.0
            write(part, answer)
    if ending == "csv":
        with open(output, newline="") as file:
            rows = list(csv.DictReader(file))
    else:
        rows = pyarrow.parquet.read_table(output).to_pylist()
    added = [f"{names[0]}.probability", f"{names[0]}.draw1", f"{names[1]}.probability", f"{names[1]}.draw1"]
    assert list(rows[1]) == [*names, *added, *filled.OF_ROWS]
    assert [rows[0][name] for name in names] == ["yes", "c"] and not any(rows[0][name] for name in added)
    assert [rows[1][name] for name in (*names, added[1], added[3])] == ["no\nnever", "b", "yes", "c"]
    assert [float(rows[1][name]) for name in added[::2]] == [0.25, 0.25]


def test_parquet_is_filled(tmp_path):
    path = parquet(tmp_path / "t.parquet")
    with filled.writer(tmp_path / "out.parquet", COLUMNS, num_imputations=1) as write:
        for part in filled.parts(path, COLUMNS, size=3):
            write(part, answer_for(part.x))
    table = pyarrow.parquet.read_table(tmp_path / "out.parquet").to_pydict()
    assert table["age"] == [3.0, 1.0, 4.0, 1.0] and table["size, cm"] == [1.5, 1.0, 2.0, 1e-3]
    assert table["town"] == ["Rome, IT", "Oslo", 'a "b"', "Oslo"] and table["id"] == ["p1", "p2", "p3", "p4"]
    assert table["town.draw1"] == [None, None, None, "Rome, IT"] and table["trusted"] == [True, False, True, True]


def test_a_data_set(tmp_path):
    rng = np.random.default_rng(0)
    lines = [f"{i},{rng.normal():.3f},{rng.integers(0, 50) or ''},{'nyz'[i % 3]}" for i in range(60)]
    path = written(tmp_path / "t.csv", "\n".join(["id,a,b,c", *lines]))
    dataset = data.load(path, columns="id:ignore,b:real")
    assert dataset.kind == dataset.kind_of_x == "table" and dataset.data_shape == (3,)
    assert [str(column) for column in dataset.columns] == ["id:ignore", "a:real", "b:real", "c:categorical (3)"]
    assert [len(part) for part in (dataset.train, dataset.validation, dataset.test)] == [48, 6, 6]
    assert "b:real" in dataset.description
    # Another file, by the columns of the first.
    other = written(tmp_path / "u.csv", "c,b,a\n" + "z,3,1\nz,,2\nn,1,1\nz,2,1\n" * 2)
    assert set(data.load(other, columns=dataset.columns).train[:, 2]) <= {0.0, 2.0}
    holed = data.load(path, columns="id:ignore", missing=0.5)
    assert np.isnan(holed.train).mean() == pytest.approx(0.5, abs=0.15)
    assert "of the training values missing, most in" in holed.description


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        ("", None, "is empty"),
        ("a,b\n", None, "no rows"),
        ("a,a\n1,2\n", None, "different name for each column"),
        ("a,b\n1,2\n3\n", None, "row 1: received 1 cells for 2 columns"),
        ('a,b\n1,"2\n', None, "cannot be read as CSV"),
        ("a\n1\n\n2\n\n", None, "before row 1: in a table of one column an empty line may be a row without a value"),
        ("a,b\n1,2\n1,2\n", "z:count", "no column 'z': it has a, b"),
        ("a,b\n" + "1,2\n" * 5, None, "too few examples: nothing is left for the validation split, of sizes 5, 0, 0"),
        ("a\n" * 9, "a:ignore", "a column to learn from"),
        (
            "a,b\n" + "1,x\n1,y\n1,z\n" * 5,
            "b:binary",
            "'b' cannot be binary, .* 3 different names, 'x'",
        ),
        (
            "a,b\n" + "1,\n" * 9,
            "b:categorical",
            "'b' cannot be categorical, .* 0 different names, none",
        ),
        ("a,b\n" + "1,0.1\n" * 9 + "1,1e-80\n", "b:positive", r"row 9: received '1e-80'. It takes numbers of single"),
        ("a,b\n" + "1,0.1\n" * 9 + "1,1e39\n", None, r"row 9: received '1e39'. It takes numbers of single precision"),
        ("a,b\n1,2.5\n1,x\n2,3.5\n", None, "'b' holds numbers, and text in 1 rows, the first at row 1"),
        ("a,b\n1,2\n1,-2\n2,3\n", "b:count", r"'b' \(count\), row 1: received '-2'"),
    ],
)
def test_what_is_no_table(text, columns, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        data.load(written(tmp_path / "t.csv", text), columns=columns)


def test_a_first_line_that_may_be_a_row_is_told(tmp_path):
    rows = "0.5,0,0.25\n" * 20
    with pytest.warns(UserWarning, match="taken for the columns' names, and reads as numbers: 0.5, 0, 0.3"):
        data.load(written(tmp_path / "t.csv", "0.5,0,0.3\n" + rows))
    for header in ("0,1,2\n", "1,2,3\n", "0.5,0,c\n"):  # As pandas writes an array.
        data.load(written(tmp_path / "t.csv", header + rows))


def test_settings_that_do_not_fit(tmp_path):
    path = written(tmp_path / "t.csv", "a,b\n" + "1,2.5\n" * 9)
    with pytest.raises(ValueError, match="are set with columns"):
        data.load(path, kind="real")
    with pytest.raises(ValueError, match="digits has none"):
        data.load("digits", columns="a:count")
    with pytest.raises(ValueError, match=r"between 0 and 1: received 1\.5"):
        data.load("digits", missing=1.5)
    written(tmp_path / "t.parquet", "no Parquet")
    with pytest.raises(ValueError, match="cannot be read as Parquet"):
        data.load(str(tmp_path / "t.parquet"))
    with pytest.raises(FileNotFoundError, match="no data file"):
        data.load(str(tmp_path / "u.csv"))
    columns = [Column("a", "real"), Column("a.stddev", "real")]
    with pytest.raises(ValueError, match="has a column 'a.stddev', which would be written"):
        filled._header(["a", "a.stddev"], columns, 0)


def test_digits_with_holes():
    dataset = data.load("digits", missing=0.5)
    drawn = dataset.evaluation_array("test")
    assert np.isnan(drawn).mean() == pytest.approx(0.5, abs=0.02)
    assert set(drawn[~np.isnan(drawn)]) == {0.0, 1.0}
    batch = next(iter(dataset.training_batches(50, seed=0))).numpy()
    assert 0.4 < np.isnan(batch).mean() < 0.6 and np.isfinite(dataset.train_mean).all()
    np.testing.assert_array_equal(data.load("digits", missing=0.5).train, dataset.train)


def test_names_are_in_one_order_and_none_is_lost():
    """What is equal as a number is still another name; the order of a set changes from process to process."""
    ones = ("0001", "001", "01", "1", "1.0", "1.00", "1e0")
    assert seen("a", np.array(["2", *ones] * 5, object), "categorical").categories == (*ones, "2")
    numbers = np.array([10000000001.0, 10000000002.0, 0.1, np.nan])
    assert seen("a", numbers, "categorical").categories == ("0.1", "10000000001", "10000000002")
    older = Column("a", "categorical", ("0.3333333333", "2"))
    np.testing.assert_array_equal(encoded(older, np.array([2.0, 1 / 3, np.nan])), [1.0, 0.0, np.nan])
    assert seen("a", np.array([0.1, 0.2], np.float32), "categorical").categories == ("0.1", "0.2")
    with pytest.raises(ValueError, match="'a' holds numbers as large as 9007199254740992, which are no names"):
        seen("a", np.array([2.0**53, 1.0]), "categorical")
    assert seen("a", np.array([0.1, 1e-80])).kind == "real"  # In single precision it is 0.


def test_the_index_of_a_data_frame_is_no_column(tmp_path):
    path = str(tmp_path / "t.parquet")
    values = np.random.default_rng(0).normal(size=40)
    plain = pyarrow.table({"a": values, "b": values**2})
    numbered = plain.append_column("__index_level_0__", pyarrow.array(2 * np.arange(40)))
    pyarrow.parquet.write_table(numbered, path)
    pyarrow.parquet.write_table(plain, tmp_path / "plain.parquet")
    dataset = data.load(path)
    assert [str(column) for column in dataset.columns][2] == "__index_level_0__:ignore" and dataset.data_shape == (2,)
    chosen = data.load(path, columns="__index_level_0__:real")
    assert chosen.data_shape == (3,)
    columns = data.load(str(tmp_path / "plain.parquet")).columns
    assert data.load(path, columns=columns).data_shape == (2,)  # Of a model that has never seen one.


@pytest.mark.filterwarnings("ignore:The numbers of column large")
def test_parquet_of_every_type(tmp_path):
    """A column that nobody learns from keeps no table from being read; numbers may be texts, and holes words."""
    columns = {
        "id": pyarrow.array([2**60 + i for i in range(30)]),
        "list": pyarrow.array([[i] for i in range(30)]),
        "pair": pyarrow.array([[i % 2] for i in range(30)]),
        "large": pyarrow.array([2**53 - 30 + i for i in range(30)]),
        "single": pyarrow.array(np.array([0.5, np.nan] * 15, np.float32)),
        "bytes": pyarrow.array([bytes([200, i]) for i in range(30)]),
        "size": pyarrow.array(["NA", " 1.5", "", "2.25", None] * 6),
    }
    path = str(tmp_path / "t.parquet")
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    dataset = data.load(path, columns="id:ignore")
    kinds = ["id:ignore", "list:ignore", "pair:binary", "large:positive", "single:positive", "bytes:ignore"]
    assert [str(column) for column in dataset.columns] == [*kinds, "size:positive"]
    with filled.writer(tmp_path / "out.parquet", dataset.columns, num_imputations=1) as write:
        for part in filled.parts(path, dataset.columns):
            write(part, answer_for(part.x))
    received = pyarrow.parquet.read_table(tmp_path / "out.parquet")
    assert received["size"].to_pylist() == [1.0, 1.5, 1.0, 2.25, 1.0] * 6
    assert received["pair"].to_pylist() == ["[0]", "[1]"] * 15
    assert received["single"].to_pylist() == [0.5, 1.0] * 15
    for name in ("id", "list", "bytes"):
        assert received[name].to_pylist() == columns[name].to_pylist()


def test_long_texts_take_no_more_memory_than_they_are():
    cells = np.array([*map(str, range(-3000, 0)), "x" * 100_000], object)
    tracemalloc.start()
    assert seen("notes", cells, "categorical").kind == "categorical"
    assert seen("notes", cells, "ignore").kind == "ignore"
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()


def test_digits_that_float32_has_not_are_told(tmp_path):
    """Seconds since 1970, which are one number there; a price in millions, and small numbers, are not."""
    times = 1.7e9 + 10.0 * np.random.default_rng(0).normal(size=50)
    with pytest.warns(UserWarning, match="numbers of column time differ by so little .* Subtract a constant"):
        tables.from_cells("table", ["time"], [times])
    for values in (times - 1.7e9, 1e6 + 1e3 * (times - 1.7e9), 1e-20 * (times - 1.7e9), np.full(50, 1.7e9)):
        tables.from_cells("table", ["time"], [values], columns="time:real")


def test_of_a_table_in_parts_they_are_told_once(tmp_path):
    """Each part may be a short time of a long one: what counts is the whole table."""
    path, hour = str(tmp_path / "t.csv"), 60.0 * np.arange(3000)
    for times, told in ((1.7e9 + hour, []), (1.7e12 + hour, ["t"])):
        rows = "".join(f"{time:.0f},{i}\n" for i, time in enumerate(times))
        written(tmp_path / "t.csv", "t,i\n" + rows)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for stream_above in (0.0, 1.0):
                data.load(path, stream_above=stream_above)
                assert [str(w.message).split()[4] for w in caught] == told
                caught.clear()
            columns = data.load(path).columns
            caught.clear()
            assert sum(len(part.x) for part in filled.parts(path, columns, size=250)) == 3000
            assert not caught


def test_parquet_has_one_name_for_a_category_and_numbers_as_python_reads_them(tmp_path):
    path, long = str(tmp_path / "t.parquet"), 10000000001.0
    source = {"code": [long, 1e-5, None, long] * 3, "n": pyarrow.array(["+5", " 2.5", "?", None] * 3)}
    pyarrow.parquet.write_table(pyarrow.table(source), path)
    columns = [Column("code", "categorical", ("10000000001", "1e-05")), Column("n", "real")]
    with filled.writer(tmp_path / "out.parquet", columns, num_imputations=0) as write:
        with pytest.raises(ValueError, match="Column 'n'.*received '\\?'"):
            list(filled.parts(path, columns))
        source["n"] = pyarrow.array(["+5", " 2.5", "", None] * 3)
        pyarrow.parquet.write_table(pyarrow.table(source), path)
        (part,) = filled.parts(path, columns)
        answer = answer_for(part.x)
        answer.point[2::4, 0] = 1.0
        write(part, answer)
    found = pyarrow.parquet.read_table(tmp_path / "out.parquet").to_pydict()
    assert found["code"][:4] == ["10000000001", "1e-05", "1e-05", "10000000001"]
    assert found["n"][:2] == [5.0, 2.5] and None not in found["n"]


def test_whole_numbers_of_parquet_stay_as_they_are_or_are_refused(tmp_path):
    """Beside fractions, which fill holes, they become float64."""
    columns = [Column("n", "real")]
    for value, fits in ((2**53, True), (2**60 + 1, False)):
        path = str(tmp_path / "t.parquet")
        pyarrow.parquet.write_table(pyarrow.table({"n": pyarrow.array([value, None, 3], pyarrow.int64())}), path)
        with filled.writer(tmp_path / "out.parquet", columns, num_imputations=0) as write:
            (part,) = filled.parts(path, columns)
            if not fits:
                with pytest.raises(ValueError, match="Column 'n' holds whole numbers beyond 2\\^53"):
                    write(part, answer_for(part.x))
                continue
            write(part, answer_for(part.x))
        assert pyarrow.parquet.read_table(tmp_path / "out.parquet")["n"].to_pylist()[::2] == [value, 3]
