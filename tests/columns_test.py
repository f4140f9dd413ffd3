"""What columns hold, and the way from cells to numbers and back."""

import numpy as np
import pytest

from iwae_zoo import columns
from iwae_zoo.columns import Column


def cells(*texts):
    array = np.empty(len(texts), object)
    array[:] = [None if text is None or columns.is_missing(text) else text for text in texts]
    return array


@pytest.mark.parametrize(
    ("texts", "kind", "categories"),
    [
        (("1.5", "", "-2"), "real", ()),
        (("1.5", "NaN", "2"), "positive", ()),
        (("3", "0", "n/a"), "count", ()),
        (("0", "1", "0"), "binary", ()),
        (("yes", "no", "", "no"), "binary", ("no", "yes")),
        (("True", "False"), "binary", ("False", "True")),
        (("1_2", "3_4", "1_2", "3_4"), "binary", ("1_2", "3_4")),  # Names, which Python would read as numbers.
        (("b", "c", "a", "a", "b", "c"), "categorical", ("a", "b", "c")),
        (("p1", "p2", "p3", "p4"), "ignore", ()),  # Another name in each row.
        (("only", "only"), "ignore", ()),
        (("", "null"), "ignore", ()),
        (("1000000", "2000000"), "positive", ()),
        (("0", "2000000"), "real", ()),
    ],
)
def test_seen(texts, kind, categories):
    assert columns.seen("c", cells(*texts)) == Column("c", kind, categories)


def test_a_kind_that_is_given():
    assert columns.seen("c", cells("10", "9", "10"), "categorical").categories == ("9", "10")  # By their size.
    assert columns.seen("c", cells("1", "2"), "real") == Column("c", "real")
    assert columns.overridden("a b:count, c:d:ignore") == {"a b": "count", "c:d": "ignore"}
    with pytest.raises(ValueError, match="Unknown kind of column 'a': received 'number'"):
        columns.overridden("a:number")
    with pytest.raises(ValueError, match="NAME:KIND.*received 'age'"):
        columns.overridden("age")


def test_numbers_and_text_mixed():
    with pytest.raises(ValueError, match=r"'c' holds numbers, and text in 1 rows, the first at row 1: 'x'.*c:categ"):
        columns.seen("c", cells("1.5", "x", "2.5"))
    with pytest.raises(ValueError, match="or say what it is: '--columns=\"width, mm\":categorical'."):
        columns.seen("width, mm", cells("1.5", "x", "2.5"))
    assert columns.overridden('"width, mm":categorical,"a ""b""":real') == {"width, mm": "categorical", 'a "b"': "real"}
    with pytest.raises(ValueError, match=r"text in 1 rows, the first at row 0: '1_2'"):
        columns.seen("c", cells("1_2", "12", "13"))
    # However often it stands there, what stands for a hole is no name.
    with pytest.raises(ValueError, match=r"text in 3 rows, the first at row 1: '\?'"):
        columns.seen("c", cells("0", "?", "?", " ?", "1"))
    assert columns.seen("c", cells("0", "?", "?", " ?", "1"), "categorical").categories == ("0", "1", "?")
    assert str(columns.seen("c", cells("12", "A1", "A2", "A1", "A2", "12"))) == "c:categorical (3)"
    assert columns.seen("c", cells("1.5", "x", "2.5"), "categorical").categories == ("1.5", "2.5", "x")


def test_encoded_and_decoded():
    column = Column("c", "categorical", ("a", "b"))
    codes = columns.encoded(column, cells("b", "", " a "))
    np.testing.assert_array_equal(codes, np.array([1, np.nan, 0], np.float32))
    assert [columns.decoded(column, code) for code in codes[[0, 2]]] == ["b", "a"]
    numbers = columns.encoded(Column("c", "real"), np.array([1e-8, np.nan, 123456.7]))
    assert columns.decoded(Column("c", "real"), numbers[2]) == "123456.7"
    assert np.isnan(numbers[1]) and numbers.dtype == np.float32


@pytest.mark.parametrize(
    ("column", "texts", "message"),
    [
        (
            Column("c", "categorical", ("a", "b")),
            ("a", "z"),
            r"'c' \(categorical\), row 11: received 'z'.*one of 'a', 'b'",
        ),
        (Column("c", "count"), ("1", "2.5"), r"'c' \(count\), row 11: received '2.5'.*whole numbers"),
        (Column("c", "positive"), ("1", "0"), "above 0"),
        (Column("c", "real"), ("1", "inf"), "finite"),
        (Column("c", "real"), ("1", "many"), "received 'many'"),
        (Column("c", "binary"), ("1", "2"), "0 and 1"),
    ],
)
def test_what_a_column_does_not_take(column, texts, message):
    with pytest.raises(ValueError, match=message):
        columns.encoded(column, cells(*texts), first=10)


def test_order():
    table = [Column("a", "real"), Column("i", "ignore"), Column("b", "real")]
    assert columns.in_order(table, ["b", "a"], "t") == [1, 0]
    with pytest.raises(ValueError, match=r"t must have .* 'a', 'b': missing or repeated are 'b'; unknown are 'x'\."):
        columns.in_order(table, ["a", "x"], "t")
