"""What users bring of their own: layers, distributions and optimizers that do what they say, or are refused."""

import functools

import keras
import numpy as np
import pytest
import scipy.integrate
import scipy.sparse
import scipy.stats
import tensorflow as tf
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd

from iwae_zoo import (
    ImportanceWeightedAutoencoder,
    annealing,
    diagnostics,
    likelihood,
    particles,
    presets,
    resampling,
    saved_model,
)
from iwae_zoo.distributions import likelihoods, posteriors
from iwae_zoo.distributions.stacked import Stacked
from iwae_zoo.model import supports
from iwae_zoo.networks import MLPDecoder, MLPEncoder

ZEROS, ONES = np.zeros([1, 2], np.float32), np.ones([1, 2], np.float32)


class Encoder(keras.Layer):
    """q(z | x) of a dense layer's two numbers for each latent, made by a function of both."""

    def __init__(self, make, size=1, body=None):
        super().__init__()
        self.make, self.body = make, body or keras.layers.Dense(2 * size, kernel_initializer="zeros")

    def posterior(self, x):
        return self.make(*tf.split(tf.cast(self.body(x), self.variable_dtype), 2, axis=-1))


class Decoder(keras.Layer):
    """p(x | z) of a dense layer's numbers, made by a function of them."""

    def __init__(self, make, size=1, **options):
        super().__init__()
        self.make, self.body = make, keras.layers.Dense(size, kernel_initializer="ones", **options)

    def likelihood(self, z):
        return tfd.Independent(self.make(self.body(z)), 1)


class Prior(keras.Layer):
    def __init__(self, make):
        super().__init__()
        self.make = make

    def distribution(self):
        return self.make()


def normal(loc, raw):
    return tfd.Independent(tfd.Normal(loc, tf.nn.softplus(raw) + 0.5), 1)


def standard_normal(size=1):
    return Prior(lambda: tfd.Independent(tfd.Normal(tf.zeros([size]), 1.0), 1))


def model_of(encoder=None, decoder=None, prior=None, shape=(1,), **options):
    model = ImportanceWeightedAutoencoder(
        encoder or Encoder(normal),
        decoder or Decoder(lambda loc: tfd.Normal(loc, 0.5), *shape),
        prior or standard_normal(),
        **options,
    )
    model.build((None, *shape))
    return model


def test_where_draws_may_be():
    """Annealing and the Laplace approximation are for all of R^D."""
    everywhere = [
        tfd.Independent(tfd.Normal(ZEROS, ONES), 1),
        tfd.MultivariateNormalTriL(ZEROS, np.eye(2, dtype=np.float32)[np.newaxis]),
        tfd.Independent(tfd.Gumbel(ZEROS, ONES), 1),
        tfd.Sample(tfd.StudentT(3.0, 0.0, 1.0), 2),
        Stacked(tfd.Independent(tfd.Normal(ZEROS, ONES), 1), [lambda z: tfd.Independent(tfd.Normal(z, 1.0), 1)]),
        tfd.TransformedDistribution(
            tfd.MultivariateNormalDiag(ZEROS, ONES), tfb.Chain([tfb.Shift(1.0), tfb.Scale(2.0)])
        ),
    ]
    assert all(map(supports.is_everywhere, everywhere))
    somewhere = [
        tfd.Dirichlet(ONES),
        tfd.PowerSpherical(np.array([[1.0, 0.0]], np.float32), np.ones(1, np.float32)),
        *(tfd.Independent(family(ONES, ONES), 1) for family in (tfd.Beta, tfd.VonMises, tfd.Gamma, tfd.LogNormal)),
        tfd.Independent(tfd.Uniform(ZEROS, ONES), 1),
        tfd.MixtureSameFamily(
            tfd.Categorical(logits=ZEROS),
            tfd.Independent(tfd.LogNormal(np.zeros([1, 2, 2], np.float32), 1.0), 1),
            reparameterize=True,
        ),
        Stacked(tfd.Independent(tfd.LogNormal(ZEROS, ONES), 1), [lambda z: tfd.Independent(tfd.Normal(z, 1.0), 1)]),
        tfd.TransformedDistribution(tfd.MultivariateNormalDiag(ZEROS, ONES), tfb.Power(3.0)),
        tfd.TransformedDistribution(
            tfd.MultivariateNormalDiag(ZEROS, ONES), tfb.Chain([tfb.Scale(2.0), tfb.Sigmoid()])
        ),
    ]
    assert not any(map(supports.is_everywhere, somewhere))


