"""What is lost of tables: as much as was asked for, and by nothing but what the mechanism names."""

import numpy as np
import pytest
import sklearn.datasets

from studies import holes


@pytest.fixture
def x(seed):
    """A table whose columns say nothing of each other."""
    return np.random.default_rng(seed).normal(size=(4000, 5)).astype(np.float32)


def test_entries_of_the_notebook():
    x = sklearn.datasets.load_breast_cancer().data
    x = (x - np.mean(x, 0)) / np.std(x, 0)
    np.random.seed(1234)
    n, p = x.shape
    flat = x.flatten()
    flat[np.random.choice(n * p, np.floor(n * p * 0.5).astype(int), replace=False)] = np.nan
    holed = flat.reshape([n, p])
    missing = holes.remove(holes.load("breast_cancer"), "mcar", 0.5)
    assert (np.isnan(holed) == missing).all()
    error = np.mean((np.nanmean(holed, axis=0) - x)[missing] ** 2)
    assert error == pytest.approx(1.028, abs=5e-4)


@pytest.mark.parametrize("rate", [0.1, 0.7])
@pytest.mark.parametrize("mechanism", holes.MECHANISMS)
def test_rate(mechanism, rate, x):
    missing = holes.remove(x, mechanism, rate)
    assert missing.shape == x.shape
    lost = missing[:, 1:] if mechanism == "mar" else missing
    assert abs(lost.mean() - rate) < 4 * np.sqrt(rate * (1 - rate) / lost.size)


def test_completely_at_random_never_looks_at_values(x):
    missing = holes.remove(x, "mcar", 0.3)
    assert (missing == holes.remove(-x, "mcar", 0.3)).all()
    assert missing.sum() == int(x.size * 0.3)


def test_at_random_looks_at_the_first_column_alone(x):
    missing = holes.remove(x, "mar", 0.3)
    assert not missing[:, 0].any()
    others = x.copy()
    others[:, 1:] *= -3.0
    assert (missing == holes.remove(others, "mar", 0.3)).all()
    high = x[:, 0] > 0
    assert missing[high, 1:].mean() > 3 * missing[~high, 1:].mean()


def test_by_own_value_looks_at_no_other_column(x):
    missing = holes.remove(x, "mnar", 0.3)
    others = x.copy()
    others[:, [0, 1, 3, 4]] *= -3.0
    assert (missing[:, 2] == holes.remove(others, "mnar", 0.3)[:, 2]).all()
    assert missing[x > 0].mean() > 3 * missing[x < 0].mean()


def test_units_and_pixels_in_use():
    for name in holes.TABLES:
        x = holes.load(name)
        assert x.mean(axis=0) == pytest.approx(0, abs=1e-5) and x.std(axis=0) == pytest.approx(1, abs=1e-4)
    assert 40 < x.shape[1] < 64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("mcra", 0.5), "Did you mean 'mcar'?"), (("mcar", 1.0), "must be between 0 and 1: received 1.0")],
)
def test_errors(arguments, message, x):
    with pytest.raises(ValueError, match=message):
        holes.remove(x, *arguments)
