"""The Laplace approximation against closed forms and scipy, and what chains that start there can and cannot miss."""

import keras
import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import tensorflow as tf
import tensorflow_probability as tfp
import toy_data

import iwae_zoo
from iwae_zoo import annealing, laplace, networks, presets
from iwae_zoo._tracing import Networks
from iwae_zoo.distributions import likelihoods
from iwae_zoo.networks import bodies
from iwae_zoo.testing import LinearGaussian, linear_gaussian

tfd = tfp.distributions


@pytest.fixture(scope="module")
def sharp():
    """A linear model of many values with little noise."""
    return presets.build("table", data_shape=(784,), likelihood="normal,spread=0.002", latent_size=6, hidden_sizes=())


@pytest.mark.slow
@pytest.mark.parametrize("rotated", [False, True])
def test_latents_that_are_not_used_beside_sharp_ones(rotated, sharp):
    """Their curvature is 1, that of the others 1e8: against the closed form."""
    model, size, used, stddev, rng = sharp, 784, 3, 0.002, np.random.default_rng(0)
    kernel = np.zeros([6, size])
    kernel[:used] = rng.normal(size=[used, size])
    if rotated:
        kernel = scipy.stats.ortho_group.rvs(6, random_state=rng) @ kernel
    model.decoder.weights[0].assign(kernel)
    model.decoder.weights[1].assign(np.zeros(size))
    kernel = np.float64(model.decoder.weights[0])
    x = np.float32(rng.normal(size=[2, 6]) @ kernel + stddev * rng.normal(size=[2, size]))
    expected = scipy.stats.multivariate_normal(np.zeros(size), kernel.T @ kernel + stddev**2 * np.eye(size)).logpdf(x)
    found = annealing.estimate_log_prob(model, x, verbose=0)
    assert (np.abs(found.log_prob - expected) < 0.01).all()
    assert (found.ess > 20).all()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_linear_gaussian_is_found_exactly(dtype, monkeypatch):
    monkeypatch.setattr(laplace, "DIRECTIONS", 2)  # Of three directions, so that there are two parts, one filled up.
    truth = LinearGaussian.random(latent_size=3, data_size=5, stddev=0.2, seed=2)
    networks = Networks.of(truth.model(dtype=dtype))
    _, log_det = np.linalg.slogdet(truth.posterior_covariance)
    for count in (1, 2):
        x = truth.sample(count)
        start = tf.constant([[5.0, -5.0, 5.0]] * count, dtype)
        found = laplace.approximate(networks, tf.constant(x, tf.float32), start)
        z = np.random.default_rng(0).normal(size=(4, count, 3)).astype(dtype)
        np.testing.assert_allclose(found.z(found.u(z)), z, rtol=1e-3, atol=1e-4)
        log_prob = found.log_prob(found.u(z))
        for row, mean in enumerate(truth.posterior_mean(np.float32(x))):
            np.testing.assert_allclose(found.mode[row], mean, atol=1e-3)
            covariance = np.array(found.scale[row] @ tf.transpose(found.scale[row]))
            np.testing.assert_allclose(covariance, truth.posterior_covariance, rtol=2e-3, atol=1e-5)
            assert float(found.log_det[row]) == pytest.approx(log_det / 2, abs=1e-3)
            normal = scipy.stats.multivariate_normal(np.array(found.mode[row]), covariance)
            np.testing.assert_allclose(log_prob[:, row], normal.logpdf(z[:, row]), rtol=1e-3)