def test_a_bounded_latent_is_not_annealed():
    """log p(x) is that of quadrature; chains that leave the interval once answered something else, and were trusted."""

    def beta(a, b):
        return tfd.Independent(tfd.Beta(tf.nn.softplus(a) + 1.0, tf.nn.softplus(b) + 1.0), 1)

    model = model_of(Encoder(beta), prior=Prior(lambda: tfd.Independent(tfd.Beta([2.0], [3.0]), 1)))
    x = np.array([[0.2], [2.5]], np.float32)
    truth = [
        scipy.integrate.quad(lambda z, y=y: scipy.stats.beta.pdf(z, 2, 3) * scipy.stats.norm.pdf(y, z, 0.5), 0, 1)[0]
        for y in x[:, 0].astype(float)
    ]
    answer = likelihood.estimate_log_prob(model, x, 20000, method="auto")
    assert not annealing.is_possible(model)
    assert list(answer.method) == ["importance"] * 2
    np.testing.assert_allclose(answer.log_prob, np.log(truth), atol=5 * answer.standard_error.max())
    with pytest.raises(ValueError, match="no distribution of a continuous z that may be anywhere there"):
        likelihood.estimate_log_prob(model, x, method="annealed")


@pytest.mark.slow
def test_a_posterior_without_a_mean(short_annealing, monkeypatch, tmp_path):
    def flow(loc, raw):
        onto = tfb.Chain([tfb.Shift(loc), tfb.Scale(tf.nn.softplus(raw) + 0.5), tfb.SinhArcsinh(skewness=0.3)])
        return tfd.TransformedDistribution(tfd.MultivariateNormalDiag(tf.zeros_like(loc), tf.ones_like(loc)), onto)

    model = model_of(Encoder(flow, size=2), prior=standard_normal(2))
    x = np.array([[0.3], [-0.5], [1.0]], np.float32)
    with pytest.raises(NotImplementedError):
        model.encoder.posterior(x).mean()
    answer = annealing.estimate_log_prob(model, x, verbose=0)
    truth = scipy.stats.norm.logpdf(x[:, 0], 0.0, np.sqrt(2 + 0.25))  # x = z_1 + z_2 + noise.
    assert (np.abs(answer.log_prob - truth) < 5 * answer.standard_error + 1e-3).all()
    assert np.isfinite(diagnostics.latent_use(model, x).mean_variance).all()
    assert model(x).shape == (3, 1)
    monkeypatch.setattr(annealing, "is_possible", lambda _: False)
    exported = saved_model.Exported(saved_model.export(model, tmp_path / "model", 20, 20))
    drawn = model.encoder.posterior(x).sample(20_000, seed=(1, 2)).numpy()
    served = exported.signatures["encode"](x=tf.constant(x))
    np.testing.assert_allclose(served["mean"], drawn.mean(axis=0), atol=0.3)
    np.testing.assert_allclose(served["stddev"], drawn.std(axis=0), rtol=0.3)


@pytest.mark.slow
def test_distributions_of_integers_and_without_moments_are_served(no_annealing, tmp_path):
    """TFP's Bernoulli draws in int32, and its quantized distributions have no mean."""

    def bits(*logits):
        return tfd.Independent(tfd.Bernoulli(logits=logits[-1]), 1)

    def counts(loc):
        base = tfd.TransformedDistribution(tfd.Logistic(loc, 1.0), tfb.Shift(-0.5))
        return tfd.QuantizedDistribution(base, low=0.0, high=9.0)

    class Reader(Decoder):
        def likelihood(self, z):
            return super().likelihood(tf.cast(z, tf.float32))

    model = ImportanceWeightedAutoencoder(
        Encoder(bits, size=2), Reader(counts), Prior(lambda: bits(tf.zeros([2]))), objective="rws"
    )
    model.build((None, 1))
    x = np.array([[0.0], [3.0], [np.inf]], np.float32)
    z, ess = resampling.sample_posterior(model, x[:2], 3, 50)
    assert z.dtype == np.float32 and set(np.unique(z)) <= {0.0, 1.0} and (ess > 1).all()
    p = model.decoder.likelihood(np.float32([[1, 0]]))
    expected = np.mean(p.sample(20_000, seed=(1, 2)))
    assert 0.0 < expected < 3.0
    exported = saved_model.Exported(saved_model.export(model, tmp_path / "model", 20, 20))
    decoded = exported.signatures["decode"](z=tf.constant([[1, 0]]))["mean"]
    np.testing.assert_allclose(decoded, [[expected]], atol=0.3)
    drawn = exported.signatures["posterior_sample"](
        x=tf.constant(x), num_samples=tf.fill([3], 20), seed=tf.zeros([3], tf.int64)
    )["z"].numpy()
    assert set(np.unique(drawn[:2])) <= {0.0, 1.0} and np.isnan(drawn[2]).all()
    np.testing.assert_allclose(
        exported.estimate_log_prob(x[:2], 20).log_prob,
        likelihood.estimate_log_prob(model, x[:2], 20).log_prob,
        rtol=1e-5,
    )


