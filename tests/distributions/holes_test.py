"""Missing values in each head: what is not observed counts for nothing."""

import contextlib
import dataclasses
import functools
import re

import numpy as np
import pytest
import tensorflow as tf

from iwae_zoo.columns import Column
from iwae_zoo.distributions import fusion, holes, likelihoods

ROWS, VALUES = 40, 6
_COLUMNS = tuple(
    Column(name, kind, tuple(names))
    for name, kind, names in (
        ("a", "real", ""),
        ("b", "positive", ""),
        ("c", "count", ""),
        ("d", "binary", "ny"),
        ("e", "categorical", "xyz"),
        ("f", "real", ""),
    )
)


def data_of(kind):
    rng = np.random.default_rng(0)
    draws = {
        "binary": lambda: rng.integers(0, 2, (ROWS, VALUES)),
        "intensity": lambda: rng.random((ROWS, VALUES)),
        "byte": lambda: rng.integers(0, 256, (ROWS, VALUES)),
        "real": lambda: rng.normal(size=(ROWS, VALUES)) * [1, 10, 100, 1, 0.1, 1],
        "positive": lambda: rng.lognormal(size=(ROWS, VALUES)),
        "class": lambda: rng.integers(0, 3, (ROWS, VALUES)),
        "count": lambda: rng.poisson(3, (ROWS, VALUES)),
    }
    draws["table"] = lambda: np.stack(
        [draws[kind]()[:, i] for i, kind in enumerate(("real", "positive", "count", "binary", "class", "real"))],
        axis=1,
    )
    return draws[kind]().astype(np.float32)


def head_and_data(name):
    head = likelihoods.get(name)
    if name == "columns":
        head = dataclasses.replace(head, columns=_COLUMNS)
    return head, data_of(head.kinds[0])


@functools.cache
def fitted(name):
    """A head fitted to all of its data, and these."""
    head, x = head_and_data(name)
    return head.fitted(x), x


