"""Likelihood heads: one contract for every row of the table."""

import dataclasses
import json

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from iwae_zoo import data, evaluation, presets
from iwae_zoo.distributions import likelihoods

# Those whose values are all alike; `Columns`, which joins such, has tests of its own in holes_test.py.
EVERY = pytest.mark.parametrize("name", [name for name in likelihoods.names() if name != "columns"])


@EVERY
def test_contract(name, seed):
    head = likelihoods.get(name)
    assert head.name == name
    assert set(head.kinds) <= set(data.kinds.names())
    parameters = tf.random.stateless_normal([4, 5, head.parameters_per_value, 2, 3], seed=(seed, 0))
    distribution = head.distribution(parameters, event_ndims=2)
    assert distribution.batch_shape == (4, 5)
    assert distribution.event_shape == (2, 3)
    x = distribution.sample(seed=(seed, 1))
    log_prob = distribution.log_prob(x)
    assert log_prob.shape == (4, 5)
    assert np.isfinite(log_prob).all()
    # Values are independent: each counts by itself.
    alone = [
        head.distribution(parameters[..., i : i + 1, j : j + 1], 2).log_prob(x[..., i : i + 1, j : j + 1])
        for i in range(2)
        for j in range(3)
    ]
    np.testing.assert_allclose(log_prob, sum(alone), rtol=1e-5)


@pytest.mark.slow
@EVERY
def test_configuration_round_trip(name):
    for head in (
        likelihoods.get(name),
        likelihoods.get(name).fitted(np.array([[1, 2], [1, 1], [1, 1]]) - ("log" not in name)),
    ):
        config = json.loads(json.dumps(likelihoods.to_config(head)))
        assert likelihoods.from_config(config) == head
        # What a decoder starts from is not part of what it is.
        assert likelihoods.from_config(config).start is None


@pytest.mark.slow
@EVERY
def test_baseline_is_the_best_distribution_without_a_latent(name, seed):
    """No other parameters, the same for each example, give the data it was fitted to a higher likelihood."""
    head = likelihoods.get(name)
    rng = np.random.default_rng(seed)
    parameters = tf.constant(rng.normal(size=(head.parameters_per_value, 3)).astype("float32"))
    x = head.distribution(parameters, 1).sample(500, seed=(seed, 2)).numpy()
    fitted = head.fitted(x)
    assert fitted.start.shape == (fitted.parameters_per_value, 3)
    assert head.shared_parameters == 0 or fitted.shared_start.shape == (head.shared_parameters, 3)
    best = evaluation.baseline(fitted, x)
    for _ in range(20):
        moved = dataclasses.replace(fitted, start=fitted.start + 0.1 * rng.normal(size=fitted.start.shape))
        if head.shared_parameters:
            noise = 0.1 * rng.normal(size=fitted.shared_start.shape)
            moved = dataclasses.replace(moved, shared_start=fitted.shared_start + noise)
        assert evaluation.baseline(moved, x) < best


def test_freedom_starts_where_something_moves_it():
    """Two clusters have light tails, and given the cluster heavy ones; beyond the limit there is no gradient."""
    rng = np.random.default_rng(0)
    x = rng.choice([-5.0, 5.0], size=(2000, 1)) + rng.standard_t(3, size=(2000, 1))
    head = likelihoods.get("student_t").fitted(x.astype("float32"))
    shared = tf.constant(head.shared_start, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(shared)
        p = head.distribution(tf.constant(head.start, tf.float32), 1, shared=shared)
        log_prob = p.log_prob(x.astype("float32"))
    assert np.abs(tape.gradient(log_prob, shared)[-1]) > 0


def test_bernoulli_baseline_is_scipys():
    x = np.array([[0.0, 1.0], [1.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    head = likelihoods.Bernoulli().fitted(x)
    expected = scipy.stats.bernoulli.logpmf(x, [0.25, 0.999]).sum(axis=1).mean()
    assert evaluation.baseline(head, x) == pytest.approx(expected, rel=1e-12)


def test_errors():
    with pytest.raises(ValueError, match="Unknown likelihood: received 'bernouli'. Did you mean 'bernoulli'"):
        likelihoods.get("bernouli")
    with pytest.raises(ValueError, match="knows no data: use head.fitted"):
        likelihoods.Bernoulli().independent()
    with pytest.raises(ValueError, match="no likelihood for data of kind 'sound'"):
        likelihoods.default("sound")


def test_classes_that_the_training_data_lack():
    """A name that only other rows have is as likely as the smoothing says, and not impossible."""
    head = likelihoods.get("categorical,classes=10").fitted(np.array([[0], [3], [2]]))
    assert head.classes == 10
    rare = head.independent().log_prob(np.array([9.0], np.float32))
    np.testing.assert_allclose(rare, np.log(1e-3 / (3 + 10 * 1e-3)), rtol=1e-5)


def test_classes_of_every_split_are_there(tmp_path):
    """Whatever the training rows have; more than can be are identifiers."""
    parts = {"train": np.array([[0.0], [2.0]] * 5), "validation": np.array([[1.0]]), "test": np.array([[4.0]])}
    np.savez(tmp_path / "own.npz", **parts)
    dataset = data.load(str(tmp_path / "own.npz"), kind="class")
    head = presets.build("plane", data=dataset).decoder.head
    assert head.classes == 5
    counts = np.array([5, 0, 5, 0, 0]) + 1e-3
    received = head.independent().log_prob(np.arange(5, dtype=np.float32)[:, np.newaxis])
    np.testing.assert_allclose(received, np.log(counts / counts.sum()), rtol=1e-5)
    with pytest.raises(ValueError, match="numbered 0, 1, ...: received 1000000000, .* take them for counts"):
        likelihoods.get("categorical").fitted(np.array([[0], [10**9]]))


def test_bits_are_those_of_the_values_that_are_there():
    """Uniform bytes have eight each, whether or not others are missing."""
    x = np.zeros([4, 6], np.float32)
    x[1:, :2] = np.nan
    log_prob = -np.mean([6, 4, 4, 4]) * np.log(256.0)
    for name in ("discretized_logistic", "discretized_logistic_mixture"):
        assert likelihoods.get(name).measures(log_prob, x)["bits_per_dimension"] == pytest.approx(8.0)
    assert likelihoods.get("normal").measures(log_prob, x) == {}


@pytest.mark.parametrize(
    ("smoothing", "message"),
    [
        ("x", "smoothing of .*bernoulli must be a value of type float: received 'x'"),
        ("5", "smoothing must be below 1/2: received 5"),
        ("0", "smoothing must be a positive number: received 0"),
    ],
)
@pytest.mark.parametrize("name", ["bernoulli", "continuous_bernoulli"])
def test_smoothing_is_a_small_number(name, smoothing, message):
    with pytest.raises(ValueError, match=message):
        likelihoods.get(f"{name},smoothing={smoothing}")
