"""Discrete latents and their relaxations: densities against scipy and TFP, draws, extreme logits, gradients."""

import itertools

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import tensorflow as tf
import tensorflow_probability as tfp

from iwae_zoo.distributions import posteriors
from iwae_zoo.distributions.discrete import IndependentBits, OneHots
from iwae_zoo.distributions.relaxed import RelaxedBits, RelaxedOneHots
from iwae_zoo.networks import prior as priors

tfd = tfp.distributions
DISCRETE = pytest.mark.parametrize("name", ["bernoulli", "categorical,classes=3"])
D = 6


def every_z(name):
    """All of the support, [N, D]."""
    if name == "bernoulli":
        return np.array(list(itertools.product([0.0, 1.0], repeat=D)))
    return np.array([np.concatenate(pair) for pair in itertools.product(np.eye(3), repeat=2)])


def expected_log_prob(name, logits, z):
    """By scipy, of z [N, D] and logits [B, D]: [N, B]."""
    if name == "bernoulli":
        return scipy.stats.bernoulli(scipy.special.expit(logits)).logpmf(z[:, np.newaxis]).sum(axis=-1)
    probabilities = scipy.special.softmax(logits.reshape(-1, 2, 3), axis=-1)
    chosen = [
        scipy.stats.multinomial(1, probabilities[:, g]).logpmf(z[:, np.newaxis, 3 * g :][..., :3]) for g in (0, 1)
    ]
    return chosen[0] + chosen[1]


@DISCRETE
def test_probabilities(name, seed):
    logits = 2 * np.random.default_rng(seed).normal(size=(4, D))
    q, z = posteriors.get(name, D).distribution(tf.constant(logits)), every_z(name)
    log_probs = q.log_prob(z[:, np.newaxis]).numpy()
    np.testing.assert_allclose(log_probs, expected_log_prob(name, logits, z), rtol=1e-9)
    probabilities = np.exp(log_probs)
    np.testing.assert_allclose(probabilities.sum(axis=0), 1.0, rtol=1e-12)
    mean = np.einsum("nb,nd->bd", probabilities, z)
    np.testing.assert_allclose(q.mean(), mean, rtol=1e-9)
    np.testing.assert_allclose(q.stddev(), np.sqrt(mean * (1 - mean)), rtol=1e-6)
    np.testing.assert_array_equal(q.point(), z[np.argmax(probabilities, axis=0)])
    other = posteriors.get(name, D).distribution(tf.constant(logits[::-1].copy()))
    divergence = np.sum(probabilities * (log_probs - log_probs[:, ::-1]), axis=0)
    np.testing.assert_allclose(tfd.kl_divergence(q, other), divergence, rtol=1e-9)
    # Between the points of the support it is linear in z.
    middle = q.log_prob(np.mean(z[:2], axis=0))
    np.testing.assert_allclose(middle, log_probs[:2].mean(axis=0), rtol=1e-9)


@DISCRETE
def test_frequencies_of_draws(name, seed):
    logits = np.random.default_rng(1).normal(size=(1, D))
    q, z = posteriors.get(name, D).distribution(tf.constant(logits, tf.float32)), every_z(name)
    drawn = q.sample(50_000, seed=(seed, 0)).numpy()[:, 0]
    place = np.argmax(drawn @ z.T + (1 - drawn) @ (1 - z.T), axis=1)
    np.testing.assert_array_equal(z[place], drawn)
    observed = np.bincount(place, minlength=len(z))
    expected = np.exp(expected_log_prob(name, logits, z))[:, 0]
    assert scipy.stats.chisquare(observed, 50_000 * expected).pvalue > 1e-6


