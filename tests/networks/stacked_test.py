"""Stacked stochastic layers: joint distributions against scipy, draws by row, moments, and what presets build."""

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
import tensorflow_probability as tfp

from iwae_zoo import ImportanceWeightedAutoencoder, networks, particles, presets
from iwae_zoo.distributions import posteriors
from iwae_zoo.testing import StackedLinearGaussian

tfd = tfp.distributions


@pytest.fixture(scope="module")
def truth():
    return StackedLinearGaussian.random(seed=3)


def joint_of_encoder(truth, x):
    """Means [B, 5] and covariance [5, 5] of z = [z_1, z_2] under q(z | x)."""
    (weight_1, bias_1, scale_1), (weight_2, bias_2, scale_2) = truth.encoder_parameters(0.3)
    loc = x @ weight_1.T + bias_1
    covariance = scale_1 @ scale_1.T
    cross = covariance @ weight_2.T
    blocks = [[covariance, cross], [cross.T, weight_2 @ cross + scale_2 @ scale_2.T]]
    return np.concatenate([loc, loc @ weight_2.T + bias_2], axis=1), np.block(blocks)


def test_densities_are_those_of_the_joint_gaussians(truth, seed):
    model = truth.model(mismatch=0.3, dtype="float64")
    x = truth.sample(4)
    z = np.random.default_rng(seed).normal(size=(6, 4, 5))
    means, covariance = joint_of_encoder(truth, x)
    q = model.encoder.posterior(x)
    assert (q.batch_shape, q.event_shape, q.layer_sizes) == ([4], [5], (3, 2))
    expected = [scipy.stats.multivariate_normal(mean, covariance).logpdf(z[:, b]) for b, mean in enumerate(means)]
    np.testing.assert_allclose(q.log_prob(z), np.transpose(expected), rtol=1e-9)
    p = model.prior.distribution()
    assert (p.batch_shape, p.event_shape, p.layer_sizes) == ([], [5], (3, 2))
    upper = truth.upper
    covariance = np.block([[upper.covariance, upper.weight], [upper.weight.T, np.eye(2)]])
    joint = scipy.stats.multivariate_normal(np.concatenate([upper.bias, np.zeros(2)]), covariance)
    np.testing.assert_allclose(p.log_prob(z), joint.logpdf(z), rtol=1e-9)
    # One example's draws against all examples, as `latent_use` asks.
    np.testing.assert_allclose(q.log_prob(z[:, :1])[:, 0], q.log_prob(z)[:, 0], rtol=1e-12)


def test_draws_have_the_joint_moments(truth, seed):
    model = truth.model(mismatch=0.3, dtype="float64")
    x = truth.sample(1)
    (of_encoder,), covariance_of_encoder = joint_of_encoder(truth, x)
    upper = truth.upper
    of_prior = np.block([[upper.covariance, upper.weight], [upper.weight.T, np.eye(2)]])
    for z, mean, covariance in (
        (model.encoder.posterior(x).sample(50_000, seed=(seed, 0))[:, 0], of_encoder, covariance_of_encoder),
        (model.prior.distribution().sample(50_000, seed=(seed, 1)), np.append(upper.bias, [0, 0]), of_prior),
    ):
        whitened = np.linalg.solve(np.linalg.cholesky(covariance), (z - mean).numpy().T)
        assert np.abs(whitened.mean(axis=1)).max() < 5 / np.sqrt(50_000)
        assert np.abs(whitened @ whitened.T / 50_000 - np.eye(5)).max() < 5 * np.sqrt(2 / 50_000)


def small(**options):
    options = {"latent_size": (4, 3, 2), "hidden_sizes": ((8,), (7, 6), (5,)), **options}
    return presets.build("plane", **{"data_shape": (5,), **options})


@pytest.fixture(scope="module")
def model():
    return small()


def binary(count):
    return (np.random.default_rng(0).random((count, 5)) < 0.4).astype("float32")


def test_a_part_draws_what_the_whole_draws(model):
    x = binary(6)
    whole = particles.draw(model.encoder.posterior(x), 2, 4, (3, 4))
    assert whole.shape == (2, 4, 6, 9)
    part = particles.draw(model.encoder.posterior(x[4:]), 2, 4, (3, 4), first_row=4)
    np.testing.assert_allclose(part, whole[:, :, 4:], rtol=1e-5, atol=1e-5)
    other = particles.draw(model.encoder.posterior(x[4:]), 2, 4, (3, 4), first_row=3)
    assert not np.isclose(other, whole[:, :, 4:]).any()
    # Particles of one example have numbers of their own, in each layer.
    for layer in np.split(whole.numpy(), [4, 7], axis=-1):
        assert len(np.unique(layer)) == layer.size


def test_moments(truth):
    x = truth.sample(3)
    exact = truth.model(mismatch=0.3, dtype="float64").encoder.posterior(x)
    means, covariance = joint_of_encoder(truth, x)
    stddevs = np.sqrt(np.diag(covariance))
    assert (np.abs(exact.mean() - means) < 5 / 16 * stddevs).all()
    np.testing.assert_allclose(exact.stddev() / stddevs, 1.0, atol=5 * np.sqrt(0.5 / 256))
    np.testing.assert_allclose(exact.variance(), np.square(exact.stddev()), rtol=1e-6)
    # Those of the first layer are its own.
    np.testing.assert_allclose(exact.mean()[:, :3], means[:, :3], rtol=1e-9)


