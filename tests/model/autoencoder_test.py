"""The model over the whole registry of objectives; `contract_test.py` has what it is made of, saved and served."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from oracles import flat, naive_pass

import iwae_zoo
from iwae_zoo import ImportanceWeightedAutoencoder, networks, objectives, presets
from iwae_zoo.model import particles
from iwae_zoo.testing import LinearGaussian

tfd = tfp.distributions
M, K = 2, 3
REGISTRY = pytest.mark.parametrize("name", objectives.names())


def pixel_model(objective="iwae", seed=0):
    model = ImportanceWeightedAutoencoder(
        networks.MLPEncoder(4, hidden_sizes=(8,), seed=1),
        networks.MLPDecoder((3, 3, 1), hidden_sizes=(8,), seed=2),
        networks.StandardNormalPrior(4),
        objective=objective,
        seed=seed,
    )
    model.build((None, 3, 3, 1))
    return model


def binary(count, seed=0):
    return (np.random.default_rng(seed).random((count, 3, 3, 1)) < 0.4).astype("float32")


def batches(x, size):
    return tf.data.Dataset.from_tensor_slices(x).batch(size)


# Two tapes.


@functools.cache
def sharp(stddev, mismatch, dtype):
    """A model, which follows any objective, x, and naive forward passes."""
    truth = LinearGaussian.random(stddev=stddev, seed=3)
    model = truth.model(mismatch=mismatch, dtype=dtype)
    x = truth.sample(6, seed=4).astype(dtype)
    return model, x, functools.cache(functools.partial(naive_pass, model, x, (0, 1)))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("stddev", "mismatch", "span"), [(0.01, 0.5, 200.0), (0.7, 0.0, 0.0), (0.05, 3.0, 500.0)])
@REGISTRY
def test_two_tapes_at_extreme_weights(name, stddev, mismatch, span, dtype):
    """A likelihood so sharp that particles, and whole groups, differ by hundreds of nats; and all weights equal."""
    model, x, forward = sharp(stddev, mismatch, dtype)
    model.objective = objectives.get(name, m=M, k=K)
    encoder, decoder, log_weights = forward(model.objective.estimator.uses_path)(name)
    spans = np.ptp(log_weights.numpy().reshape(M * K, -1), axis=0)
    assert spans.max() >= span
    assert span or spans.max() < 1e-3
    received = model.compute_gradients(x, seed=(0, 1))
    tolerance = 1e-5 if dtype == "float32" else 1e-9
    for ours, theirs in ((received.encoder, encoder), (received.decoder, decoder)):
        assert np.isfinite(flat(ours)).all()
        # The signals of single particles may cancel: rounding is relative to them, not to their sum.
        scale = max(np.linalg.norm(flat(theirs)), np.linalg.norm(flat(decoder)) if not span else 0.0)
        assert np.linalg.norm(flat(ours) - flat(theirs)) < tolerance * scale


@pytest.fixture(scope="module")
def moved():
    """A model, x, and for each weight the log weights where it is a little larger, and a little smaller."""
    truth = LinearGaussian.random(latent_size=2, data_size=3, seed=1)
    model, x = truth.model(mismatch=0.4, dtype="float64"), truth.sample(4)
    log_weights = tf.function(lambda: model.log_weights(x, M, K, (5, 6)), autograph=False)

    def ends(variable, i):
        value = np.array(variable)
        for step in (1e-6, -1e-6):
            changed = value.copy()
            changed[i] += step
            variable.assign(changed)
            yield log_weights()
        variable.assign(value)

    variables = model.encoder_variables + model.decoder_variables
    return model, x, {(v.path, i): [*ends(v, i)] for v in variables for i in np.ndindex(*v.shape)}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["elbo", "miwae", "piwae", "ciwae", "vr_iwae", "tvo", "jvi"])
def test_gradients_are_finite_differences_of_the_bounds(name, moved):
    model, x, ends = moved
    model.objective = objectives.get(name, m=M, k=K)
    gradients = model.compute_gradients(x, seed=(5, 6))
    for bound, variables, received in (
        (model.objective.encoder_bound, model.encoder_variables, gradients.encoder),
        (model.objective.decoder_bound, model.decoder_variables, gradients.decoder),
    ):
        for variable, gradient in zip(variables, received, strict=True):
            for i, value in np.ndenumerate(gradient):
                upper, lower = (np.mean(bound.value(log_weights)) for log_weights in ends[variable.path, i])
                assert -value == pytest.approx((upper - lower) / 2e-6, rel=1e-6, abs=1e-8)


def test_the_prior_trains_with_the_decoder(linear_gaussian):
    class Prior(keras.Layer):
        def __init__(self):
            super().__init__(dtype="float64")
            self.loc = self.add_weight(shape=(2,), initializer="ones")

        def distribution(self):
            return tfd.Independent(tfd.Normal(self.loc, tf.ones(2, tf.float64)), 1)

    plain = linear_gaussian.model(mismatch=0.4, dtype="float64")
    model = ImportanceWeightedAutoencoder(plain.encoder, plain.decoder, Prior(), objective=plain.objective)
    model.build((None, 3))
    x = linear_gaussian.sample(4)
    *_, by_loc = model.compute_gradients(x, seed=(5, 6)).decoder
    ends = []
    for step in (1e-6, -1e-6):
        model.prior.loc.assign([1 + step, 1.0])
        ends.append(np.mean(model.objective.decoder_bound.value(model.log_weights(x, 8, 8, (5, 6)))))
    assert -by_loc[0].numpy() == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-6)


# Training.


@pytest.mark.slow
def test_same_seed_same_weights():
    def trained(seed):
        model = pixel_model("piwae", seed)
        model.compile()
        model.fit(batches(binary(8), 4), epochs=3, verbose=0, shuffle=False)
        return flat(model.get_weights())

    first = trained(0)
    np.testing.assert_array_equal(first, trained(0))
    assert np.abs(first - trained(1)).max() > 1e-4


@pytest.mark.parametrize(
    ("name", "beside"), [("jvi", "jackknife_estimate"), ("tvo", "thermodynamic_upper"), ("iwae", None)]
)
def test_what_is_reported_is_a_lower_bound(name, beside, linear_gaussian):
    """The jackknife's value stands under a name of its own, and the upper bound beside the lower."""
    objective, x = objectives.get(name, m=M, k=K), linear_gaussian.sample(5)
    model = linear_gaussian.model(objective, mismatch=0.4, dtype="float64")
    log_weights = model.log_weights(x, M, K, (0, 0))
    logs = {key: float(value) for key, value in model._track(x, log_weights).items()}
    iwae = np.mean(objectives.bounds.ImportanceWeighted().value(log_weights))
    value = np.mean(objective.decoder_bound.value(log_weights))
    assert logs["loss"] == -logs["decoder_bound"]
    assert logs["decoder_bound"] == pytest.approx(value if name == "tvo" else iwae)
    assert set(logs) - set(linear_gaussian.model()._trackers) == ({beside} if beside else set())
    if name == "jvi":
        assert logs[beside] == pytest.approx(value)
        assert abs(logs[beside] - iwae) > 1e-3
    if name == "tvo":
        assert logs["elbo"] < logs["decoder_bound"] < iwae < logs[beside]


