import gc
import itertools
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from iwae_zoo import (
    ImportanceWeightedAutoencoder,
    bounds,
    diagnostics,
    evaluation,
    likelihood,
    objectives,
    particles,
    presets,
)
from iwae_zoo.networks import StandardNormalPrior
from iwae_zoo.testing import LinearGaussianDecoder

tfd = tfp.distributions


@keras.saving.register_keras_serializable(package="iwae_zoo_tests")
class AffineEncoder(keras.Layer):
    """q(z | x) = factors of `family`, at x * factor and with a constant scale."""

    def __init__(self, factor, scale, family, **kwargs):
        super().__init__(**kwargs)
        self.factor, self.noise, self.family = (np.float32(factor), np.float32(scale), family)

    def posterior(self, x):
        loc = tf.convert_to_tensor(x) * self.factor
        return tfd.Independent(self.family(loc, tf.ones_like(loc) * self.noise), 1)


def affine_model(factor, scale, family=tfd.Normal):
    size = len(factor)
    decoder = LinearGaussianDecoder(np.eye(size), np.zeros(size), 1.0)
    model = ImportanceWeightedAutoencoder(AffineEncoder(factor, scale, family), decoder, StandardNormalPrior(size))
    model.build((None, size))
    return model


def binary(shape, seed):
    return np.random.default_rng(seed).binomial(1, 0.5, size=shape).astype(np.float32)


def stacked_gradients(model, x, seed, repeats):
    """Every gradient of both sides, float64 [R, P] each."""
    compute = tf.function(model.compute_gradients, autograph=False)
    gradients = [compute(tf.constant(x, tf.float32), particles.derive_seed(seed, r)) for r in range(repeats)]
    return [
        np.array([np.concatenate([np.ravel(part) for part in getattr(g, side)]) for g in gradients])
        for side in ("encoder", "decoder")
    ]


def slope(counts, values, errors):
    """Least-squares slope of log value over log count, and its standard error."""
    centred = np.log(counts) - np.mean(np.log(counts))
    coefficients = centred / np.sum(centred**2)
    return coefficients @ np.log(values), np.sqrt(np.sum((coefficients * np.divide(errors, values)) ** 2))


@pytest.mark.slow
def test_gradient_snr_is_numpys(linear_gaussian, seed):
    model = linear_gaussian.model(objectives.get("piwae", m=2, k=3), mismatch=0.3, dtype="float64")
    x = linear_gaussian.sample(4, seed=seed)
    received = diagnostics.gradient_snr(model, x, num_repeats=23, seed=seed)
    edges = [0, 5, 11, 17, 23]
    all_variables = (model.encoder_variables, model.decoder_variables)
    for side, stack, variables in zip(received, stacked_gradients(model, x, seed, 23), all_variables, strict=True):
        varied = stack.std(axis=0) > 0
        expected = np.abs(stack.mean(axis=0)) / np.where(varied, stack.std(axis=0, ddof=1), np.nan)
        assert [part.shape for part in side.snr] == [tuple(variable.shape) for variable in variables]
        np.testing.assert_allclose(np.concatenate([np.ravel(part) for part in side.snr]), expected, rtol=1e-8)
        groups = [stack[start:stop][:, varied] for start, stop in itertools.pairwise(edges)]
        of_groups = [np.abs(group.mean(axis=0)) / group.std(axis=0, ddof=1) for group in groups]
        np.testing.assert_allclose(side.variance, stack.var(axis=0, ddof=1).sum(), rtol=1e-8)
        np.testing.assert_allclose(side.mean, np.nanmean(expected), rtol=1e-8)
        np.testing.assert_allclose(side.median, np.nanmedian(expected), rtol=1e-8)
        np.testing.assert_allclose(side.mean_error, np.std(np.mean(of_groups, axis=1), ddof=1) / 2, rtol=1e-8)
        np.testing.assert_allclose(side.median_error, np.std(np.median(of_groups, axis=1), ddof=1) / 2, rtol=1e-8)
        unit = stack.mean(axis=0) / np.linalg.norm(stack.mean(axis=0))
        parallel = np.outer(stack @ unit, unit)
        ratios = np.linalg.norm(parallel, axis=1) / np.linalg.norm(stack - parallel, axis=1)
        np.testing.assert_allclose(side.dsnr, ratios.mean(), rtol=1e-8)
        np.testing.assert_allclose(side.dsnr_error, ratios.std(ddof=1) / np.sqrt(23), rtol=1e-8)


