"""Rows in tiles: an answer depends on its row alone, bit for bit, and is that of one row at a time but for rounding.

Run on each kind of device that there is: where TensorFlow sees a GPU, it computes on it.
"""

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from replicated import mirrored
from tensorflow_probability import distributions as tfd
from toy_data import dataset

from iwae_zoo import (
    ImportanceWeightedAutoencoder,
    annealing,
    diagnostics,
    evaluation,
    imputation,
    likelihood,
    networks,
    presets,
    resampling,
)
from iwae_zoo.distributions.full_normal import FullNormal
from iwae_zoo.estimation import paths, psis, tiles, walks
from iwae_zoo.model import memory
from iwae_zoo.testing import LinearGaussian, linear_gaussian

SAMPLES, CHUNK = 130, 50
# Bits.
pytestmark = pytest.mark.usefixtures("optimized")
OPTIONS = {"num_samples": SAMPLES, "seed": 3, "chunk_size": CHUNK}


def images(count, shape=(3, 3, 1)):
    return (np.random.default_rng(0).random((count, *shape)) < 0.4).astype("float32")


@pytest.fixture(scope="module")
def model():
    return presets.build("small", data_shape=(3, 3, 1), objective="iwae")


def assert_same(some, others):
    for name, one, other in zip(likelihood.Estimate._fields, some, others, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=name)


def assert_close(some, others, discrete=False):
    for name in ("log_prob", "elbo"):
        np.testing.assert_allclose(getattr(some, name), getattr(others, name), atol=1e-4)
    # Draws of a discrete z come again, with the same weight: by which of them the tail begins, rounding says.
    for name in ("standard_error", "ess") if discrete else ("standard_error", "ess", "pareto_k"):
        np.testing.assert_allclose(getattr(some, name), getattr(others, name), rtol=1e-2, atol=1e-6)
    np.testing.assert_array_equal(some.trusted, others.trusted)
    for name in ("in_support", "num_samples", "method"):
        np.testing.assert_array_equal(getattr(some, name), getattr(others, name))


def assert_by_row(model, x, whole, trials=4, **options):
    """Rows in any number, order and company, so at any place of a tile, have the answers that they have in `whole`."""
    random = np.random.default_rng(1)
    for count in (1, *random.integers(2, len(x) + 1, trials - 1)):
        rows = random.permutation(len(x))[:count]
        answers = likelihood.estimate_log_prob(model, x[rows], rows=rows, **OPTIONS, **options)
        assert_same(answers, [part[rows] for part in whole])


@pytest.mark.slow
def test_an_answer_depends_on_its_row_alone(model):
    x = images(100)
    x[7, 0, 0] = 0.5
    whole = likelihood.estimate_log_prob(model, x, tile_rows=48, **OPTIONS)
    assert list(np.flatnonzero(~whole.in_support)) == [7]
    assert_close(whole, likelihood.estimate_log_prob(model, x, tile_rows=1, **OPTIONS))
    assert_by_row(model, x, whole, tile_rows=48)


@pytest.mark.slow
@pytest.mark.parametrize(
    "posterior", ["full_normal", "student_t", "coupling_flow,num_couplings=2", "bernoulli", "categorical"]
)
def test_of_every_posterior(posterior):
    discrete = posterior in ("bernoulli", "categorical")
    objective = "rws" if discrete else "iwae"
    built = presets.build("small", data_shape=(3, 3, 1), posterior=posterior, objective=objective)
    x = images(60)
    whole = likelihood.estimate_log_prob(built, x, tile_rows=48, **OPTIONS)
    assert_close(whole, likelihood.estimate_log_prob(built, x, tile_rows=1, **OPTIONS), discrete)
    assert_by_row(built, x, whole, trials=3, tile_rows=48)


@pytest.mark.slow
def test_of_the_presets_for_images():
    """Products and pixels of usual sizes, for which libraries have ways of their own."""
    built = presets.build("rainforth", data_shape=(28, 28, 1), objective="iwae")
    x = images(60, (28, 28, 1))
    whole = likelihood.estimate_log_prob(built, x, tile_rows=48, **OPTIONS)
    assert np.abs(whole.log_prob - likelihood.estimate_log_prob(built, x, tile_rows=1, **OPTIONS).log_prob).max() < 1e-3
    assert_by_row(built, x, whole, trials=3, tile_rows=48)


