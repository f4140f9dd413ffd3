"""Likelihood heads: one contract for every row of the table."""

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from iwae_zoo import data, evaluation
from iwae_zoo.distributions import likelihoods

EVERY = pytest.mark.parametrize("name", likelihoods.names())


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


@EVERY
def test_configuration_round_trip(name):
    head = likelihoods.get(name)
    assert likelihoods.from_config(likelihoods.to_config(head)) == head
    # What a decoder starts from is not part of what it is.
    assert likelihoods.from_config(likelihoods.to_config(head.fitted(np.ones((2, 3))))) == head


@EVERY
def test_baseline_is_the_best_distribution_without_a_latent(name, seed):
    """No other shared parameters give the data it was fitted to a higher likelihood."""
    head = likelihoods.get(name)
    x = head.distribution(tf.zeros([head.parameters_per_value, 3]), 1).sample(200, seed=(seed, 2)).numpy()
    fitted = head.fitted(x)
    assert fitted.start.shape == (head.parameters_per_value, 3)
    best = evaluation.baseline(fitted, x)
    for shift in np.random.default_rng(seed).normal(size=(20, *fitted.start.shape)) * 0.1:
        independent = head.distribution(tf.constant(fitted.start + shift), 1)
        assert np.mean(independent.log_prob(x.astype("float64"))) < best


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
