import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
import tensorflow_probability as tfp
from oracles import flat

from iwae_zoo import networks, presets
from iwae_zoo.distributions import fusion, likelihoods, posteriors

tfd = tfp.distributions


@pytest.mark.parametrize("pixels", [1, 7, 12, 64, 784])
@pytest.mark.parametrize("scale", [1.0, 30.0, 1000.0])
def test_bernoulli_log_prob_is_exact(pixels, scale, seed):
    rng = np.random.default_rng(seed)
    logits = scale * rng.normal(size=(4, 3, pixels))
    x = (rng.random((3, pixels)) < 0.5).astype("float64")
    expected = (x * logits - np.logaddexp(0, logits)).sum(axis=-1)
    for dtype, rtol in (("float32", 2e-6), ("float64", 1e-12)):
        distribution = networks.IndependentBernoulli(tf.constant(logits, dtype), event_ndims=1)
        np.testing.assert_allclose(distribution.log_prob(x), expected, rtol=rtol, atol=rtol * pixels)


@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize("portable", [False, True])
def test_bernoulli_gradient(portable, seed):
    rng = np.random.default_rng(seed)
    logits = tf.constant(5 * rng.normal(size=(2, 3, 4, 4)))
    x = (rng.random((3, 4, 4)) < 0.5).astype("float64")
    upstream = rng.normal(size=(2, 3))
    with tf.GradientTape() as tape:
        tape.watch(logits)
        with fusion.portable() if portable else tf.name_scope(""):
            log_prob = networks.IndependentBernoulli(logits, event_ndims=2).log_prob(x)
    expected = (x - 1 / (1 + np.exp(-logits))) * upstream[..., None, None]
    np.testing.assert_allclose(tape.gradient(log_prob, logits, output_gradients=upstream), expected, rtol=1e-9)


def test_bernoulli_keeps_tfps_interface():
    logits = tf.random.stateless_normal([5, 2, 3, 1], seed=[1, 2])
    ours = networks.IndependentBernoulli(logits, event_ndims=3)
    theirs = tfd.Independent(tfd.Bernoulli(logits=logits, dtype=tf.float32), 3)
    x = theirs.sample(seed=[3, 4])
    np.testing.assert_allclose(ours.log_prob(x), theirs.log_prob(x), rtol=1e-5)
    np.testing.assert_allclose(ours.mean(), theirs.mean(), rtol=1e-6)
    np.testing.assert_array_equal(ours.sample(seed=[3, 4]), x)
    assert (ours.batch_shape, ours.event_shape) == (theirs.batch_shape, theirs.event_shape)
    assert ours.copy(logits=logits[:2]).batch_shape == [2]


def test_diagonal_normal_is_tfps(seed):
    rng = np.random.default_rng(seed)
    loc, scale, z = rng.normal(size=(3, 5)), rng.random((3, 5)) + 0.1, rng.normal(size=(7, 3, 5))
    ours, theirs = networks.DiagonalNormal(loc, scale), tfd.Independent(tfd.Normal(loc, scale), 1)
    np.testing.assert_allclose(ours.log_prob(z), theirs.log_prob(z), rtol=1e-12)
    residual = (ours.sample(20_000, seed=[seed, 2]) - loc) / scale  # noise_test has the whole distribution.
    assert np.abs(np.mean(residual, axis=0)).max() < 5 / np.sqrt(20_000)
    assert np.abs(np.mean(np.square(residual), axis=0) - 1).max() < 5 * np.sqrt(2 / 20_000)
    standard = networks.StandardNormal(5, tf.float64)
    np.testing.assert_allclose(standard.log_prob(z), scipy.stats.norm.logpdf(z).sum(axis=-1), rtol=1e-12)
    with tf.GradientTape() as tape:
        of_standard = tf.constant(z)
        tape.watch(of_standard)
        total = tf.reduce_sum(standard.log_prob(of_standard))
    np.testing.assert_allclose(tape.gradient(total, of_standard), -z, rtol=1e-12)
    assert ours.sample([2, 4], seed=[1, 2]).shape == (2, 4, 3, 5)
    assert networks.DiagonalNormal(tf.zeros(5), tf.ones([2, 3, 1])).sample(4, seed=[1, 2]).shape == (4, 2, 3, 5)
    np.testing.assert_allclose(tfd.kl_divergence(ours, theirs), 0.0, atol=1e-12)
    assert ours.reparameterization_type == tfd.FULLY_REPARAMETERIZED
    with tf.GradientTape() as tape:
        parameters = [tf.constant(value) for value in (loc, scale, z)]
        tape.watch(parameters)
        total = tf.reduce_sum(networks.DiagonalNormal(*parameters[:2]).log_prob(parameters[2]))
    by_loc, by_scale, by_z = tape.gradient(total, parameters)
    residual = (z - loc) / scale
    np.testing.assert_allclose(by_z, -residual / scale, rtol=1e-10)
    np.testing.assert_allclose(by_loc, (residual / scale).sum(axis=0), rtol=1e-10)
    np.testing.assert_allclose(by_scale, ((residual**2 - 1) / scale).sum(axis=0), rtol=1e-10)


