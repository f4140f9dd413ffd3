"""Posterior heads, and the distributions that they make: one contract for every row of the table, and scipy."""

import itertools

import keras
import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf
import tensorflow_probability as tfp

from iwae_zoo import networks
from iwae_zoo.distributions import flow, posteriors
from iwae_zoo.distributions.full_normal import FullNormal
from iwae_zoo.distributions.student_t import IndependentStudentT
from iwae_zoo.networks import prior as priors

tfd = tfp.distributions
D = 3
POSTERIORS = pytest.mark.parametrize("name", posteriors.names())
# Those that have densities; `discrete_test` has the others.
DENSITIES = pytest.mark.parametrize("name", [q for q in posteriors.names() if posteriors.get(q, D).reparameterized])
PRIORS = pytest.mark.parametrize(
    "name", [p for p in priors.names() if priors.get(p, D).supports[0][1] == posteriors.REAL]
)


def weights_of(head, seed):
    """Weights of a head that is no identity."""
    rng = np.random.default_rng(seed)
    return [tf.constant(rng.normal(size=weight.shape) / np.sqrt(weight.shape[0])) for weight in head.weights]


def posterior(name, rows=(4,), seed=0, size=D):
    """A distribution of random parameters, in float64."""
    head = posteriors.get(name, size)
    parameters = np.random.default_rng(seed).normal(size=(*rows, head.num_parameters))
    return head.distribution(tf.constant(parameters), *weights_of(head, seed))


def prior(name, seed=0, dtype="float64"):
    """p(z) of random weights."""
    layer = priors.get(name, D, seed=seed)
    layer = type(layer).from_config({**layer.get_config(), "dtype": dtype})
    rng = np.random.default_rng(seed)
    layer.set_weights([w + 0.5 * rng.normal(size=w.shape) / np.sqrt(w.shape[0]) for w in layer.get_weights()])
    return layer.distribution()


# The contract.


@POSTERIORS
def test_shapes(name):
    head = posteriors.get(name, D)
    assert head.name == name
    assert posteriors.from_config(posteriors.to_config(head)) == head
    q = posterior(name)
    assert (q.batch_shape, q.event_shape, q.dtype) == ([4], [D], tf.float64)
    assert (q.reparameterization_type == tfd.FULLY_REPARAMETERIZED) == head.reparameterized
    assert (head.support == posteriors.REAL) == head.reparameterized
    assert priors.get(head.prior, D).supports[0][1] == head.support
    assert q.mean().shape == q.stddev().shape == q.variance().shape == (4, D)
    z = q.sample([2, 5], seed=(1, 2))
    assert z.shape == (2, 5, 4, D)
    assert q.log_prob(z).shape == (2, 5, 4)
    # One example's draws against all examples, as `latent_use` asks.
    np.testing.assert_allclose(q.log_prob(z[0, :, 1:2])[:, 1], q.log_prob(z)[0, :, 1], rtol=1e-9)
    # Rows of a layer of latents, [particles, B].
    deeper = posterior(name, rows=(5, 4))
    z = deeper.sample(seed=(1, 2))
    assert z.shape == (5, 4, D)
    assert deeper.log_prob(z).shape == (5, 4)
    assert posterior(name, rows=(0,)).sample(2, seed=(1, 2)).shape == (2, 0, D)


@POSTERIORS
def test_a_part_draws_what_the_whole_draws(name):
    head = posteriors.get(name, D)
    parameters = np.random.default_rng(0).normal(size=(5, 6, head.num_parameters))
    weights = weights_of(head, 0)

    def draw(parameters, **options):
        return head.distribution(tf.constant(parameters), *weights).sample(2, seed=(3, 4), **options)

    for batch in (parameters[0], parameters):
        whole = draw(batch)
        np.testing.assert_allclose(draw(batch[..., 4:, :], first_row=4), whole[..., 4:, :], rtol=1e-9)
        other = np.isclose(draw(batch[..., 4:, :], first_row=3), whole[..., 4:, :])
        assert not other.all() if name in ("bernoulli", "categorical") else not other.any()
    same = draw(np.repeat(parameters[:1, :1], 6, axis=1), first_row=None)
    np.testing.assert_allclose(same, np.repeat(same[..., :1, :], 6, axis=-2), rtol=1e-9)
    assert name in ("bernoulli", "categorical") or len(np.unique(same[..., 0, :])) == 2 * D


