"""The sleep update through the networks, of every kind of posterior and way to compute gradients."""

import numpy as np
import pytest
import tensorflow as tf
from oracles import flat, gradients_in_step
from toy_data import dataset

from iwae_zoo import annealing, objectives, presets
from iwae_zoo.model import dreams
from iwae_zoo.testing import LinearGaussian, StackedLinearGaussian

SEED = (3, 4)
SHARE = 0.3


def gradients(truth, name, sleep, **settings):
    model = truth.model(objectives.get(name, m=2, k=3, sleep=sleep), mismatch=0.4, dtype="float64")
    model.compile(**settings)
    x = truth.sample(4)
    if settings.get("jit_compile"):
        return model, gradients_in_step(model, tf.constant(x), tf.constant(SEED))
    return model, model.compute_gradients(x, SEED)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("truth", "name", "settings"),
    [
        (LinearGaussian.random(), "dreg", {}),
        (LinearGaussian.random(), "dreg", {"jit_compile": True}),
        (LinearGaussian.random(), "vimco", {"backward_particles": 2}),
        (StackedLinearGaussian.random(), "iwae", {"particle_chunk": 2}),
        (StackedLinearGaussian.random(), "rws", {}),
    ],
)
def test_encoder_follows_so_much_of_each(truth, name, settings):
    """Awake as without sleep, asleep as a tape of its own has it; the decoder does not see a difference."""
    model, received = gradients(truth, name, SHARE, **settings)
    _, awake = gradients(truth, name, 0.0, **settings)
    dreamed = dreams.draw(model, SEED, 0, 4, 4)
    with tf.GradientTape() as tape:
        loss = -tf.reduce_mean(model.encoder.posterior(dreamed.x).log_prob(dreamed.z))
    asleep = tape.gradient(loss, [v.value for v in model.encoder_variables])
    expected = (1.0 - SHARE) * flat(awake.encoder) + SHARE * flat(asleep)
    assert np.linalg.norm(flat(asleep)) > 0.1
    np.testing.assert_allclose(flat(received.encoder), expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(flat(received.decoder), flat(awake.decoder), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(received.log_weights, awake.log_weights, rtol=1e-12)


def test_at_the_exact_posterior_there_is_nothing_to_learn(seed):
    truth = LinearGaussian.random()
    model = truth.model(objectives.get("rws", m=1, k=1, sleep=1), dtype="float64")
    x = tf.constant(truth.sample(50))

    @tf.function(autograph=False)
    def gradient(seeds):
        return tf.concat([tf.reshape(g, [-1]) for g in model.compute_gradients(x, seeds).encoder], axis=0)

    draws = np.stack([gradient(tf.constant([seed, i])) for i in range(100)])
    error = draws.std(axis=0, ddof=1) / 10.0
    varied = error > 0
    assert varied.any() and (np.abs(draws.mean(axis=0)[varied]) < 5 * error[varied]).all()


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", ["discretized_logistic", "normal", "poisson", "columns"])
def test_dreams_are_data(likelihood):
    """In the support and the units of the data: the likelihood and the encoder take them like these."""
    data = dataset(likelihood, (5,))
    model = presets.build(
        "plane", data=data, objective=objectives.get("rws", m=1, k=4, sleep=0.5), likelihood=likelihood
    )
    dreamed = tf.function(lambda: dreams.draw(model, SEED, 0, 50, 50), autograph=False)()
    assert dreamed.x.shape == (50, 5)
    assert np.isfinite(model.log_weights(dreamed.x, 1, 2, SEED)).all()
    # An untrained decoder starts at the best distribution that does not know z.
    spread = np.nanstd(data.train, axis=0)
    away = np.abs(np.mean(dreamed.x, axis=0) - np.nanmean(data.train, axis=0)) / spread
    wider = np.std(dreamed.x, axis=0) / spread
    assert away.max() < 0.8 and wider.min() > 0.2 and wider.max() < 3.0
    assert np.isfinite(flat(model.compute_gradients(data.train[:6], SEED).encoder)).all()


def test_holes_in_the_data_are_none_in_dreams():
    x = LinearGaussian.random().sample(40).astype("float32")
    x[::3, 1] = np.nan
    model = presets.build(
        "plane",
        data_shape=(3,),
        objective=objectives.get("rws", m=1, k=4, sleep=0.5),
        likelihood="normal,missing=True",
    )
    assert np.isfinite(dreams.draw(model, SEED, 0, 6, 6).x).all()
    assert np.isfinite(flat(model.compute_gradients(x[:6], SEED).encoder)).all()


def test_what_cannot_be_dreamed_is_an_error():
    data = dataset("poisson", (4,))
    objective = objectives.get("rws", sleep=0.5)
    with pytest.raises(ValueError, match="Use sleep=0, or another likelihood"):
        presets.build("plane", data=data, objective=objective, likelihood="poisson,offset=True")
    model = presets.build("plane", data=data, likelihood="poisson,offset=True")
    with pytest.raises(
        ValueError, match="A sandwich draws x .* the likelihood 'poisson' has no draws .* with offset=True"
    ):
        annealing.sandwich(model, 3)
    for call in (
        lambda: annealing.sandwich(presets.build("plane", data_shape=(4,), likelihood="beta"), 3),
        lambda: presets.build("plane", data_shape=(4,), likelihood="beta", objective=objective),
    ):
        with pytest.raises(ValueError, match="the likelihood 'beta' has no draws of .* often exactly 0 or 1"):
            call()
