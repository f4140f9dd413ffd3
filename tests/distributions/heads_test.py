"""Every head against scipy, its own sums, its own draws, finite differences, and the ends of the numbers."""

import contextlib
import dataclasses
import itertools
from collections.abc import Callable

import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats
import tensorflow as tf

from iwae_zoo.distributions import fusion, likelihoods


def positive(raw, largest=1e6):
    return np.clip(np.exp(min(raw, 700.0)), 1e-3, largest)


def logistic_bytes(x, loc, raw):
    """By differences of the distribution function, on the side where it is small."""
    spread = positive(raw, 1e4)
    upper = np.where(x == 255, np.inf, (x / 127.5 - 1 - loc + 0.5 / 127.5) / spread)
    lower = np.where(x == 0, -np.inf, (x / 127.5 - 1 - loc - 0.5 / 127.5) / spread)
    right = lower + upper > 0
    upper, lower = np.where(right, -lower, upper), np.where(right, -upper, lower)
    difference = np.where(np.isinf(upper - lower), 0.0, scipy.special.log1p(-np.exp(lower - upper)))
    # sigmoid(u) - sigmoid(l) = sigmoid(u) sigmoid(-l) (1 - exp(l - u))
    return scipy.special.log_expit(upper) + scipy.special.log_expit(-lower) + difference


def mixture(x, *raw):
    logits, locs, raws = np.split(np.array(raw), 3)
    parts = [logistic_bytes(x, loc, raw) for loc, raw in zip(locs, raws, strict=True)]
    return scipy.special.logsumexp(scipy.special.log_softmax(logits)[:, None] + np.array(parts), axis=0)


def continuous_bernoulli(x, logit):
    """exp(logit x), normalised."""
    return x * logit - np.log(scipy.special.exprel(logit))


def beta(x, a, b):
    y = (255 * x + 0.5) / 256
    return scipy.stats.beta.logpdf(y, positive(a, 1e3), positive(b, 1e3)) + np.log(255 / 256)


def negative_binomial(x, log_rate, raw):
    """Not `scipy.stats.nbinom`, which takes a probability that may be too close to 1 for it."""
    r, rate = positive(raw), np.exp(log_rate)
    log_choices = -np.log(x + r) - scipy.special.betaln(r, x + 1)
    return log_choices - r * np.log1p(rate / r) - x * np.log1p(r / rate)


def zero_inflated(x, log_rate, gate, raw):
    plain = negative_binomial(x, log_rate, raw) + scipy.special.log_expit(-gate)
    return np.where(x == 0, np.logaddexp(scipy.special.log_expit(gate), plain), plain)


@dataclasses.dataclass(frozen=True)
class Case:
    """A head, and the same by scipy.

    Attributes:
      log_prob: function of x [N], raw parameters and shared parameters, as floats.
      x: what to ask; for whole numbers all that matter, for others within the support.
      ordinary: raw parameters, with shared ones at the end.
      extreme: the same, where formulas break.
    """

    log_prob: Callable
    x: np.ndarray
    ordinary: list
    extreme: list

    @property
    def whole(self):
        """Whether x is whole numbers."""
        return all(self.x is not continuous for continuous in (REAL, UNIT, POSITIVE))

    @property
    def grid(self):
        """Where continuous x are integrated."""
        if self.x is UNIT:
            return np.linspace(0, 1, 20_001)
        line = np.linspace(-30, 30, 200_000)  # 0 is in the middle between two.
        return np.exp(line) if self.x is POSITIVE else np.sinh(line)  # For the tails of a Student-t.