@DISCRETE
@pytest.mark.parametrize("relaxed", ["", "relaxed_"])
def test_extreme_logits(name, relaxed, seed):
    """Draws, densities and gradients are finite in float32, and what is certain is drawn."""
    logits = tf.constant(
        np.random.default_rng(seed).permuted([[1e4, -1e4, 0, 30, -30, 5], [0.0] * 6], axis=1), tf.float32
    )
    head = posteriors.get(relaxed + name, D)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        q = head.distribution(logits)
        z = q.sample(1000, seed=(seed, 0))
        log_prob = q.log_prob(z)
        features = head.features(z)
    assert np.isfinite(z).all() and np.isfinite(log_prob).all() and np.isfinite(features).all()
    assert np.isfinite(tape.gradient([log_prob, features], logits)).all()
    assert (features.numpy() >= 0).all() and (features.numpy() <= 1).all()
    if not relaxed:
        assert log_prob.numpy().min() > -20  # None that has no probability to speak of.
        certain = abs(q.mean().numpy() - 0.5) > 0.4999999
        np.testing.assert_array_equal(z.numpy()[:, certain], np.tile(np.round(q.mean()[certain]), (1000, 1)))
    off = q.log_prob(np.roll(head.discrete.distribution(logits).point(), 1, axis=-1))
    assert np.isfinite(off).all()