@pytest.mark.slow
def test_of_stacked_layers_real_numbers_and_holes():
    x = np.random.default_rng(0).normal(size=(60, 5)).astype("float32")
    x[3, 1] = np.nan
    x[6] = np.nan  # Its particles are the prior's.
    built = presets.build(
        "real_small",
        data_shape=(5,),
        likelihood="normal,missing=True",
        latent_size=(4, 2),
        posterior="normal+student_t",
        objective="iwae",
    )
    whole = likelihood.estimate_log_prob(built, x, tile_rows=48, **OPTIONS)
    assert whole.in_support.all() and abs(whole.log_prob[6]) < 1e-6
    assert_close(whole, likelihood.estimate_log_prob(built, x, tile_rows=1, **OPTIONS))
    assert_by_row(built, x, whole, trials=3, tile_rows=48)


@pytest.mark.slow
def test_each_row_ends_by_itself(model):
    """With a tolerance, also where its neighbours go on."""
    x = images(20)
    errors = likelihood.estimate_log_prob(model, x, tile_rows=1, **OPTIONS).standard_error
    options = {**OPTIONS, "tolerance": 1.3 * np.median(errors)}
    alone = likelihood.estimate_log_prob(model, x, tile_rows=1, **options)
    tiled = likelihood.estimate_log_prob(model, x, tile_rows=48, **options)
    assert set(tiled.num_samples) == {50, 100, 130}
    assert_close(tiled, alone)
    backwards = np.arange(20)[::-1]
    again = likelihood.estimate_log_prob(model, x[::-1], rows=backwards, tile_rows=48, **options)
    assert_same(again, [part[::-1] for part in tiled])


@pytest.mark.slow
def test_what_is_missing_is_filled_by_tiles():
    """From the particles that one row at a time draws, and at whatever place of a tile."""
    data = dataset("columns", (5,))
    built = presets.build("plane", data=data, likelihood="columns", latent_size=2, hidden_sizes=(6,))
    x = np.resize(data.test, (60, 5))
    x[3, 2], x[6], x[8:, 1] = -1.0, np.nan, np.nan  # Outside of the support; nothing is known; more holes.
    options = {"num_samples": SAMPLES, "num_imputations": 3, "seed": 3, "chunk_size": CHUNK}
    tiled, alone = (imputation.impute(built, x, tile_rows=rows, **options) for rows in (48, 1))
    assert list(np.flatnonzero(~tiled.in_support)) == [3]
    assert abs(tiled.log_prob[6]) < 1e-6 and np.isnan(x).sum() > 20
    for name in ("mean", "stddev", "point", "probability", "log_prob", "standard_error", "ess", "draws"):
        np.testing.assert_allclose(getattr(tiled, name), getattr(alone, name), rtol=1e-3, atol=1e-4, err_msg=name)
    rows = np.random.default_rng(1).permutation(60)[:57]
    again = imputation.impute(built, x[rows], rows=rows, tile_rows=48, **options)
    for name, values in tiled._asdict().items():
        expected = values[:, rows] if name == "draws" else values[rows]
        np.testing.assert_array_equal(getattr(again, name), expected, err_msg=name)


@pytest.mark.slow
def test_draws_and_thermodynamic_brackets_of_tiles(model):
    x, options = images(60), {"seed": 3, "chunk_size": CHUNK}
    functions = {
        "draws": lambda x, rows: resampling.sample_posterior(model, x, 3, SAMPLES, tile_rows=rows, **options),
        "bracket": lambda x, rows: diagnostics.thermodynamic_bracket(model, x, SAMPLES, tile_rows=rows, **options),
    }
    for name, function in functions.items():
        tiled, alone, some = function(x, 48), function(x, 1), function(x[:5], 48)
        for ours, theirs, few in zip(tiled, alone, some, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4, err_msg=name)
            axis = ours.ndim - 2 if ours.ndim == 3 else 0  # Draws come first.
            np.testing.assert_array_equal(few, np.take(ours, range(5), axis), err_msg=name)


@pytest.mark.slow
def test_replicas_share_tiles(model):
    x = images(70)
    with tf.device("CPU:0"):  # The replicas are of the CPU, whatever there is.
        has_gpu = tf.config.list_logical_devices("GPU")
        one = presets.build("small", data_shape=(3, 3, 1), objective="iwae") if has_gpu else model
        expected = likelihood.estimate_log_prob(one, x, tile_rows=48, **OPTIONS)
    with mirrored(2).scope():
        built = presets.build("small", data_shape=(3, 3, 1), objective="iwae")
    assert_same(likelihood.estimate_log_prob(built, x, tile_rows=48, **OPTIONS), expected)