REAL = np.array([-40.0, -3.0, -0.2, 0.0, 0.7, 2.0, 1e3])
POSITIVE = np.array([1e-6, 0.02, 1.0, 3.0, 1e4])
UNIT = np.array([0.0, 1e-6, 0.25, 0.5, 0.9, 1.0])
BYTES = np.arange(256.0)
COUNTS = np.array([0.0, 1.0, 2.0, 7.0, 40.0, 1000.0, 1e5, 1e9])
CASES = {
    "bernoulli": Case(
        lambda x, logit: scipy.special.log_expit(np.where(x == 1, logit, -logit)),
        np.array([0.0, 1.0]), [(0.3,), (-2.0,)], [(700.0,), (-700.0,)],
    ),
    "continuous_bernoulli": Case(
        continuous_bernoulli, UNIT, [(1.3,), (-4.0,), (0.0,), (0.2,)],
        [(1e-9,), (-1e-3,), (0.49999,), (0.5,), (-600.0,), (600.0,)],
    ),
    "beta": Case(beta, UNIT, [(1.0, 2.0), (0.5, -1.0)], [(-30.0, -30.0), (-30.0, 900.0), (1e5, 1e5)]),
    "discretized_logistic": Case(
        logistic_bytes, BYTES, [(0.2, -2.0), (-1.0, -3.0)], [(0.0, -1e4), (3.0, -5.0), (-30.0, 2.0), (0.1, 1e3)]
    ),
    "discretized_logistic_mixture,components=2": Case(
        mixture, BYTES, [(0.0, 1.0, -0.5, 0.5, -2.0, -3.0)],
        [(-50.0, 50.0, 0.0, 3.0, -9.0, -1e3), (9.0, 9.0, -2.0, 2.0, 5.0, 1e2)],
    ),
    "normal": Case(
        lambda x, loc, raw: scipy.stats.norm.logpdf(x, loc, positive(raw)), REAL,
        [(0.4, 0.3), (-1.0, -1.0)], [(0.0, -1e3), (1e5, 1e5), (-1e8, 3.0)],
    ),
    "normal,spread=column": Case(
        lambda x, loc, raw: scipy.stats.norm.logpdf(x, loc, positive(raw)), REAL, [(0.4, 0.3)], [(0.0, -1e3)]
    ),
    "normal,spread=0.5": Case(lambda x, loc: scipy.stats.norm.logpdf(x, loc, 0.5), REAL, [(0.4,)], [(-1e5,)]),
    "log_normal": Case(
        lambda x, loc, raw: scipy.stats.lognorm.logpdf(x, positive(raw), scale=np.exp(loc)), POSITIVE,
        [(0.4, -0.7), (-1.0, -1.0)], [(0.0, -1e3), (50.0, 1e5), (-80.0, 3.0)],
    ),
    "laplace": Case(
        lambda x, loc, raw: -abs(x - loc) / positive(raw) - np.log(2 * positive(raw)), REAL,
        [(0.4, 0.3), (-1.0, -1.0)], [(0.0, -1e3), (1e5, 1e5), (-1e8, 3.0)],
    ),
    "student_t": Case(
        lambda x, loc, raw, freedom: scipy.stats.t.logpdf(x, 2 + positive(freedom, 1e3), loc, positive(raw)), REAL,
        [(0.4, 0.3, 1.0), (-1.0, -1.0, 4.0)], [(0.0, -1e3, -1e3), (-1e8, 3.0, 2.0), (1.0, 0.0, 1e4)],
    ),
    "student_t,spread=column": Case(
        lambda x, loc, raw, freedom: scipy.stats.t.logpdf(x, 2 + positive(freedom, 1e3), loc, positive(raw)), REAL,
        [(0.4, 0.3, 1.0)], [(0.0, -1e3, -1e3)],
    ),
    "categorical,classes=3": Case(
        lambda x, *logits: scipy.special.log_softmax(logits)[x.astype(int)], np.arange(3.0),
        [(0.5, -1.0, 2.0)], [(900.0, -900.0, 0.0)],
    ),
    "poisson": Case(
        lambda x, log_rate: scipy.stats.poisson.logpmf(x, np.exp(log_rate)), COUNTS,
        [(1.0,), (-2.0,), (4.0,)], [(11.5,), (-30.0,), (20.7,)],
    ),
    "negative_binomial": Case(
        negative_binomial, COUNTS, [(1.0, 0.5), (-2.0, 2.0), (4.0, -1.0)],
        [(11.5, -5.0), (-30.0, 1.0), (7.0, 1e4), (20.7, 1.0), (20.7, 6.0)],
    ),
    "zero_inflated_negative_binomial": Case(
        zero_inflated, COUNTS, [(1.0, -1.0, 0.5), (3.0, 2.0, 2.0)],
        [(11.5, 30.0, -5.0), (-30.0, -40.0, 1.0), (7.0, -600.0, 1e4), (20.7, -3.0, 1.0)],
    ),
}  # fmt: skip
EVERY = pytest.mark.parametrize("spec", CASES)