@DISCRETE
@pytest.mark.parametrize("relaxed", ["", "relaxed_"])
def test_gradients_are_those_of_finite_differences(name, relaxed, seed):
    """By logits and by z; at logits 0, where learned priors start, too."""
    rng = np.random.default_rng(seed)
    logits, z = rng.normal(size=(2, D)), rng.normal(size=(5, 2, D)) if relaxed else rng.random((5, 2, D))
    logits[0, :3] = 0.0
    head = posteriors.get(relaxed + name, D)
    theoretical, numerical = tf.test.compute_gradient(
        lambda logits, z: head.distribution(logits).log_prob(z), [tf.constant(logits), tf.constant(z)], delta=1e-5
    )
    for ours, theirs in zip(theoretical, numerical, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("temperature", [0.3, 2.0])
def test_relaxed_densities_are_tfps(temperature, seed):
    rng = np.random.default_rng(seed)
    logits = tf.constant(rng.normal(size=(4, 3)))
    q, reference = RelaxedBits(logits, temperature), tfd.RelaxedBernoulli(np.float64(temperature), logits=logits)
    z = tf.constant(rng.normal(size=(7, 4, 3)))
    # Of sigmoid(z), whose derivative by z is its variance.
    inside = tf.sigmoid(z)
    expected = reference.log_prob(inside) + tf.math.log(inside * (1.0 - inside))
    np.testing.assert_allclose(q.log_prob(z), tf.reduce_sum(expected, axis=-1), rtol=1e-9)
    logits = tf.reshape(logits[:, tf.newaxis] + rng.normal(size=(4, 2, 3)), [4, 2, 3])
    q = RelaxedOneHots(logits, temperature)
    z = rng.normal(size=(7, 4, 2, 3))
    shift = scipy.special.logsumexp(z, axis=-1)
    simplex = tfd.ExpRelaxedOneHotCategorical(np.float64(temperature), logits=logits)
    # One coordinate is the logarithm of a Gamma variable.
    expected = simplex.log_prob(z - shift[..., np.newaxis]) + scipy.stats.loggamma(3).logpdf(shift)
    np.testing.assert_allclose(q.log_prob(z.reshape(7, 4, 6)), tf.reduce_sum(expected, axis=-1), rtol=1e-9)


def test_relaxed_densities_integrate_to_one():
    bits = RelaxedBits(tf.constant([1.5], tf.float64), 0.4)
    grid = np.linspace(-150, 150, 20_001)
    assert scipy.integrate.simpson(np.exp(bits.log_prob(grid[:, np.newaxis])), x=grid) == pytest.approx(1, abs=1e-8)
    classes = RelaxedOneHots(tf.constant([[1.0, -0.5]], tf.float64), 0.8)
    grid = np.linspace(-60, 8, 1401)
    plane = np.stack(np.meshgrid(grid, grid, indexing="ij"), axis=-1)
    rows = scipy.integrate.simpson(np.exp(classes.log_prob(plane)), x=grid)
    assert scipy.integrate.simpson(rows, x=grid) == pytest.approx(1, abs=1e-6)


def test_relaxed_draws_tend_to_the_discrete_ones(seed):
    """For the same seed the relaxed one rounds to the discrete one, whatever the temperature."""
    logits = tf.constant(np.random.default_rng(seed).normal(size=(5, 6)))
    exact = IndependentBits(logits).sample(200, seed=(seed, 1))
    for temperature in (2.0, 0.01):
        relaxed = RelaxedBits(logits, temperature).sample(200, seed=(seed, 1))
        np.testing.assert_array_equal(exact, tf.round(tf.sigmoid(relaxed)))
    logits = tf.reshape(logits, [5, 2, 3])
    exact = tf.reshape(OneHots(logits).sample(200, seed=(seed, 1)), [200, 5, 2, 3])
    for temperature in (2.0, 0.01):
        relaxed = tf.reshape(RelaxedOneHots(logits, temperature).sample(200, seed=(seed, 1)), [200, 5, 2, 3])
        np.testing.assert_array_equal(tf.argmax(exact, -1), tf.argmax(relaxed, -1))
        # Its free coordinate has one distribution for all.
        shift = scipy.special.logsumexp(relaxed, axis=-1).ravel()
        assert scipy.stats.kstest(shift, scipy.stats.loggamma(3).cdf).pvalue > 1e-6


def test_draws_of_float32_reach_as_far_down_as_up(monkeypatch):
    for end, bit in ((0.0, 0.0), (1 - 2**-23, 1.0)):
        monkeypatch.setattr(
            "iwae_zoo.distributions.noise.uniform", lambda rows, size, *_, end=end: tf.fill([rows, size], end)
        )
        z = RelaxedBits(tf.zeros([1]), 1.0).sample(seed=(0, 0))
        assert float(abs(z[0])) == pytest.approx(np.log(2**24), rel=1e-6)
        assert float(IndependentBits(tf.zeros([1])).sample(seed=(0, 0))[0]) == bit
        assert np.isfinite(RelaxedOneHots(tf.zeros([1, 3]), 0.1).sample(seed=(0, 0))).all()
    far = tf.constant([[-1e3, 0.0, 1.0], [59.0, 0.0, 1.0], [61.0, 0.0, 1.0], [1e3, 0.0, 1.0]])  # Of another posterior.
    with tf.GradientTape() as tape:
        tape.watch(far)
        log_prob = RelaxedOneHots(tf.zeros([1, 3]), 0.1).log_prob(far)
    assert np.isfinite(log_prob).all() and (np.diff(log_prob) < 0).all()
    assert np.isfinite(tape.gradient(log_prob, far)).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: posteriors.get("categorical,classes=4", 6),
            "classes must divide the size of the latent, 6: received 4",
        ),
        (
            lambda: posteriors.get("categorical", 1),
            "A categorical latent has at least two classes: received latent_size=1",
        ),
        (
            lambda: posteriors.get("relaxed_categorical,classes=ten", 6),
            r"classes of relaxed_categorical must be a value of type int \| None: received 'ten'",
        ),
        (
            lambda: posteriors.get("relaxed_bernoulli,temperature=0", 6),
            "temperature must be a positive number: received 0",
        ),
        (lambda: posteriors.get("bernoulli,temperature=1", 6), "Unknown setting of bernoulli: received 'temperature'"),
        (lambda: posteriors.get("coupling_flow,hidden_size=0", 6), "hidden_size must be an integer of at least 1"),
        (lambda: priors.get("bernoulli,learned=1", 6), "learned must be True or False: received 1"),
        (lambda: priors.get("mixture_of_normals,num_components=0", 6), "num_components must be an integer"),
    ],
)
def test_settings_that_cannot_be_had(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_priors_keep_their_settings():
    fair = priors.get("categorical,classes=2,learned=False", 4)
    again = type(fair).from_config(fair.get_config())
    assert again.trainable_variables == [] and again.head.classes == 2
    np.testing.assert_allclose(again.distribution().mean(), 0.5)
    assert len(priors.get("relaxed_bernoulli,temperature=0.5", 4).trainable_variables) == 1
