"""What is missing, against the linear-Gaussian model with every set of values missing."""

import dataclasses

import holed
import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from oracles import flat, naive_gradients

from iwae_zoo import annealing, imputation, laplace, likelihood, networks, objectives, presets, resampling
from iwae_zoo._tracing import Networks
from iwae_zoo.columns import Column
from iwae_zoo.distributions import likelihoods
from iwae_zoo.testing import LinearGaussian

TRUTH = LinearGaussian.random(latent_size=2, data_size=4, stddev=0.5, seed=3)
SAMPLES = 500


@pytest.fixture(scope="module")
def answered():
    """Every mask on 40 rows, answered by an encoder that is half a standard deviation off, and half too wide."""
    x = holed.every_mask(TRUTH.sample(40, seed=5)).astype(np.float32)
    model = holed.model(TRUTH, mismatch=0.5)
    return model, x, imputation.impute(model, x, SAMPLES, num_imputations=39, seed=1)


@pytest.mark.slow
def test_log_prob_of_what_is_observed(answered):
    """Within the stated errors at the stated rate, nothing observed (0) among them; the same as `likelihood` says."""
    model, x, filled = answered
    z = (filled.log_prob - holed.log_prob(TRUTH, x)) / filled.standard_error
    assert np.abs(z).max() < 4.5
    assert np.mean(np.abs(z) < 1.96) > 0.9 and np.mean(z**2) < 1.3
    nothing = np.isnan(x).all(axis=1)
    assert nothing.sum() == 40 and np.abs(filled.log_prob[nothing]).max() < 0.2
    np.testing.assert_array_equal(
        filled.log_prob[:20], likelihood.estimate_log_prob(model, x[:20], SAMPLES, seed=1).log_prob
    )


def test_moments_of_what_is_missing(answered):
    _, x, filled = answered
    mean, stddev = holed.conditional(TRUTH, x.astype(np.float64))
    gone = np.isnan(x)
    for name in ("mean", "draws", "point"):
        values = getattr(filled, name)
        np.testing.assert_array_equal(np.broadcast_to(x, values.shape)[..., ~gone], values[..., ~gone])
    assert not filled.stddev[~gone].any() and (filled.probability[~gone] == 1.0).all()
    # Of the standard deviation given x_obs only the part that is z's moves the mean, less than this.
    error = stddev[gone] / np.sqrt(np.broadcast_to(filled.ess[:, np.newaxis], x.shape)[gone])
    z = (filled.mean[gone] - mean[gone]) / error
    assert np.abs(z).max() < 4.5 and np.mean(np.abs(z) < 1.96) > 0.93
    np.testing.assert_allclose(filled.stddev[gone] / stddev[gone], 1.0, atol=0.25)
    assert np.mean(filled.stddev[gone] / stddev[gone]) == pytest.approx(1.0, abs=0.01)


def test_intervals_cover_what_was_there(answered):
    """On data from the model itself: 90 % of the intervals of 90 %, and half of those of 50 %."""
    model, _, _ = answered
    x = TRUTH.sample(900, seed=11).astype(np.float32)
    gone = np.random.default_rng(0).random(x.shape) < 0.5
    filled = imputation.impute(model, np.where(gone, np.nan, x), SAMPLES, num_imputations=39, seed=2)
    for level, tolerance in ((0.9, 0.02), (0.5, 0.035)):
        low, high = filled.interval(level)
        assert np.mean(((x >= low) & (x <= high))[gone]) == pytest.approx(level, abs=tolerance)


def test_rows_do_not_depend_on_each_other(answered):
    """Nor on what is written in a hole: any NaN is one."""
    model, x, filled = answered
    rows = slice(200, 203)
    other = x[rows].copy()
    other.view(np.int32)[np.isnan(other)] = -1  # The other NaN, negative and with all bits set.
    again = imputation.impute(model, other, SAMPLES, num_imputations=39, seed=1, first_row=200)
    for name in ("log_prob", "mean", "stddev", "ess", "pareto_k"):
        np.testing.assert_array_equal(getattr(again, name), getattr(filled, name)[rows])
    np.testing.assert_array_equal(again.draws, filled.draws[:, rows])