def distribution(spec, raw, dtype="float64"):
    """p(x) of one value alone, batch []."""
    head, parameters, options = of_one_value(spec, raw, dtype)
    return head.distribution(parameters, 1, **options)


def of_one_value(spec, raw, dtype="float64"):
    """The head, its parameters [K, 1], and the shared ones as keywords."""
    head = likelihoods.get(spec)
    parameters, shared = np.split(np.asarray(raw, dtype)[:, np.newaxis], [head.parameters_per_value])
    assert len(shared) == head.shared_parameters
    return head, tf.constant(parameters), {"shared": tf.constant(shared)} if len(shared) else {}


@EVERY
def test_log_prob_is_scipys(spec):
    case = CASES[spec]
    for raw in case.ordinary + case.extreme:
        expected = case.log_prob(case.x, *map(float, raw))
        for dtype, rtol in (("float64", 1e-9), ("float32", 3e-5)):
            with fusion.portable():
                received = distribution(spec, raw, dtype).log_prob(case.x[:, np.newaxis].astype(dtype))
            error, rounding = np.abs(received - expected), 0.0
            if dtype == "float32" and case.x is COUNTS:  # Single precision has logarithms of about 20 to 2e-6.
                rounding = np.abs(case.log_prob(case.x, raw[0] + 2e-6, *map(float, raw[1:])) - expected)
            assert (error <= 30 * rtol + rtol * np.abs(expected) + rounding).all(), (raw, dtype, error)


@pytest.mark.parametrize(("a", "b"), [(992.0, 992.0), (1e3, 1e3), (148.0, 148.0), (0.3, 1e3), (2.0, 999.0)])
def test_single_precision_adds_up_over_an_image_of_beta_values(a, b):
    """Differences of log-gammas would be off by 1e-3 in each value, all to the same side."""
    x = np.random.default_rng(0).beta(a, b, size=784).clip(0, 1).astype("float32")
    raw = np.log(np.array([a, b], "float32"))
    parameters = tf.constant(np.repeat(raw[:, np.newaxis], 784, axis=1))
    with fusion.portable():
        received = likelihoods.get("beta").distribution(parameters, 1).log_prob(x)
    assert float(received) == pytest.approx(beta(x.astype("float64"), *raw.astype("float64")).sum(), abs=3e-3)


def log_prob(spec, raw, x):
    with fusion.portable():
        return distribution(spec, raw).log_prob(np.asarray(x, "float64")[:, np.newaxis]).numpy()


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].x is COUNTS])
def test_an_offset_scales_rates_with_the_total_of_the_row(name):
    x = np.array([[3.0, 0.0, 9.0], [100.0, 2.0, 0.0]])
    head = dataclasses.replace(likelihoods.get(f"{name},offset=True"), total=24.0)
    count = head.parameters_per_value
    raw = np.random.default_rng(0).normal(size=(count + head.shared_parameters, 3))
    parameters, shared = np.split(raw, [count])
    options = {"shared": tf.constant(shared)} if len(shared) else {}
    for row in x:
        moved = parameters.copy()
        moved[0] += np.log(row.sum() / 24.0)
        with fusion.portable():
            expected = likelihoods.get(name).distribution(tf.constant(moved), 1, **options).log_prob(row)
            received = head.distribution(tf.constant(parameters), 1, **options).log_prob(row)
        assert float(received) == pytest.approx(float(expected), rel=1e-12)