@pytest.mark.slow
def test_evaluation_is_reproducible_and_counts_every_example():
    model = pixel_model()
    model.compile()
    x = binary(7)
    results = [model.evaluate(batches(x, 4), verbose=0, return_dict=True) for _ in range(2)]
    assert results[0] == results[1]
    # With a posterior that knows everything the bound has no noise: the mean must be that of all 7 examples.
    truth = LinearGaussian.random()
    x = truth.sample(7)
    exact = truth.model()
    exact.compile()
    result = exact.evaluate(batches(x, 4), verbose=0, return_dict=True)
    assert result["decoder_bound"] == pytest.approx(truth.log_prob(x).mean(), abs=1e-4)
    assert result["negative_kl"] == pytest.approx(0.0, abs=1e-4)
    assert result["importance_ess"] == pytest.approx(64, abs=1e-3)


def test_each_step_draws_anew():
    model = pixel_model()
    model.compile(keras.optimizers.SGD(0.0), keras.optimizers.SGD(0.0))
    x = binary(4)
    bounds_seen = {float(model.train_on_batch(x, return_dict=True)["decoder_bound"]) for _ in range(3)}
    assert len(bounds_seen) == 3


def test_each_evaluated_batch_draws_anew_and_each_evaluation_the_same():
    model = pixel_model()
    model.compile(keras.optimizers.SGD(0.0))
    once, twice = (batches(np.tile(binary(4), [count, 1, 1, 1]), 4) for count in (1, 2))
    first, both, again = (model.evaluate(x, verbose=0, return_dict=True)["decoder_bound"] for x in (once, twice, once))
    assert first == again
    assert both != first
    assert float(model.train_on_batch(binary(4), return_dict=True)["decoder_bound"]) != first