def seeds_of_steps(model, count):
    """How many different seeds so many steps of training draw from."""
    seen, draw = set(), particles.draw

    def drawn(posterior, m, k, seed, *rest, **options):
        seen.add(tuple(np.asarray(seed).tolist()))
        return draw(posterior, m, k, seed, *rest, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(particles, "draw", drawn)
        model.fit(np.zeros([2 * count, 1], np.float32), batch_size=2, verbose=0)
    return len(seen)


@pytest.mark.parametrize("frozen", ["encoder", "decoder", None])
def test_each_step_draws_anew_whatever_is_trained(frozen):
    model = model_of()
    if frozen:
        getattr(model, frozen).trainable = False
    model.compile("sgd", run_eagerly=True)
    assert seeds_of_steps(model, 3) == 3
    assert int(model.optimizer.iterations) == 3


def test_each_step_draws_anew_where_gradients_are_accumulated():
    model = model_of()
    model.compile(keras.optimizers.SGD(0.1, gradient_accumulation_steps=2), run_eagerly=True)
    assert seeds_of_steps(model, 4) == 4
    assert int(model.optimizer.iterations) == 2


def test_averaged_weights_are_what_training_ends_on():
    x = np.random.default_rng(0).normal(size=(8, 1)).astype(np.float32)
    averaged, plain = model_of(), model_of()
    averaged.compile(keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5))
    plain.compile(keras.optimizers.SGD(0.1))
    plain.set_weights(averaged.get_weights())
    averaged.fit(x, batch_size=4, shuffle=False, verbose=0)
    mean = None
    for batch in (x[:4], x[4:]):
        plain.train_on_batch(batch)
        weights = [np.asarray(w) for w in plain.trainable_variables]
        # Keras begins with the weights after the first step.
        mean = weights if mean is None else [0.5 * a + 0.5 * b for a, b in zip(mean, weights, strict=True)]
    for ours, theirs in zip(averaged.trainable_variables, mean, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_averages_do_not_replace_what_a_callback_puts_back():
    x = np.random.default_rng(0).normal(size=(40, 1)).astype(np.float32)
    model = model_of()
    model.compile(keras.optimizers.SGD(0.05, use_ema=True, ema_momentum=0.9))
    best = {}

    class Keeps(keras.callbacks.Callback):
        """As EarlyStopping with the best weights restored: those after the first epoch."""

        def on_epoch_end(self, epoch, logs=None):
            best.setdefault("weights", self.model.get_weights())

        def on_train_end(self, logs=None):
            self.model.set_weights(best["weights"])

    model.fit(x, epochs=3, verbose=0, callbacks=[Keeps()])
    for ours, theirs in zip(model.get_weights(), best["weights"], strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_without_a_step_there_are_no_averages():
    """Which begin as zeros: weights stay as they are where no epoch is left."""
    model = model_of()
    model.compile(keras.optimizers.SGD(0.1, use_ema=True))
    before = model.get_weights()
    model.fit(np.ones([4, 1], np.float32), epochs=3, initial_epoch=3, verbose=0)
    assert any(weights.any() for weights in before)
    for ours, theirs in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_averages_are_of_their_own_variables():
    """Also where a layer was frozen after `compile`: the optimizers have its variables all the same."""
    model = presets.build("plane", data_shape=(3,), likelihood="normal")
    model.compile(keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5))
    first = model.encoder.body.stack[0]
    first.trainable = False
    before = first.get_weights()
    model.fit(np.random.default_rng(0).normal(size=(8, 3)).astype("float32"), batch_size=4, verbose=0)
    for ours, theirs in zip(first.get_weights(), before, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    averages = model.encoder_optimizer._model_variables_moving_average
    for ours, theirs in zip(model.encoder_variables, averages[len(before) :], strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_what_decoder_and_prior_share_is_moved_once():
    decoder = Decoder(lambda loc: tfd.Normal(loc, 0.5), use_bias=False)

    class Sharing(keras.Layer):
        def __init__(self, body):
            super().__init__()
            self.body = body

        def distribution(self):
            return tfd.Independent(tfd.Normal(tf.reshape(self.body.kernel, [1]), 1.0), 1)

    decoder.body.build((None, 1))
    model = model_of(decoder=decoder, prior=Sharing(decoder.body))
    model.compile("sgd", encoder_optimizer=keras.optimizers.SGD(0.0), decoder_optimizer=keras.optimizers.SGD(0.1))
    x, before = np.ones([4, 1], np.float32), decoder.body.kernel.numpy()
    (gradient,) = model.compute_gradients(x, particles.derive_seed(0, 0, 0)).decoder
    model.train_on_batch(x)
    np.testing.assert_allclose(decoder.body.kernel, before - 0.1 * gradient, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("frozen", ["encoder.body", "encoder.body.stack[0]", "decoder.body.stack[-1]", "prior", None])
def test_what_is_frozen_stays_so_in_a_file(frozen, tmp_path):
    model = presets.build("plane", data_shape=(3,), likelihood="normal", prior="mixture_of_normals")
    parts = {
        "encoder.body": model.encoder.body,
        "encoder.body.stack[0]": model.encoder.body.stack[0],
        "decoder.body.stack[-1]": model.decoder.body.stack[-1],
        "prior": model.prior,
    }
    if frozen:
        parts[frozen].trainable = False
    model.compile("adam", run_eagerly=True)
    x = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
    model.fit(x, batch_size=8, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for side in ("encoder_variables", "decoder_variables"):
        assert [v.shape for v in getattr(loaded, side)] == [v.shape for v in getattr(model, side)]
    for each in (model, loaded):
        each.fit(x, batch_size=8, shuffle=False, verbose=0)
    for ours, theirs in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(ValueError, match=r"A model is saved as .keras, .* received .*model.h5"):
        model.save(tmp_path / "model.h5")
    assert not (tmp_path / "model.h5").exists()


class Late(keras.Layer):
    """A body whose layers are made when it is built."""

    def __init__(self, *parts):
        super().__init__()
        self.parts = parts

    def build(self, input_shape):
        self.inner = keras.Sequential([part() for part in self.parts])
        self.inner.build(input_shape)
        super().build(input_shape)

    def call(self, x):
        return self.inner(x)


def test_layers_that_are_made_late_are_looked_at():
    def dense():
        return keras.layers.Dense(2)

    model_of(Encoder(normal, body=Late(dense)))
    with pytest.raises(ValueError, match="holds a batch normalisation"):
        model_of(Encoder(normal, body=Late(keras.layers.BatchNormalization, dense)))
    with pytest.raises(ValueError, match="which does something in training only"):
        model_of(Encoder(normal, body=Late(lambda: keras.layers.Dropout(0.5), dense)))


def test_regularizers_of_networks_and_of_what_is_thawed_are_refused():
    encoder = Encoder(normal)
    encoder.activity_regularizer = keras.regularizers.L2(0.1)
    with pytest.raises(ValueError, match="Regularizers add to a loss"):
        model_of(encoder)
    decoder = Decoder(lambda loc: tfd.Normal(loc, 0.5), kernel_regularizer="l2")
    decoder.body.trainable = False
    model = model_of(decoder=decoder)
    model.compile("sgd")
    decoder.body.trainable = True
    with pytest.raises(ValueError, match="Regularizers add to a loss"):
        model.compile("sgd")


def test_an_encoder_that_is_a_model_of_keras():
    class Functional(keras.Model):
        def posterior(self, x):
            return normal(*tf.split(self(x), 2, axis=-1))

    inputs = keras.Input((1,))
    model = model_of(Functional(inputs, keras.layers.Dense(2)(inputs)))
    model.compile("sgd")
    for _ in range(2):
        assert np.isfinite(model.fit(np.ones([4, 1], np.float32), verbose=0).history["loss"]).all()


def test_what_would_be_lost_silently_is_refused():
    recurrent = [keras.layers.Reshape((1, 1)), keras.layers.GRU(3, dropout=0.5)]
    for layers in ([keras.layers.Dropout(0.5)], [keras.layers.GaussianNoise(1.0)], recurrent):
        with pytest.raises(ValueError, match="which does something in training only"):
            model_of(Encoder(normal, body=keras.Sequential([*layers, keras.layers.Dense(2)])))
    model_of(Encoder(normal, body=keras.Sequential([keras.layers.Dropout(0.0), keras.layers.Dense(2)])))
    with pytest.raises(ValueError, match="has densities of bfloat16"):
        bits = Decoder(lambda logits: tfd.Bernoulli(logits=logits), dtype="mixed_bfloat16")
        model_of(decoder=bits)
    with pytest.raises(ValueError, match="Regularizers add to a loss"):
        model_of(decoder=Decoder(lambda loc: tfd.Normal(loc, 0.5), kernel_regularizer="l2"))
    with pytest.raises(ValueError, match="has densities of bfloat16"):
        model_of(decoder=Decoder(lambda loc: tfd.Normal(loc, tf.constant(0.5, loc.dtype)), dtype="mixed_bfloat16"))
    with pytest.raises(ValueError, match="seed must be an integer"):
        model_of(seed=None)
    model = model_of()
    with pytest.raises(ValueError, match="Pass its inner optimizer"):
        model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD()))
    model.compile("sgd")
    x = np.zeros([4, 1], np.float32)
    with pytest.raises(ValueError, match="SwapEMAWeights knows one optimizer"):
        model.fit(x, verbose=0, callbacks=[keras.callbacks.SwapEMAWeights()])
    weighted = tf.data.Dataset.from_tensor_slices((x, x, np.ones(4))).batch(2)
    with pytest.raises(ValueError, match="leave out sample_weight and class_weight"):
        model.fit(weighted, verbose=0, shuffle=False)
    for call in (model.fit, model.evaluate, model.train_on_batch, model.test_on_batch):
        for y in (None, x):
            with pytest.raises(ValueError, match="leave out sample_weight and class_weight"):
                call(x, y, sample_weight=np.ones(4))
    with pytest.raises(ValueError, match="leave out sample_weight and class_weight"):
        model.fit(x, validation_data=(x, None, np.ones(4)), verbose=0)
    with pytest.raises(ValueError, match="There is no optimizer: received optimizer=None"):
        model.compile(None)


def test_layers_that_are_no_function_of_x_or_have_no_digits_are_refused():
    flipped = keras.Sequential([keras.layers.RandomFlip(), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="a RandomFlip, which draws at random"):
        model_of(Encoder(normal, body=flipped))
    recurrent = keras.Sequential([keras.layers.Reshape((1, 1)), keras.layers.LSTM(3), keras.layers.Dense(2)])
    model_of(Encoder(normal, body=recurrent))
    with pytest.raises(ValueError, match="computes in float16.* Use bfloat16"):
        model_of(Encoder(normal, body=keras.Sequential([keras.layers.Dense(2, dtype="mixed_float16")])))


def test_questions_are_asked_of_the_weights_that_are_there():
    """Of adapters that came after a first answer too."""
    model = presets.build("plane", data_shape=(4,), hidden_sizes=(3,))
    x = (np.random.default_rng(0).random((3, 4)) < 0.5).astype("float32")
    before = likelihood.estimate_log_prob(model, x, 20).log_prob
    layer = next(layer for layer in model.decoder._flatten_layers() if hasattr(layer, "enable_lora"))
    layer.enable_lora(2)
    assert likelihood.estimate_log_prob(model, x, 20).log_prob == pytest.approx(before, rel=1e-5)
    layer.lora_kernel_b.assign(np.ones(layer.lora_kernel_b.shape))
    after = likelihood.estimate_log_prob(model, x, 20).log_prob
    assert np.abs(after - before).max() > 1e-3
    assert likelihood.estimate_dataset(model, x, 20, method="importance", verbose=0).log_prob.tolist() == after.tolist()


def test_a_short_global_type_leaves_x_its_digits():
    """It is that of networks, which standardise x first."""
    y = np.random.default_rng(0).normal(2000.0, 3.0, size=(50, 2)).astype("float32")
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        head = likelihoods.get("normal").fitted(y)
        model = presets.build("plane", data_shape=(2,), likelihood=head)
    finally:
        keras.config.set_dtype_policy("float32")
    direct = model.decoder.likelihood(model.encoder.posterior(y).mean()).mean()
    np.testing.assert_allclose(model.predict(y, verbose=0), direct, rtol=0, atol=0.02)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (scipy.sparse.csr_matrix, r"x must be dense: received a csr_matrix. Pass x.toarray\(\)"),
        (tf.sparse.from_dense, r"x must be dense: received a SparseTensor. Pass tf.sparse.to_dense\(x\)"),
        (tf.RaggedTensor.from_tensor, r"x must be dense: received a RaggedTensor. Pass x.to_tensor\(\)"),
        (lambda x: x.astype("complex64"), "x must hold real numbers: received dtype complex64"),
        (lambda x: x.astype(str), "x must hold real numbers: received dtype <U"),
        (lambda x: None, "x must be an array, or batches of it: received None"),
    ],
)
def test_what_holds_no_numbers_or_not_all_of_them(make, message):
    model = model_of()
    model.compile("sgd")
    x = make(np.zeros([4, 1], np.float32))
    calls = [model.fit, model.evaluate, model.predict]
    calls += [
        functools.partial(likelihood.estimate_log_prob, model),
        functools.partial(resampling.sample_posterior, model),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=message):
            call(x)
    if x is not None:
        with pytest.raises(ValueError, match=f"validation_data{message[1:]}"):
            model.fit(np.zeros([4, 1]), validation_data=x)
    if isinstance(x, tf.SparseTensor):
        with pytest.raises(ValueError, match=r"Pass x.map\(lambda x: tf.sparse.to_dense\(x\)\)"):
            model.fit(tf.data.Dataset.from_tensors(x))


def test_what_is_no_array_is_told():
    model = model_of()
    model.compile("sgd")
    x = np.zeros([4, 1], np.float32)
    for call in (model.fit, model.evaluate, model.predict):
        for wrapped in ([x], {"x": x}):
            with pytest.raises(ValueError, match="x must be one array, or batches of it: received a (list|dict)"):
                call(wrapped, verbose=0)
    named = tf.data.Dataset.from_tensor_slices({"x": x}).batch(2)
    with pytest.raises(ValueError, match="received batches that are a dict"):
        model.fit(named, verbose=0, shuffle=False)
    model.build((None, 1))
    with pytest.raises(ValueError, match=r"x must have shape \[B, 1\]: received shape \[4, 2\]"):
        model.predict(np.zeros([4, 2]), verbose=0)


@pytest.mark.slow
def test_what_was_fitted_is_exported_by_keras_too(tmp_path):
    model = model_of()
    model.compile("sgd")
    x = np.random.default_rng(0).normal(size=[6, 1]).astype("float32")
    model.fit(x, verbose=0)
    model.export(str(tmp_path / "model"), verbose=False)
    loaded = tf.saved_model.load(str(tmp_path / "model"))
    np.testing.assert_allclose(loaded.serve(tf.constant(x)), model.predict(x, verbose=0), rtol=1e-5)


def test_integers_have_no_values_between():
    """TFP's Bernoulli counts in int32, to which grey is black."""
    model = model_of(decoder=Decoder(lambda logits: tfd.Bernoulli(logits=logits), 2), shape=(2,))
    x = np.array([[0.0, 1.0], [0.5, 1.0]], np.float32)
    answer = likelihood.estimate_log_prob(model, x, 50, method="importance")
    assert list(answer.in_support) == [True, False]
    assert np.isfinite(answer.log_prob[0]) and answer.log_prob[1] == -np.inf


@pytest.mark.slow
def test_an_optimizer_serves_once_more():
    """Both sides begin anew, whatever the given one has done, and for whichever model."""
    given = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(1e-2, 3))
    x = np.zeros([8, 1], np.float32)
    for model in (model_of(), model_of(Encoder(normal, body=keras.Sequential([keras.layers.Dense(2)])))):
        for _ in range(2):
            model.compile(given)
            assert [int(side.iterations) for side in (model.encoder_optimizer, model.decoder_optimizer)] == [0, 0]
            model.fit(x, batch_size=4, verbose=0)


@pytest.mark.parametrize("name", ["loss", "loss_weights", "metrics", "weighted_metrics"])
def test_a_loss_and_metrics_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} is for models of y given x"):
        model_of().compile("adam", **{name: ["mae"]})