@EVERY
def test_sums_or_integrates_to_one(spec):
    case = CASES[spec]
    for raw in case.ordinary:
        if case.whole:
            names = np.arange(len(case.x)) if case.x is not COUNTS else np.arange(20_000)
            total = np.exp(log_prob(spec, raw, names)).sum()
        else:
            grid = case.grid
            total = scipy.integrate.trapezoid(np.exp(log_prob(spec, raw, grid)), grid)
        if spec == "beta":  # Without what the squeeze leaves outside.
            outside = scipy.stats.beta.cdf([1 / 512, 511 / 512], *map(positive, raw))
            assert total == pytest.approx(outside[1] - outside[0], abs=1e-5)
            assert total < 1
        else:
            assert total == pytest.approx(1.0, abs=1e-6)


@pytest.mark.slow
@EVERY
def test_information_is_the_variance_of_scipys_score(spec):
    """E[score score'] of the raw parameters, by sums or integrals, with scores that are differences of scipy's."""
    case = CASES[spec]
    # No beta density that is infinite at the ends, which x cannot resolve there.
    for raw in case.ordinary if spec != "beta" else [(1.0, 2.0), (0.5, 0.2)]:
        if case.whole:
            x = np.arange(len(case.x) if case.x is not COUNTS else 20_000.0)
        elif spec == "beta":  # The variable itself, of which the squeeze puts some outside of [0, 1].
            x = (256.0 * scipy.special.expit(np.linspace(-33.0, 33.0, 40_001)) - 0.5) / 255.0
        else:  # The score of a Laplace value jumps at its location.
            x = case.grid + raw[0] * (case.x is REAL)
        count = likelihoods.get(spec).parameters_per_value
        steps = 1e-5 * np.eye(len(raw))[:count]
        scores = np.stack([case.log_prob(x, *(raw + s)) - case.log_prob(x, *(raw - s)) for s in steps]) / 2e-5
        terms = np.einsum("ix,jx,x->ijx", scores, scores, np.exp(case.log_prob(x, *map(float, raw))))
        expected = terms.sum(axis=-1) if case.whole else scipy.integrate.trapezoid(terms, x)
        np.testing.assert_allclose(information(spec, raw), expected, rtol=1e-5, atol=1e-6)


def information(spec, raw):
    """The Fisher information [K, K] of the raw parameters of one value, J' W J."""
    head, parameters, options = of_one_value(spec, raw)
    with fusion.portable(), tf.GradientTape(persistent=True) as tape:
        tape.watch(parameters)
        pairs = head.distribution(parameters, 1, **options).information(np.zeros(1))
    total = 0.0
    for value, weights in pairs:
        # One value of x: functions [J], with weights [J, J].
        jacobian = np.reshape(tape.jacobian(value, parameters), [-1, len(parameters)])
        total += jacobian.T @ np.reshape(weights, [len(jacobian)] * 2) @ jacobian
    return total


@pytest.mark.slow
@EVERY
def test_information_of_extreme_parameters_is_finite(spec):
    for raw in CASES[spec].extreme:
        assert np.isfinite(information(spec, raw)).all(), raw


@pytest.mark.slow
@EVERY
def test_draws_are_those_of_the_density(spec, seed):
    case, count = CASES[spec], 20_000
    for raw in case.ordinary:
        p = distribution(spec, raw, "float32")
        x = p.sample(count, seed=(seed, 1)).numpy()[:, 0].astype("float64")
        np.testing.assert_array_equal(p.sample(count, seed=(seed, 1))[:, 0], x)
        assert np.isfinite(p.log_prob(x[:, np.newaxis])).all()
        if case.whole:
            values, seen = np.unique(x, return_counts=True)
            expected = count * np.exp(log_prob(spec, raw, values))
            often = expected > 5
            seen = np.append(seen[often], count - seen[often].sum())
            expected = np.append(expected[often], count - expected[often].sum())
            kept = expected > 1
            chi_square = np.sum((seen[kept] - expected[kept]) ** 2 / expected[kept])
            assert scipy.stats.chi2.sf(chi_square, max(kept.sum() - 1, 1)) > 1e-4
        else:
            grid = case.grid
            cumulative = scipy.integrate.cumulative_trapezoid(np.exp(log_prob(spec, raw, grid)), grid, initial=0.0)
            inside = x[(x > grid[0]) & (x < grid[-1])]
            assert len(inside) == pytest.approx(count * cumulative[-1], abs=5 * np.sqrt(count))
            uniform = np.interp(inside, grid, cumulative / cumulative[-1])
            assert scipy.stats.kstest(uniform, "uniform").pvalue > 1e-4
        if spec.startswith("student_t"):
            continue  # Sums of draws with such tails say little about moments.
        error = x.std() / np.sqrt(count)
        assert p.mean().numpy()[0] == pytest.approx(x.mean(), abs=5 * error + (1e-3 if spec == "beta" else 1e-6))
        assert p.stddev().numpy()[0] == pytest.approx(x.std(), rel=0.1)


