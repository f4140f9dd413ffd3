"""What is streamed comes to the same bits as what is gathered, and says why it cannot be read."""

import csv
import dataclasses
import functools
import os
import pathlib
import sys
import tempfile

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import tensorflow as tf

from iwae_zoo import _rows, columns, data
from iwae_zoo._rows import Rows
from iwae_zoo.data import records, streamed, tables
from iwae_zoo.distributions import fitting, likelihoods

ALWAYS = 0.0


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of some rows, and samples of fewer than there are."""
    monkeypatch.setattr(_rows, "_BLOCK", 100)
    monkeypatch.setattr(_rows, "_SAMPLE", 300)


def saved(folder, name):
    """The path of a data set of 90 rows."""
    rng = np.random.default_rng(0)
    values = {
        "intensity": rng.random((90, 2, 3, 1)).astype("float32"),
        "real": rng.normal(size=(90, 4)),
        "holes": np.where(rng.random((90, 4)) < 0.3, np.nan, rng.normal(size=(90, 4))),
        "byte": rng.integers(0, 256, (90, 2, 2, 3), np.uint8),
        "count": rng.poisson(3.0, (90, 3)),
        "binary": rng.random((90, 5)) < 0.5,
    }
    if name in values:
        np.save(folder / f"{name}.npy", values[name])
        return str(folder / f"{name}.npy")
    cells = {
        "length": [*rng.normal(size=89), None],
        "price": rng.lognormal(size=90),
        "rooms": rng.poisson(2.0, 90),
        "old": rng.integers(0, 2, 90),
        "city": [("Rome", "Oslo", None, "Bonn")[i] for i in rng.integers(0, 4, 90)],
        "id": [f"n{i}" for i in range(90)],
    }
    path = folder / name
    if name.endswith(".parquet"):  # With a row group of 7 rows in the middle of what is read at once.
        pyarrow.parquet.write_table(pyarrow.table(cells), path, row_group_size=7)
    else:
        with open(path, "w", newline="") as file:
            csv.writer(file).writerows([list(cells), *zip(*cells.values(), strict=True)])
    return str(path)


def both(path, **settings):
    return [data.load(path, stream_above=above, **settings) for above in (ALWAYS, 1.0)]


def check_same_batches(streams, gathered):
    steps = gathered.steps_per_epoch(16)
    for first_epoch, first_step in ((0, 0), (1, 3)):
        batches = [
            list(source.training_batches(16, 5, first_epoch, first_step).take(2 * steps).as_numpy_iterator())
            for source in (streams, gathered)
        ]
        for ours, theirs in zip(*batches, strict=True):
            assert ours.dtype == np.float32
            np.testing.assert_array_equal(ours, theirs)


NAMES = ("intensity", "real", "holes", "byte", "count", "binary", "table.csv", "table.parquet")


@pytest.mark.parametrize("name", NAMES)
def test_a_streamed_set_is_the_same(name, tmp_path, small_blocks, monkeypatch):
    monkeypatch.setattr(tables, "batches", functools.partial(tables.batches, size=20))
    streams, gathered = both(saved(tmp_path, name))
    assert isinstance(streams.train, Rows) and isinstance(gathered.train, np.ndarray)
    assert streams.description.replace(", streamed", "") == gathered.description
    assert (streams.columns, streams.train.dtype) == (gathered.columns, gathered.train.dtype)
    np.testing.assert_array_equal(streams.train_mean, gathered.train_mean)
    for split in ("train", "validation", "test"):
        np.testing.assert_array_equal(streams.evaluation_array(split), gathered.evaluation_array(split))
    if name in ("intensity", "table.csv"):
        check_same_batches(streams, gathered)


def test_rows_by_blocks_are_those_of_numpy(small_blocks):
    values = np.random.default_rng(0).normal(5.0, 2.0, (90, 2, 3)).astype("float32")
    values[3, 1, 2] = values[80, 0, 0] = np.nan
    rows = Rows.of(values)
    assert rows.block == 16 and [len(block) for block in rows.blocks()] == [16, 16, 16, 16, 16, 10]
    np.testing.assert_array_equal(rows.missing(), np.isnan(values).sum(axis=0))
    np.testing.assert_array_equal(rows.sampled(), values[::2])
    np.testing.assert_array_equal(rows.take(slice(-5, None))[np.array([4, 0])], values[[89, 85]])
    whole = Rows.of(np.nan_to_num(values))
    for axis in ((0,), (0, 1)):
        expected = np.nan_to_num(values).astype(np.float64)
        np.testing.assert_allclose(whole.mean(axis), expected.mean(axis), 1e-12)
        np.testing.assert_allclose(whole.std(axis), expected.std(axis), 1e-12)


OF_KIND = {"binary": ("binary",), "intensity": ("intensity",), "byte": ("byte",), "count": ("count",)}
OF_KIND |= {"class": ("count",), "positive": ("intensity",), "real": ("real", "holes"), "table": ("table.parquet",)}


@pytest.mark.parametrize("name", likelihoods.names())
def test_heads_are_fitted_to_the_same(name, tmp_path, small_blocks, monkeypatch):
    """To the bit of gathered data, and close to what one block comes to where all of it is looked at."""
    monkeypatch.setattr(_rows, "_SAMPLE", 10**6)

    def guessed(head, x, weights, start, shared):  # The search itself takes seconds.
        return start + np.average(x, 0, np.broadcast_to(weights, x.shape)), shared

    monkeypatch.setattr(fitting, "maximized", guessed)
    for source in OF_KIND[likelihoods.get(name).kinds[0]]:
        streams, gathered = both(saved(tmp_path, source))
        head = likelihoods.get(name)
        head = dataclasses.replace(head, columns=streams.columns) if streams.columns else head
        ours, theirs = head.fitted(streams.training_values), head.fitted(gathered.training_values)
        monkeypatch.setattr(_rows, "_BLOCK", 10**6)
        whole = head.fitted(gathered.training_values)
        monkeypatch.setattr(_rows, "_BLOCK", 100)
        assert ours == theirs and ours.missing == whole.missing == (source in ("holes", "table.parquet"))
        for field in ("start", "shared_start"):
            received, same, close = (getattr(each, field) for each in (ours, theirs, whole))
            assert (received is None) == (close is None)
            if received is not None:
                np.testing.assert_array_equal(received, same)
                np.testing.assert_allclose(received, close, 1e-6, 1e-12)


def test_of_more_than_a_sample_order_statistics_are_those_of_a_sample(small_blocks):
    values = np.random.default_rng(0).normal(size=(400, 2))
    of_all, of_some = (likelihoods.get("laplace").fitted(rows) for rows in (values, values[::3]))
    np.testing.assert_array_equal(of_all.start, of_some.start)
    values[::2] = np.nan
    of_all, of_some = (likelihoods.get("normal").fitted(rows) for rows in (values, values[::3]))
    assert of_all == of_some and of_all.missing
    np.testing.assert_array_equal(of_all.start, of_some.start)


def shards(folder, counts, shape=(2, 3)):
    """The paths of TFRecord files of so many rows, and the rows."""
    values = np.random.default_rng(0).integers(0, 256, (sum(counts), *shape), np.uint8)
    paths = [folder / f"shard{i}.tfrecord" for i in range(len(counts))]
    left = iter(values)
    for path, count in zip(paths, counts, strict=True):
        with tf.io.TFRecordWriter(str(path)) as writer:
            for _ in range(count):
                writer.write(next(left).tobytes())
    return paths, values


def read(paths, counts, shape=(2, 3)):
    def decode(examples):
        return tf.reshape(tf.io.decode_raw(examples, tf.uint8, fixed_length=None), [-1, *shape])

    return records.rows(paths, counts, decode, shape, np.uint8, "the data set 'toy'")


def test_records_by_their_places(tmp_path):
    counts = [5, 0, 3]
    paths, values = shards(tmp_path, counts)
    rows = read(paths, counts)
    np.testing.assert_array_equal(rows[:], values)
    places = np.array([7, 0, 5, 4, 4])
    np.testing.assert_array_equal(rows[places], values[places])
    np.testing.assert_array_equal(rows.take(places)[1:3], values[[0, 5]])


def test_damaged_shards(tmp_path):
    counts = [4, 4]
    paths, _ = shards(tmp_path, counts)
    rows = read(paths, counts)
    whole = paths[1].read_bytes()
    with pytest.raises(OSError, match=r"shard1.*goes on after the last of 3 records, from byte 66 to 88"):
        read(paths, [4, 3])
    with pytest.raises(OSError, match="ends within record 4 of 5, at byte 88"):
        read(paths, [4, 5])
    for cut in (whole[:70], whole[:-1]):
        paths[1].write_bytes(cut)
        with pytest.raises(OSError, match="'toy' is damaged: it ends within record 3 of 4.*Prepare the data set again"):
            read(paths, counts)
    with pytest.raises(OSError, match="shard1.* changed while it is read: 88 bytes before and 87 now"):
        rows[np.array([6])]
    rows[np.array([3])]
    paths[1].unlink()
    with pytest.raises(OSError, match="shard1.*is gone while it is read"):
        rows[np.array([6])]
    # A bit that flipped: the record's own checksum.
    paths[1].write_bytes(whole[:15] + bytes([whole[15] ^ 1]) + whole[16:])
    rows = read(paths, counts)
    rows[np.array([5])]
    with pytest.raises(OSError, match="does not give record 0"):
        rows[np.array([5, 4])]


def test_files_that_cannot_be_streamed(tmp_path):
    path = saved(tmp_path, "real")
    whole = pathlib.Path(path).read_bytes()
    source = data.load(path, stream_above=ALWAYS)
    with open(path, "ab") as file:
        file.write(b"\0")
    with pytest.raises(OSError, match=r"real\.npy changed while it is read: 3008 bytes before and 3009 now"):
        source.train[:3]
    with open(path, "wb") as file:
        file.write(whole[:-100])
    with pytest.raises(ValueError, match=r"real\.npy cannot be read as a \.npy file of numbers"):
        data.load(path, stream_above=ALWAYS)
    np.save(path, np.asfortranarray(np.zeros((20, 3))))
    with pytest.raises(ValueError, match=r"keeps its columns together .*np\.ascontiguousarray"):
        data.load(path, stream_above=ALWAYS)
    with open(path, "wb") as file:
        np.savez(file, train=np.zeros((20, 3)))
    with pytest.raises(ValueError, match=r"real\.npy cannot be read .*: it is an archive of arrays: call it \.npz"):
        data.load(path, stream_above=ALWAYS)
    path = saved(tmp_path, "intensity")
    for settings in ({"missing": 0.5}, {"binarize": "fixed"}):
        with pytest.raises(ValueError, match="those of intensity are streamed. Leave it out, or raise --stream_above"):
            data.load(path, stream_above=ALWAYS, **settings)


def test_a_file_cut_off_under_its_reader(tmp_path, monkeypatch):
    """Between the look at its size and the reading."""
    path = saved(tmp_path, "real")
    source = data.load(path, stream_above=ALWAYS)
    monkeypatch.setattr(streamed.Unchanged, "check", lambda _: None)
    os.truncate(path, 1000)
    with pytest.raises(OSError, match="ends at byte 1000, before its last row: it was cut off"):
        source.train[:]


def test_of_tables_nothing_is_left(tmp_path, monkeypatch):
    path = saved(tmp_path, "table.csv")
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    source = data.load(path, stream_above=ALWAYS)
    assert len(source.train[:3]) == 3 and not list(folder.iterdir())
    monkeypatch.setattr(tables, "batches", functools.partial(tables.batches, size=20))
    whole = pathlib.Path(path).read_text()
    pathlib.Path(path).write_text(whole + "1,-1,1,1,Rome,n90\n")
    with pytest.raises(ValueError, match=r"Column 'price' \(positive\), row 90: received '-1'"):
        data.load(path, columns=source.columns, stream_above=ALWAYS)
    pathlib.Path(path).write_text(whole)
    with pytest.raises(ValueError, match="unknown are 'city'"):
        data.load(path, columns=[c for c in source.columns if c.name != "city"], stream_above=ALWAYS)
    with pytest.raises(ValueError, match="missing or repeated are 'gone'"):
        data.load(path, columns=[*source.columns, columns.Column("gone", "real")], stream_above=ALWAYS)
    append = streamed.Spool.append

    def changed(self, rows):
        os.utime(path, (0, 0))
        append(self, rows)

    monkeypatch.setattr(streamed.Spool, "append", changed)
    with pytest.raises(OSError, match=r"table\.csv changed while it is read"):
        data.load(path, stream_above=ALWAYS)
    monkeypatch.setattr(streamed.Spool, "append", append)

    def full(descriptor, room):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match=f"do not fit into the temporary folder {folder} after 0 .* Set TMPDIR"):
        data.load(path, stream_above=ALWAYS)
    assert not list(folder.iterdir())


def test_a_damaged_row_group(tmp_path):
    path = pathlib.Path(saved(tmp_path, "table.parquet"))
    whole = path.read_bytes()
    path.write_bytes(whole[:2000] + bytes(2000) + whole[4000:])
    for above in (ALWAYS, 1.0):
        with pytest.raises(ValueError, match=r"table\.parquet cannot be read as Parquet after row 0"):
            data.load(str(path), stream_above=above)


def test_columns_are_seen_in_parts_as_in_one():
    rng = np.random.default_rng(0)
    texts = np.array([*rng.choice(["a", "b", None], 40), *rng.choice(["c", "d"], 40)], object)
    numbers = np.array([*rng.integers(0, 2, 40), *rng.integers(0, 5, 40)], float)
    cases = [(texts, None), (numbers, None), (numbers - 1.0, None), (numbers + 0.5, None), (numbers * np.nan, None)]
    # Of which the last part alone would look like something else.
    cases += [(numbers[::-1], None), (np.where(np.arange(80) < 10, numbers + 0.5, numbers), None)]
    cases += [(numbers * 1e6, None), (numbers, "categorical"), (np.where(numbers > 3, np.inf, numbers), None)]
    cases += [(np.array([f"n{i}" for i in range(200)], object), kind) for kind in (None, "categorical")]
    for cells, kind in cases:
        in_parts = columns.Seen("x", kind)
        for first in range(0, len(cells), 30):
            in_parts.add(cells[first : first + 30])
        assert in_parts.column() == columns.seen("x", cells, kind)
    mixed = columns.Seen("x")
    mixed.add(np.array(["1", "2", "3"], object))
    mixed.add(np.array(["4", "five"], object))
    with pytest.raises(ValueError, match="text in 1 rows, the first at row 4: 'five'"):
        mixed.column()


def test_long_work_shows_how_far_it_is(tmp_path, small_blocks, monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    data.load(saved(tmp_path, "table.csv"), stream_above=ALWAYS)
    assert "90/" in capsys.readouterr().out
    paths, _ = shards(tmp_path, [5, 3])
    read(paths, [5, 3])
    assert "8/8" in capsys.readouterr().out
    rows = data.load(saved(tmp_path, "real"), stream_above=ALWAYS).train
    rows.map(np.square).mean()  # No long work yet.
    assert not capsys.readouterr().out
    monkeypatch.setattr(_rows, "_PATIENCE", 0.0)
    rows.map(np.square).mean()
    assert f"{len(rows)}/{len(rows)}" in capsys.readouterr().out
    for _ in zip(rows.blocks(), range(2), strict=False):  # The others nobody looks at.
        pass
    assert capsys.readouterr().out.endswith("\n")
    Rows.of(rows[:]).mean()
    assert not capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mnist", "binarized_mnist"])
def test_prepared_mnist(name):
    folder = os.environ.get("TFDS_DATA_DIR")
    if not folder:
        pytest.skip("MNIST is not prepared: its folder is named by TFDS_DATA_DIR.")
    streams, gathered = (data.load(name, folder, stream_above=above) for above in (ALWAYS, 1.0))
    assert streams.description.replace(", streamed", "") == gathered.description
    np.testing.assert_array_equal(streams.train[-500:], gathered.train[-500:])
    np.testing.assert_array_equal(streams.validation, gathered.validation)
    batches = [
        next(each.training_batches(100, seed=1, first_step=40).as_numpy_iterator()) for each in (streams, gathered)
    ]
    np.testing.assert_array_equal(*batches)