def test_a_subclass_stays_one_with_its_metrics(tmp_path):
    class Own(ImportanceWeightedAutoencoder):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            self.seen = keras.metrics.Sum(name="seen")

        def train_step(self, data):
            self.seen.update_state(1.0)
            return {**super().train_step(data), "seen": self.seen.result()}

    model = Own.from_preset("digits_miwae")
    assert type(model) is Own
    model.compile("sgd")
    x = np.zeros([4, 8, 8, 1], np.float32)
    assert model.fit(x, batch_size=2, epochs=2, verbose=0).history["seen"] == [2.0, 2.0]
    assert [metric.name for metric in model.metrics].count("seen") == 1
    assert not {"evaluated_batches"} & {metric.name for metric in model.metrics}
    model(x)
    model.export(tmp_path / "own", verbose=False)  # Keras' own.
    loaded = tf.saved_model.load(tmp_path / "own")
    np.testing.assert_allclose(loaded.serve(x), model(x), rtol=1e-5)


class Watched(Decoder):
    """A decoder that looks at its latents, by one metric that is a number and one that is several."""

    def __init__(self):
        super().__init__(lambda logits: tfd.Normal(logits, 1.0))
        self.mean, self.extremes = keras.metrics.Mean(name="mean_z"), Extremes(name="extremes")

    def likelihood(self, z):
        self.mean.update_state(z)
        self.extremes.update_state(z)
        return super().likelihood(z)