@pytest.mark.slow
def test_each_search_ends_by_itself(pixels):
    """Together with others, near and far from their modes, an example's is the one that it has alone."""
    model, _ = pixels
    networks_, random = Networks.of(model), np.random.default_rng(6)
    approximate = tf.function(lambda x, start: laplace.approximate(networks_, x, start), autograph=False)
    x = tf.constant(random.random((16, 4, 2, 1)) < 0.5, tf.float32)
    start = np.float32(random.normal(size=(16, 2)))
    together = approximate(x, tf.constant(start))
    u = tf.constant(random.normal(size=(3, 16, 2)), tf.float32)
    z, back, log_prob = together.z(u), together.u(together.z(u)), together.log_prob(u)
    for row in range(16):
        alone = approximate(x[row : row + 1], tf.constant(start[row : row + 1]))
        mode, covariance = (
            np.float64(found) for found in (alone.mode[0], alone.scale[0] @ tf.transpose(alone.scale[0]))
        )
        np.testing.assert_allclose(together.mode[row], mode, atol=1e-4)
        np.testing.assert_allclose(together.scale[row] @ tf.transpose(together.scale[row]), covariance, rtol=1e-3)
        np.testing.assert_allclose(z[:, row], mode + u[:, row] @ np.transpose(together.scale[row]), atol=1e-3)
        np.testing.assert_allclose(back[:, row], u[:, row], atol=1e-4)
        normal = scipy.stats.multivariate_normal(mode, covariance)
        np.testing.assert_allclose(log_prob[:, row], normal.logpdf(z[:, row]), atol=1e-2)
    # Others whose search takes longer change no bit of it.
    start[1:] *= 10
    again = approximate(x, tf.constant(start))
    np.testing.assert_array_equal(again.mode[0], together.mode[0])
    np.testing.assert_array_equal(again.scale[0], together.scale[0])


class UnknownDecoder(keras.Layer):
    """Another decoder's likelihood, as a distribution that the table of Fisher information does not know."""

    def __init__(self, decoder):
        super().__init__()
        self.decoder = decoder

    def likelihood(self, z):
        logits = self.decoder.likelihood(z).logits
        return tfd.Independent(tfd.Categorical(logits=tf.stack([tf.zeros_like(logits), logits], axis=-1)), 3)


@pytest.fixture(scope="module")
def pixels():
    """A curved model of a few pixels, and an x."""
    decoder = networks.MLPDecoder((4, 2, 1), hidden_sizes=(6,), seed=3)
    encoder = networks.MLPEncoder(2, hidden_sizes=(6,))
    model = iwae_zoo.ImportanceWeightedAutoencoder(encoder, decoder, networks.StandardNormalPrior(2))
    model.build((None, 4, 2, 1))
    for variable in decoder.trainable_variables:
        variable.assign(3 * variable)
    return model, np.float32(np.random.default_rng(5).random((1, 4, 2, 1)) < 0.5)


def minus_log_joint(model, x):
    """-log p(x, z) of z [2] in plain numpy, float64."""
    w1, b1, w2, b2 = (np.float64(v) for v in model.decoder.trainable_variables)

    def value(z):
        logits = np.tanh(z @ w1 + b1) @ w2 + b2
        return np.sum(np.logaddexp(0, logits) - x.ravel() * logits) + z @ z / 2

    def fisher(z):
        hidden = np.tanh(z @ w1 + b1)
        jacobian = (w1 * (1 - hidden**2)) @ w2  # [2, 8]
        p = 1 / (1 + np.exp(-(hidden @ w2 + b2)))
        return (jacobian * p * (1 - p)) @ jacobian.T + np.eye(2)

    def hessian(z, h=1e-4):
        steps = h * np.eye(2)
        return np.array(
            [
                [(value(z + a + b) - value(z + a - b) - value(z - a + b) + value(z - a - b)) for a in steps]
                for b in steps
            ]
        ) / (4 * h**2)

    return value, fisher, hessian