@pytest.mark.usefixtures("optimized")
@pytest.mark.slow
@pytest.mark.parametrize("name", likelihoods.names())
def test_only_what_is_observed_counts(name):
    (head, _), (whole, x) = head_and_data(name), fitted(name)
    holed = dataclasses.replace(head, missing=True).fitted(x)
    rng = np.random.default_rng(1)
    raw = tf.constant(rng.normal(size=(3, ROWS, *whole.parameter_shape((VALUES,)))), tf.float32)
    shared = {}
    if whole.shared_parameters:
        shared["shared"] = tf.constant(rng.normal(size=whole.shared_shape((VALUES,))), tf.float32)

    # Compiled is what training runs; compiling every head takes minutes.
    compiled = name in ("bernoulli", "normal", "columns")

    def ask(head, x):
        with contextlib.nullcontext() if compiled else fusion.portable(), tf.GradientTape() as tape:
            tape.watch(raw)
            log_prob = head.distribution(raw, 1, **shared).log_prob(x)
        return log_prob.numpy(), tape.gradient(log_prob, raw).numpy()

    # All there: to the bit what it is without holes.
    everything, by_raw = ask(holed, x)
    for received, expected in zip((everything, by_raw), ask(whole, x), strict=True):
        np.testing.assert_array_equal(received, expected)
    # Values are independent: a part and the rest make the whole, and so do their gradients.
    there = rng.random(x.shape) < 0.5
    parts = [ask(holed, np.where(mask, x, np.nan)) for mask in (there, ~there)]
    np.testing.assert_allclose(parts[0][0] + parts[1][0], everything, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(parts[0][1] + parts[1][1], by_raw, rtol=1e-5, atol=1e-6)
    if name != "columns":  # There, parameters are not side by side with the values.
        gone = np.broadcast_to(there[np.newaxis, :, np.newaxis], by_raw.shape)
        assert not parts[1][1][gone].any() and parts[0][1][gone].any()
    nothing, by_nothing = ask(holed, np.full_like(x, np.nan))
    np.testing.assert_allclose(nothing, np.zeros(nothing.shape), atol=1e-12)
    assert not by_nothing.any()
    # Elsewhere outside the support is outside, missing or not; a head without holes takes no NaN.
    outside = np.where(there, np.nan, x)
    outside[:, 0] = np.inf
    assert np.isneginf(ask(holed, outside)[0]).all()
    assert np.isneginf(ask(whole, np.where(there, np.nan, x))[0][:, ~there.all(axis=1) & there.any(axis=1)]).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", likelihoods.names())
def test_a_fit_to_data_with_holes_is_that_to_what_is_there(name):
    (head, _), (whole, x) = head_and_data(name), fitted(name)
    twice = np.concatenate([x, np.full_like(x, np.nan)])  # As many again, of which nothing is known.
    holed = head.fitted(twice)
    assert holed.missing and not whole.missing
    expected = whole.independent().log_prob(x).numpy().mean()
    assert holed.independent().log_prob(x).numpy().mean() == pytest.approx(expected, abs=0.02 * VALUES)
    assert likelihoods.from_config(likelihoods.to_config(holed)) == holed
    assert np.isfinite(holed.independent().log_prob(twice[:1])).all()
    blank = head.fitted(np.full_like(x, np.nan))  # Of these columns nothing is known at all.
    assert np.isfinite(blank.independent().log_prob(np.ones_like(x))).all()


def test_completion():
    x = np.array([[1.0, np.nan], [np.nan, np.nan], [3.0, np.nan], [np.nan, np.nan]], np.float32)
    full = holes.completed(x)
    assert sorted(full[:, 0]) == [1.0, 1.0, 3.0, 3.0]
    assert (full[:, 1] == 2.0).all()  # Never observed: the median of everything.
    np.testing.assert_array_equal(full[~np.isnan(x)], x[~np.isnan(x)])


@pytest.mark.slow
def test_columns_are_independent_heads():
    """The sum of each column's own, drawn and averaged in the order of x; probabilities of names sum to one."""
    head, x = fitted("columns")
    rng = np.random.default_rng(2)
    raw = tf.constant(rng.normal(size=(ROWS, *head.parameter_shape((VALUES,)))), tf.float32)
    shared = tf.constant(rng.normal(size=head.shared_shape((VALUES,))), tf.float32)
    p = head.distribution(raw, 1, shared=shared)
    start, total, means = 0, np.zeros(ROWS), np.zeros(x.shape)
    of_shared = iter(tf.split(shared, [int(np.prod(group.shared_shape)) for group in head.groups]))
    for group in head.groups:
        size = int(np.prod(group.parameter_shape))
        own = tf.reshape(raw[:, start : start + size], [ROWS, *group.parameter_shape])
        own_shared = tf.reshape(next(of_shared), group.shared_shape)
        kwargs = {"shared": own_shared} if group.head.shared_parameters else {}
        part = group.head.distribution(own, 1, **kwargs)
        total += part.log_prob(x[:, list(group.places)]).numpy()
        means[:, list(group.places)] = part.mean().numpy()
        start += size
    assert [group.places for group in head.groups] == [(0, 5), (1,), (2,), (3,), (4,)]
    np.testing.assert_allclose(p.log_prob(x), total, rtol=1e-5)
    np.testing.assert_allclose(p.mean(), means, rtol=1e-6)
    probabilities = p.class_probabilities().numpy()
    np.testing.assert_allclose(probabilities.sum(axis=-1), np.tile([0.0, 0, 0, 1, 1, 0], (ROWS, 1)), atol=1e-6)
    drawn = p.sample(4000, seed=(1, 2)).numpy()
    error = np.abs(drawn.mean(axis=0) - means) / (p.stddev().numpy() / np.sqrt(4000))
    assert np.isfinite(p.log_prob(drawn)).all() and np.mean(error > 3.5) < 0.02


def test_columns_say_what_is_wrong():
    head = dataclasses.replace(likelihoods.get("columns"), columns=_COLUMNS)
    with pytest.raises(ValueError, match="received 6 for 5 in the data"):
        head.fitted(np.zeros([3, 5]))
    with pytest.raises(ValueError, match="knows no table"):
        head.parameter_shape((6,))
    with pytest.raises(ValueError, match="'poisson' is for data of kind count: received data of kind real"):
        likelihoods.get("columns,real=poisson")
    with pytest.raises(ValueError, match="use 'columns,real=student_t'"):
        likelihoods.checked(likelihoods.get("student_t"), "table")
    for name in set(likelihoods.names()) - {"columns"}:
        with pytest.raises(ValueError, match="received data of kind table") as raised:
            likelihoods.checked(likelihoods.get(name), "table")
        advised = re.findall("use '(.*)'", str(raised.value))
        assert bool(advised) == (likelihoods.get(name).kinds[0] not in ("intensity", "byte"))
        for text in advised:
            assert name in dataclasses.asdict(likelihoods.get(text)).values()
    assert likelihoods.get("columns,real=normal:spread=column")._head("real").spread == "column"