class Extremes(keras.metrics.Metric):
    def __init__(self, **options):
        super().__init__(**options)
        self.most, self.least = (self.add_variable((), initializer="zeros", name=name) for name in ("most", "least"))

    def update_state(self, values):
        self.most.assign(tf.maximum(self.most, tf.reduce_max(values)))
        self.least.assign(tf.minimum(self.least, tf.reduce_min(values)))

    def result(self):
        return {"most_z": tf.identity(self.most), "least_z": tf.identity(self.least)}


def test_metrics_of_layers_are_in_the_history():
    model = model_of(decoder=Watched())
    model.compile("sgd")
    x = np.zeros([8, 1], np.float32)
    history = model.fit(x, batch_size=4, validation_data=x, verbose=0).history
    for prefix in ("", "val_"):
        least, mean, most = (history[f"{prefix}{name}_z"][0] for name in ("least", "mean", "most"))
        assert least < mean < most
    assert {"mean_z", "most_z", "least_z"} < set(model.evaluate(x, return_dict=True, verbose=0))


def test_every_variable_has_a_path_of_its_own():
    """Keras' tree of a model's state is made of them."""
    x = np.zeros([8, 1], np.float32)
    model = model_of()
    model.compile("adam")
    model.fit(x, batch_size=4, verbose=0)
    tree = model.get_state_tree("numpy_array")
    variables = [*model.variables, *model.optimizer.variables]
    before = [np.array(variable) for variable in variables]
    assert [name.split("_")[:2] for name in tree["optimizer_variables"]] == [["encoder", "adam"], ["decoder", "adam"]]
    model.fit(x, batch_size=4, verbose=0)
    assert not all(np.array_equal(variable, old) for variable, old in zip(variables, before, strict=True))
    model.set_state_tree(tree)
    for variable, old in zip(variables, before, strict=True):
        np.testing.assert_array_equal(variable, old, err_msg=variable.path)
    other = model_of()
    other.compile("adam")
    other.build((None, 1))
    with pytest.raises(ValueError, match="that of another model: .* such as '.+/.+'. Names are given anew"):
        other.set_state_tree(tree)


def test_perceptrons_keep_their_options():
    """What an encoder looks at, and how much of z a decoder reads."""
    x = 50.0 + 9.0 * np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    head = likelihoods.get("normal").fitted(x)
    encoder = MLPEncoder(2, (3,), inputs=head)
    loaded = MLPEncoder.from_config(encoder.get_config())
    np.testing.assert_array_equal(loaded.posterior(x).mean(), encoder.posterior(x).mean())
    decoder = MLPDecoder((4,), (3,), reads=2, latent=posteriors.get("normal", 2))
    loaded = MLPDecoder.from_config(decoder.get_config())
    assert loaded.reads == 2 and loaded.latent == decoder.latent
    z = np.ones([5, 3], np.float32)
    np.testing.assert_array_equal(loaded.likelihood(z).mean(), decoder.likelihood(z).mean())
