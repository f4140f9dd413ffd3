"""Thermodynamic bounds: between which numbers they lie, where they converge to, and the covariance estimator."""

import itertools

import numpy as np
import pytest
import scipy.integrate
import scipy.special

from iwae_zoo import bounds, objectives
from iwae_zoo.testing import Enumerable, LinearGaussian

UNIFORM = {"spacing": "uniform"}


def test_both_enclose_the_importance_weighted_bound(seed):
    """Of the particles themselves, whatever they are; a finer partition is a narrower bracket, down to nothing."""
    x = 3 * np.random.default_rng(seed).normal(size=(2, 4, 500))
    iwae, lowest, highest = bounds.ImportanceWeighted(2).value(x).numpy(), bounds.Elbo().value(x).numpy(), np.inf
    for points in (2, 3, 5, 9, 17, 33):
        lower = bounds.Thermodynamic(2, points=points, **UNIFORM)
        upper = bounds.ThermodynamicUpper(2, points=points, **UNIFORM)
        low, high = lower.value(x).numpy(), upper.value(x).numpy()
        assert (lowest <= low + 1e-12).all() and (low <= iwae + 1e-12).all()
        assert (iwae <= high + 1e-12).all() and (high <= highest + 1e-12).all()
        np.testing.assert_array_equal(lower.companion_value(x), high)
        np.testing.assert_array_equal(upper.reported(x), low)
        lowest, highest = low, high
    # The steps are equal: the width is that of one step, E_1 - E_0, over their number.
    widest = np.sum((scipy.special.softmax(x, axis=1) - 0.25) * x, axis=1).mean(axis=0)
    np.testing.assert_allclose(high - low, widest / 32, rtol=1e-9)


def path_means(truth, x, mismatch, betas):
    """Means of log w under q^(1 - beta) p^beta, which is Gaussian, for one x; plain numpy."""
    weight, bias, scale = truth.encoder_parameters(mismatch)
    loc, q = x @ weight.T + bias, np.linalg.inv(scale @ scale.T)
    posterior, p = truth.posterior_mean(x), np.linalg.inv(truth.posterior_covariance)
    means = []
    for beta in betas:
        precision = (1 - beta) * q + beta * p
        covariance = np.linalg.inv(precision)
        mean = np.linalg.solve(precision, (1 - beta) * q @ loc[0] + beta * p @ posterior[0])

        def expected_log_normal(center, of_precision, mean=mean, covariance=covariance):
            d, log_det = mean - center, np.linalg.slogdet(of_precision / (2 * np.pi))[1]
            return 0.5 * (log_det - d @ of_precision @ d - np.trace(of_precision @ covariance))

        means.append(truth.log_prob(x)[0] + expected_log_normal(posterior[0], p) - expected_log_normal(loc[0], q))
    return np.array(means)


@pytest.mark.parametrize("options", [{}, {"points": 4, "spacing": "uniform"}], ids=str)
def test_with_many_particles_they_are_the_riemann_sums_of_the_closed_form(options, seed):
    truth, mismatch, copies = LinearGaussian.random(latent_size=2, data_size=3, seed=1), 0.4, 50
    x = truth.sample(1, seed=7)
    fine = np.linspace(0, 1, 2001)
    integral = scipy.integrate.trapezoid(path_means(truth, x, mismatch, fine), fine)
    assert integral == pytest.approx(truth.log_prob(x)[0], abs=1e-6)
    model = truth.model(mismatch=mismatch, dtype="float64")
    log_weights = model.log_weights(np.repeat(x, copies, axis=0), 1, 4096, (seed, 0))
    closed = {}
    for bound in (bounds.Thermodynamic(**options), bounds.ThermodynamicUpper(**options)):
        values = bound.value(log_weights).numpy()
        closed[bound.name] = np.dot(bound.steps, path_means(truth, x, mismatch, bound.betas))
        error = values.std(ddof=1) / np.sqrt(copies)
        assert abs(values.mean() - closed[bound.name]) < 5 * error
    assert closed["thermodynamic"] < truth.log_prob(x)[0] < closed["thermodynamic_upper"]


@pytest.mark.parametrize("kind", [bounds.Thermodynamic, bounds.ThermodynamicUpper])
@pytest.mark.parametrize("points", [2, 4])
def test_covariance_form_is_the_exact_gradient(kind, points):
    """Where particles stand for q exactly, each state as often as it is likely: by the logits of q, all are sums."""
    counts, log_joint = np.array([1, 2, 5, 4]), np.array([-1.0, 0.5, -2.0, 1.0])
    bound = kind(points=points, beta_1=None if points == 2 else 0.2)

    def value(logits):
        log_q = scipy.special.log_softmax(logits)
        log_w = log_joint - log_q
        means = [scipy.special.softmax(log_q + beta * log_w) @ log_w for beta in bound.betas]
        return np.dot(bound.steps, means)

    logits, step = np.log(counts / counts.sum()), 1e-5
    exact = [(value(logits + e) - value(logits - e)) / (2 * step) for e in step * np.eye(4)]
    states = np.repeat(np.arange(4), counts)
    log_weights = (log_joint - logits)[states].reshape(2, 6, 1)
    objective = objectives.get("tvo", m=2, k=6, encoder_bound=bound, estimator="covariance")
    weights = objective.particle_weights(log_weights)
    scores = np.eye(4)[states] - np.exp(logits)  # d log q(state) / d logits
    received = weights.score.numpy().ravel() @ scores
    sign = 1 if bound.is_lower_bound else -1
    np.testing.assert_allclose(received, sign * np.array(exact), rtol=1e-7, atol=1e-9)
    np.testing.assert_array_equal(weights.path, np.zeros(log_weights.shape))


