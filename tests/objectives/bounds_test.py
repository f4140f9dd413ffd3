import numpy as np
import pytest
import scipy.special
import tensorflow as tf

from iwae_zoo import bounds

M, K, B = 4, 3, 2
ALL = [
    bounds.Elbo(),
    bounds.ImportanceWeighted(),
    bounds.ImportanceWeighted(groups=M),
    bounds.ImportanceWeighted(groups=2),
    bounds.ImportanceWeighted(groups=M * K),
    bounds.Combination(beta=0.0),
    bounds.Combination(beta=0.3),
    bounds.Combination(beta=1.0),
    bounds.VariationalRenyi(alpha=0.0),
    bounds.VariationalRenyi(alpha=0.4),
    bounds.VariationalRenyi(alpha=0.4, groups=M),
    bounds.Jackknife(),
    bounds.Jackknife(groups=M),
    bounds.Thermodynamic(),
    bounds.Thermodynamic(groups=M, points=4, spacing="uniform"),
    bounds.ThermodynamicUpper(groups=2, points=3, beta_1=0.2),
]


def test_every_bound_has_an_oracle():
    assert {type(bound) for bound in ALL} == {row.kind for row in bounds.TABLE.values()}


def log_mean_exp(particles):
    return scipy.special.logsumexp(particles) - np.log(len(particles))


def jackknife(particles):
    n = len(particles)
    without = [log_mean_exp(np.delete(particles, i)) for i in range(n)]
    return n * log_mean_exp(particles) - (n - 1) * np.mean(without)


def riemann_sum(bound, particles):
    """Over the betas written out, each mean of log w with weights w^beta."""
    betas = {
        (6, "log_uniform", None): [0, 0.1, 10**-0.75, 10**-0.5, 10**-0.25, 1],
        (4, "uniform", None): [0, 1 / 3, 2 / 3, 1],
        (3, "log_uniform", 0.2): [0, 0.2, 1],
    }[bound.points, bound.spacing, bound.beta_1]
    means = [scipy.special.softmax(beta * particles) @ particles for beta in betas]
    return np.diff(betas) @ (means[1:] if isinstance(bound, bounds.ThermodynamicUpper) else means[:-1])


def oracle(bound, log_weights):
    """The bound in plain numpy, for one example after the other."""
    out = np.zeros(log_weights.shape[2])
    for b in range(len(out)):
        particles = log_weights[:, :, b].ravel()
        elbo = particles.mean()
        if isinstance(bound, bounds.Elbo):
            out[b] = elbo
            continue
        groups = np.split(particles, getattr(bound, "groups", 1))
        if isinstance(bound, bounds.Jackknife):
            out[b] = np.mean([jackknife(g) for g in groups])
            continue
        if isinstance(bound, bounds.Thermodynamic):
            out[b] = np.mean([riemann_sum(bound, g) for g in groups])
            continue
        power = 1 - getattr(bound, "alpha", 0.0)
        iwae = np.mean([(scipy.special.logsumexp(power * g) - np.log(len(g))) / power for g in groups])
        beta = getattr(bound, "beta", 0.0)
        out[b] = beta * elbo + (1 - beta) * iwae
    return out


def shifted(log_weights, i, step):
    moved = log_weights.copy()
    moved[i] += step
    return moved


@pytest.mark.parametrize("bound", ALL, ids=str)
def test_value_is_numpys(bound, seed):
    log_weights = 3 * np.random.default_rng(seed).normal(size=(M, K, B))
    np.testing.assert_allclose(bound.value(log_weights), oracle(bound, log_weights), rtol=1e-12)


@pytest.mark.parametrize("bound", ALL, ids=str)
def test_weights_are_finite_differences_of_the_value(bound, seed):
    log_weights = np.random.default_rng(seed).normal(size=(M, K, B))
    a, derivative, step = bound.weights(log_weights).numpy(), bound.weight_derivatives(log_weights).numpy(), 1e-5
    for i in np.ndindex(M, K):
        up, down = shifted(log_weights, i, step), shifted(log_weights, i, -step)
        difference = (oracle(bound, up) - oracle(bound, down)) / (2 * step)
        np.testing.assert_allclose(a[i], difference, rtol=1e-7, atol=1e-10)
        difference = (bound.weights(up)[i] - bound.weights(down)[i]) / (2 * step)
        np.testing.assert_allclose(derivative[i], difference, rtol=1e-7, atol=1e-10)
    np.testing.assert_allclose(a.sum(axis=(0, 1)), 1.0, rtol=1e-12)


def test_rows_of_m_are_the_groups():
    """Two rows far apart: averaging over rows and averaging over columns give very different bounds."""
    log_weights = np.zeros((2, 3, 1))
    log_weights[1] = -100.0
    assert bounds.get("miwae", m=2).value(log_weights).numpy()[0] == pytest.approx(-50.0)
    swapped = np.swapaxes(log_weights, 0, 1)
    assert bounds.get("miwae", m=3).value(swapped).numpy()[0] == pytest.approx(-np.log(2.0))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("offset", [0.0, 1e4, -1e4])