@pytest.mark.slow
def test_parameter_without_effect_has_no_snr(linear_gaussian, seed):
    """The encoder's scale is a triangle: the entry above its diagonal takes no part, in gradient or summary."""
    model = linear_gaussian.model("iwae", mismatch=0.3)
    encoder, decoder = diagnostics.gradient_snr(model, linear_gaussian.sample(4, seed=seed), 10, seed)
    np.testing.assert_array_equal(np.isnan(encoder.snr[2]), [[False, True], [False, False]])
    assert not any(np.isnan(part).any() for part in (*encoder.snr[:2], *decoder.snr))
    flat = np.concatenate([np.ravel(part) for part in encoder.snr])
    np.testing.assert_allclose([encoder.mean, encoder.median], [np.nanmean(flat), np.nanmedian(flat)])


@pytest.mark.slow
def test_objective_replaces_the_models_own(linear_gaussian, seed):
    x = linear_gaussian.sample(4, seed=seed)
    dreg = objectives.get("dreg", m=1, k=3)
    model = linear_gaussian.model("elbo", mismatch=0.3)
    probed = diagnostics.gradient_snr(model, x, 10, seed, objective=dreg)
    own = diagnostics.gradient_snr(linear_gaussian.model(dreg, mismatch=0.3), x, 10, seed)
    assert probed.encoder.mean == own.encoder.mean
    assert probed.encoder.mean != diagnostics.gradient_snr(model, x, 10, seed).encoder.mean
    assert model.objective.name == "elbo"


@pytest.mark.slow
def test_snr_follows_the_weights(linear_gaussian, seed):
    """Traced functions are kept between calls; what they saw of the model must not be."""
    model = linear_gaussian.model(objectives.get("iwae", m=1, k=3), mismatch=0.3)
    x = linear_gaussian.sample(4, seed=seed)
    before = diagnostics.gradient_snr(model, x, 10, seed)
    model.encoder.bias.assign_add([1.0, 1.0])
    model.decoder.bias.assign_add([1.0, 0.0, 0.0])
    after = diagnostics.gradient_snr(model, x, 10, seed)
    assert before.encoder.mean != after.encoder.mean and before.decoder.mean != after.decoder.mean


@pytest.mark.slow
def test_snr_is_that_of_the_models_own_gradients(linear_gaussian, seed):
    """As it is compiled, and of what is trained, if that changes."""
    x = linear_gaussian.sample(4, seed=seed)
    model = linear_gaussian.model(objectives.get("iwae", m=1, k=4), mismatch=0.3, dtype="float64")
    model.compile(backward_particles=1, particle_chunk=2)
    for frozen in (False, True):
        model.encoder.bias.trainable = not frozen
        received = diagnostics.gradient_snr(model, x, 10, seed)
        stacks = stacked_gradients(model, x, seed, 10)
        assert len(received.encoder.snr) == len(model.encoder_variables) == 3 - frozen
        for side, stack in zip(received, stacks, strict=True):
            np.testing.assert_allclose(side.variance, stack.var(axis=0, ddof=1).sum(), rtol=1e-8)


@pytest.mark.slow
def test_error_is_the_spread_over_seeds(linear_gaussian, seed):
    model = linear_gaussian.model(objectives.get("iwae", m=1, k=2), mismatch=0.3)
    x = linear_gaussian.sample(20, seed=seed)
    sides = [diagnostics.gradient_snr(model, x, 50, seed + i) for i in range(16)]
    for side in ("encoder", "decoder"):
        for name in ("mean", "dsnr"):
            values = [getattr(getattr(snr, side), name) for snr in sides]
            errors = [getattr(getattr(snr, side), f"{name}_error") for snr in sides]
            assert 0.5 < np.mean(errors) / np.std(values, ddof=1) < 2.0, (side, name)