@pytest.mark.parametrize("kind", [bounds.Thermodynamic, bounds.ThermodynamicUpper])
def test_bias_of_the_covariance_form_falls_with_the_number_of_particles(kind):
    """Its expectation by enumeration, and the gradient of the sums over all states: apart by O(1 / N)."""
    truth, bound = Enumerable(scale=0.3), kind(points=3)
    x = truth.data[5:6]

    def value():
        log_q, log_joint = truth.log_q(x)[0][:, 0], truth.log_joint(x)[0][:, 0]
        log_w = log_joint - log_q
        return np.dot(bound.steps, [scipy.special.softmax(log_q + beta * log_w) @ log_w for beta in bound.betas])

    exact = []
    for part in truth.weights[:2]:
        for i in np.ndindex(part.shape):
            kept, ends = part[i], []
            for step in (1e-5, -1e-5):
                part[i] = kept + step
                ends.append(value())
            part[i] = kept
            exact.append((ends[0] - ends[1]) / 2e-5)
    exact = np.array(exact) * (1 if bound.is_lower_bound else -1)
    biases = []
    for k in (8, 16, 32):
        objective = objectives.get("tvo", m=1, k=k, encoder_bound=bound, estimator="covariance")
        probability, encoder, _ = truth.gradients(objective, x, exchangeable=True)
        biases.append(np.linalg.norm(probability @ encoder - exact) / np.linalg.norm(exact))
    assert biases[-1] < 0.05
    np.testing.assert_allclose(np.log2(np.divide(biases[:-1], biases[1:])), 1.0, atol=0.05)


def test_covariance_of_the_upper_bound_with_two_points_is_the_wake_update(seed):
    x = np.random.default_rng(seed).normal(size=(2, 3, 4))
    options = {"encoder_bound": "thermodynamic_upper", "estimator": "covariance", "points": 2}
    ours, wake = (
        objectives.get(name, m=2, k=3, **extra).particle_weights(x) for name, extra in (("tvo", options), ("rws", {}))
    )
    np.testing.assert_allclose(ours.score, wake.score, rtol=1e-12)


@pytest.mark.parametrize("bound", [bounds.Thermodynamic(2), bounds.ThermodynamicUpper(2)], ids=lambda bound: bound.name)
def test_a_particle_without_weight_is_the_limit_of_little_weight(bound, seed):
    x = np.random.default_rng(seed).normal(size=(2, 4, 5))
    x[0, 1, :3], x[1, 2, 1:] = -1e6, -1e6
    impossible = np.where(x > -1e6, x, -np.inf)
    of = {"weights": bound.weights, "weight_derivatives": bound.weight_derivatives}
    if 0.0 not in bound.betas:  # There the mean of log w is minus infinity.
        of |= {"value": bound.value, "covariance_weights": bound.covariance_weights}
    for name, function in of.items():
        np.testing.assert_allclose(function(impossible), function(x), rtol=1e-12, atol=1e-15, err_msg=name)


def test_betas():
    assert bounds.Thermodynamic().betas == pytest.approx([0, 0.1, 10**-0.75, 10**-0.5, 10**-0.25])
    assert bounds.ThermodynamicUpper(points=3, beta_1=0.02).betas == (0.02, 1.0)
    for points, (spacing, beta_1) in itertools.product((2, 3, 50), (("uniform", None), ("log_uniform", 1e-10))):
        steps = bounds.Thermodynamic(points=points, spacing=spacing, beta_1=beta_1).steps
        assert len(steps) == points - 1 and min(steps) > 0
        assert sum(steps) == pytest.approx(1, abs=1e-15)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"identifier": "iwae", "decoder_bound": "thermodynamic_upper"}, "The decoder cannot follow Thermo"),
        ({"identifier": "tvo", "encoder_bound": "thermodynamic_upper"}, "one of covariance, wake"),
        (
            {"identifier": "iwae", "estimator": "covariance"},
            "'covariance' is that of thermodynamic bounds: received Imp",
        ),
        ({"identifier": "tvo", "m": 1, "k": 1, "estimator": "covariance"}, "needs at least two particles in a group"),
        ({"identifier": "iwae", "points": 4}, "points=4 was given to the objective 'iwae'"),
        ({"identifier": "tvo", "points": 2, "estimator": "wake"}, "would give the encoder no signal"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        objectives.get(**arguments)
