"""The contract of posteriors, priors and stacked layers: with every objective, saved, exported and on two devices."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from oracles import flat, naive_gradients

from iwae_zoo import likelihood, objectives, presets, saved_model, strategies
from iwae_zoo.distributions import posteriors
from iwae_zoo.networks import prior as priors
from iwae_zoo.testing import StackedLinearGaussian

M, K = 2, 3
ONE = {"latent_size": 3, "hidden_sizes": (6,)}
TWO = {"latent_size": (3, 2), "hidden_sizes": ((6,), (5,))}
PAIRS = [
    {**stack, "posterior": q, "prior": p}
    for q, p in itertools.product(posteriors.names(), priors.names())
    for stack in ([ONE, TWO] if p == "standard_normal" else [ONE])
]
# Each posterior and each prior, one layer and two.
FEW = [
    {**ONE, "posterior": "full_normal", "prior": "mixture_of_normals"},
    {**ONE, "posterior": "student_t", "prior": "coupling_flow"},
    {**TWO, "posterior": "coupling_flow", "prior": "standard_normal"},
]


def title(options):
    return f"{options['posterior']}-{options['prior']}-{options['latent_size']}"


def built(options, objective="piwae", seed=0):
    objective = objectives.get(objective, m=M, k=K)
    model = presets.build("plane", data_shape=(5,), objective=objective, seed=seed, **options)
    rng = np.random.default_rng(seed)
    for variable in model.trainable_variables:  # Flows start as the identity.
        variable.assign_add(0.1 * rng.normal(size=variable.shape))
    return model


def binary(count):
    return (np.random.default_rng(0).random((count, 5)) < 0.4).astype("float32")


@pytest.mark.parametrize("options", PAIRS, ids=title)
def test_gradients_are_those_of_two_naive_tapes(options):
    """Finite, and in graph mode the same. Each posterior meets every objective, and so does each prior."""
    x = binary(4)
    model = built(options)
    place = posteriors.names().index(options["posterior"]) + priors.names().index(options["prior"])
    for name in objectives.names()[place % 3 :: 3]:
        model.objective = objectives.get(name, m=M, k=K)
        encoder, decoder, log_weights = naive_gradients(model, name, x, (3, 4))
        received = model.compute_gradients(x, seed=(3, 4))
        assert received.log_weights.shape == (M, K, 4)
        np.testing.assert_allclose(received.log_weights, log_weights, rtol=1e-5, atol=1e-4)
        for ours, theirs in ((received.encoder, encoder), (received.decoder, decoder)):
            assert np.isfinite(flat(ours)).all()
            error = np.linalg.norm(flat(ours) - flat(theirs)) / np.linalg.norm(flat(theirs))
            assert error < 1e-5, name
    in_graph = tf.function(model.compute_gradients)(x, seed=(3, 4))
    np.testing.assert_allclose(flat(in_graph.encoder), flat(received.encoder), rtol=1e-4, atol=1e-5)
    # Every weight of encoder, decoder and prior takes part.
    assert all(np.abs(g).max() > 0 for g in (*received.encoder, *received.decoder))


@pytest.mark.slow
@pytest.mark.parametrize("options", FEW, ids=title)
def test_fit_save_load_and_export(options, tmp_path):
    model = built(options)
    model.compile()
    x = binary(7)
    history = model.fit(x, batch_size=4, epochs=2, shuffle=False, verbose=0).history
    assert np.isfinite(list(history.values())).all()
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(flat(loaded.get_weights()), flat(model.get_weights()))
    received = loaded.compute_gradients(x, (1, 2)).log_weights
    np.testing.assert_array_equal(received, model.compute_gradients(x, (1, 2)).log_weights)
    exported = saved_model.Exported(saved_model.export(model, tmp_path / "served", 20, 40))
    expected = likelihood.estimate_log_prob(model, x, 20, seed=5)
    answer = exported.estimate_log_prob(x, 20, seed=5)
    np.testing.assert_allclose(answer.log_prob, expected.log_prob, rtol=1e-4, atol=1e-4)
    encoded = exported.signatures["encode"](x=x)
    q = model.encoder.posterior(x)
    np.testing.assert_allclose(encoded["mean"], q.mean(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(encoded["stddev"], q.stddev(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(exported.signatures["reconstruct"](x=x)["mean"], model(x), rtol=1e-4, atol=1e-5)
    # Each row depends on itself alone, bit for bit.
    seed = 7 + 1000003 * np.arange(7, dtype=np.int64)
    inputs = {
        "log_prob": {"x": x, "num_samples": np.full(7, 20, np.int32), "seed": seed},
        "encode": {"x": x},
        "posterior_sample": {"x": x, "num_samples": np.full(7, 20, np.int32), "seed": seed},
        "reconstruct": {"x": x},
        "sample": {"seed": seed},
    }
    for name, arguments in inputs.items():
        whole = exported.signatures[name](**{key: tf.constant(value) for key, value in arguments.items()})
        part = exported.signatures[name](**{key: tf.constant(value[[5, 2]]) for key, value in arguments.items()})
        for key, value in whole.items():
            assert not np.isnan(value).any()
            np.testing.assert_array_equal(part[key], value.numpy()[[5, 2]], err_msg=f"{name} {key}")


@pytest.mark.slow
@pytest.mark.parametrize("options", FEW[1:], ids=title)
def test_two_devices_train_to_the_weights_of_one(options):
    weights = []
    for strategy in (tf.distribute.get_strategy(), strategies._mirrored("CPU", 2)):
        with strategy.scope():
            model = built(options, "dreg")
            model.compile(keras.optimizers.SGD(0.05))
        data = tf.data.Dataset.from_tensor_slices(binary(7)).batch(4)
        model.fit(data, epochs=2, shuffle=False, verbose=0)
        weights.append(flat(model.get_weights()))
    np.testing.assert_allclose(*weights, rtol=0, atol=5e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_two_tapes_of_two_layers_at_extreme_weights(dtype):
    """A likelihood so sharp that particles differ by hundreds of nats."""
    truth = StackedLinearGaussian.random(stddevs=(0.01, 0.8), seed=3)
    x = truth.sample(6, seed=4).astype(dtype)
    model = truth.model(mismatch=0.5, dtype=dtype)
    for name in objectives.names():
        model.objective = objectives.get(name, m=M, k=K)
        encoder, decoder, log_weights = naive_gradients(model, name, x, (0, 1))
        assert np.ptp(log_weights.numpy().reshape(M * K, -1), axis=0).max() > 200
        received = model.compute_gradients(x, seed=(0, 1))
        for ours, theirs in ((received.encoder, encoder), (received.decoder, decoder)):
            assert np.isfinite(flat(ours)).all()
            error = np.linalg.norm(flat(ours) - flat(theirs)) / np.linalg.norm(flat(theirs))
            assert error < (1e-5 if dtype == "float32" else 1e-9), name
