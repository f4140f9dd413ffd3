import gc
import re
import warnings
import weakref

import arviz
import numpy as np
import pytest
import tensorflow as tf

from iwae_zoo import evaluation, likelihood, networks, presets, psis
from iwae_zoo.testing import LinearGaussian


@pytest.fixture(scope="module")
def truth():
    return LinearGaussian.random(latent_size=2, data_size=3, seed=1)


@pytest.fixture(scope="module")
def model(truth):
    return truth.model(mismatch=0.3)


def all_log_weights(model, x, num_samples, chunk_size, seed):
    """The log weights that the stream draws for its one row, all at once."""
    from iwae_zoo import particles

    @tf.function(autograph=False)
    def drawn(chunk):
        posterior = model.encoder.posterior(x)
        z = posterior.sample([chunk_size], seed=particles.derive_seed([0, seed], chunk))
        return particles.log_joint(model.decoder, model.prior, x, z) - posterior.log_prob(z)

    parts = [drawn(tf.constant(chunk)) for chunk in range(-(-num_samples // chunk_size))]
    return np.concatenate(parts)[:num_samples, 0].astype("float64")


def arviz_pareto_k(log_weights):
    with np.errstate(over="ignore"):  # Harmless, in ArviZ's own profile likelihood.
        _, pareto_k = arviz.psislw(log_weights.copy())
    return float(pareto_k)


@pytest.mark.slow
@pytest.mark.parametrize(("num_samples", "chunk_size"), [(1000, 100), (1003, 100), (7, 7), (64, 1), (5000, 2500)])
def test_streamed_sums_are_numpys(num_samples, chunk_size, truth, model):
    """Also where the chunk does not divide the number of samples."""
    x = truth.sample(1)
    log_weights = all_log_weights(model, x, num_samples, chunk_size, seed=5)
    estimate = likelihood.estimate_log_prob(model, x, num_samples, seed=5, chunk_size=chunk_size)
    w = np.exp(log_weights - log_weights.max())
    log_prob = log_weights.max() + np.log(w.mean())
    assert estimate.log_prob[0] == pytest.approx(log_prob, rel=1e-6)
    assert estimate.standard_error[0] == pytest.approx(w.std(ddof=1) / np.sqrt(num_samples) / w.mean(), rel=1e-5)
    assert estimate.ess[0] == pytest.approx(w.sum() ** 2 / (w**2).sum(), rel=1e-5)
    assert estimate.elbo[0] == pytest.approx(log_weights.mean(), rel=1e-5)
    if num_samples >= 50:
        pareto_k = arviz_pareto_k(log_weights)
        assert estimate.pareto_k[0] == pytest.approx(pareto_k, abs=1e-3)
    assert estimate.num_samples[0] == num_samples


@pytest.mark.parametrize("count", [30, 100, 1000, 20000])
@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0])
def test_pareto_shape_is_arvizs(count, scale, seed):
    log_weights = scale * np.random.default_rng(seed).standard_t(5, size=count)
    length = int(psis.tail_length(count)) + 1
    largest = np.sort(log_weights)[::-1][:length]
    expected = arviz_pareto_k(log_weights)
    assert float(psis.pareto_shape(tf.constant(largest), count)) == pytest.approx(expected, rel=1e-9)


def test_pareto_shape_of_equal_weights_above_others():
    """As those of a discrete z. Of 100 to 120 the fit meets b = 0, an exponential tail, of which ArviZ has no k."""

    def largest(equal):
        log_weights = np.zeros(5000)
        log_weights[:equal] = 1.0
        return log_weights

    fewer, more = (arviz_pareto_k(largest(equal)) for equal in (99, 121))
    length = int(psis.tail_length(5000)) + 1
    shapes = [
        float(psis.pareto_shape(tf.constant(largest(equal)[:length]), 5000)) for equal in (99, 100, 110, 119, 121)
    ]
    assert shapes == sorted(shapes, reverse=True)
    assert (shapes[0], shapes[-1]) == pytest.approx((fewer, more), rel=1e-9)


def test_pareto_shape_of_known_tails(seed):
    """Weights u^-k have a Pareto tail of shape k."""
    uniform = np.random.default_rng(seed).random(200_000)
    for k in (0.2, 0.5, 0.9):
        log_weights = np.sort(-k * np.log(uniform))[::-1][: int(psis.tail_length(200_000)) + 1]
        assert float(psis.pareto_shape(tf.constant(log_weights), 200_000)) == pytest.approx(k, abs=0.1)


def test_pareto_shape_needs_five_weights():
    assert float(psis.pareto_shape(tf.constant([0.0, -1.0, -2.0], tf.float64), 5)) == np.inf
    # Those of 100 that stand out are too few; but if more than 20 are all the largest, there is nothing above them.
    assert float(psis.pareto_shape(tf.constant([0.0] * 4 + [-1.0] * 17, tf.float64), 100)) == np.inf
    assert float(psis.pareto_shape(tf.constant([0.0] * 20 + [-1.0], tf.float64), 100)) < 0.7
    assert float(psis.pareto_shape(tf.zeros([21], tf.float64), 100)) == -np.inf


def test_exact_posterior_is_exact(truth):
    x = truth.sample(4).astype("float32").astype("float64")
    estimate = likelihood.estimate_log_prob(truth.model(dtype="float64"), x, 100)
    np.testing.assert_allclose(estimate.log_prob, truth.log_prob(x), rtol=1e-10)
    np.testing.assert_allclose(estimate.standard_error, 0, atol=1e-8)
    np.testing.assert_allclose(estimate.ess, 100, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("latent_size", "data_size"), [(1, 2), (2, 3), (5, 8)])
def test_coverage(latent_size, data_size, seed):
    """The truth is within two stated standard errors for about 95 of 100 examples, where Pareto k is below 0.5."""
    truth = LinearGaussian.random(latent_size, data_size, seed=latent_size)
    x = truth.sample(600, seed=4)
    estimate = likelihood.estimate_log_prob(truth.model(mismatch=0.2), x, 500, seed=seed)
    trusted = estimate.pareto_k < 0.5
    assert trusted.sum() > 400
    covered = np.abs(estimate.log_prob - truth.log_prob(x))[trusted] < 2 * estimate.standard_error[trusted]
    # 0.954 within four binomial standard errors.
    assert abs(covered.mean() - 0.954) < 4 * np.sqrt(0.954 * 0.046 / trusted.sum())


@pytest.mark.slow
def test_more_samples_are_tighter_and_surer(truth, model):
    x = truth.sample(400, seed=2)
    previous = None
    for num_samples in (1, 4, 16, 64):
        estimate = likelihood.estimate_log_prob(model, x, num_samples, seed=num_samples)
        gap = truth.log_prob(x) - estimate.log_prob
        if previous is not None:
            assert gap.mean() < previous
        previous = gap.mean()
    assert previous > -3 * gap.std() / 20


def test_rows_do_not_depend_on_each_other(truth, model):
    x = truth.sample(5)
    together = likelihood.estimate_log_prob(model, x, 300)
    for row in range(5):
        alone = likelihood.estimate_log_prob(model, x[row : row + 1], 300, first_row=row)
        for name in likelihood.Estimate._fields:
            assert getattr(alone, name)[0] == getattr(together, name)[row]


def test_data_set_is_the_same_however_it_is_batched(truth, model):
    x = truth.sample(120).astype("float32")
    whole = likelihood.evaluate_log_prob(model, x, 100, verbose=0)
    batched = likelihood.evaluate_log_prob(model, tf.data.Dataset.from_tensor_slices((x, x)).batch(32), 100, verbose=0)
    np.testing.assert_array_equal(whole.examples.log_prob, batched.examples.log_prob)
    assert len(whole.examples.log_prob) == 120
    assert whole.log_prob == pytest.approx(whole.examples.log_prob.mean())
    spread = whole.examples.log_prob.std(ddof=1) / np.sqrt(120)
    assert whole.standard_error == pytest.approx(spread)
    assert whole.sampling_standard_error < whole.standard_error
    assert abs(whole.log_prob - truth.log_prob(x).mean()) < 4 * whole.sampling_standard_error


def test_tolerance_stops_each_example_by_itself(truth, model):
    x = truth.sample(20)
    options = {"num_samples": 20000, "chunk_size": 100}
    loose = likelihood.estimate_log_prob(model, x, tolerance=0.05, **options)
    assert (loose.standard_error <= 0.05).all()
    assert len(set(loose.num_samples)) > 1
    assert (loose.num_samples < 20000).all()
    # The stream is the same as without a tolerance, cut off.
    for row in (0, 7):
        count = int(loose.num_samples[row])
        cut = likelihood.estimate_log_prob(model, x[row : row + 1], count, chunk_size=100, first_row=row)
        assert cut.log_prob[0] == pytest.approx(loose.log_prob[row], rel=1e-9)


@pytest.mark.slow
def test_prior_as_proposal(truth, model):
    """The naive estimator: unbiased for p(x) too, with far fewer effective samples than the encoder's."""
    x = truth.sample(50, seed=3)
    naive = likelihood.estimate_log_prob(model, x, 20000, proposal="prior")
    guided = likelihood.estimate_log_prob(model, x, 20000)
    assert (np.abs(naive.log_prob - truth.log_prob(x)) < 5 * naive.standard_error).all()
    assert (guided.ess > naive.ess).mean() > 0.9


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:log p")
def test_outside_the_support(short_annealing):
    model = presets.build("small", data_shape=(2, 2, 1))
    x = np.zeros((3, 2, 2, 1))
    x[1, 0, 0] = 0.5
    estimate = likelihood.estimate_log_prob(model, x, 50)
    assert list(estimate.in_support) == [True, False, True]
    assert estimate.log_prob[1] == -np.inf
    assert not np.isnan(np.concatenate([np.ravel(part) for part in estimate if part.dtype.kind == "f"])).any()
    alone = likelihood.estimate_log_prob(model, x[2:], 50, first_row=2)
    assert estimate.log_prob[2] == alone.log_prob[0]
    with pytest.warns(UserWarning, match="1 of 3 examples are outside"):
        result = likelihood.evaluate_log_prob(model, x, 50, verbose=0)
    assert result.num_outside_support == 1
    assert np.isfinite(result.log_prob)


def test_untrusted_examples_are_counted(truth):
    far_off = truth.model(mismatch=4.0)
    with pytest.warns(UserWarning, match=r"log p\(x\) of \d+ of 30 examples cannot be trusted"):
        result = likelihood.evaluate_log_prob(far_off, truth.sample(30), 200, method="importance", verbose=0)
    assert result.num_untrusted > 0


@pytest.mark.slow
def test_auto_anneals_what_importance_samples_cannot_answer(truth):
    """An encoder that is off by four standard deviations: the ladder is right where importance samples are not."""
    far_off = truth.model(mismatch=4.0)
    x = truth.sample(30)
    sampled = likelihood.estimate_log_prob(far_off, x, 200)
    answer = likelihood.estimate_log_prob(far_off, x, 200, method="auto")
    annealed = answer.method == "annealed"
    assert annealed.sum() > 15
    assert annealed[~sampled.trusted].all()
    for name in ("log_prob", "standard_error", "ess", "pareto_k", "num_samples"):
        before, after = getattr(sampled, name), getattr(answer, name)
        np.testing.assert_array_equal(after[~annealed], before[~annealed])
        if name != "num_samples":
            assert (after != before)[annealed].all()
    assert set(answer.num_samples[annealed]) == {32}
    np.testing.assert_array_equal(answer.importance_log_prob, sampled.log_prob)
    np.testing.assert_array_equal(answer.elbo, sampled.elbo)
    error = answer.log_prob - truth.log_prob(x)
    assert abs(error).max() < 0.3
    assert abs(sampled.log_prob - truth.log_prob(x)).max() > 1
    assert answer.trusted.all()
    # A row does not depend on the others, nor on which of them were annealed with it.
    alone = likelihood.estimate_log_prob(far_off, x[4:7], 200, method="auto", first_row=4)
    np.testing.assert_array_equal(alone.log_prob, answer.log_prob[4:7])
    result = likelihood.evaluate_log_prob(far_off, x[:6], 200, verbose=0)
    assert result.num_annealed == annealed[:6].sum() > 0
    assert result.num_untrusted == 0
    assert result.importance_log_prob == pytest.approx(sampled.log_prob[:6].mean())
    backwards = np.arange(30)[::-3]
    every = likelihood.estimate_log_prob(far_off, x[backwards], 200, method="annealed", rows=backwards)
    assert set(every.method) == {"annealed"}
    again = annealed[backwards]
    assert again.any()
    np.testing.assert_array_equal(every.log_prob[again], answer.log_prob[backwards][again])
    np.testing.assert_array_equal(every.importance_log_prob, sampled.log_prob[backwards])
    for rows in ([0, 1], [0, 1, -1], [0, 1, 2**31], [0.0, 1.0, 2.0]):
        with pytest.raises(ValueError, match="rows must be integers from 0"):
            likelihood.estimate_log_prob(far_off, x[:3], 200, rows=rows)


def estimates(**changes):
    fields = {name: np.array([1.0, 1.0]) for name in likelihood.Estimate._fields}
    fields |= {"in_support": np.array([True, True]), "method": np.array(["importance", "importance"])}
    return likelihood.Estimate(**{**fields, **{name: np.array(value) for name, value in changes.items()}})


def test_what_is_trusted():
    assert list(estimates(pareto_k=[0.69, 0.71]).trusted) == [True, False]
    equal = estimates(pareto_k=[np.inf, np.inf], standard_error=[0.0, 0.1])
    assert list(equal.trusted) == [True, False]
    chains = estimates(method=["annealed", "annealed"], num_samples=[32, 32], ess=[6.0, 5.0], pareto_k=[0.9, 0.1])
    assert list(chains.trusted) == [True, False]
    few = estimates(method=["annealed", "annealed"], num_samples=[4, 8], ess=[4.0, 6.0], standard_error=[0.1, 0.1])
    assert list(few.trusted) == [False, True]
    assert list(estimates(pareto_k=[2.0, 2.0], in_support=[False, True]).trusted) == [True, False]
    # Of 10 million nats float32 has one digit behind the point, of a thousand three.
    large = estimates(pareto_k=[0.1, 0.1], log_prob=[-1e7, -1e3], standard_error=[0.0, 0.0])
    assert list(large.trusted) == [False, True]
    assert list(estimates(pareto_k=[0.1, 0.1], log_prob=[-1e7, -1e7], standard_error=[1.0, 2.0]).trusted) == [
        False,
        True,
    ]
    with pytest.warns(UserWarning, match="1 of 2 examples .* 0 have a Pareto k .* 1 are so large that float32"):
        likelihood.summarize(large)


def test_climbing_keeps_the_surer_answer():
    sampled = estimates(pareto_k=[0.5, 0.9], standard_error=[0.25, 0.25], log_prob=[-3.0, -4.0])
    worse = {"log_prob": -2.0, "standard_error": 0.3, "ess": 8.0, "pareto_k": 0.2, "num_samples": 32}

    def anneal(rows, answer):
        assert list(rows) == [0, 1]
        return {name: np.full(2, value) for name, value in answer.items()}

    # The first row can be trusted: it stays, unless the annealed answer has the smaller error.
    answer = likelihood.climb(sampled, lambda rows: anneal(rows, worse), "auto")
    assert list(answer.method) == ["importance", "annealed"]
    assert list(answer.log_prob) == [-3.0, -2.0]
    answer = likelihood.climb(sampled, lambda rows: anneal(rows, worse | {"standard_error": 0.1}), "auto")
    assert list(answer.method) == ["annealed", "annealed"]
    answer = likelihood.climb(sampled, lambda rows: anneal(rows, worse), "annealed")
    assert list(answer.log_prob) == [-2.0, -2.0]
    # Chains that end far below what the samples found have missed it; an error of theirs is no reason to believe them.
    missed = worse | {"log_prob": -5.5, "standard_error": 0.2}
    answer = likelihood.climb(sampled, lambda rows: anneal(rows, missed), "auto")
    assert list(answer.method) == ["importance"] * 2 and list(answer.trusted) == [True, False]
    answer = likelihood.climb(sampled, lambda rows: anneal(rows, missed | {"log_prob": -4.5}), "auto")
    assert list(answer.method) == ["importance", "annealed"]  # Three errors of 0.32 below -3, one and a half below -4.
    alone = missed | {"standard_error": np.inf, "ess": 1.0, "num_samples": 1}  # A chain whose error nobody knows.
    answer = likelihood.climb(sampled, lambda rows: anneal(rows, alone), "auto")
    assert list(answer.method) == ["importance"] * 2
    # What is nothing but rounding outvotes nobody.
    absurd = estimates(pareto_k=[0.5, 0.9], standard_error=[0.25, 0.25], log_prob=[-3.0, 1e11])
    answer = likelihood.climb(absurd, lambda rows: anneal(rows, missed | {"log_prob": -100.0}), "auto")
    assert list(answer.log_prob) == [-3.0, -100.0]
    lost = {"log_prob": -np.inf, "standard_error": 0.0, "ess": 0.0, "pareto_k": 0.0, "num_samples": 32}
    for method in ("auto", "annealed"):  # A chain that left the support and none that is left: no answer.
        answer = likelihood.climb(sampled, lambda rows: anneal(rows, lost), method)
        assert list(answer.log_prob) == [-3.0, -4.0] and list(answer.method) == ["importance", "importance"]
    assert likelihood.climb(sampled, None, "importance") is sampled
    tight = estimates(pareto_k=[0.5, 0.5], standard_error=[0.01, 0.02])
    assert likelihood.climb(tight, None, "auto") is tight
    asked, better = [], {"log_prob": 1.0, "standard_error": 0.001}

    def surer(rows):
        asked.append(list(rows))
        return {name: np.full(1, value) for name, value in (worse | better).items()}

    answer = likelihood.climb(tight, surer, "auto", 0.015)
    assert asked == [[1]] and list(answer.method) == ["importance", "annealed"]


def test_no_warning_without_a_reason(truth, model):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        likelihood.evaluate_log_prob(model, truth.sample(10), 1000, verbose=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_samples": 0}, "num_samples must be an integer of at least 1: received 0"),
        ({"num_samples": 2.5}, "num_samples must be an integer"),
        ({"num_samples": 2**31}, r"num_samples must be at most 2\^31 - 1: received 2147483648"),
        ({"tolerance": "1"}, "tolerance must be a number: received '1'"),
        ({"first_row": 2**31}, r"Rows must be below 2\^31: received first_row=2147483648 for 2"),
        ({"first_row": -1}, "first_row must be an integer of at least 0: received -1"),
        ({"num_samples": 10, "chunk_size": 20}, "chunk_size=20, num_samples=10"),
        ({"chunk_size": 0}, "chunk_size must be an integer of at least 1"),
        ({"tolerance": 0.0}, "tolerance must be a positive number of nats"),
        ({"method": "anneal"}, "method of estimating log p.*received 'anneal'. Did you mean 'annealed'"),
        ({"proposal": "posterior"}, "proposal must be 'encoder' or 'prior': received 'posterior'"),
        ({"x": np.zeros((2, 4))}, r"x must have shape \[B, 3\]: received shape \[2, 4\]"),
        ({"x": np.zeros(3)}, r"Add a batch axis"),
        ({"x": [[0.0, 1.0, np.nan], [0, 0, 0]]}, "x holds NaN or infinity in 1 of 2 examples, the first at row 0"),
    ],
)
def test_errors(arguments, message, model):
    with pytest.raises(ValueError, match=message):
        likelihood.estimate_log_prob(model, **{"x": np.zeros((2, 3)), **arguments})


