import collections
import functools
import itertools

import arviz
import keras
import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf
import tensorflow_probability as tfp

import iwae_zoo
from iwae_zoo import annealing, paths, presets, walks
from iwae_zoo._tracing import Networks
from iwae_zoo.testing import LinearGaussian, linear_gaussian

tfd = tfp.distributions
PAIR = tf.TensorSpec([2], tf.int32)
SHORT = {"num_temperatures": 4, "num_chains": 8, "num_leapfrog_steps": 2, "verbose": 0}


@pytest.fixture(scope="module")
def truth():
    """Noisy enough that the weights of few temperatures have a finite variance in either direction."""
    return LinearGaussian.random(latent_size=2, data_size=3, stddev=1.5, seed=1)


@pytest.fixture(scope="module")
def model(truth):
    return truth.model(mismatch=0.2)


@pytest.fixture(scope="module")
def weigh(model):
    """Function of a start, betas, x and a seed that gives log weights and acceptance of 5000 chains; traced once."""

    @functools.cache
    def traced(initial):
        @tf.function(autograph=False, input_signature=[tf.TensorSpec([None], tf.float64), tf.TensorSpec([3]), PAIR])
        def forward(betas, x, seed):
            walk = walks._Walk(Networks.of(model), x, seed, walks.Budget(initial, 0, 5000, 3), betas)
            return [values[:, 0] for values in walk.forward()[:2]]

        return forward

    return lambda initial, *arguments: traced(initial)(*arguments)


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
    networks = Networks.of(line.exact.model())
    path = paths.Path(networks, np.float32([[line.x]]), paths.INITIAL["prior"], num_leapfrog_steps=3)
    mean, variance = line.moments(beta)
    first = (mean + np.sqrt(variance) * np.random.default_rng(seed).normal(size=(20000, 1, 1))).astype("float32")
    state = path.at(tf.constant(first))
    for step in range(5):
        state, acceptance = path.move(state, beta, 0.8, paths.Randomness((step, seed)), step)
    z = path.z(state.u)
    assert 0.3 < np.mean(acceptance) < 0.99
    assert np.corrcoef(np.ravel(first), np.ravel(z))[0, 1] < 0.5
    standardized = np.ravel((z - mean) / np.sqrt(variance))
    assert scipy.stats.kstest(standardized, "norm").pvalue > 1e-5
    # What the state remembers is what is true of it.
    for ours, theirs in zip(state, path.at(z), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("num_temperatures", [2, 4, 7])
def test_perfect_transitions_give_the_closed_form(num_temperatures, seed, monkeypatch):
    """With exact draws in place of HMC the mean log weight of either direction is a sum of Gaussian expectations."""
    line = Line(stddev=0.7, x=1.5)

    def exact_draw(path, state, beta, step_size, randomness, t):
        mean, variance = (tf.cast(moment, tf.float32) for moment in line.moments(beta))
        noise = randomness.normal(*state.u.shape[::2], t, tf.float32)
        return path.at(mean + tf.sqrt(variance) * noise), tf.ones(noise.shape[:2], tf.float64)

    monkeypatch.setattr(paths.Path, "move", exact_draw)
    mean, variance = line.moments(1.0)
    rng = np.random.default_rng(seed)
    networks, budget = Networks.of(line.exact.model()), walks.Budget("prior", num_temperatures, 2000, 1)
    walk = walks._Walk(networks, tf.constant([line.x], tf.float32), (1, seed), budget, tf.constant(budget.betas))
    forward, _, _ = walk.forward()
    posterior_sample = rng.normal(mean, np.sqrt(variance), size=(2000, 1, 1)).astype("float32")
    betas, sizes = walk._betas[::-1], walk._step_sizes[::-1]
    reverse, _, _ = paths.anneal(walk._path, (2, seed), walk._path.at(posterior_sample), betas, sizes)
    betas = annealing.schedule(num_temperatures)
    lower = sum((b - a) * line.mean_log_likelihood(a) for a, b in itertools.pairwise(betas))
    upper = sum((b - a) * line.mean_log_likelihood(b) for a, b in itertools.pairwise(betas))
    assert abs(z_score(forward, lower)) < 4
    assert abs(z_score(-reverse, upper)) < 4
    assert lower < line.exact.log_prob(np.array([[line.x]]))[0] < upper


@pytest.mark.slow
@pytest.mark.parametrize(
    ("initial", "num_temperatures"), [("prior", 2), ("prior", 8), ("encoder", 8), ("laplace", 2), ("laplace", 4)]
)
def test_mean_weight_is_unbiased(initial, num_temperatures, truth, weigh, seed):
    betas = walks.Budget(initial, num_temperatures, 5000, 3).betas
    for row, x in enumerate(truth.sample(3, seed=seed).astype("float32")):
        log_weights, acceptance = weigh(initial, betas, x, (row, seed))
        error = log_weights - truth.log_prob(x[np.newaxis])
        assert abs(z_score(np.exp(error), 1)) < 4
        assert np.mean(error) < 0
        if num_temperatures == 2:
            assert np.isnan(acceptance).all()
        else:  # The Laplace approximation is the posterior here: no step size of a few transitions is too large.
            assert 0.65 < np.mean(acceptance) < (0.97 if initial == "laplace" else 0.85)


@pytest.mark.slow
@pytest.mark.parametrize("initial", ["prior", "encoder", "laplace"])
def test_sandwich_brackets_the_truth_and_closes(initial, truth, model, seed, monkeypatch):
    monkeypatch.setattr(paths, "_WARM_UP", 10)  # Bounds are bounds with any step size.
    gaps = []
    for num_temperatures, count in ((3, 200), (60, 40)):
        result = annealing.sandwich(model, count, num_temperatures, 8, 2, seed=seed, initial=initial, verbose=0)
        log_prob = truth.log_prob(result.x)
        assert abs(z_score(np.exp(result.lower - log_prob), 1)) < 4
        assert abs(z_score(np.exp(log_prob - result.upper), 1)) < 4
        assert z_score(result.lower - log_prob, 0) < 4
        assert z_score(result.upper - log_prob, 0) > -4
        np.testing.assert_array_equal(result.gap, result.upper - result.lower)
        gaps.append(result.gap)
    assert gaps[1].std() < gaps[0].std() / (1.2 if initial == "laplace" else 2)
    assert abs(gaps[1].mean()) < 0.1


@pytest.mark.slow
def test_no_part_of_the_start_is_out_of_reach(seed):
    """Of 20 dimensions. A share s of p0 that no chain walks back to leaves the upper bound too high by -log(1 - s).

    The prior's is 1/32.
    """
    truth = LinearGaussian.random(latent_size=20, data_size=40, seed=1)
    result = annealing.sandwich(truth.model(mismatch=0.1), 40, 50, 8, 3, seed=seed, verbose=0)
    assert abs(z_score(result.lower - truth.log_prob(result.x), 0)) < 4
    assert abs(result.gap.mean()) < 0.045


def test_simulated_examples_come_from_the_model(truth, model, seed, monkeypatch):
    monkeypatch.setattr(annealing, "_in_batches", lambda *_: collections.defaultdict(lambda: np.zeros(500)))  # Only x.
    x = annealing.sandwich(model, 500, 2, 4, 2, seed=seed, initial="encoder", verbose=0).x
    whitened = np.linalg.solve(np.linalg.cholesky(truth.covariance), (x - truth.bias).T)
    assert scipy.stats.kstest(whitened.ravel(), "norm").pvalue > 1e-5
    assert abs(np.corrcoef(whitened) - np.eye(3)).max() < 5 / np.sqrt(500)


@pytest.mark.slow
def test_more_temperatures_shrink_the_error(seed):
    truth = LinearGaussian.random(latent_size=5, data_size=8, stddev=0.5, seed=2)
    exact = truth.model()
    # Of an encoder that nobody asks here, and whose examples can be in one tile.
    encoder = iwae_zoo.networks.MLPEncoder(5, hidden_sizes=())
    model = iwae_zoo.ImportanceWeightedAutoencoder(encoder, exact.decoder, exact.prior)
    model.build((None, 8))
    x = truth.sample(30, seed=seed).astype("float32")
    rms, stated, ess = [], [], []
    for num_temperatures in (10, 200):
        estimate = annealing.estimate_log_prob(
            model, x, num_temperatures, 16, 5, seed=seed, initial="prior", tile_rows=48, verbose=0
        )
        error = estimate.log_prob - truth.log_prob(x)
        rms.append(np.sqrt(np.mean(error**2)))
        stated.append(np.sqrt(np.mean(estimate.standard_error**2)))
        ess.append(np.mean(estimate.ess))
    assert rms[1] < rms[0] / 3
    assert rms[1] == pytest.approx(stated[1], rel=0.7)
    assert (abs(error) < 8 * estimate.standard_error).all()
    assert ess[0] < 4 < 6 < ess[1] < 16
    # Also at the narrow end of the path.
    assert estimate.acceptance_rate.mean() == pytest.approx(0.75, abs=0.1)


def test_error_and_ess_are_numpys(seed, model):
    budget = walks.Budget("encoder", 2, 60, 1)
    walk = walks._Walk(Networks.of(model), tf.zeros([3]), (0, 1), budget, tf.constant(budget.betas))
    for offset in (0, 1000, -1000):
        log_weights = np.random.default_rng(seed).normal(offset, size=60)
        chains = tf.constant(log_weights[:, np.newaxis])
        summary = walk.summary(chains, tf.fill([60, 1], tf.constant(0.5, tf.float64)))
        w = np.exp(log_weights - log_weights.max())
        assert float(summary["log_prob"]) == pytest.approx(scipy.special.logsumexp(log_weights) - np.log(60))
        assert float(summary["standard_error"]) == pytest.approx(w.std(ddof=1) / np.sqrt(60) / w.mean())
        assert float(summary["ess"]) == pytest.approx(w.sum() ** 2 / (w**2).sum())
        assert float(summary["pareto_k"]) == pytest.approx(float(arviz.psislw(log_weights.copy())[1]))
        assert float(summary["acceptance_rate"]) == 0.5


@pytest.mark.slow
def test_one_chain_knows_no_error(truth, model):
    estimate = annealing.estimate_log_prob(model, truth.sample(2), **{**SHORT, "num_chains": 1})
    assert (estimate.standard_error == np.inf).all()
    np.testing.assert_allclose(estimate.ess, 1)


@pytest.mark.slow
@pytest.mark.parametrize("initial", ["prior", "laplace"])
def test_bernoulli_pixels_against_quadrature(initial, seed):
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
    estimate = annealing.estimate_log_prob(model, x, 30, 50, 3, seed=seed, initial=initial, verbose=0)
    error = estimate.log_prob - log_prob
    assert estimate.standard_error.max() < 0.5
    if initial == "prior":
        assert (abs(error) < 5 * estimate.standard_error + 1e-4).all()
    else:  # Of a chain from the prior, one in sixteen, the error of a single example knows little.
        assert abs(z_score(np.exp(error), 1)) < 4
        assert abs(error).max() < 0.5


@pytest.mark.slow
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
    estimate = annealing.estimate_log_prob(model, x, 20, 25, 3, seed=seed, initial="prior", verbose=0)
    assert (abs(estimate.log_prob - log_prob) < 5 * estimate.standard_error).all()
    assert estimate.acceptance_rate.mean() == pytest.approx(0.75, abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("initial", ["encoder", "laplace"])
def test_float64_model(initial, truth):
    x = truth.sample(20)
    estimate = annealing.estimate_log_prob(
        truth.model(dtype="float64", mismatch=0.2), x, 20, 16, 3, initial=initial, verbose=0
    )
    error = estimate.log_prob - truth.log_prob(x)
    assert abs(z_score(np.exp(error), 1)) < 4
    assert abs(error).max() < 0.15


@pytest.mark.slow
def test_the_seed_decides(truth, model, monkeypatch):
    x = np.repeat(truth.sample(1), 6, axis=0)
    monkeypatch.setattr(annealing, "_ROWS", 3)
    first, again = (annealing.estimate_log_prob(model, x, seed=3, **SHORT, initial="encoder") for _ in range(2))
    np.testing.assert_array_equal(first, again)
    other = annealing.estimate_log_prob(model, x, seed=4, **SHORT, initial="encoder")
    # Six copies of one example, in two batches: no two share their noise.
    assert len({*first.log_prob, *other.log_prob}) == 12
    first, again = (annealing.sandwich(model, 5, seed=3, **SHORT, initial="encoder") for _ in range(2))
    for ours, theirs in zip(first, again, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert len(first.x) == len(first.gap) == 5
    assert (annealing.sandwich(model, 3, seed=4, **SHORT, initial="encoder").x != first.x[:3]).all()


@pytest.mark.slow
def test_the_models_present_weights_count(truth, model):
    x, weights = truth.sample(2), model.get_weights()
    before = annealing.estimate_log_prob(model, x, **SHORT)
    model.decoder.bias.assign_add([5.0] * 3)
    assert (annealing.estimate_log_prob(model, x, **SHORT).log_prob < before.log_prob).all()
    model.decoder.bias.assign([np.nan] * 3)
    with pytest.raises(ValueError, match="The model's log weights are NaN"):
        annealing.estimate_log_prob(model, x, **SHORT)
    model.set_weights(weights)


@pytest.mark.slow
def test_outside_the_support():
    model = presets.build("small", data_shape=(2, 2, 1))
    x = np.zeros((3, 2, 2, 1))
    x[1, 0, 0] = 0.5
    estimate = annealing.estimate_log_prob(model, x, **SHORT)
    assert estimate.log_prob[1] == -np.inf
    assert estimate.standard_error[1] == estimate.ess[1] == estimate.acceptance_rate[1] == 0
    assert np.isfinite(np.array([estimate.log_prob, estimate.standard_error, estimate.ess])[:, [0, 2]]).all()


@pytest.mark.slow
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
        (
            {"initial": "posterior"},
            r"start of an annealing path \(initial\): received 'posterior'. Did you mean 'prior'",
        ),
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
        (np.zeros((0, 3)), "must hold at least one example: received an empty array"),
    ],
)
def test_bad_examples(x, message, model):
    with pytest.raises(ValueError, match=message):
        annealing.estimate_log_prob(model, x, **SHORT)
    with pytest.raises(ValueError, match="num_examples must be an integer of at least 1: received 0"):
        annealing.sandwich(model, 0)