@pytest.mark.parametrize("known", [True, False])
def test_mode_and_curvature_are_scipys(known, pixels):
    """Fisher information where the likelihood has one, and the Hessian where it has none."""
    model, x = pixels
    value, fisher, hessian = minus_log_joint(model, x)
    decoder = model.decoder if known else UnknownDecoder(model.decoder)
    start = tf.constant([[0.5, -0.5]])
    found = laplace.approximate(Networks(model.encoder, decoder, model.prior), x, start)
    best = scipy.optimize.minimize(value, np.array(start[0], "float64"))
    mode, scale = np.float64(found.mode[0]), np.float64(found.scale[0])
    assert value(mode) == pytest.approx(best.fun, abs=1e-3)
    np.testing.assert_allclose(mode, best.x, atol=0.03)
    precision = np.linalg.inv(scale @ scale.T)
    np.testing.assert_allclose(precision, (fisher if known else hessian)(mode), rtol=1e-2, atol=1e-2)
    # The two are not the same, so that the test can tell them apart.
    assert abs(fisher(mode) - hessian(mode)).max() > 0.1


@pytest.mark.parametrize(
    "distribution",
    [
        tfd.Bernoulli(logits=0.7),
        tfd.Normal(0.3, 1.7),
        tfd.Laplace(0.3, 1.7),
        tfd.Poisson(log_rate=0.4),
    ],
    ids=lambda d: d.name,
)
def test_information_is_the_variance_of_the_score(distribution, seed):
    """Parameter by parameter, on many draws: E[score^2]."""
    parameters = [tf.constant(float(value)) for value, _ in laplace.INFORMATION[type(distribution)](distribution)]
    names = {tfd.Bernoulli: ["logits"], tfd.Poisson: ["log_rate"]}.get(type(distribution), ["loc", "scale"])
    x = distribution.sample(100_000, seed=(1, seed))
    with tf.GradientTape(persistent=True) as tape:
        copies = [tf.fill(x.shape, value) for value in parameters]
        for copy in copies:
            tape.watch(copy)
        log_prob = type(distribution)(**dict(zip(names, copies, strict=True))).log_prob(x)
    for copy, (_, information) in zip(copies, laplace.INFORMATION[type(distribution)](distribution), strict=True):
        squares = np.square(np.float64(tape.gradient(log_prob, copy)))
        assert abs(squares.mean() - float(information)) < 5 * squares.std() / np.sqrt(len(squares)) + 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    "head",
    [
        likelihoods.get("discretized_logistic"),
        likelihoods.get("zero_inflated_negative_binomial"),
        likelihoods.Columns(columns=toy_data.COLUMNS, real="student_t:spread=value"),
    ],
    ids=lambda head: head.name,
)
def test_curvature_is_the_variance_of_the_score_by_z(head, seed):
    """E[score score'] over draws of p(x | z), and of a table over what was observed of them."""
    data = toy_data.examples(head.kinds[0], 300, (5,), 1)
    head = head.fitted(data)
    body = bodies.get("perceptron").decoder(head, (5,), hidden_sizes=(6,), activation="tanh", seed=3)
    decoder, prior = networks.Decoder(body, head, (5,)), networks.StandardNormalPrior(2)
    decoder.likelihood(np.zeros([1, 2], "float32"))
    x = data[:1]
    found = laplace.approximate(Networks(None, decoder, prior), x, tf.zeros([1, 2]))
    z = tf.repeat(found.mode, 50_000, axis=0)
    draws = tf.where(np.isnan(x), x, decoder.likelihood(z).sample(seed=(1, seed)))
    with tf.GradientTape() as tape:
        tape.watch(z)
        log_prob = decoder.likelihood(z).log_prob(draws)
    scores = np.float64(tape.gradient(log_prob, z))
    squares = scores[:, :, np.newaxis] * scores[:, np.newaxis]
    error = squares.std(axis=0) / np.sqrt(len(squares))
    scale = np.float64(found.scale[0])
    fisher = np.linalg.inv(scale @ scale.T) - np.eye(2)
    assert (error < 0.1 * np.trace(fisher)).all()
    assert (abs(fisher - squares.mean(axis=0)) < 5 * error + 1e-4).all()


class TwoNormals(keras.Layer):
    """p(z) = (N(-a, 1) + N(a, 1)) / 2."""

    a = 4.5

    def distribution(self):
        normals = tfd.Normal([[-self.a, self.a]], 1.0)
        return tfd.Independent(tfd.MixtureSameFamily(tfd.Categorical(probs=[[0.5, 0.5]]), normals), 1)