@pytest.mark.parametrize("pattern", ["equal", "dominated", "one group negligible"])
@pytest.mark.parametrize("bound", ALL, ids=str)
def test_extreme_weights(bound, pattern, offset, dtype):
    log_weights = np.zeros((M, K, B))
    if pattern == "dominated":
        log_weights[1, 2] = 300.0
    elif pattern == "one group negligible":
        log_weights[2] = -500.0
    log_weights = (log_weights + offset).astype(dtype)
    expected = oracle(bound, log_weights.astype("float64"))
    np.testing.assert_allclose(bound.value(log_weights), expected, rtol=1e-6, atol=1e-5)
    assert np.isfinite(bound.weights(log_weights)).all()
    assert np.isfinite(bound.weight_derivatives(log_weights)).all()
    np.testing.assert_allclose(tf.reduce_sum(bound.weights(log_weights), [0, 1]), 1.0, rtol=1e-6)


@pytest.mark.parametrize(
    "bound",
    [
        bounds.Elbo(),
        bounds.ImportanceWeighted(),
        bounds.ImportanceWeighted(groups=6),
        bounds.Combination(beta=0.3),
        bounds.VariationalRenyi(alpha=0.4, groups=2),
        bounds.Jackknife(groups=2),
        bounds.Thermodynamic(),
    ],
    ids=str,
)
@pytest.mark.parametrize("shape", [(1, 6), (6, 1)])
def test_single_axes(bound, shape, seed):
    log_weights = np.random.default_rng(seed).normal(size=(*shape, B))
    np.testing.assert_allclose(bound.value(log_weights), oracle(bound, log_weights), rtol=1e-12)


def test_one_particle_is_the_elbo(seed):
    log_weights = np.random.default_rng(seed).normal(size=(1, 1, B))
    for bound in (
        bounds.Elbo(),
        bounds.ImportanceWeighted(),
        bounds.VariationalRenyi(alpha=0.4),
        bounds.Thermodynamic(),
        bounds.ThermodynamicUpper(),
    ):
        np.testing.assert_allclose(bound.value(log_weights), log_weights[0, 0], rtol=1e-12)
        np.testing.assert_array_equal(bound.weights(log_weights), np.ones((1, 1, B)))
        np.testing.assert_array_equal(bound.weight_derivatives(log_weights), np.zeros((1, 1, B)))


def test_limits_of_the_families(seed):
    log_weights = (2 * np.random.default_rng(seed).normal(size=(M, K, B)) - 80).astype("float32")
    elbo, iwae = bounds.Elbo().value(log_weights), bounds.ImportanceWeighted().value(log_weights)
    np.testing.assert_allclose(bounds.VariationalRenyi(alpha=1 - 1e-6).value(log_weights), elbo, rtol=1e-5)
    np.testing.assert_array_equal(bounds.VariationalRenyi(alpha=0.0).value(log_weights), iwae)
    np.testing.assert_array_equal(bounds.Combination(beta=1.0).value(log_weights), elbo)
    np.testing.assert_array_equal(bounds.Combination(beta=0.0).value(log_weights), iwae)
    np.testing.assert_allclose(bounds.ImportanceWeighted(groups=M * K).value(log_weights), elbo, rtol=1e-6)
    np.testing.assert_allclose(bounds.Thermodynamic(points=2).value(log_weights), elbo, rtol=1e-6)


@pytest.mark.parametrize("bound", ALL, ids=str)
def test_impossible_examples_have_minus_infinity(bound):
    assert bound.value(np.full((M, K, 1), -np.inf)).numpy()[0] == -np.inf


@pytest.mark.parametrize("bound", ALL, ids=str)
def test_configuration_round_trip(bound):
    assert bounds.from_config(bounds.to_config(bound)) == bound


def test_importance_ess(seed):
    log_weights = np.random.default_rng(seed).normal(size=(M, K, B))
    w = np.exp(log_weights).reshape(-1, B)
    np.testing.assert_allclose(bounds.importance_ess(log_weights), w.sum(0) ** 2 / (w**2).sum(0), rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: bounds.Combination(beta=1.5), r"beta must be in \[0, 1\]: received 1.5"),
        (lambda: bounds.Combination(beta=float("nan")), "beta must be in"),
        (lambda: bounds.VariationalRenyi(alpha=1.0), r"alpha must be in \[0, 1\): received 1.0"),
        (lambda: bounds.ImportanceWeighted(groups=0), "groups must be an integer of at least 1: received 0"),
        (lambda: bounds.get("iwea"), "Unknown bound: received 'iwea'. Did you mean 'iwae'"),
        (lambda: bounds.Elbo().value(np.zeros((2, 3))), r"log_weights must be a float tensor of shape \[M, K, B\]"),
        (lambda: bounds.Elbo().value(np.zeros((2, 3, 1), int)), "dtype int64"),
        (
            lambda: bounds.Jackknife(groups=6).value(np.zeros((2, 3, 1))),
            "needs at least two: received groups=6 for m=2",
        ),
        (lambda: bounds.Thermodynamic(points=1), "points must be an integer of at least 2: received 1"),
        (lambda: bounds.Thermodynamic(points=51), "points must be an integer from 2 to 50: received 51"),
        (lambda: bounds.Thermodynamic(spacing="log"), "Unknown spacing of betas: received 'log'"),
        (lambda: bounds.Thermodynamic(beta_1=1.0), r"beta_1 must be in \(0, 1\), and spacing 'log_uniform': received"),
        (lambda: bounds.Thermodynamic(spacing="uniform", beta_1=0.1), "beta_1=0.1, spacing='uniform'"),
        (lambda: bounds.ImportanceWeighted(groups=5).value(np.zeros((2, 3, 1))), "groups=5 for m=2 times k=3"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