@pytest.mark.slow
def test_slopes_over_particles_are_the_theorys(linear_gaussian, seed):
    """Rainforth et al. 2018, theorem 1: as K^(-1/2) for the encoder, as K^(1/2) for the decoder."""
    model = linear_gaussian.model("iwae", mismatch=0.2)
    x = linear_gaussian.sample(100, seed=seed)

    def slopes(name, counts, repeats):
        """(slope, its error) of the encoder and of the decoder."""
        snr = [diagnostics.gradient_snr(model, x, repeats, seed, objectives.get(name, m=1, k=k)) for k in counts]
        return [slope(counts, [s.mean for s in side], [s.mean_error for s in side]) for side in zip(*snr, strict=True)]

    (encoder, encoder_error), (decoder, decoder_error) = slopes("iwae", [4, 32], 300)
    assert max(encoder_error, decoder_error) < 0.1
    assert encoder == pytest.approx(-0.5, abs=0.25)
    assert decoder == pytest.approx(0.5, abs=0.25)
    (encoder, encoder_error), _ = slopes("dreg", [4, 32], 100)
    assert encoder > 2 * encoder_error


def test_latent_use_of_factors_is_the_closed_form(seed):
    """Three dimensions with means of variance 1, just above and just below the threshold of 0.01."""
    x = np.random.default_rng(seed).normal(size=(50, 3))
    x /= x.std(axis=0)
    scale = np.array([0.5, 0.9, 1.2])
    factor = np.sqrt([1.0, 0.0101, 0.0099])
    use = diagnostics.latent_use(affine_model(factor, scale), x, num_samples=200, seed=seed)
    loc = x * factor
    kl = 0.5 * (scale**2 + loc**2 - 1.0 - 2 * np.log(scale)).mean(axis=0)
    np.testing.assert_allclose(use.mean_variance, [1.0, 0.0101, 0.0099], rtol=1e-4)
    assert use.active_units == 2
    np.testing.assert_allclose(use.kl_by_dimension, kl, rtol=1e-4)
    np.testing.assert_allclose(use.kl, kl.sum(), rtol=1e-4)
    # The parts are estimated without the closed form; 10,000 draws of a standard deviation of about 2.
    np.testing.assert_allclose(use.mutual_information + use.aggregate_kl, use.kl, atol=0.08)


@pytest.mark.slow
def test_latent_use_of_a_flow_of_one_coupling():
    """Which leaves one half of z as it is: the densities are those of each example alone."""
    posterior = "coupling_flow,num_couplings=1"
    model = presets.build(
        "real_small", data_shape=(3,), likelihood="normal", latent_size=3, hidden_sizes=(8,), posterior=posterior
    )
    x = np.random.default_rng(0).normal(size=(7, 3)).astype("float32")
    assert np.isfinite(diagnostics.latent_use(model, x, num_samples=5).kl)
    posterior = model.encoder.posterior(x)
    z = posterior.sample([4], seed=(0, 1))[:, :1]
    expected = np.stack([model.encoder.posterior(x[i : i + 1]).log_prob(z)[:, 0] for i in range(7)], axis=1)
    np.testing.assert_allclose(posterior.log_prob(z), expected, rtol=1e-5)


def test_latent_use_can_be_asked_for_after_each_epoch(caplog):
    """TensorFlow warns of what it has to trace again and again."""
    tf.get_logger().addHandler(caplog.handler)
    try:
        for epoch in range(6):
            diagnostics.latent_use(affine_model([1.0], [0.5]), np.ones([2 + epoch % 2, 1]), num_samples=2)
    finally:
        tf.get_logger().removeHandler(caplog.handler)
    assert not caplog.records


def test_parts_of_the_kl_are_the_integrals(seed):
    """Against a Riemann sum in the one latent dimension."""
    x = np.array([[-2.0], [-0.5], [0.0], [1.5]])
    use = diagnostics.latent_use(affine_model([1.0], [0.4]), x, num_samples=5000, seed=seed)
    grid = np.linspace(-8, 8, 20001)
    step = grid[1] - grid[0]

    def log_normal(loc, stddev):
        return -0.5 * ((grid - loc) / stddev) ** 2 - np.log(stddev * np.sqrt(2 * np.pi))

    log_q = log_normal(x, 0.4)
    log_aggregate = np.log(np.exp(log_q).mean(axis=0))
    information = np.sum(np.exp(log_q) * (log_q - log_aggregate)) * step / 4
    aggregate_kl = np.sum(np.exp(log_aggregate) * (log_aggregate - log_normal(0.0, 1.0))) * step
    # 20,000 draws of a standard deviation of about 1.
    np.testing.assert_allclose(use.mutual_information, information, atol=0.03)
    np.testing.assert_allclose(use.aggregate_kl, aggregate_kl, atol=0.03)