@pytest.fixture(scope="module")
def two_modes():
    """x | z ~ N(z, 4): at x = 0 the posterior's modes are at +- 3.6, with a variance of 0.8."""
    decoder = linear_gaussian.LinearGaussianDecoder(np.ones((1, 1)), np.zeros(1), 2.0)
    encoder = linear_gaussian.LinearGaussianEncoder(np.zeros((1, 1)), [3.6], np.ones((1, 1)))
    return iwae_zoo.ImportanceWeightedAutoencoder(encoder, decoder, TwoNormals())


@pytest.mark.slow
@pytest.mark.parametrize("encoder_scale", [0.9, 5.0])
def test_a_second_mode_is_not_missed(encoder_scale, two_modes, seed):
    """Two modes eight standard deviations apart, of which the Laplace approximation, and a narrow encoder, know one."""
    model = two_modes
    model.encoder.scale.assign([[encoder_scale]])
    x = np.zeros((50, 1), "float32")
    log_prob = scipy.stats.norm.logpdf(TwoNormals.a, scale=np.sqrt(5))
    estimate = annealing.estimate_log_prob(model, x, num_chains=96, seed=seed, verbose=0)
    w = np.exp(estimate.log_prob - log_prob)
    error = w.std(ddof=1) / np.sqrt(len(w))
    assert error < 0.1  # So that a missed mode, which halves the mean, is five errors away.
    assert abs(w.mean() - 1) < 4 * error


def test_a_discrete_latent_cannot_be_annealed():
    class Bits(keras.Layer):
        def posterior(self, x):
            return tfd.Independent(tfd.Bernoulli(logits=tf.zeros_like(x), dtype=tf.float32), 1)

    decoder = linear_gaussian.LinearGaussianDecoder(np.eye(2), np.zeros(2), 1.0)
    model = iwae_zoo.ImportanceWeightedAutoencoder(Bits(), decoder, networks.StandardNormalPrior(2))
    with pytest.raises(ValueError, match="no distribution of a continuous z .* Use importance sampling"):
        annealing.estimate_log_prob(model, np.zeros((1, 2)), verbose=0)
    answer = iwae_zoo.likelihood.estimate_log_prob(model, np.zeros((1, 2)), 100, method="auto")
    assert list(answer.method) == ["importance"]


@pytest.mark.slow
def test_coverage(seed):
    """The truth is within two stated errors about as often as a Gaussian's would be, and never far outside."""
    truth = LinearGaussian.random(latent_size=5, data_size=8, stddev=0.5, seed=1)
    x = truth.sample(200, seed=3).astype("float32")
    estimate = annealing.estimate_log_prob(truth.model(mismatch=0.3), x, 15, num_leapfrog_steps=1, seed=seed, verbose=0)
    z = (estimate.log_prob - truth.log_prob(x)) / estimate.standard_error
    assert np.mean(abs(z) < 2) > 0.954 - 4 * np.sqrt(0.954 * 0.046 / len(x))
    assert abs(z).max() < 6
    assert 0.3 < z.std() < 1.3


@pytest.mark.slow
def test_draws_of_the_posterior_are_the_posteriors(seed):
    truth = LinearGaussian.random(latent_size=2, data_size=3, stddev=0.5, seed=1)
    x = truth.sample(1).astype("float32")
    model, x = truth.model(mismatch=0.5), np.repeat(x, 400, axis=0)
    z, ess = annealing.sample_posterior(model, x, seed=seed, num_temperatures=10, num_leapfrog_steps=1, verbose=0)
    assert z.shape == (1, 400, 2)
    assert ess.min() > 16
    whitened = np.linalg.solve(np.linalg.cholesky(truth.posterior_covariance), (z[0] - truth.posterior_mean(x)).T)
    assert scipy.stats.kstest(whitened.ravel(), "norm").pvalue > 1e-4
    assert abs(np.corrcoef(whitened)[0, 1]) < 5 / np.sqrt(400)