@pytest.mark.slow
@DENSITIES
def test_log_prob_against_draws(name, seed):
    """Expectations by two routes: draws of q, and draws of another distribution weighted with q's density."""
    q = posterior(name, rows=(2,), seed=1)
    count = 200_000
    z = q.sample(count, seed=(seed, 0))
    wide = tfd.Independent(tfd.StudentT(tf.constant(3.0, tf.float64), q.mean(), 1.5 * q.stddev()), 1)
    other = wide.sample(count, seed=(seed, 1))
    weights = tf.exp(q.log_prob(other) - wide.log_prob(other))[..., tf.newaxis].numpy()

    def functions(z):
        centred = (z - q.mean()).numpy() / q.stddev().numpy()
        pairs = [np.cos(centred[..., i] - 2 * centred[..., j]) for i, j in itertools.combinations(range(D), 2)]
        return np.concatenate([np.ones_like(centred[..., :1]), np.tanh(centred), np.stack(pairs, -1)], axis=-1)

    direct, weighted = functions(z), weights * functions(other)
    error = np.sqrt((direct.var(axis=0) + weighted.var(axis=0)) / count)
    assert error.max() < 0.02
    assert (np.abs(direct.mean(axis=0) - weighted.mean(axis=0)) < 5 * error).all()


@pytest.mark.parametrize("name", ["normal", "full_normal", "coupling_flow", "relaxed_bernoulli", "relaxed_categorical"])
def test_moments_are_those_of_the_draws(name, seed):
    q = posterior(name, rows=(2,), seed=1)
    z = q.sample(100_000, seed=(seed, 0)).numpy()
    error = 1 / 16 if name in ("coupling_flow", "relaxed_categorical") else 1 / 316  # That is of 256 draws itself.
    assert (np.abs(q.mean() - z.mean(axis=0)) < 5 * error * z.std(axis=0)).all()
    np.testing.assert_allclose(q.stddev() / z.std(axis=0), 1.0, atol=5 * error)
    np.testing.assert_allclose(q.variance(), np.square(q.stddev()), rtol=1e-9)


@pytest.mark.slow
@DENSITIES
def test_reparameterised_gradients_are_those_of_the_expectation(name, seed):
    """d E[f(z)] / d parameters: pathwise, and as E[f(z) d log q / d parameters]."""
    head = posteriors.get(name, 2)
    rng = np.random.default_rng(1)
    parameters = tf.constant(rng.normal(size=(1, head.num_parameters)))
    weights = weights_of(head, 1)
    count, repeats = 2000, 100

    def f(z):
        return tf.tanh(z[..., 0]) + tf.cos(z[..., 0] - 2.0 * z[..., 1])

    @tf.function(autograph=False)
    def difference(i):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch([parameters, *weights])
            q = head.distribution(parameters, *weights)
            z = q.sample(count, seed=tf.stack([i, seed]))
            pathwise = tf.reduce_mean(f(z))
            fixed = tf.stop_gradient(z)
            score = tf.reduce_mean((f(fixed) - tf.reduce_mean(f(fixed))) * q.log_prob(fixed)) * count / (count - 1)
        one, other = (tape.gradient(value, [parameters, *weights]) for value in (pathwise, score))
        return tf.concat([tf.reshape(a - b, [-1]) for a, b in zip(one, other, strict=True)], axis=0)

    draws = np.stack([difference(tf.constant(i)) for i in range(repeats)])
    error = draws.std(axis=0, ddof=1) / np.sqrt(repeats)
    assert (np.abs(draws.mean(axis=0)) < 5 * error + 1e-12).all()
    assert error.max() < 0.02