@pytest.mark.slow
def test_numbers_of_numpy_are_numbers(truth):
    x, model = truth.sample(2), truth.model()
    expected = likelihood.estimate_log_prob(truth.model(), x, 20)
    for count in (np.int64(20), np.uint8(20), 20):  # One after the other: what is traced for the first is kept.
        np.testing.assert_array_equal(likelihood.estimate_log_prob(model, x, count).log_prob, expected.log_prob)
    wanted = evaluation.evaluate(model, x, 20, seed=5, verbose=0)
    assert evaluation.evaluate(model, x, 20, seed=np.uint8(5), verbose=0) == wanted
    with pytest.raises(ValueError, match="seed must be an integer of at least 0: received -1"):
        evaluation.evaluate(model, x, 20, seed=-1)


def test_empty_data_set(model):
    with pytest.raises(ValueError, match="There is no example to evaluate"):
        likelihood.evaluate_log_prob(model, np.zeros((0, 3)), verbose=0)


def test_broken_model_is_named(truth):
    model = truth.model()
    model.decoder.bias.assign([np.nan] * 3)
    with pytest.raises(ValueError, match="The model's log weights are NaN"):
        likelihood.estimate_log_prob(model, truth.sample(2), 10)


@pytest.mark.filterwarnings("ignore:log p")
def test_evaluation(truth, model):
    x = truth.sample(200, seed=8)
    result = evaluation.evaluate(model, x, 1000, m=2, k=4, verbose=0)
    assert result.gap == pytest.approx(result.log_prob - result.importance_log_prob)
    assert f"{result.gap:.2f}" in evaluation.table(result)
    # Whatever the labels, numbers stand below each other.
    text = evaluation.table(result, {"a label that is longer than any other by far": 1.0}, measures={"bits": 1.0})
    means = [re.search(r"\d\.\d+|mean", line) for line in text.splitlines() if "alone" not in line]
    assert len({mean.end() for mean in means if mean}) == 1 and means[0] and means[-1]
    assert result.particles == 8
    assert result.num_examples == 200
    assert result.elbo < result.iwae_bound < result.log_prob
    assert result.negative_kl == pytest.approx(result.iwae_bound - result.log_prob)
    assert result.negative_kl_error < result.iwae_bound_error
    assert 1 < result.importance_ess < 8
    assert result.log_prob == pytest.approx(truth.log_prob(x).mean(), abs=0.05)
    # Whatever log p(x) is estimated with, the ELBO is the encoder's.
    naive = evaluation.evaluate(model, x, 1000, m=2, k=4, verbose=0, proposal="prior", method="importance")
    assert naive.elbo == pytest.approx(result.elbo, abs=0.2)
    assert naive.log_prob == pytest.approx(result.log_prob, abs=0.1)


def test_bernoulli_baseline_is_a_product_of_pixels():
    mean = np.array([[0.2, 0.9]])
    x = np.array([[[0.0, 1.0]], [[1.0, 1.0]]])
    expected = networks.IndependentBernoulli(np.log(mean / (1 - mean)), 2).log_prob(x).numpy().mean()
    assert evaluation.bernoulli_baseline(mean, x) == pytest.approx(expected)
    assert np.isfinite(evaluation.bernoulli_baseline(np.array([[0.0, 1.0]]), x))


@pytest.mark.slow
def test_kept_functions_let_the_model_go(linear_gaussian):
    gc.freeze()  # So that only what comes is looked through.
    model = linear_gaussian.model("elbo")
    likelihood.estimate_log_prob(model, linear_gaussian.sample(2), 10)
    reference = weakref.ref(model)
    del model
    gc.collect()
    assert reference() is None