@pytest.mark.slow
def test_training_reaches_the_likelihood(linear_gaussian):
    """From wrong weights, two objectives find the maximum of the likelihood that the closed form knows."""
    x = linear_gaussian.sample(500).astype("float32")
    wrong = LinearGaussian(linear_gaussian.weight * 0.3, linear_gaussian.bias * 0.0, 1.5)
    model = wrong.model(objectives.get("piwae", m=4, k=4), mismatch=0.3)
    model.compile(keras.optimizers.Adam(0.02), keras.optimizers.Adam(0.02))
    model.fit(batches(x, 100).repeat(60), verbose=0, shuffle=False)
    weight, bias, stddev = model.decoder.get_weights()
    reached = LinearGaussian(weight, bias, abs(float(stddev))).log_prob(x).mean()
    assert wrong.log_prob(x).mean() < reached - 0.5
    assert reached == pytest.approx(linear_gaussian.log_prob(x).mean(), abs=0.03)


@pytest.mark.slow
def test_steps_per_execution_and_jit():
    x = binary(8)
    weights = []
    for options in ({}, {"steps_per_execution": 2}):
        model = pixel_model()
        model.compile(**options)
        model.fit(batches(x, 4), epochs=2, verbose=0, shuffle=False)
        weights.append(flat(model.get_weights()))
    np.testing.assert_array_equal(*weights)
    model = pixel_model()
    model.compile(jit_compile=True)
    assert np.isfinite(model.fit(batches(x, 4), verbose=0, shuffle=False).history["decoder_bound"]).all()
    assert model.optimizer.iterations == 2


@pytest.mark.slow
def test_covariances_are_compiled_for_batches_of_unknown_size():
    """As a pipeline makes them; XLA has the size of an array's."""
    model = presets.build("plane", data_shape=(3, 3, 1), posterior="full_normal", latent_size=3, hidden_sizes=(6,))
    model.compile(keras.optimizers.SGD(0.01), jit_compile=True)
    x = tf.data.Dataset.from_tensor_slices(binary(6)).batch(3)
    assert np.isfinite(model.fit(x, verbose=0, shuffle=False).history["decoder_bound"]).all()


@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_seed_of_a_step(jit_compile):
    """As the public function has it, whose integers XLA would draw otherwise."""
    model = presets.build("plane", data_shape=(3, 3), seed=7)
    seed = tf.function(model._seed, autograph=False, jit_compile=jit_compile)
    for step in (0, 1, 123_456_789):
        expected = particles.derive_seed(7, 1, step)
        np.testing.assert_array_equal(seed(1, tf.constant(step, tf.int64)), expected)


def test_compiled_optimizers_take_the_same_steps():
    weights = []
    for compiled in (False, True):
        model = pixel_model()
        model.compile(keras.optimizers.Adam(0.1, clipnorm=1.0, weight_decay=0.1))
        update = (
            functools.partial(tf.function(model._update_where, autograph=False, jit_compile=True), True)
            if compiled
            else model._update
        )
        rng = np.random.default_rng(0)
        for rate in (0.1, 0.05):  # Set after it was compiled, too.
            model.optimizer.learning_rate = rate
            variables = (model.encoder_variables, model.decoder_variables)
            update(*([tf.constant(rng.normal(size=v.shape), v.dtype) for v in of] for of in variables))
        assert model.optimizer.iterations == 2
        weights.append(flat(model.get_weights()))
    np.testing.assert_allclose(weights[1], weights[0], rtol=1e-6, atol=1e-7)
    assert np.abs(weights[0] - flat(pixel_model().get_weights())).min() > 0.01


