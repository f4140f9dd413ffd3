"""The jackknife, exactly: with weights of two values its expectation is a sum over how many are the larger."""

import numpy as np
import pytest
import scipy.stats

from iwae_zoo import bounds, objectives
from iwae_zoo.testing import Enumerable


def expectations(bound, low, n, probability=0.3):
    """Of a bound over n log weights, each 0 or, with the given probability, `low`; and the log of the mean weight."""
    counts = np.arange(n + 1)
    log_weights = np.where(np.arange(n)[:, np.newaxis] < counts, low, 0.0)[np.newaxis]  # [1, n, n + 1]
    chances = scipy.stats.binom.pmf(counts, n, probability)
    return chances @ bound.value(log_weights).numpy(), np.log1p(probability * np.expm1(low))


def test_bias_falls_with_the_square_of_the_number_of_particles():
    counts = np.array([32, 64, 128, 256])
    for bound, order in ((bounds.ImportanceWeighted(), 1), (bounds.Jackknife(), 2)):
        biases = [np.subtract(*expectations(bound, -2.0, n)) for n in counts]
        slope, _ = np.polyfit(np.log(counts), np.log(np.abs(biases)), 1)
        assert slope == pytest.approx(-order, abs=0.05)


def test_it_is_no_bound():
    """It exceeds log p(x) in expectation, the more the worse the proposal; L_N, which is reported, never does."""
    excess = []
    for low in (-50.0, -100.0, -200.0):
        value, truth = expectations(bounds.Jackknife(), low, 2)
        excess.append(value - truth)
    assert 0 < excess[0] < excess[1] < excess[2]
    x = np.random.default_rng(0).normal(size=(4, 3, 2))
    for groups in (1, 4):
        bound, iwae = bounds.Jackknife(groups), bounds.ImportanceWeighted(groups)
        np.testing.assert_allclose(bound.reported(x), iwae.value(x), rtol=1e-12)
        np.testing.assert_array_equal(bound.companion_value(x), bound.value(x))


def test_a_posterior_that_is_too_wide_raises_it_without_end():
    """Two particles of N(0, s^2) for the posterior N(0, 1), by quadrature."""
    e = np.linspace(-6, 6, 1201)
    density = scipy.stats.norm.pdf(e) * (e[1] - e[0])
    values = []
    for s in (3.0, 10.0, 30.0):
        log_w = scipy.stats.norm.logpdf(s * e) - scipy.stats.norm.logpdf(s * e, scale=s)
        pairs = np.stack(np.meshgrid(log_w, log_w)).reshape(1, 2, -1)
        values.append(bounds.Jackknife().value(pairs).numpy() @ np.outer(density, density).ravel())
    assert values[2] > values[1] > values[0]
    assert values[2] > 100  # log p(x) is 0.


def test_what_may_follow_it():
    wake = objectives.get("iwae", m=2, k=3, encoder_bound="jackknife", estimator="wake")
    assert wake.encoder_bound == bounds.Jackknife()
    for estimator in ("reparameterized", "doubly_reparameterized", "sticking_the_landing"):
        with pytest.raises(ValueError, match="no lower bound on log p.x.: a worse posterior can raise it without end"):
            objectives.get("iwae", m=2, k=3, encoder_bound="jackknife", estimator=estimator)
    with pytest.raises(ValueError, match="needs at least two"):
        objectives.get("jvi", m=1, k=1)


def test_bias_of_the_wake_update_by_its_weights_falls_with_the_square():
    """Expectations by enumeration of all particles, and of d log q under the posterior."""
    truth = Enumerable(scale=0.3)
    x = truth.data[5:6]
    exact = truth.posterior(x)[:, 0] @ truth.log_q(x)[1][:, 0]
    for bound, order in (("iwae", 1), ("jackknife", 2)):
        biases = []
        for k in (16, 32):
            objective = objectives.get("rws", m=1, k=k, encoder_bound=bound)
            probability, encoder, _ = truth.gradients(objective, x, exchangeable=True)
            biases.append(np.linalg.norm(probability @ encoder - exact))
        assert np.log2(biases[0] / biases[1]) == pytest.approx(order, abs=0.1)


def test_impossible_particles():
    x = np.full((1, 3, 3), -np.inf)
    x[0, :2, 1] = x[0, 0, 2] = 0.0
    value = bounds.Jackknife().value(x).numpy()
    np.testing.assert_allclose(value[:2], [-np.inf, 3 * np.log(2 / 3) - 2 / 3 * (0 + 2 * np.log(0.5))])
    assert value[2] == np.inf