@pytest.mark.slow
def test_no_rows(model):
    answer = likelihood.estimate_log_prob(model, images(0), tile_rows=48, **OPTIONS)
    assert answer.log_prob.shape == (0,)


class ByRow(linear_gaussian.LinearGaussianEncoder):
    """Its draws take seeds by row."""

    def posterior(self, x):
        q = super().posterior(x)
        return FullNormal(q.loc, q.scale.to_dense())


@pytest.fixture(scope="module")
def truth():
    return LinearGaussian.random(latent_size=2, data_size=3, stddev=0.7, seed=1)


@pytest.fixture(scope="module")
def known(truth):
    """A model whose log p(x) is known in closed form, with an encoder that is wrong."""
    encoder = ByRow(*truth.encoder_parameters(0.3))
    decoder = linear_gaussian.LinearGaussianDecoder(truth.weight, truth.bias, truth.stddev)
    model = ImportanceWeightedAutoencoder(encoder, decoder, networks.StandardNormalPrior(2))
    model.build((None, 3))
    return model


def assert_unbiased(errors):
    weights = np.exp(errors)
    assert abs(weights.mean() - 1) < 4 * weights.std(ddof=1) / np.sqrt(len(weights))
    assert 0 < abs(errors).max() < 1


@pytest.mark.slow
@pytest.mark.parametrize("initial", ["laplace", "encoder"])
def test_annealed_answers_of_tiles(initial, known, truth, monkeypatch):
    """The truth, and of each row by itself, bit for bit."""
    monkeypatch.setattr(paths, "_WARM_UP", 5)  # With any step size.
    budget = walks.Budget.of(initial, num_temperatures=6, num_leapfrog_steps=3)
    x, rows = truth.sample(60).astype("float32"), np.arange(60, dtype=np.int32)
    whole = annealing.estimate_rows(known, x, rows, 3, budget, 48, verbose=0)
    assert_unbiased(whole.log_prob - truth.log_prob(x))
    assert (abs(whole.log_prob - truth.log_prob(x)) < 6 * whole.standard_error).all()
    for some in ([7], [59, 0, 7], rows[::-1]):
        again = annealing.estimate_rows(known, x[some], np.int32(some), 3, budget, 48, verbose=0)
        for name, one, other in zip(whole._fields, again, whole, strict=True):
            np.testing.assert_array_equal(one, other[some], err_msg=name)
    # The random numbers are those of one row at a time, and in few transitions rounding has no time to grow.
    if initial == "encoder":
        alone = annealing.estimate_rows(known, x, rows, 3, budget, 1, verbose=0)
        np.testing.assert_allclose(whole.log_prob, alone.log_prob, atol=1e-3)
        np.testing.assert_allclose(whole.acceptance_rate, alone.acceptance_rate, atol=1e-3)


@pytest.mark.slow
def test_bounds_and_draws_of_tiles(known, truth, monkeypatch):
    monkeypatch.setattr(walks, "_LAST_MOVES", 0)  # They would mend a draw of another row.
    bounds = annealing.sandwich(known, 60, 6, num_leapfrog_steps=1, seed=2, tile_rows=48, verbose=0)
    log_prob = truth.log_prob(bounds.x)
    assert_unbiased(bounds.lower - log_prob)
    assert_unbiased(log_prob - bounds.upper)
    x = truth.sample(200).astype("float32")
    budget = {"num_temperatures": 12, "num_leapfrog_steps": 2}
    z, ess = annealing.sample_posterior(known, x, initial="encoder", tile_rows=48, verbose=0, **budget)
    assert z.shape == (1, 200, 2)
    assert ess.min() > 8
    whitened = np.linalg.solve(np.linalg.cholesky(truth.posterior_covariance), (z[0] - truth.posterior_mean(x)).T)
    assert scipy.stats.kstest(whitened.ravel(), "norm").pvalue > 1e-4