def test_where_nothing_is_known_the_posterior_is_the_prior():
    """Whatever an encoder makes of such a row: its particles are those that proposal="prior" draws."""
    model = holed.model(TRUTH, mismatch=3.0)
    x = holed.every_mask(TRUTH.sample(1, seed=5)).astype(np.float32)
    x = np.concatenate([x, np.full_like(x[:1], np.nan)])
    nothing = np.isnan(x).all(axis=1)
    assert nothing.sum() == 2
    filled = imputation.impute(model, x, SAMPLES, num_imputations=199, seed=1, chunk_size=300)
    mean, stddev = holed.conditional(TRUTH, x[nothing].astype(np.float64))
    error = stddev / np.sqrt(SAMPLES)
    assert np.abs((filled.mean[nothing] - mean) / error).max() < 4.0
    np.testing.assert_allclose(filled.stddev[nothing] / stddev, 1.0, atol=0.15)
    for draws, row_mean, row_stddev in zip(np.moveaxis(filled.draws[:, nothing], 1, 0), mean, stddev, strict=True):
        for values in ((draws - row_mean) / row_stddev).T:
            assert scipy.stats.kstest(values, "norm").pvalue > 1e-3
    options = {"num_samples": SAMPLES, "seed": 1, "chunk_size": 300}
    answer = likelihood.estimate_log_prob(model, x, **options)
    expected = likelihood.estimate_log_prob(
        model, x[nothing], proposal="prior", rows=np.flatnonzero(nothing), **options
    )
    for name, values in answer._asdict().items():
        np.testing.assert_array_equal(values[nothing], getattr(expected, name))
    for given in (filled, answer):
        assert np.abs(given.log_prob[nothing]).max() < 1e-6 and given.standard_error[nothing].max() < 1e-6
        np.testing.assert_allclose(given.ess[nothing], SAMPLES)
        assert given.trusted[nothing].all()
    z, ess = resampling.sample_posterior(model, x[nothing], num_samples=200, num_particles=5)
    np.testing.assert_allclose(ess, 5.0)
    assert min(scipy.stats.kstest(values, "norm").pvalue for values in z.reshape(200, -1).T) > 1e-3


@pytest.mark.slow
def test_annealing_knows_what_is_missing():
    x = holed.every_mask(TRUTH.sample(1, seed=6)).astype(np.float32)
    model = holed.model(TRUTH, mismatch=0.5)
    answer = annealing.estimate_log_prob(model, x, num_temperatures=20, num_chains=20, seed=1, verbose=0)
    assert np.abs(answer.log_prob - holed.log_prob(TRUTH, x)).max() < 0.3


def test_laplace_forgets_missing_pixels():
    """The mode and the curvature are those of the model of the other pixels."""
    rng = np.random.default_rng(0)
    kernel, x = rng.normal(size=(2, 5)), np.array([[1.0, np.nan, 0.0, np.nan, 1.0]], np.float32)
    there = ~np.isnan(x[0])

    def approximation(kernel, x):
        body = keras.layers.Dense(kernel.shape[1], use_bias=False)
        decoder = networks.Decoder(body, likelihoods.get("bernoulli,missing=True"), kernel.shape[1:])
        decoder.likelihood(tf.zeros([1, 2]))
        body.set_weights([kernel])
        networks_ = Networks(None, decoder, networks.StandardNormalPrior(2))
        return laplace.approximate(networks_, tf.constant(x), tf.zeros([1, 2]))

    received, expected = approximation(kernel, x), approximation(kernel[:, there], x[:, there])
    np.testing.assert_allclose(received.mode, expected.mode, atol=1e-5)
    np.testing.assert_allclose(received.log_det, expected.log_det, atol=1e-5)


