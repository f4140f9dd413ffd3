import itertools

import keras
import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf
import tensorflow_probability as tfp

import iwae_zoo
from iwae_zoo import annealing, presets
from iwae_zoo.testing import LinearGaussian, linear_gaussian

tfd = tfp.distributions
SHORT = {"num_temperatures": 4, "num_chains": 4, "num_leapfrog_steps": 3, "verbose": 0}


@pytest.fixture(scope="module")
def truth():
    """Noisy enough that the weights of few temperatures have a finite variance in either direction."""
    return LinearGaussian.random(latent_size=2, data_size=3, stddev=1.5, seed=1)


@pytest.fixture(scope="module")
def model(truth):
    return truth.model(mismatch=0.2)


def z_score(samples, expected):
    return (np.mean(samples) - expected) / (np.std(samples, ddof=1) / np.sqrt(len(samples)))


class Line:
    """z ~ N(0, 1), x | z ~ N(z, s^2), whose path from the prior consists of Gaussians; plain numpy."""

    def __init__(self, stddev, x):
        self.variance, self.x = stddev**2, x
        self.exact = LinearGaussian(np.ones((1, 1)), np.zeros(1), stddev)

    def moments(self, beta):
        """Mean and variance of z under f_beta."""
        precision = 1 + beta / self.variance
        return beta * self.x / self.variance / precision, 1 / precision

    def mean_log_likelihood(self, beta):
        mean, variance = self.moments(beta)
        return -0.5 * ((self.x - mean) ** 2 + variance) / self.variance - 0.5 * np.log(2 * np.pi * self.variance)


@pytest.mark.parametrize("count", [2, 3, 10, 1000])
def test_schedule_is_a_sigmoid_from_0_to_1(count):
    betas = annealing.schedule(count)
    assert betas.shape == (count,)
    assert betas.dtype == np.float64
    assert betas[0] == 0
    assert betas[-1] == 1
    assert (np.diff(betas) > 0).all()
    t = np.linspace(-4, 4, count)
    np.testing.assert_allclose(betas, (np.tanh(t / 2) / np.tanh(2) + 1) / 2, atol=1e-14)


@pytest.mark.parametrize("beta", [0.2, 1.0])
def test_a_transition_keeps_its_density_and_leaves_its_state(beta, seed):
    line = Line(stddev=0.5, x=1.0)
    model = line.exact.model()
    path = annealing._Path(model.decoder, model.prior, model.prior.distribution(), np.float32([[line.x]]), 3)
    mean, variance = line.moments(beta)
    z = first = (mean + np.sqrt(variance) * np.random.default_rng(seed).normal(size=(20000, 1, 1))).astype("float32")
    for step in range(5):
        z, acceptance = path.move(z, beta, tf.constant([0.8], tf.float64), seed=(step, seed))
    assert 0.3 < np.mean(acceptance) < 0.99
    assert np.corrcoef(np.ravel(first), np.ravel(z))[0, 1] < 0.5
    standardized = np.ravel((z - mean) / np.sqrt(variance))
    assert scipy.stats.kstest(standardized, "norm").pvalue > 1e-5


@pytest.mark.parametrize("num_temperatures", [2, 4, 7])
def test_perfect_transitions_give_the_closed_form(num_temperatures, seed, monkeypatch):
    """With exact draws in place of HMC the mean log weight of either direction is a sum of Gaussian expectations."""
    line = Line(stddev=0.7, x=1.5)

    def exact_draw(path, z, beta, step_size, seed):
        mean, variance = line.moments(beta)
        noise = tf.random.stateless_normal(tf.shape(z), seed, dtype=tf.float64)
        z = tf.cast(mean + tf.sqrt(variance) * noise, z.dtype)
        return z, tf.ones(tf.shape(z)[:2], tf.float64)

    monkeypatch.setattr(annealing._Path, "move", exact_draw)
    x = np.full((2000, 1), line.x, "float32")
    mean, variance = line.moments(1.0)
    posterior_sample = np.random.default_rng(seed).normal(mean, np.sqrt(variance), size=x.shape).astype("float32")
    settings = annealing._Settings(num_chains=1, num_leapfrog_steps=1, initial="prior")
    betas = annealing.schedule(num_temperatures)
    forward, reverse = annealing._run(line.exact.model(), settings, betas, seed, 0, x, posterior_sample)
    lower = sum((b - a) * line.mean_log_likelihood(a) for a, b in itertools.pairwise(betas))
    upper = sum((b - a) * line.mean_log_likelihood(b) for a, b in itertools.pairwise(betas))
    assert abs(z_score(forward.log_prob, lower)) < 4
    assert abs(z_score(-reverse.log_prob, upper)) < 4
    assert lower < line.exact.log_prob(x[:1])[0] < upper


