"""Where single precision would lose its digits to numbers that cancel, heads keep them."""

import dataclasses

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from iwae_zoo import _rows
from iwae_zoo.distributions import fusion, likelihoods


def of_one(spec, raw, dtype="float32"):
    """p(x) of one value alone, from its raw parameters and after them the shared ones."""
    head = likelihoods.get(spec)
    parameters, shared = np.split(np.asarray(raw, "float32").astype(dtype)[:, np.newaxis], [head.parameters_per_value])
    options = {"shared": tf.constant(shared)} if len(shared) else {}
    return head.distribution(tf.constant(parameters), 1, **options)


def log_probs(spec, raw, x):
    """In single precision, and of the same numbers in double."""
    with fusion.portable():
        return [of_one(spec, raw, dtype).log_prob(np.array([x], dtype)).numpy() for dtype in ("float32", "float64")]


OFFSETS = [
    (f"{spec},{name}={count}", [*(offset + np.linspace(-1, 1, count)), *rest], x)
    for offset in (1e4, 1e6, 1e8)
    for spec, name, count, rest, x in (
        ("categorical", "classes", 5, [], 2.0),
        ("discretized_logistic_mixture", "components", 3, [-0.5, 0.0, 0.5, -2.0, -1.0, -3.0], 100.0),
    )
]


@pytest.mark.parametrize(
    ("spec", "raw", "x"),
    [
        *(
            ("zero_inflated_negative_binomial", [np.log(rate), gate, np.log(r)], 0.0)
            for rate, gate, r in ((1e4, -2.0, 1e3), (1e8, -2.3, 1e6), (4.8e13, 3.0, 1e6), (2e17, -1.0, 1e6))
        ),
        *(("continuous_bernoulli", [logit], x) for logit in (1e4, 1e6, 1e8, -1e8) for x in (0.0, 1.0, 0.5)),
        *OFFSETS,
    ],
)
def test_single_precision_is_double_precision(spec, raw, x):
    single, double = log_probs(spec, raw, x)
    assert single == pytest.approx(double, rel=2e-6, abs=2e-6)
    assert likelihoods.get(spec).kinds[0] == "intensity" or double <= 0.0


def test_intensities_are_symmetric():
    for logit in (0.3, 0.5, 2.0, 1e3, 1e7):
        ones, zeros = (log_probs("continuous_bernoulli", [sign * logit], x)[0] for sign, x in ((1, 1.0), (-1, 0.0)))
        assert ones == pytest.approx(zeros, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("byte", "raw_spread"), [(250, -6.9), (200, -6.9), (250, -5.0), (128, -1.0), (3, -3.0)])
def test_the_spread_of_a_byte_is_that_of_its_probabilities(byte, raw_spread):
    p = of_one("discretized_logistic", [byte / 127.5 - 1.0, raw_spread])
    with fusion.portable():
        weights = np.exp(p.log_prob(np.arange(256, dtype="float32")[:, np.newaxis]), dtype=np.float64)
    mean = weights @ np.arange(256)
    assert p.mean().numpy() == pytest.approx(mean, rel=1e-5)
    assert p.stddev().numpy() == pytest.approx(np.sqrt(weights @ (np.arange(256) - mean) ** 2), rel=2e-4)


@pytest.mark.parametrize("unit", [2e30, 1.1e-27, 1.0])
def test_positive_numbers_of_any_size_have_their_moments(unit, seed):
    rows = unit * np.exp(0.3 * np.random.default_rng(seed).normal(size=(500, 1)))
    head = likelihoods.get("log_normal").fitted(rows.astype("float32"))
    p = head.distribution(tf.constant(head.start.astype("float32")), 1)
    expected = scipy.stats.lognorm(np.log(rows).std(), scale=np.exp(np.log(rows).mean()))
    assert p.mean().numpy() == pytest.approx(expected.mean(), rel=1e-4)
    assert p.stddev().numpy() == pytest.approx(expected.std(), rel=1e-4)
    draws = p.sample(2000, seed=(seed, 1)).numpy().ravel().astype("float64")
    assert scipy.stats.kstest(draws, expected.cdf).pvalue > 1e-3


@pytest.mark.parametrize("spread", [1e-2, 1e-3, 1e-4])
def test_positive_numbers_close_together(spread, seed):
    x = (101325.0 * np.exp(spread * np.random.default_rng(seed).normal(size=(300, 1)))).astype("float32")
    head = likelihoods.get("log_normal").fitted(x)
    mean, stddev = np.log(x.astype("float64")).mean(), np.log(x.astype("float64")).std()
    received = head.distribution(tf.constant(head.start.astype("float32")), 1).log_prob(x)
    expected = scipy.stats.lognorm.logpdf(x.astype("float64"), stddev, scale=np.exp(mean)).ravel()
    np.testing.assert_allclose(received, expected, rtol=0, atol=1e-5 + 2e-7 / spread)
    far = head.distribution(tf.constant(head.start.astype("float32")), 1).log_prob([[1e-30], [1e30]])
    expected = scipy.stats.lognorm.logpdf([1e-30, 1e30], stddev, scale=np.exp(mean))
    np.testing.assert_allclose(far, expected, rtol=1e-5)


def test_the_spread_of_a_student_t_near_two_degrees_of_freedom():
    p = of_one("student_t", [0.0, 0.0, np.log(1e-3)])
    assert p.stddev().numpy() == pytest.approx(np.sqrt(2.001 / 0.001), rel=1e-6)


def test_classes_are_those_of_all_rows(monkeypatch):
    """Also where only a sample of them is looked at."""
    monkeypatch.setattr(_rows, "_SAMPLE", 40)
    x = np.random.default_rng(0).integers(0, 3, size=(200, 2)).astype("float32")
    x[151, 0] = 9.0
    head = likelihoods.get("categorical")
    assert head.fitted(x).classes == 10
    x[3, 1] = np.nan
    holed = head.fitted(x)
    assert holed.classes == 10 and np.isfinite(holed.independent().log_prob(x)).all()
    assert dataclasses.replace(head, classes=12).fitted(x).classes == 12