@pytest.mark.slow
@PRIORS
def test_priors_against_draws(name, seed):
    p = prior(name)
    assert (p.batch_shape, p.event_shape, p.dtype) == ([], [D], tf.float64)
    z = p.sample(100_000, seed=(seed, 0))
    assert p.sample([4, 1], seed=(seed, 0)).shape == (4, 1, D)
    wide = tfd.Independent(
        tfd.StudentT(tf.constant(3.0, tf.float64), tf.reduce_mean(z, 0), 2 * tf.math.reduce_std(z, 0)), 1
    )
    other = wide.sample(100_000, seed=(seed, 1))
    weights = tf.exp(p.log_prob(other) - wide.log_prob(other)).numpy()[:, np.newaxis]

    def functions(z):
        pairs = [np.cos(z[..., i] - 2 * z[..., j]) for i, j in itertools.combinations(range(D), 2)]
        return np.concatenate([np.ones_like(z[..., :1]), np.tanh(z), np.stack(pairs, -1)], axis=-1)

    direct, weighted = functions(z.numpy()), weights * functions(other.numpy())
    error = np.sqrt((direct.var(axis=0) + weighted.var(axis=0)) / len(z))
    assert error.max() < 0.03
    assert (np.abs(direct.mean(axis=0) - weighted.mean(axis=0)) < 5 * error).all()
    assert p.mean().shape == p.stddev().shape == (D,)


# Each against another implementation.


def test_full_normal_is_scipys(seed):
    rng = np.random.default_rng(seed)
    loc, z = rng.normal(size=(2, 4)), rng.normal(size=(7, 2, 4))
    scale_tril = np.tril(rng.normal(size=(2, 4, 4)), -1) + np.eye(4) * rng.uniform(0.2, 2, size=(2, 1, 4))
    q = FullNormal(loc, scale_tril)
    covariance = scale_tril @ scale_tril.transpose(0, 2, 1)
    expected = [scipy.stats.multivariate_normal(loc[b], covariance[b]).logpdf(z[:, b]) for b in range(2)]
    np.testing.assert_allclose(q.log_prob(z), np.transpose(expected), rtol=1e-9)
    np.testing.assert_allclose(q.covariance(), covariance, rtol=1e-12)
    np.testing.assert_allclose(q.stddev(), np.sqrt([np.diag(c) for c in covariance]), rtol=1e-12)
    drawn = (q.sample(50_000, seed=(seed, 0)) - loc).numpy()
    whitened = np.einsum("bij,nbj->nbi", np.linalg.inv(scale_tril), drawn)
    for b in range(2):
        spread = whitened[:, b].T @ whitened[:, b] / len(whitened) - np.eye(4)
        assert np.abs(spread).max() < 5 * np.sqrt(2 / len(whitened))
        assert np.abs(whitened[:, b].mean(axis=0)).max() < 5 / np.sqrt(len(whitened))
    alone = FullNormal(loc[0], scale_tril[0])
    assert alone.sample(3, seed=(1, 2)).shape == (3, 4)
    np.testing.assert_allclose(alone.log_prob(z[:, 0]), expected[0], rtol=1e-9)


@pytest.mark.parametrize("size", [2, 8, 50])
def test_full_normal_knows_its_own_draws_in_single_precision(size):
    """Whatever the body gives: |L^-1 (z - loc)|^2 has mean D, and is not the rounding of z, grown by each row."""
    head, random = posteriors.FullNormal(size), np.random.default_rng(0)
    count = head.num_parameters
    bodies = [random.normal(size=count) * scale for scale in (0.3, 3.0, 300.0)]
    bodies += [np.full(count, value) for value in (-3.0, -1e3, 1e3, -1e30)]
    bodies += [np.resize([1e3, -1e3], count), -1e3 * random.normal(size=count) * (random.random(count) < 0.1)]
    parameters = np.array(bodies, "float32")
    parameters[:, :size] = 0.0  # The means.
    with tf.GradientTape() as tape:
        tape.watch(parameters := tf.constant(parameters))
        q = head.distribution(parameters)
        z = q.sample(4000, seed=(1, 2))
        log_q = q.log_prob(z)
    log_scale = np.log(np.diagonal(q._scale_tril, axis1=-2, axis2=-1)).sum(axis=-1)
    squares = -2.0 * (log_q + log_scale) - size * np.log(2.0 * np.pi)
    np.testing.assert_allclose(np.mean(squares, axis=0), size, rtol=0, atol=5 * np.sqrt(2 * size / 4000))
    assert np.isfinite(tape.gradient(log_q, parameters)).all()