def holed_network(name, dtype=None):
    """A small network of the library with a table of holes."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12, 3)).astype(np.float32)
    x[rng.random(x.shape) < 0.4] = np.nan
    head = likelihoods.get("normal").fitted(x)
    objective = objectives.get(name, m=2, k=3)
    sizes = {"latent_size": 2, "hidden_sizes": (4,), "likelihood": head}
    model = presets.build("real_small", data_shape=(3,), objective=objective, **sizes)
    model.encoder.holes.fill.assign([0.3, -0.2, 0.1])
    return model, x


@pytest.mark.slow
@pytest.mark.parametrize("name", objectives.names())
def test_gradients_with_holes(name):
    """One pass is two naive ones, and no gradient is NaN."""
    model, x = holed_network(name)
    received = model.compute_gradients(x, seed=(1, 2))
    encoder, decoder, log_weights = naive_gradients(model, name, x, (1, 2))
    np.testing.assert_allclose(received.log_weights, log_weights, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(flat(received.encoder), flat(encoder), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(flat(received.decoder), flat(decoder), rtol=1e-3, atol=1e-5)
    assert np.isfinite(flat(received.encoder)).all()
    other = x.copy()
    other.view(np.int32)[np.isnan(x)] = -1  # Whatever NaN stands in a hole.
    again = model.compute_gradients(other, seed=(1, 2))
    for ours, theirs in zip(received, again, strict=True):
        np.testing.assert_array_equal(flat(ours), flat(theirs))
    fill = [g for g, v in zip(received.encoder, model.encoder_variables, strict=True) if "fill" in v.path]
    assert np.any(fill[0])


@pytest.mark.slow
def test_gradients_are_those_of_the_closed_form():
    """With the exact posterior the decoder follows log p(x_obs) itself, by finite differences of the closed form."""
    x = holed.every_mask(TRUTH.sample(2, seed=8))
    model = holed.model(TRUTH, objective=objectives.get("iwae", m=1, k=4000), dtype="float64")
    gradients = model.compute_gradients(x, seed=(0, 1)).decoder
    by_name = {v.name: g for v, g in zip(model.decoder_variables, gradients, strict=True)}
    kernel, bias, shared = (by_name[name] for name in ("kernel", "bias", "shared"))

    def mean(weight=0.0, bias=0.0, factor=1.0):
        changed = LinearGaussian(TRUTH.weight + weight, TRUTH.bias + bias, TRUTH.stddev * factor)
        return holed.log_prob(changed, x).mean()

    step, one = 1e-5, np.zeros([4, 2])
    one[1, 0] = step
    assert -float(kernel[0, 1]) == pytest.approx((mean(weight=one) - mean(weight=-one)) / (2 * step), abs=0.02)
    e = np.array([0, 0, step, 0])
    assert -float(bias[2]) == pytest.approx((mean(bias=e) - mean(bias=-e)) / (2 * step), abs=0.02)
    factors = (mean(factor=np.exp(step)) - mean(factor=np.exp(-step))) / (2 * step)
    assert -np.sum(shared) == pytest.approx(factors, abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["piwae", "dreg"])
def test_complete_rows_are_what_they_are_without_holes(name):
    """To the bit: the bound, all gradients, log p(x)."""
    x = TRUTH.sample(5, seed=9).astype(np.float32)
    holed_, whole = (holed.model(TRUTH, 0.3, objectives.get(name, m=2, k=3), missing=m) for m in (True, False))
    for ours, theirs in zip(*(model.compute_gradients(x, seed=(1, 2)) for model in (holed_, whole)), strict=True):
        np.testing.assert_array_equal(flat(ours), flat(theirs))
    answers = [likelihood.estimate_log_prob(model, x, 50, seed=3).log_prob for model in (holed_, whole)]
    np.testing.assert_array_equal(*answers)


@pytest.mark.slow
def test_training_on_holes_and_saving(tmp_path):
    model, x = holed_network("miwae")
    model.compile("adam")
    history = model.fit(x, batch_size=4, epochs=2, verbose=0, validation_data=(x, None)).history
    assert np.isfinite(history["loss"] + history["val_loss"]).all()
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    for name, value in imputation.impute(model, x, 20)._asdict().items():
        np.testing.assert_array_equal(value, getattr(imputation.impute(again, x, 20), name))


@pytest.mark.slow
def test_names_are_filled_by_the_most_probable(seed):
    """Two columns that say the same: one is enough to know the other."""
    columns = (Column("a", "categorical", ("x", "y", "z")), Column("b", "binary", ("n", "y")), Column("c", "real"))
    codes = np.random.default_rng(0).integers(0, 3, 300)
    x = np.stack([codes, codes == 2, 5.0 * codes], axis=1).astype(np.float32)
    x[::2, 0] = np.nan
    head = dataclasses.replace(likelihoods.get("columns,real=normal:spread=0.1"), columns=columns).fitted(x)
    model = presets.build("table", data_shape=(3,), likelihood=head, hidden_sizes=(16,), latent_size=2, seed=seed % 100)
    model.compile(keras.optimizers.Adam(0.02), steps_per_execution=3)
    model.fit(x, batch_size=100, epochs=60, verbose=0)
    options = {"num_samples": 200, "num_imputations": 1, "chunk_size": 60}
    filled = imputation.impute(model, x[:40], **options)
    gone = np.isnan(x[:40, 0])
    assert np.mean(filled.point[gone, 0] == codes[:40][gone]) > 0.9
    assert np.mean(filled.probability[gone, 0]) > 0.8
    assert set(filled.draws[0, gone, 0]) <= {0.0, 1.0, 2.0}
    assert np.isnan(filled.probability[np.isnan(x[:40, 2]), 2]).all()
    # Log weights whose sum is lost in rounding: no good answer, but none that is no probability.
    far = imputation.impute(model, np.float32([[np.nan, np.nan, 1e10]]), **options)
    assert not far.trusted[0] and far.log_prob[0] < -1e16
    assert 0.0 <= far.mean[0, 1] <= 1.0 and (far.probability[0, :2] <= 1.0 + 1e-6).all()


def test_what_cannot_be_imputed(linear_gaussian):
    x = linear_gaussian.sample(2)
    with pytest.raises(ValueError, match="takes no missing values"):
        imputation.impute(linear_gaussian.model(), x)
    with pytest.raises(ValueError, match="NaN or infinity in 1 of 2 examples, the first at row 1.*missing=True"):
        likelihood.estimate_log_prob(linear_gaussian.model(), np.array([x[0], [0, np.nan, 1]]))
    model, holes = holed_network("iwae")
    with pytest.raises(ValueError, match="holds infinity in 1 of 12"):
        imputation.impute(model, np.where(np.arange(36).reshape(12, 3) == 4, np.inf, holes))
    filled = imputation.impute(model, holes, 10)
    with pytest.raises(ValueError, match="num_imputations of at least 19: received 5"):
        filled.interval(0.9)
    with pytest.raises(ValueError, match="between 0 and 1"):
        filled.interval(1.5)
    encoder = presets.build("real_small", data_shape=(3,)).encoder
    with pytest.raises(ValueError, match="inputs=decoder.head"):
        type(model)(encoder, model.decoder, model.prior)