@pytest.mark.slow
def test_the_ladder_anneals_in_tiles(known, truth, monkeypatch):
    """Of a method that anneals every row, answers are those of annealing in tiles of the same size."""
    x = truth.sample(20).astype("float32")
    asked, estimate_rows = [], annealing.estimate_rows

    def estimate(model, x, rows, seed, budget, tile_rows, **rest):
        asked.append(tile_rows)
        return estimate_rows(model, x, rows, seed, budget, tile_rows, **rest)

    monkeypatch.setattr(annealing, "estimate_rows", estimate)
    answers = likelihood.estimate_log_prob(known, x, 50, 3, method="annealed", tile_rows=48)
    assert (answers.method == "annealed").all()
    assert_unbiased(answers.log_prob - truth.log_prob(x))
    assert asked[0] == 48


def test_an_evaluation_is_in_tiles(model, monkeypatch):
    """Its bound too, with no more particles at once than are asked for; and data sets go in whole tiles."""
    asked = []

    def estimate(model, x, num_samples, seed, chunk_size=None, *, tile_rows=None, **options):
        asked.append((len(x), num_samples, chunk_size, tile_rows))
        zeros = np.zeros(len(x))
        values = {name: zeros for name in likelihood.Estimate._fields}
        return likelihood.Estimate(**{**values, "in_support": zeros == 0})

    monkeypatch.setattr(likelihood, "estimate_log_prob", estimate)
    evaluation.evaluate(model, images(200), 30, m=2, k=20, chunk_size=10, tile_rows=48, method="importance", verbose=0)
    assert asked == [(rows, samples, 10, 48) for samples in (40, 30) for rows in (96, 96, 8)]
    del asked[:]
    evaluation.evaluate(model, images(5), 100, m=2, k=20, chunk_size=50, method="importance", verbose=0)
    assert asked == [(5, 40, 40, None), (5, 100, 50, None)]


def test_pareto_shapes_are_those_of_rows():
    log_weights = np.random.default_rng(0).standard_t(3, size=(3, 100))
    log_weights[2] = 0.0
    largest = -np.sort(-log_weights, axis=1)[:, : psis.capacity(100)]
    counts = np.array([100, 60, 100], np.int32)
    with tf.device("CPU:0"):  # Where tiles' are computed.
        expected = [psis.pareto_shape(tf.constant(row), count) for row, count in zip(largest, counts, strict=True)]
    np.testing.assert_array_equal(psis.pareto_shapes(tf.constant(largest), counts), expected)


@pytest.mark.parametrize("tile_rows", [0, -48, 3, 16, 48.0, True, "48"])
def test_what_is_no_tile(tile_rows, model):
    with pytest.raises(ValueError, match=f"tile_rows must be .*: received {tile_rows!r}"):
        likelihood.estimate_log_prob(model, images(1), tile_rows=tile_rows)


def plain(q):
    """The same distribution, whose draws know nothing of rows."""
    return tfd.Independent(tfd.Normal(q.distribution.loc, q.distribution.scale), 1)


def test_draws_that_know_nothing_of_tiles(model, monkeypatch):
    x = images(2)
    with pytest.raises(ValueError, match="received 48, and proposal='prior' draws a row at a time. Leave it out"):
        likelihood.estimate_log_prob(model, x, tile_rows=48, proposal="prior")
    monkeypatch.setattr(model.encoder, "posterior", lambda x: plain(type(model.encoder).posterior(model.encoder, x)))
    with pytest.raises(ValueError, match="received 48, and the encoder's Independent.* draws a row at a time"):
        likelihood.estimate_log_prob(model, x, tile_rows=48)
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: ["a card"])
    assert tiles.choose(None, model, 100) == 1


@pytest.mark.parametrize(("rows", "expected"), [(1000, 96), (96, 96), (95, 48), (48, 48), (47, 1)])
def test_a_gpu_is_given_what_fits_a_quarter_of_its_memory(rows, expected, model, monkeypatch):
    """No card is needed: its memory is pretended to hold four times so many rows."""
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [])
    assert tiles.choose(None, model, 100) == 1
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: ["a card"])
    monkeypatch.setattr(memory, "of_device", lambda: 4 * rows * 100 * memory.bytes_per_particle(model))
    assert tiles.choose(None, model, 100) == expected
    assert tiles.choose(1, model, 100) == 1
    assert tiles.choose(192, model, 100) == 192
    assert tiles.choose(None, model, 100, "prior") == 1


def test_a_gpu_whose_memory_nobody_knows(model, monkeypatch):
    def unknown():
        raise RuntimeError("no driver")

    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: ["a card"])
    monkeypatch.setattr(memory, "of_device", unknown)
    assert tiles.choose(None, model, 100) == 1