@pytest.mark.parametrize(("initial", "num_temperatures"), [("prior", 2), ("prior", 8), ("encoder", 8)])
def test_mean_weight_is_unbiased(initial, num_temperatures, truth, model, seed):
    x = truth.sample(500, seed=seed).astype("float32")
    estimate = annealing.estimate_log_prob(model, x, num_temperatures, 2, 3, seed=seed, initial=initial, verbose=0)
    error = estimate.log_prob - truth.log_prob(x)
    assert abs(z_score(np.exp(error), 1)) < 4
    assert error.mean() < 4 * error.std() / np.sqrt(len(x))
    if num_temperatures == 2:
        assert np.isnan(estimate.acceptance_rate).all()
    else:
        assert estimate.acceptance_rate.mean() == pytest.approx(0.65, abs=0.1)


@pytest.mark.parametrize("initial", ["prior", "encoder"])
def test_sandwich_brackets_the_truth_and_closes(initial, truth, model, seed):
    gaps = []
    for num_temperatures, count in ((3, 500), (60, 200)):
        result = annealing.sandwich(model, count, num_temperatures, 2, 3, seed=seed, initial=initial, verbose=0)
        log_prob = truth.log_prob(result.x)
        assert abs(z_score(np.exp(result.lower - log_prob), 1)) < 4
        assert abs(z_score(np.exp(log_prob - result.upper), 1)) < 4
        assert z_score(result.lower - log_prob, 0) < 4
        assert z_score(result.upper - log_prob, 0) > -4
        np.testing.assert_array_equal(result.gap, result.upper - result.lower)
        gaps.append(result.gap)
    assert gaps[1].mean() < gaps[0].mean() / 2
    assert gaps[1].std() < gaps[0].std() / 2


def test_simulated_examples_come_from_the_model(truth, model, seed):
    x = annealing.sandwich(model, 500, 3, 2, 3, seed=seed, verbose=0).x
    whitened = np.linalg.solve(np.linalg.cholesky(truth.covariance), (x - truth.bias).T)
    assert scipy.stats.kstest(whitened.ravel(), "norm").pvalue > 1e-5
    assert abs(np.corrcoef(whitened) - np.eye(3)).max() < 5 / np.sqrt(500)


def test_more_temperatures_shrink_the_error(seed):
    truth = LinearGaussian.random(latent_size=5, data_size=8, stddev=0.5, seed=2)
    model = truth.model()
    x = truth.sample(30, seed=seed).astype("float32")
    rms, stated, ess = [], [], []
    for num_temperatures in (10, 200):
        estimate = annealing.estimate_log_prob(model, x, num_temperatures, 16, 5, seed=seed, verbose=0)
        error = estimate.log_prob - truth.log_prob(x)
        rms.append(np.sqrt(np.mean(error**2)))
        stated.append(np.sqrt(np.mean(estimate.standard_error**2)))
        ess.append(np.mean(estimate.ess))
    assert rms[1] < rms[0] / 3
    assert rms[1] == pytest.approx(stated[1], rel=0.7)
    assert (abs(error) < 8 * estimate.standard_error).all()
    assert ess[0] < 4 < 6 < ess[1] < 16
    # Also at the narrow end of the path.
    assert estimate.acceptance_rate.mean() == pytest.approx(0.65, abs=0.1)