def test_moments_do_not_depend_on_the_place_in_a_batch(model):
    x = binary(4)
    mean, stddev = model.encoder.posterior(x).mean(), model.encoder.posterior(x).stddev()
    again = model.encoder.posterior(x[::-1])
    np.testing.assert_allclose(again.mean()[::-1], mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(again.stddev()[::-1], stddev, rtol=1e-5)
    same = model.encoder.posterior(np.repeat(x[:1], 4, axis=0)).mean()
    np.testing.assert_allclose(same, np.repeat(same[:1], 4, axis=0), rtol=1e-6)


def test_layers_are_drawn_from_numbers_of_their_own(seed):
    """Also those of a prior, whose rows are one."""
    for shape in ([3, 2], [2]):
        first = networks.DiagonalNormal(tf.zeros(shape), tf.ones(shape))
        stacked = networks.Stacked(first, [lambda z: networks.DiagonalNormal(0.0 * z, tf.ones_like(z))])
        z = np.reshape(stacked.sample(50_000, seed=(seed, 0)), [50_000, -1])
        assert np.abs(np.corrcoef(z.T) - np.eye(z.shape[1])).max() < 5 / np.sqrt(50_000)
        np.testing.assert_allclose(stacked.stddev(), 1.0, atol=5 * np.sqrt(0.5 / 256))


def test_conditionals_of_other_families():
    def bits(z):
        return tfd.Independent(tfd.Bernoulli(logits=z[..., :2], dtype=tf.float32), 1)

    first = networks.DiagonalNormal(tf.zeros([3, 4]), tf.ones([3, 4]))
    assert networks.Stacked(first, [bits]).reparameterization_type == tfd.NOT_REPARAMETERIZED
    with pytest.raises(ValueError, match=r"received batch shape \(1, 4\) and event shape \(\). tfd.Independent turns"):
        networks.Stacked(first, [lambda z: tfd.Normal(z, 1.0)])
    assert networks.Stacked(first, []).reparameterization_type == tfd.FULLY_REPARAMETERIZED


def kernels(variables):
    return [tuple(v.shape) for v in variables if len(v.shape) == 2]


def test_burdas_two_layers():
    model = presets.build("burda_2", data_shape=(28, 28, 1))
    up = [(784, 200), (200, 200), (200, 200), (100, 100), (100, 100), (100, 100)]
    down = [(100, 200), (200, 200), (200, 784), (50, 100), (100, 100), (100, 200)]
    assert (kernels(model.encoder_variables), kernels(model.decoder_variables)) == (up, down)
    assert model.latent_size == 150
    # No two layers start with the same numbers.
    starts = [v.numpy().ravel()[:50].tobytes() for v in model.trainable_variables if len(v.shape) == 2]
    assert len(set(starts)) == len(starts)


def test_the_way_down_mirrors_the_way_up(model):
    up = [(5, 8), (8, 8), (4, 7), (7, 6), (6, 6), (3, 5), (5, 4)]
    down = [(4, 8), (8, 5), (2, 5), (5, 6), (3, 6), (6, 7), (7, 8)]
    assert (kernels(model.encoder_variables), kernels(model.decoder_variables)) == (up, down)


@pytest.mark.parametrize(
    "layer",
    [
        networks.Conditional(networks.Perceptron((4,), 6, "relu", seed=5), posteriors.Normal(3)),
        small().encoder,
        small().decoder,
        small().prior,
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_configuration_round_trip(layer):
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert again.get_config() == layer.get_config()


def test_mixed_precision_keeps_densities_in_float32():
    model = small(mixed_precision="bfloat16")
    gradients = model.compute_gradients(binary(2), seed=(0, 1))
    assert gradients.log_weights.dtype == tf.float32
    assert {layer.body.compute_dtype for layer in (*model.encoder.conditionals, *model.prior.conditionals)} == {
        "bfloat16"
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_sizes": ((8,), (8,))}, "for each stochastic layer: received latent_size=.4, 3, 2., hidden_sizes=..8"),
        ({"hidden_sizes": ((8,), (8,), 8)}, "for each stochastic layer"),
        ({"latent_size": ()}, "for each stochastic layer"),
        ({"latent_size": (4, 0, 2)}, "latent_size must be an integer of at least 1: received 0"),
        ({"hidden_sizes": 8}, "hidden_sizes must be a tuple, such as .100,.: received 8"),
        ({"hidden_sizes": (8, 2.5)}, "hidden_sizes must be an integer of at least 1: received 2.5"),
        (
            {"data_shape": None, "data": np.zeros([3, 4])},
            "data must be a data.Dataset, .*: received ndarray. Pass data.Dataset",
        ),
        ({"data_shape": 4}, "data_shape must be a tuple, the shape of one x: received 4"),
        ({"seed": 0.5}, "seed must be an integer of at least 0: received 0.5"),
    ],
)
def test_sizes_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        small(**options)


def test_errors(model):
    with pytest.raises(ValueError, match="a keras.Layer with a method distribution"):
        networks.StackedEncoder(model.encoder.first, [keras.layers.Dense(4)])
    with pytest.raises(ValueError, match="Encoder and prior disagree about the latent"):
        ImportanceWeightedAutoencoder(model.encoder, model.decoder, networks.StandardNormalPrior(4)).build((None, 5))
    holed = presets.build("plane", data_shape=(5,), likelihood="normal,missing=True", latent_size=(4, 2))
    blind = small(latent_size=(4, 2), hidden_sizes=((8,), (8,))).encoder
    with pytest.raises(ValueError, match="The decoder takes missing values and the encoder does not"):
        ImportanceWeightedAutoencoder(blind, holed.decoder, holed.prior)