def test_kl_without_a_closed_form_is_sampled(seed):
    """E log Laplace(z; m, b) - log N(z; 0, 1), which TFP does not know."""
    x = np.random.default_rng(seed).normal(size=(20, 2))
    use = diagnostics.latent_use(affine_model([1.0, 0.5], [0.5, 0.7], tfd.Laplace), x, num_samples=2000, seed=seed)
    loc, scale = x * [1.0, 0.5], np.array([0.5, 0.7])
    kl = -np.log(2 * scale) - 1 + 0.5 * np.log(2 * np.pi) + 0.5 * (loc**2 + 2 * scale**2)
    np.testing.assert_allclose(use.kl_by_dimension, kl.mean(axis=0), atol=0.05)


def test_kl_of_a_dependent_posterior(linear_gaussian, seed):
    model = linear_gaussian.model("iwae")
    x = linear_gaussian.sample(30, seed=seed)
    use = diagnostics.latent_use(model, x, num_samples=1000, seed=seed)
    covariance, mean = linear_gaussian.posterior_covariance, linear_gaussian.posterior_mean(x)
    kl = 0.5 * (np.trace(covariance) + np.sum(mean**2, axis=1) - 2 - np.linalg.slogdet(covariance)[1])
    assert use.kl_by_dimension is None
    np.testing.assert_allclose(use.kl, kl.mean(), atol=0.05)
    np.testing.assert_allclose(use.mean_variance, mean.var(axis=0), rtol=1e-4)


@pytest.mark.slow
def test_summary_is_the_parts(linear_gaussian, seed):
    model = linear_gaussian.model(objectives.get("iwae", m=1, k=4), mismatch=0.3)
    x = linear_gaussian.sample(12, seed=seed)
    summary = diagnostics.summarize(model, x, num_repeats=10, batch_size=5, num_samples=50, seed=seed)
    snr = diagnostics.gradient_snr(model, x[:5], 10, seed)
    values = evaluation.evaluate(model, x, 50, seed, verbose=0)
    assert summary["encoder_snr"] == snr.encoder.median and summary["decoder_dsnr"] == snr.decoder.dsnr
    assert summary["bound_gap"] == values.iwae_bound - values.elbo
    assert summary["negative_kl"] == values.negative_kl and summary["importance_ess"] == values.importance_ess
    assert all(isinstance(value, float) for value in summary.values())
    evaluation.evaluate(model, x, 50, 2**31 - 1, verbose=0)  # The largest seed there is.


