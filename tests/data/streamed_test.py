"""What is streamed comes to the same bits as what is gathered, and says why it cannot be read."""

import csv
import dataclasses
import os

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import tensorflow as tf

from iwae_zoo import _rows, columns, data
from iwae_zoo._rows import Rows
from iwae_zoo.data import records, streamed
from iwae_zoo.distributions import likelihoods

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
def test_a_streamed_set_is_the_same(name, tmp_path, small_blocks):
    streams, gathered = both(saved(tmp_path, name))
    assert isinstance(streams.train, Rows) and isinstance(gathered.train, np.ndarray)
    assert streams.description.replace(", streamed", "") == gathered.description
    assert (streams.columns, streams.train.dtype) == (gathered.columns, gathered.train.dtype)
    np.testing.assert_array_equal(streams.train_mean, gathered.train_mean)
    for split in ("train", "validation", "test"):
        np.testing.assert_array_equal(streams.evaluation_array(split), gathered.evaluation_array(split))
    check_same_batches(streams, gathered)