def test_a_full_normal_of_an_older_file_is_as_it_was():
    head = posteriors.from_config({"name": "full_normal", "latent_size": 3})
    assert head == posteriors.FullNormal(3, bounded=False)
    assert posteriors.from_config(posteriors.to_config(posteriors.FullNormal(3))) == posteriors.FullNormal(3)
    raw = np.random.default_rng(0).normal(size=head.num_parameters)
    triangle = np.zeros((3, 3))
    triangle[np.tril_indices(3)] = tfp.math.fill_triangular(raw[3:]).numpy()[np.tril_indices(3)]
    expected = triangle / np.sqrt(3)
    np.fill_diagonal(expected, np.log1p(np.exp(np.diag(triangle))) + 1e-4)
    covariance = head.distribution(tf.constant(raw)).covariance()
    np.testing.assert_allclose(covariance, expected @ expected.T, rtol=1e-9)


@pytest.mark.parametrize("df", [2.1, 5.0, 300.0])
def test_student_t_is_scipys(df, seed):
    q = IndependentStudentT(*(np.float64([[value]]) for value in (df, 1.0, 0.3)))
    reference = scipy.stats.t(df, 1.0, 0.3)
    z = q.sample(20_000, seed=(seed, 0)).numpy().ravel()
    assert scipy.stats.kstest(z, reference.cdf).pvalue > 1e-5
    np.testing.assert_allclose(
        q.log_prob(z[:, np.newaxis, np.newaxis])[:, 0], reference.logpdf(z), rtol=1e-9, atol=1e-12
    )
    np.testing.assert_allclose([q.mean()[0, 0], q.stddev()[0, 0]], [1.0, reference.std()], rtol=1e-9)


def test_student_t_at_the_ends_of_the_uniform_numbers(monkeypatch):
    for end in (0.0, 1 - 2**-23):
        monkeypatch.setattr(
            "iwae_zoo.distributions.noise.uniform", lambda rows, size, *_, end=end: tf.fill([rows, size], end)
        )
        parameters = [tf.constant([[value]]) for value in (2.0001, 1.0, 0.3)]
        with tf.GradientTape() as tape:
            tape.watch(parameters)
            z = IndependentStudentT(*parameters).sample(seed=(0, 0))
        assert np.isfinite([z, *tape.gradient(z, parameters)]).all()


def test_the_mixture_is_scipys(seed):
    layer = networks.MixtureOfNormalsPrior(D, num_components=4, dtype="float64", seed=1)
    rng = np.random.default_rng(seed)
    logits, loc, raw_scale = (rng.normal(size=w.shape) for w in layer.get_weights())
    layer.set_weights([logits, loc, raw_scale])
    z = rng.normal(size=(5, 2, D))
    scale = np.log1p(np.exp(raw_scale)) + 1e-4
    components = [scipy.stats.norm(m, s).logpdf(z).sum(axis=-1) for m, s in zip(loc, scale, strict=True)]
    log_weights = scipy.special.log_softmax(logits)
    expected = scipy.special.logsumexp(log_weights[:, None, None] + components, axis=0)
    np.testing.assert_allclose(layer.distribution().log_prob(z), expected, rtol=1e-9)


@pytest.mark.parametrize("size", [1, 2, 50])
def test_the_mixture_starts_with_variance_one(size):
    layer = networks.MixtureOfNormalsPrior(size, num_components=500)
    np.testing.assert_allclose(layer.distribution().variance(), 1.0, atol=0.25)