def test_non_finite_log_weights_stop_training_before_the_weights_change():
    model = pixel_model()
    model.compile()
    before = flat(model.get_weights())
    with pytest.raises(tf.errors.InvalidArgumentError, match="outside the support"):
        model.fit(batches(np.full((4, 3, 3, 1), 0.5, "float32"), 4), verbose=0, shuffle=False)
    np.testing.assert_array_equal(flat(model.get_weights()), before)


def test_reconstruction():
    model = pixel_model()
    x = binary(3)
    expected = model.decoder.likelihood(model.encoder.posterior(x).mean()).mean()
    np.testing.assert_allclose(model(x), expected, rtol=1e-6)
    assert model.predict(x, verbose=0).shape == x.shape


# Users' own networks.


@keras.saving.register_keras_serializable(package="tests")
class BinaryEncoder(keras.Layer):
    """Discrete latents, which cannot be reparameterised; and a network whose variables are created at first use."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(4)

    def posterior(self, x):
        return tfd.Independent(tfd.Bernoulli(logits=self.dense(tf.reshape(x, [-1, 9])), dtype=tf.float32), 1)


@keras.saving.register_keras_serializable(package="tests")
class BinaryPrior(keras.Layer):
    def distribution(self):
        return tfd.Independent(tfd.Bernoulli(logits=tf.zeros(4), dtype=tf.float32), 1)


def binary_latent_model(objective):
    decoder = networks.MLPDecoder((3, 3, 1), (8,))
    return ImportanceWeightedAutoencoder(BinaryEncoder(), decoder, BinaryPrior(), objective=objective)


def test_discrete_latents_train_with_score_only_estimators(tmp_path):
    model = binary_latent_model(objectives.get("rws", m=1, k=6))
    model.compile()
    model.fit(batches(binary(8), 4), epochs=2, verbose=0, shuffle=False)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(flat(loaded.get_weights()), flat(model.get_weights()))


@pytest.mark.parametrize("name", ["iwae", "dreg", "stl", "rws_dreg", "elbo"])
def test_discrete_latents_refuse_reparameterisation(name):
    with pytest.raises(ValueError, match="cannot be reparameterised. Use a score-only estimator"):
        binary_latent_model(name).compute_gradients(binary(2), seed=(0, 0))
    with pytest.raises(ValueError, match=r"of the objective .* Use an estimator that needs none \(wake"):
        model = binary_latent_model(name)
        model.compile()
        model.build((None, 3, 3, 1))


def test_errors():
    encoder, decoder, prior = networks.MLPEncoder(4), networks.MLPDecoder((3, 3, 1)), networks.StandardNormalPrior(4)
    with pytest.raises(ValueError, match=r"encoder must be a keras.Layer with a method posterior"):
        ImportanceWeightedAutoencoder(decoder, decoder, prior)
    with pytest.raises(ValueError, match="Unknown objective: received 'iwaee'"):
        ImportanceWeightedAutoencoder(encoder, decoder, prior, objective="iwaee")
    model = ImportanceWeightedAutoencoder(encoder, decoder, prior)
    with pytest.raises(ValueError, match="two instances"):
        optimizer = keras.optimizers.Adam()
        model.compile(optimizer, optimizer)
    with pytest.raises(ValueError, match="Data and decoder disagree about the shape of x"):
        model.build((None, 4, 4, 1))
    with pytest.raises(ValueError, match="Encoder and prior disagree about the latent"):
        encoder = networks.MLPEncoder(4)
        ImportanceWeightedAutoencoder(encoder, decoder, networks.StandardNormalPrior(5)).build((None, 3, 3, 1))


def test_public_names_are_documented():
    for module in (iwae_zoo, iwae_zoo.bounds, iwae_zoo.estimators, iwae_zoo.networks, objectives, iwae_zoo.particles):
        for name in module.__all__:
            assert getattr(module, name).__doc__, f"{module.__name__}.{name} has no docstring"