@pytest.mark.slow
@EVERY
def test_gradients_are_finite_differences(spec):
    case = CASES[spec]
    head = likelihoods.get(spec)
    for raw in case.ordinary + [raw for raw in case.extreme if max(map(abs, raw)) < 100]:
        with fusion.portable(), tf.GradientTape() as tape:  # A column for each value, with parameters of its own.
            flat = tf.repeat(tf.constant(raw, tf.float64)[:, tf.newaxis], len(case.x), axis=1)
            tape.watch(flat)
            parameters, shared = tf.split(flat, [head.parameters_per_value, -1])
            options = {"shared": shared} if head.shared_parameters else {}
            value = head.distribution(parameters, 1, **options).log_prob(case.x)
        received = tape.gradient(value, flat)
        size = np.abs(log_prob(spec, raw, case.x))
        for i in range(len(raw)):
            step = 1e-5 * np.eye(len(raw))[i]
            ends = [log_prob(spec, np.array(raw) + end, case.x) for end in (step, -step)]
            expected = (ends[0] - ends[1]) / 2e-5
            # What is left of differences of such numbers in double precision.
            rounding = 1e-6 * size + 1e-9 * np.abs(case.x) + 1e-6
            assert (np.abs(received[i] - expected) < 1e-5 * np.abs(expected) + rounding).all(), (raw, i)


EXTREME = np.array([-3.4e38, -1e38, -1e10, -1e3, -30.0, -1.0, -1e-38, 0.0, 0.5, 30.0, 1e3, 1e10, 1e38, 3.4e38], "f4")
# Of x, [B, *event], in both tests of what is compiled, so that XLA compiles each head once. B has room for all cases,
# for each of three x or of five.
SHAPE = (270, 2, len(EXTREME))