# Flows.


@pytest.mark.parametrize("size", [2, 5, 50])
def test_flows_invert(size, seed):
    rng = np.random.default_rng(seed)
    listed = flow.weights(size, 4, 32)
    weights = [tf.constant(rng.normal(size=w.shape) / np.sqrt(w.shape[0]), tf.float32) for w in listed]
    biases = tf.constant(rng.normal(size=(3, 4, 32)), tf.float32)
    q = flow.CouplingFlow(networks.DiagonalNormal(tf.zeros([3, size]), tf.ones([3, size])), biases, weights)
    u = tf.constant(rng.normal(size=(100, 3, size)), tf.float32)
    z, log_det = q.forward(u)
    again, log_det_back = q.inverse(z)
    assert np.abs(z - u).max() > 0.5
    np.testing.assert_allclose(again, u, rtol=0, atol=1e-5)
    np.testing.assert_allclose(log_det_back, -log_det, rtol=1e-5, atol=1e-5)


def test_the_flows_determinant_is_that_of_its_jacobian(seed):
    q = posterior("coupling_flow", rows=(1,), seed=seed % 100, size=5)
    u = tf.constant(np.random.default_rng(seed).normal(size=(1, 5)))
    with tf.GradientTape() as tape:
        tape.watch(u)
        z, log_det = q.forward(u)
    jacobian = tape.jacobian(z, u)[0, :, 0]
    np.testing.assert_allclose(log_det[0], np.linalg.slogdet(jacobian)[1], rtol=1e-9)
    assert (np.abs(jacobian) > 1e-6).all()  # All values move, each with all others.


def test_a_new_flow_is_its_base():
    encoder = networks.Encoder(networks.Perceptron((8,), 2 * D + 4 * 32), posteriors.CouplingFlow(D))
    x = np.ones((2, 5), "float32")
    assert len(encoder.posterior(x).parameters["shared"]) == len(encoder.trainable_variables) - 4 == 12
    q, base = encoder.posterior(x), encoder.posterior(x)._base
    z = base.sample(6, seed=(1, 2))
    np.testing.assert_allclose(q.log_prob(z), base.log_prob(z), rtol=1e-6)
    np.testing.assert_allclose(q.sample(6, seed=(1, 2)), z, rtol=1e-6)
    standard = networks.CouplingFlowPrior(D).distribution()
    np.testing.assert_allclose(standard.log_prob(z), networks.StandardNormal(D).log_prob(z), rtol=1e-6)


def test_float32_is_near_float64(seed):
    """What trains and serves is float32, whose log p(x) is trusted to 1e-3 nats."""
    for name in posteriors.names():
        head = posteriors.get(name, 20)
        parameters = np.random.default_rng(seed).normal(size=(6, head.num_parameters))
        weights = weights_of(head, seed)
        exact = head.distribution(tf.constant(parameters), *weights)
        single = head.distribution(
            tf.constant(parameters, tf.float32), *(tf.cast(weight, tf.float32) for weight in weights)
        )
        z = tf.cast(exact.sample(10, seed=(seed, 0)), tf.float32)
        np.testing.assert_allclose(
            single.log_prob(z), exact.log_prob(tf.cast(z, tf.float64)), rtol=1e-5, atol=5e-4, err_msg=name
        )


def test_errors():
    for get in (posteriors.get, priors.get):
        with pytest.raises(ValueError, match="needs a latent of at least 2 dimensions: received 1. Choose another"):
            get("coupling_flow", 1)
    with pytest.raises(ValueError, match="Unknown posterior: received 'student'. Did you mean 'student_t'"):
        posteriors.get("student", 2)
    with pytest.raises(ValueError, match="Unknown prior: received 'mixture'"):
        priors.get("mixture", 2)


@PRIORS
def test_priors_configuration_round_trip(name):
    layer = priors.get(name, D, seed=3)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert again.get_config() == layer.get_config()
    for ours, theirs in zip(layer.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