def test_error_and_ess_are_numpys(seed):
    log_weights = np.random.default_rng(seed).normal([0, 1000, -1000], size=(6, 3))
    estimate = annealing._summarize(tf.constant(log_weights), tf.fill([6, 3], tf.constant(0.5, tf.float64)))
    w = np.exp(log_weights - log_weights.max(axis=0))
    np.testing.assert_allclose(estimate.log_prob, scipy.special.logsumexp(log_weights, axis=0) - np.log(6))
    np.testing.assert_allclose(estimate.standard_error, w.std(axis=0, ddof=1) / np.sqrt(6) / w.mean(axis=0))
    np.testing.assert_allclose(estimate.ess, w.sum(axis=0) ** 2 / (w**2).sum(axis=0))
    np.testing.assert_allclose(estimate.acceptance_rate, 0.5)


def test_one_chain_knows_no_error(truth, model):
    estimate = annealing.estimate_log_prob(model, truth.sample(2), **{**SHORT, "num_chains": 1})
    assert (estimate.standard_error == np.inf).all()
    np.testing.assert_allclose(estimate.ess, 1)


def test_bernoulli_pixels_against_quadrature(seed):
    """No Gaussian anywhere but the prior: the truth is an integral over the latent line."""
    decoder = iwae_zoo.networks.MLPDecoder((4, 2, 1), hidden_sizes=(8,), seed=3)
    encoder = iwae_zoo.networks.MLPEncoder(1, hidden_sizes=(8,))
    prior = iwae_zoo.networks.StandardNormalPrior(1)
    model = iwae_zoo.ImportanceWeightedAutoencoder(encoder, decoder, prior)
    model.build((None, 4, 2, 1))
    for variable in decoder.trainable_variables:
        variable.assign(4 * variable)
    x = (np.random.default_rng(seed).random((20, 4, 2, 1)) < 0.5).astype("float32")
    grid = np.linspace(-8, 8, 4001)
    log_joint = decoder.likelihood(grid[:, None, None].astype("float32")).log_prob(x).numpy()  # [grid, 20]
    log_prob = scipy.special.logsumexp(log_joint + scipy.stats.norm.logpdf(grid)[:, None], axis=0)
    log_prob += np.log(grid[1] - grid[0])
    estimate = annealing.estimate_log_prob(model, x, 30, 50, 3, seed=seed, verbose=0)
    assert (abs(estimate.log_prob - log_prob) < 5 * estimate.standard_error + 1e-4).all()
    assert estimate.standard_error.max() < 0.5


def test_any_prior_on_the_real_line(seed):
    """A mixture, far from standard: the step size has to find its scale."""

    class MixturePrior(keras.Layer):
        def distribution(self):
            mixture = tfd.MixtureSameFamily(
                tfd.Categorical(probs=[[0.3, 0.7]]), tfd.Normal([[-5.0, 10.0]], [[3.0, 1.0]])
            )
            return tfd.Independent(mixture, reinterpreted_batch_ndims=1)

    decoder = linear_gaussian.LinearGaussianDecoder(np.ones((1, 1)), np.zeros(1), 2.0)
    encoder = linear_gaussian.LinearGaussianEncoder(np.ones((1, 1)), np.zeros(1), 2 * np.ones((1, 1)))
    model = iwae_zoo.ImportanceWeightedAutoencoder(encoder, decoder, MixturePrior())
    x = np.linspace(-12, 12, 20, dtype="float32")[:, None]
    parts = [np.log(p) + scipy.stats.norm.logpdf(x, m, np.hypot(s, 2)) for p, m, s in ((0.3, -5, 3), (0.7, 10, 1))]
    log_prob = np.logaddexp(*parts)[:, 0]
    estimate = annealing.estimate_log_prob(model, x, 20, 25, 3, seed=seed, verbose=0)
    assert (abs(estimate.log_prob - log_prob) < 5 * estimate.standard_error).all()
    assert estimate.acceptance_rate.mean() == pytest.approx(0.65, abs=0.1)