@pytest.mark.usefixtures("optimized")
@pytest.mark.slow
@pytest.mark.parametrize("portable", [False, True])
@EVERY
def test_no_parameters_give_nan(spec, portable):
    """Whatever finite numbers a network gives, in single precision: values, and finite gradients, both ways."""
    head = likelihoods.get(spec)
    count, num_shared = head.parameters_per_value, head.shared_parameters
    if count <= 3:
        cases = np.array(list(itertools.product(EXTREME, repeat=count)))
    else:
        cases = np.random.default_rng(0).choice(EXTREME, [5000, count])
    xs = [*CASES[spec].x[[0, 1, -1]], *([1e30, -3e38] if CASES[spec].x is REAL else [])]
    x = np.tile(xs, SHAPE[0] // len(xs)).astype("float32")
    # Each case has a value of its own for each x, and in each column where these have shared parameters, as extreme.
    places = (2, SHAPE[0] // len(xs), SHAPE[1], 1 if num_shared else SHAPE[2])
    assert len(cases) <= np.prod(places)
    raw = np.moveaxis(np.resize(cases, [*places, count]), -1, 2).repeat(len(xs), axis=1)
    parameters = tf.constant(np.broadcast_to(raw, [2, SHAPE[0], count, *SHAPE[1:]]))
    for others in itertools.product(EXTREME, repeat=max(num_shared - 1, 0)):
        shared = tf.constant(np.array([*np.repeat([others], SHAPE[2], axis=0).T, EXTREME], "float32")[:num_shared])
        options = {"shared": shared} if num_shared else {}
        with fusion.portable() if portable else contextlib.nullcontext(), tf.GradientTape() as tape:
            tape.watch([parameters, shared])
            p = head.distribution(parameters, 2, **options)
            value = p.log_prob(np.broadcast_to(x[:, np.newaxis, np.newaxis], SHAPE))
        assert np.all(value < np.inf)
        for gradient in tape.gradient(value, [parameters, shared], unconnected_gradients="zero"):
            assert np.isfinite(gradient).all()
        assert np.isfinite(p.mean()).all()
        assert np.isfinite(p.sample(seed=(0, 1))).all()


@pytest.mark.usefixtures("optimized")
@pytest.mark.slow
@EVERY
def test_compiled_and_portable_agree(spec, seed):
    head = likelihoods.get(spec)
    rng = np.random.default_rng(seed)
    n = head.parameters_per_value
    raw = np.array(CASES[spec].ordinary[0], "float32")
    noise = 0.1 * rng.normal(size=(2, SHAPE[0], n, *SHAPE[1:])).astype("float32")
    parameters = tf.constant(raw[:n, None, None] + noise)
    shared = tf.constant(np.tile(raw[n:, None], [1, SHAPE[2]]))
    options = {"shared": shared} if head.shared_parameters else {}
    x = head.distribution(parameters[0], 2, **options).sample(seed=(seed, 3))
    upstream = tf.constant(rng.normal(size=(2, SHAPE[0])).astype("float32"))
    answers = []
    # Widening is the same for all.
    short_types = [("bfloat16", False)] if spec == "normal" else []
    for dtype, portable in [("float32", True), ("float32", False), *short_types]:
        with fusion.portable() if portable else contextlib.nullcontext(), tf.GradientTape() as tape:
            short = tf.cast(parameters, dtype)
            tape.watch([short, shared])
            value = head.distribution(short, 2, tf.float32, **options).log_prob(x)
        assert value.dtype == tf.float32
        gradients = tape.gradient(value, [short, shared], upstream, unconnected_gradients="zero")
        assert gradients[0].dtype == short.dtype
        answers.append([value, *(tf.cast(gradient, tf.float32) for gradient in gradients)])
    plain, compiled, *of_bfloat16 = answers
    for ours, theirs in zip(compiled, plain, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=4e-5, atol=2e-4)
    for short in of_bfloat16:
        for ours, theirs in zip(short, plain, strict=True):
            assert np.linalg.norm(ours - theirs) <= 0.05 * np.linalg.norm(theirs)


@EVERY
def test_outside_of_the_support_a_row_is_minus_infinity_and_its_neighbours_are_not(spec):
    head = likelihoods.get(spec)
    support = CASES[spec].x
    outside = [np.nan, np.inf, -np.inf]
    if support is not REAL:
        outside += [-0.01, -1.0]
    if support is POSITIVE:
        outside += [0.0]
    elif support is not REAL and support is not COUNTS:
        outside += [support.max() + 0.01, support.max() + 1.0]
    if CASES[spec].whole:
        outside += [0.5]
    x = np.full([len(outside) + 1, 2], float(support is POSITIVE), "float32")
    x[1:, 1] = outside
    parameters = tf.zeros([head.parameters_per_value, 2])
    with fusion.portable(), tf.GradientTape() as tape:
        tape.watch(parameters)
        value = head.distribution(parameters, 1).log_prob(x)
    assert np.isfinite(value[0])
    assert (value[1:].numpy() == -np.inf).all()
    assert np.all(head.holds(tf.constant(x)), axis=1).tolist() == [True] + [False] * len(outside)
    assert np.isfinite(tape.gradient(value, parameters)).all()
    finite = x[np.isfinite(x).all(axis=1)]
    assert np.isfinite(head.features(finite)).all()
