"""Bodies against numpy: what each layer computes, and what cannot be one."""

import keras
import numpy as np
import pytest
import scipy.signal
import tensorflow as tf

from iwae_zoo import ImportanceWeightedAutoencoder, networks, presets
from iwae_zoo.distributions import likelihoods, posteriors
from iwae_zoo.networks import bodies


def elu(x):
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def convolved(x, kernel, bias, step=1):
    """One image [height, width, channels] with a kernel [k, k, channels, outputs], as TensorFlow's "SAME" places it."""
    height, width, _ = x.shape
    size = [-(-side // step) for side in (height, width)]
    pads = [max((n - 1) * step + kernel.shape[0] - side, 0) for n, side in zip(size, (height, width), strict=True)]
    padded = np.pad(x, [*((pad // 2, pad - pad // 2) for pad in pads), (0, 0)])
    return bias + np.stack(
        [
            sum(
                scipy.signal.correlate2d(padded[..., c], kernel[..., c, out], "valid")[::step, ::step]
                for c in range(x.shape[-1])
            )
            for out in range(kernel.shape[-1])
        ],
        axis=-1,
    )


def transposed(x, kernel, bias, size):
    """The adjoint of a convolution of step 2, entry by entry."""
    y = np.zeros((*size, kernel.shape[2]))
    pads = [((n - 1) * 2 + 4 - side) // 2 for n, side in zip(x.shape[:2], size, strict=True)]
    for i, j, a, b in np.ndindex(*x.shape[:2], 4, 4):
        row, column = 2 * i + a - pads[0], 2 * j + b - pads[1]
        if 0 <= row < size[0] and 0 <= column < size[1]:
            y[row, column] += kernel[a, b] @ x[i, j]
    return y + bias


def residual(x, first, second):
    return x + convolved(elu(convolved(elu(x), *first)), *second)


def shaken(layer, seed):
    rng = np.random.default_rng(seed)
    for variable in layer.variables:
        variable.assign_add(0.2 * rng.normal(size=variable.shape))
    return [variable.numpy() for variable in layer.variables]


@pytest.mark.parametrize("size", [(8, 8), (7, 10), (64, 64)])
def test_down_convolution_is_numpys(size, seed):
    layer = networks.DownConvolution((3, 4), 5)
    x = np.random.default_rng(seed).normal(size=(2, *size, 2)).astype("float32")
    layer(x)
    down0, down0_bias, *rest = shaken(layer, seed)
    blocks = [(rest[i], rest[i + 1]) for i in range(0, 4, 2)]
    down1, down1_bias, *rest = rest[4:]
    more = [(rest[i], rest[i + 1]) for i in range(0, 4, 2)]
    dense, dense_bias = rest[4:]
    for row, received in zip(x, layer(x).numpy(), strict=True):
        y = residual(convolved(row, down0, down0_bias, 2), *blocks)
        y = residual(convolved(elu(y), down1, down1_bias, 2), *more)
        np.testing.assert_allclose(received, elu(y).ravel() @ dense + dense_bias, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(8, 8), (7, 10), (64, 64)])
def test_up_convolution_is_numpys(size, seed):
    """Two numbers for each value: all first ones, then all second ones."""
    layer = networks.UpConvolution((4, 3), (*size, 2), parameters_per_value=2)
    z = np.random.default_rng(seed).normal(size=(2, 5)).astype("float32")
    layer(z)
    bias, dense, dense_bias, *rest = shaken(layer, seed)
    pairs = [(rest[i], rest[i + 1]) for i in range(0, len(rest), 2)]
    sizes = [[-(-side // 2**i) for side in size] for i in (2, 1, 0)]
    for row, received in zip(z, layer(z).numpy(), strict=True):
        y = residual((row @ dense + dense_bias).reshape(*sizes[0], 4), *pairs[:2])
        y = residual(transposed(elu(y), *pairs[2], sizes[1]), *pairs[3:5])
        y = transposed(elu(y), *pairs[5], sizes[2]).reshape(*size, 2, 2)
        np.testing.assert_allclose(received, np.moveaxis(y, 2, 0).ravel() + bias, rtol=1e-4, atol=1e-4)


def test_residual_and_normalized_perceptron_is_numpys(seed):
    layer = networks.Perceptron((4, 4, 3), 2, "elu", residual=True, normalized=True)
    x = np.random.default_rng(seed).normal(size=(5, 6)).astype("float32")
    layer(x)
    weights = shaken(layer, seed)
    dense, norms = weights[:8], weights[8:]
    y = x
    for i in range(3):
        h = y @ dense[2 * i] + dense[2 * i + 1]
        h = (h - h.mean(axis=1, keepdims=True)) / np.sqrt(h.var(axis=1, keepdims=True) + 1e-3)
        h = elu(h * norms[2 * i] + norms[2 * i + 1])
        y = y + h if y.shape == h.shape else h
    np.testing.assert_allclose(layer(x), y @ dense[6] + dense[7], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "layer",
    [
        networks.DownConvolution((4, 8), 6, "silu", blocks=2, seed=3),
        networks.UpConvolution((8, 4), (6, 5, 3), 2, blocks=0),
        networks.Perceptron((4, 4), 6, keras.activations.gelu, residual=True, normalized=True),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_configuration_round_trip(layer):
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert again.get_config() == layer.get_config()


def test_a_convolution_starts_at_the_mean_of_the_data():
    rng = np.random.default_rng(0)
    data = (rng.random((50, 8, 8, 3)) < rng.random((8, 8, 3))).astype("float32")
    model = presets.build("conv_8", data_shape=(8, 8, 3), data_mean=data.mean(axis=0))
    mean = model.decoder.likelihood(tf.zeros([1, 16])).mean()[0]
    expected = np.clip(data.mean(axis=0), 0.001, 0.999)
    assert np.abs(mean - expected).mean() < 0.25 * np.abs(0.5 - expected).mean()


@pytest.mark.parametrize("shape", [(64,), (8, 8), (3, 8, 1)])
def test_a_convolution_needs_images(shape):
    with pytest.raises(
        ValueError, match=r"needs x of shape \[height, width, channels\], with sides of at least 4 for 2"
    ):
        presets.build("conv_8", data_shape=shape)


def test_a_body_of_ones_own_by_its_place(monkeypatch):
    own = bodies.Body(bodies.TABLE["perceptron"].encoder, bodies.TABLE["perceptron"].decoder)
    monkeypatch.setattr(bodies, "mine", own, raising=False)
    model = presets.build("small", data_shape=(4,), network="iwae_zoo.networks.bodies:mine")
    assert isinstance(model.encoder.body, networks.Perceptron)


@pytest.mark.parametrize(
    ("text", "message"), [("1 +", "SyntaxError"), ("raise RuntimeError('boom')", "RuntimeError: boom")]
)
def test_a_module_of_ones_own_that_is_broken(text, message, monkeypatch, tmp_path):
    (tmp_path / "broken_body.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=f"The network 'broken_body:mine' cannot be had: {message}"):
        bodies.get("broken_body:mine")
    for name in (".x:y", ":y"):
        with pytest.raises(ValueError, match=f"The network '{name}' cannot be had"):
            bodies.get(name)


@pytest.mark.parametrize("name", posteriors.names())
def test_an_encoder_with_other_outputs_than_its_posterior_reads(name):
    posterior = posteriors.get(name, 4)
    needed = posterior.num_parameters
    message = rf"'encoder.*', 'mine', must have {needed} outputs for each row in one axis, which the posterior '{name}'"
    for size in (needed - 1, needed + 1, 2 * needed, needed + posterior.latent_size):
        encoder = networks.Encoder(keras.layers.Dense(size, name="mine"), posterior)
        with pytest.raises(ValueError, match=rf"{message} reads: received {size}, of shape \[N, {size}\]"):
            encoder.posterior(tf.zeros([1, 3]))
    encoder = networks.Encoder(keras.layers.Reshape((needed, 1), name="mine"), posterior)
    with pytest.raises(ValueError, match=rf"{message} reads: received {needed}, of shape \[N, {needed}, 1\]"):
        encoder.posterior(tf.zeros([2, needed]))


def test_a_triangle_of_another_size_is_no_covariance():
    """In a network of one's own around the head: 2 means and a triangle of 3 rows."""
    with pytest.raises(tf.errors.InvalidArgumentError):
        posteriors.FullNormal(2).distribution(tf.zeros([1, 8]))


@pytest.mark.parametrize("name", [name for name in likelihoods.names() if name != "columns"])
def test_a_decoder_with_other_outputs_than_its_likelihood_reads(name):
    head = likelihoods.get(name)
    needed = 6 * head.parameters_per_value
    for size in (needed - 1, 2 * needed):
        decoder = networks.Decoder(keras.layers.Dense(size, name="mine"), head, (3, 2))
        message = rf"'decoder.*', 'mine', must have {needed} outputs .* likelihood '{name}' reads: received {size},"
        with pytest.raises(ValueError, match=message):
            decoder.likelihood(tf.zeros([2, 4]))


def test_a_layer_between_latents_with_other_outputs():
    layer = networks.Conditional(keras.layers.Dense(5), posteriors.Normal(2))
    with pytest.raises(ValueError, match="The body of the Conditional .* must have 4 outputs .* received 5"):
        layer.distribution(tf.zeros([3, 2]))


def test_batch_normalisation_is_refused():
    """A row's log p(x) would depend on the rows beside it."""
    posterior = posteriors.Normal(2)
    body = keras.Sequential([keras.layers.BatchNormalization(), keras.layers.Dense(posterior.num_parameters)])
    decoder = networks.Decoder(networks.Perceptron((4,), 3), likelihoods.Bernoulli(), (3,))
    with pytest.raises(ValueError, match="The encoder holds a batch normalisation, 'batch_normalization"):
        ImportanceWeightedAutoencoder(networks.Encoder(body, posterior), decoder, networks.StandardNormalPrior(2))