def test_float64_model(truth):
    x = truth.sample(20)
    estimate = annealing.estimate_log_prob(truth.model(dtype="float64"), x, 20, 16, 3, verbose=0)
    assert (abs(estimate.log_prob - truth.log_prob(x)) < 5 * estimate.standard_error).all()


def test_the_seed_decides(truth, model, monkeypatch):
    x = np.repeat(truth.sample(1), 6, axis=0)
    monkeypatch.setattr(annealing, "_CHAINS_AT_ONCE", 12)
    first, again = (annealing.estimate_log_prob(model, x, seed=3, **SHORT) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    other = annealing.estimate_log_prob(model, x, seed=4, **SHORT)
    # Six copies of one example, in two batches: no two share their noise.
    assert len({*first.log_prob, *other.log_prob}) == 12
    first, again = (annealing.sandwich(model, 5, seed=3, **SHORT) for _ in range(2))
    for ours, theirs in zip(first, again, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert len(first.x) == len(first.gap) == 5
    assert (annealing.sandwich(model, 3, seed=4, **SHORT).x != first.x[:3]).all()


def test_the_models_present_weights_count(truth):
    model = truth.model()
    x = truth.sample(2)
    before = annealing.estimate_log_prob(model, x, **SHORT)
    model.decoder.bias.assign_add([5.0] * 3)
    assert (annealing.estimate_log_prob(model, x, **SHORT).log_prob < before.log_prob).all()
    model.decoder.bias.assign([np.nan] * 3)
    with pytest.raises(ValueError, match="The chains' log weights are NaN"):
        annealing.estimate_log_prob(model, x, **SHORT)


def test_outside_the_support():
    model = presets.build("small", data_shape=(2, 2, 1))
    x = np.zeros((3, 2, 2, 1))
    x[1, 0, 0] = 0.5
    estimate = annealing.estimate_log_prob(model, x, **SHORT)
    assert estimate.log_prob[1] == -np.inf
    assert estimate.standard_error[1] == estimate.ess[1] == estimate.acceptance_rate[1] == 0
    assert np.isfinite(np.array(estimate)[:, [0, 2]]).all()


def test_progress_is_shown_on_demand(truth, model, capsys):
    annealing.estimate_log_prob(model, truth.sample(3), **{**SHORT, "verbose": 1})
    assert "3/3" in capsys.readouterr().out
    annealing.estimate_log_prob(model, truth.sample(3), **SHORT)
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_temperatures": 1}, "num_temperatures must be an integer of at least 2: received 1"),
        ({"num_temperatures": 10.0}, "num_temperatures must be an integer of at least 2: received 10.0"),
        ({"num_chains": 0}, "num_chains must be an integer of at least 1: received 0"),
        ({"num_chains": True}, "num_chains must be an integer of at least 1: received True"),
        ({"num_leapfrog_steps": 0}, "num_leapfrog_steps must be an integer of at least 1: received 0"),
        ({"initial": "posterior"}, "initial must be 'prior' or 'encoder': received 'posterior'"),
    ],
)
def test_errors(arguments, message, model):
    with pytest.raises(ValueError, match=message):
        annealing.estimate_log_prob(model, np.zeros((2, 3)), **{**SHORT, **arguments})
    with pytest.raises(ValueError, match=message):
        annealing.sandwich(model, 2, **{**SHORT, **arguments})


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((2, 4)), r"x must have shape \[B, 3\]: received shape \[2, 4\]"),
        ([[0.0, 1.0, np.nan]], "x holds NaN or infinity in 1 of 1 examples"),
        (np.zeros((0, 3)), "received an empty x"),
    ],
)
def test_bad_examples(x, message, model):
    with pytest.raises(ValueError, match=message):
        annealing.estimate_log_prob(model, x, **SHORT)
    with pytest.raises(ValueError, match="num_examples must be an integer of at least 1: received 0"):
        annealing.sandwich(model, 0)
