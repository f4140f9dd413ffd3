"""Draws of a model against the closed form."""

import numpy as np
import pytest

from iwae_zoo import sampling

COUNT = 20_000


def test_draws_are_those_of_the_closed_form(linear_gaussian, seed):
    """Moments of z, of x, and of x about its mean given z, within five standard errors."""
    drawn = sampling.sample(linear_gaussian.model("iwae"), COUNT, seed)
    expected = drawn.z @ linear_gaussian.weight.T + linear_gaussian.bias
    np.testing.assert_allclose(drawn.mean, expected, rtol=1e-5, atol=1e-5)
    for values, mean, covariance in (
        (drawn.z, 0.0, np.eye(2)),
        (drawn.x, linear_gaussian.bias, linear_gaussian.covariance),
        (drawn.x - drawn.mean, 0.0, linear_gaussian.stddev**2 * np.eye(3)),
    ):
        variance = np.diag(covariance)
        assert (np.abs(values.mean(axis=0) - mean) < 5 * np.sqrt(variance / COUNT)).all()
        error = np.sqrt((np.outer(variance, variance) + covariance**2) / COUNT)
        assert (np.abs(np.cov(values.T) - covariance) < 5 * error).all()


def test_a_seed_has_its_draws(linear_gaussian):
    model = linear_gaussian.model("iwae")
    first, again, other = (sampling.sample(model, 3, seed) for seed in (1, 1, 2))
    for ours, same, another in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(ours, same)
        assert not np.array_equal(ours, another)
    for arguments, message in (
        ((0,), "count must be an integer of at least 1: received 0"),
        ((3, -1), "seed must be an integer of at least 0: received -1"),
    ):
        with pytest.raises(ValueError, match=message):
            sampling.sample(model, *arguments)
