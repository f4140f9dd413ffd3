"""What a trained model is asked, of one with two stochastic layers: against the closed forms."""

import numpy as np
import pytest

from iwae_zoo import annealing, diagnostics, likelihood, paths, resampling
from iwae_zoo.testing import StackedLinearGaussian


@pytest.fixture(scope="module")
def truth():
    return StackedLinearGaussian.random(latent_sizes=(2, 1), data_size=3, stddevs=(1.5, 1.0), seed=1)


@pytest.fixture(scope="module")
def model(truth):
    return truth.model(mismatch=0.2)


def z_score(samples, expected):
    return (np.mean(samples) - expected) / (np.std(samples, ddof=1) / np.sqrt(len(samples)))


def test_importance_sampling(truth, model):
    x = truth.sample(5)
    estimate = likelihood.estimate_log_prob(model, x, 20_000)
    assert (np.abs(estimate.log_prob - truth.log_prob(x)) < 5 * estimate.standard_error).all()
    assert estimate.standard_error.max() < 0.02


@pytest.mark.slow
def test_annealing_is_unbiased_and_bounded_from_both_sides(truth, model, seed, monkeypatch):
    monkeypatch.setattr(paths, "_LEAST_PILOT", 2)  # Bounds are bounds with any step size.
    sandwich = annealing.sandwich(model, 500, 5, 8, 1, seed=seed, verbose=0)
    exact = truth.log_prob(sandwich.x)
    assert abs(z_score(np.exp(sandwich.lower - exact), 1)) < 4
    assert abs(z_score(np.exp(exact - sandwich.upper), 1)) < 4
    assert z_score(sandwich.lower - exact, 0) < 4
    assert z_score(sandwich.upper - exact, 0) > -4
    assert abs(sandwich.gap.mean()) < 0.03


def test_resampled_draws_are_the_posteriors(truth, model, seed):
    x = truth.sample(1)
    z, _ = resampling.sample_posterior(model, x, num_samples=1000, num_particles=200, seed=seed)
    exact = truth.model(dtype="float64").encoder.posterior(np.repeat(x, 50_000, axis=0)).sample(seed=(seed, 1))
    error = np.std(exact, axis=0) / np.sqrt(1000)
    assert (np.abs(z[:, 0].mean(axis=0) - np.mean(exact, axis=0)) < 5 * error + 0.01).all()


@pytest.mark.slow
def test_latent_use_by_layer(truth, seed):
    x = truth.sample(150, seed=seed)
    model = truth.model(dtype="float64")
    use = diagnostics.latent_use(model, x, seed=seed)
    assert use.active_by_layer == (2, 1)
    assert use.active_units == 3
    assert use.kl_by_dimension is None
    # The posterior means are linear in x.
    (weight, *_), (above, *_) = truth.encoder_parameters()
    spread = weight @ np.cov(x.T, bias=True) @ weight.T
    np.testing.assert_allclose(use.mean_variance[:2], np.diag(spread), rtol=1e-6)
    # Of z_2 they are means of draws, which for TFP's own distributions are other draws in each row.
    np.testing.assert_allclose(use.mean_variance[2:], np.diag(above @ spread @ above.T), atol=0.02)
    assert use.mutual_information + use.aggregate_kl == pytest.approx(use.kl, abs=0.05)
    # An encoder of z_2 that does not look at z_1.
    model.encoder.conditionals[0].weight.assign(np.zeros_like(above))
    assert diagnostics.latent_use(model, x, seed=seed).active_by_layer == (2, 0)
    assert diagnostics.summarize(model, x[:20], 10, num_samples=20)["active_units_2"] == 0


def test_z_2_does_not_matter_to_x(model):
    z = np.random.default_rng(0).normal(size=(2, 3)).astype("float32")
    z[1, :2] = z[0, :2]
    np.testing.assert_array_equal(*model.decoder.likelihood(z).mean())