class Recorder(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.epochs = []

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(dict(logs))


@pytest.mark.slow
def test_callback_hands_its_numbers_on(seed):
    x = binary((40, 8, 8, 1), seed)
    model = presets.build("small", data_shape=(8, 8, 1), objective=objectives.get("iwae", m=2, k=2), seed=1)
    # Weights that stand still: two looks must then agree to the last digit.
    model.compile(keras.optimizers.SGD(0.0), keras.optimizers.SGD(0.0))
    before, after = Recorder(), Recorder()
    callback = diagnostics.Diagnostics(x[:20], every=2, num_repeats=10, batch_size=5, num_samples=20, seed=seed)
    history = model.fit(x, batch_size=20, epochs=4, callbacks=[before, callback, after], verbose=0)
    added = [set(late) - set(early) for early, late in zip(before.epochs, after.epochs, strict=True)]
    expected = {
        "diagnostics_" + name
        for name in diagnostics.summarize(model, x[:20], num_repeats=10, batch_size=5, num_samples=20)
    }
    assert added == [set(), expected, set(), expected]
    for name in expected:
        assert np.isfinite(after.epochs[1][name])
        assert after.epochs[1][name] == after.epochs[3][name]
        assert history.history[name] == [after.epochs[1][name], after.epochs[3][name]]


def test_callback_rejects_bad_arguments_before_training(seed):
    with pytest.raises(ValueError, match="every must be an integer of at least 1"):
        diagnostics.Diagnostics(binary((4, 8, 8, 1), seed), every=0)
    with pytest.raises(ValueError, match="num_repeats must be an integer of at least 10"):
        diagnostics.Diagnostics(binary((4, 8, 8, 1), seed), num_repeats=9)
    callback = diagnostics.Diagnostics(binary((4, 64), seed))
    callback.set_model(presets.build("small", data_shape=(8, 8, 1)))
    with pytest.raises(ValueError, match="x must have shape"):
        callback.on_train_begin()


def test_bad_arguments(linear_gaussian):
    model = linear_gaussian.model("iwae")
    x = linear_gaussian.sample(2)
    with pytest.raises(ValueError, match="num_repeats must be an integer of at least 10: received 9"):
        diagnostics.gradient_snr(model, x, num_repeats=9)
    with pytest.raises(ValueError, match="Unknown objective"):
        diagnostics.gradient_snr(model, x, objective="iwea")
    with pytest.raises(ValueError, match="at least one example"):
        diagnostics.gradient_snr(model, x[:0])
    with pytest.raises(ValueError, match="num_samples must be an integer of at least 1: received 0"):
        diagnostics.latent_use(model, x, num_samples=0)
    with pytest.raises(ValueError, match="batch_size must be an integer of at least 1: received True"):
        diagnostics.summarize(model, x, batch_size=True)


@pytest.mark.slow
def test_kept_functions_let_the_model_go(linear_gaussian, seed):
    gc.freeze()  # So that only what comes is looked through.
    model = linear_gaussian.model("elbo")
    diagnostics.gradient_snr(model, linear_gaussian.sample(2, seed=seed), 10, seed)
    reference = weakref.ref(model)
    del model
    gc.collect()
    assert reference() is None


@pytest.mark.slow
def test_thermodynamic_bracket(linear_gaussian):
    """Streamed in chunks, the bounds of the particles that log p(x) is estimated with; and row by row."""
    model, x = linear_gaussian.model(mismatch=0.3), linear_gaussian.sample(3).astype("float32")
    options = {"num_points": 4, "beta_1": 0.05, "seed": 5}
    bracket = diagnostics.thermodynamic_bracket(model, x, 700, chunk_size=300, **options)
    estimate = likelihood.estimate_log_prob(model, x, 700, seed=5, chunk_size=300, method="importance")
    np.testing.assert_allclose(bracket.log_prob, estimate.log_prob, rtol=1e-9)
    assert (bracket.lower < bracket.log_prob).all() and (bracket.log_prob < bracket.upper).all()
    # In one chunk, the particles by hand.
    whole = diagnostics.thermodynamic_bracket(model, x, 50, **options)
    for i in range(3):
        seed = particles.derive_seed(tf.constant([i, 5]), 0)
        z = model.encoder.posterior(x[i : i + 1]).sample([50], seed=seed)
        log_weights = particles.log_joint(model.decoder, model.prior, x[i : i + 1], z)
        log_weights = tf.cast(log_weights - model.encoder.posterior(x[i : i + 1]).log_prob(z), tf.float64)
        for name, kind in (("lower", bounds.Thermodynamic), ("upper", bounds.ThermodynamicUpper)):
            expected = kind(points=4, beta_1=0.05).value(log_weights[tf.newaxis]).numpy()[0]
            assert getattr(whole, name)[i] == pytest.approx(expected, rel=1e-6)
    with pytest.raises(ValueError, match="points must be an integer from 2 to 50: received 60"):
        diagnostics.thermodynamic_bracket(model, x, 10, num_points=60)


@pytest.mark.slow
def test_a_check_leaves_out_what_is_outside_the_support(short_annealing):
    model = presets.build("small", data_shape=(2, 2, 1))
    x = np.zeros((3, 2, 2, 1))
    x[1, 0, 0] = 0.5
    result, inside = (evaluation.check(model, rows, 50, verbose=0) for rows in (x, x[[0, 2]]))
    assert result.num_examples == inside.num_examples == 2
    assert result.log_prob == pytest.approx(inside.log_prob, abs=0.2)
    assert np.isfinite([result.annealed_log_prob, result.difference, result.difference_error]).all()


def test_thermodynamic_bracket_outside_the_support():
    model = presets.build("plane", data_shape=(4,), objective="iwae")
    x = np.ones((2, 4), "float32")
    x[1, 2] = 0.5
    for values in diagnostics.thermodynamic_bracket(model, x, 20):
        assert np.isfinite(values[0])
        assert values[1] == -np.inf