@pytest.mark.slow
def test_mixed_precision(tmp_path):
    x = (np.random.default_rng(0).random((4, 3, 3, 1)) < 0.4).astype("float32")
    plain, mixed = (presets.build("small", data_shape=(3, 3, 1), mixed_precision=p) for p in (None, "bfloat16"))
    of_plain, of_mixed = (model.compute_gradients(x, seed=(1, 2)) for model in (plain, mixed))
    assert of_mixed.log_weights.dtype == tf.float32
    assert all(g.dtype == tf.float32 for g in (*of_mixed.encoder, *of_mixed.decoder))
    assert all(v.dtype == "float32" for v in mixed.trainable_variables)
    layers = [layer for side in (mixed.encoder, mixed.decoder) for layer in side.body.stack]
    assert {layer.compute_dtype for layer in layers} == {"bfloat16"}
    for side in ("encoder", "decoder"):
        one, other = flat(getattr(of_plain, side)), flat(getattr(of_mixed, side))
        assert 1e-5 < np.linalg.norm(one - other) / np.linalg.norm(one) < 0.05  # bfloat16 has 8 bits.
    mixed.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.compute_gradients(x, seed=(1, 2)).log_weights, of_mixed.log_weights)
    with pytest.raises(ValueError, match="'bfloat16' or left out: received 'float16'"):
        presets.build("small", data_shape=(3, 3, 1), mixed_precision="float16")


def test_dense_is_keras(seed):
    rng = np.random.default_rng(seed)
    x = tf.constant(rng.normal(size=(5, 3)).astype("float32"))
    ours, theirs = networks.dense.Dense(4, "tanh"), keras.layers.Dense(4, "tanh")
    ours.build((None, 3)), theirs.build((None, 3))
    theirs.set_weights([rng.normal(size=w.shape) for w in ours.get_weights()])
    ours.set_weights(theirs.get_weights())
    received = []
    for layer in (ours, theirs):
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.reduce_sum(layer(x) ** 3)
        received.append([total, *tape.gradient(total, [x, *(v.value for v in layer.trainable_variables)])])
    for a, b in zip(*received, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_bernoulli_support():
    distribution = networks.IndependentBernoulli(tf.zeros([2]), event_ndims=1)
    for outside in (0.5, -1.0, 2.0, np.nan, np.inf):
        assert distribution.log_prob([outside, 1.0]).numpy() == -np.inf
    assert distribution.log_prob([0, 1]).numpy() == pytest.approx(2 * np.log(0.5))


@pytest.mark.usefixtures("optimized")
def test_portable_graphs_have_no_xla():
    def log_prob(logits):
        return networks.IndependentBernoulli(logits, event_ndims=1).log_prob(tf.zeros([3]))

    spec = tf.TensorSpec([2, 3])
    fused = tf.function(log_prob, autograph=False).get_concrete_function(spec)
    with fusion.portable():
        portable = tf.function(log_prob, autograph=False).get_concrete_function(spec)
    assert "_XlaMustCompile" in str(fused.graph.as_graph_def())
    assert "_XlaMustCompile" not in str(portable.graph.as_graph_def())


def test_encoder_and_decoder_shapes():
    encoder = networks.MLPEncoder(5, (8, 6))
    posterior = encoder.posterior(np.zeros((3, 4, 4, 1), "float32"))
    assert (posterior.batch_shape, posterior.event_shape) == ([3], [5])
    decoder = networks.MLPDecoder((4, 4, 1), (6, 8))
    likelihood = decoder.likelihood(tf.zeros([2, 7, 3, 5]))
    assert (likelihood.batch_shape, likelihood.event_shape) == ([2, 7, 3], [4, 4, 1])
    prior = networks.StandardNormalPrior(5).distribution()
    assert (prior.batch_shape, prior.event_shape) == ([], [5])


def test_particles_are_decoded_each_by_itself():
    decoder = networks.MLPDecoder((4,), (6,))
    z = tf.random.stateless_normal([2, 3, 5], seed=[1, 2])
    np.testing.assert_allclose(decoder.likelihood(z).mean()[1, 2], decoder.likelihood(z[1, 2]).mean(), rtol=1e-5)


def test_output_bias_starts_at_the_logit_of_the_mean():
    mean = np.array([[0.0, 0.25], [0.5, 1.0]])
    decoder = networks.MLPDecoder((2, 2), (6,), data_mean=mean)
    likelihood = decoder.likelihood(tf.zeros([1, 3])).mean()[0]
    np.testing.assert_allclose(likelihood, np.clip(mean, 0.001, 0.999), rtol=1e-4)
    with pytest.raises(ValueError, match=r"data_mean, must be of the shape of x, \(2, 2\): received \(4,\)"):
        networks.MLPDecoder((2, 2), data_mean=mean.ravel())


@pytest.mark.parametrize(
    "layer",
    [
        networks.MLPEncoder(3, (4,), "relu", seed=5),
        networks.MLPDecoder((2, 2), (4,)),
        networks.Encoder(networks.Perceptron((4,), 6, "relu", seed=5), posteriors.Normal(3)),
        networks.Decoder(networks.Perceptron((4,), 4), likelihoods.Bernoulli(smoothing=0.01), (2, 2)),
        networks.StandardNormalPrior(3),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_configuration_round_trip(layer):
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert again.get_config() == layer.get_config()


def test_mixed_precision_keeps_densities_in_float32():
    encoder = networks.MLPEncoder(3, (4,), dtype="mixed_bfloat16")
    decoder = networks.MLPDecoder((2, 2), (4,), dtype="mixed_bfloat16")
    z = encoder.posterior(np.zeros((2, 2, 2), "float32")).sample(seed=[0, 1])
    assert z.dtype == tf.float32
    assert decoder.likelihood(z).log_prob(np.zeros((2, 2, 2))).dtype == tf.float32
