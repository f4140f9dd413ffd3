"""What theory says about bounds and gradient estimators, on the models where everything has a closed form.

Statistical tests are on a fixed seed and at five standard errors; `--vary-seed` draws another.
"""

import functools
import itertools

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from oracles import flat

from iwae_zoo import bounds, objectives
from iwae_zoo.distributions import Stacked
from iwae_zoo.testing import LinearGaussian, StackedLinearGaussian

Z = 5.0
TRUTHS = {
    "one layer": LinearGaussian.random(latent_size=2, data_size=3, seed=1),
    "two layers": StackedLinearGaussian.random(latent_sizes=(2, 1), data_size=3, seed=1),
}
_DRAWN: dict = {}  # Several tests look at the same draws.


@pytest.fixture(params=TRUTHS)
def truth(request):
    """The closed-form models with one and with two stochastic layers."""
    return TRUTHS[request.param]


def mean_and_error(draws):
    draws = np.asarray(draws, "float64")
    return draws.mean(axis=0), draws.std(axis=0, ddof=1) / np.sqrt(len(draws))


def encoder_gradients(truth, objective, seed, repeats=100, copies=100):
    """Draws [repeats, parameters] of the encoder's gradient at one x; the same seeds give the same particles."""
    key = (id(truth), objective, seed)
    if key not in _DRAWN:
        model = truth.model(objective, mismatch=0.4, dtype="float64")
        x = tf.repeat(truth.sample(1, seed=7), copies, axis=0)
        step = tf.function(lambda i: model.compute_gradients(x, tf.stack([i, seed])).encoder, autograph=False)
        _DRAWN[key] = np.stack([flat(step(tf.constant(i, tf.int32))) for i in range(repeats)])
    return _DRAWN[key]


def closed_form_elbo(truth, x, weights):
    """The ELBO of an encoder's weights."""
    if isinstance(truth, StackedLinearGaussian):
        return truth.elbo(x, *((weight, bias, np.tril(scale)) for weight, bias, scale in (weights[:3], weights[3:])))
    weight, bias, scale = weights
    return truth.elbo(x, x @ weight.T + bias, np.tril(scale))


def finite_differences(function, parts, step=1e-6):
    """The gradient of a function of a list of arrays, as one vector."""
    parts = [np.array(part, "float64") for part in parts]
    gradient = []
    for part in parts:
        for i in np.ndindex(part.shape):
            ends, value = [], part[i]
            for end in (value + step, value - step):
                part[i] = end
                ends.append(function(parts))
            part[i] = value
            gradient.append((ends[0] - ends[1]) / (2 * step))
    return np.array(gradient)


def of_weights(truth, parts):
    """The model of other weights."""
    layers = [LinearGaussian(*parts[i : i + 3]) for i in range(0, len(parts), 3)]
    return StackedLinearGaussian(*layers) if len(layers) > 1 else layers[0]


def exact_weights(truth):
    """The weights of decoder and prior, in the order of `decoder_variables`."""
    layers = [truth.lower, truth.upper] if isinstance(truth, StackedLinearGaussian) else [truth]
    return [part for layer in layers for part in (layer.weight, layer.bias, layer.stddev)]


def test_oracle_agrees_with_itself(linear_gaussian):
    """The closed forms, against each other and against finite differences."""
    x = linear_gaussian.sample(5)
    loc, scale_tril = linear_gaussian.posterior_mean(x), np.linalg.cholesky(linear_gaussian.posterior_covariance)
    np.testing.assert_allclose(linear_gaussian.elbo(x, loc, scale_tril), linear_gaussian.log_prob(x), rtol=1e-12)
    assert (linear_gaussian.elbo(x, loc + 0.1, scale_tril) < linear_gaussian.log_prob(x)).all()
    by_weight, by_bias, by_stddev = linear_gaussian.score(x)

    def log_prob(weight=0.0, bias=0.0, stddev=0.0):
        lg = linear_gaussian
        return LinearGaussian(lg.weight + weight, lg.bias + bias, lg.stddev + stddev).log_prob(x).mean()

    step = 1e-6
    for i in np.ndindex(by_weight.shape):
        e = np.zeros(by_weight.shape)
        e[i] = step
        assert by_weight[i] == pytest.approx((log_prob(weight=e) - log_prob(weight=-e)) / (2 * step), rel=1e-6)
    for i in range(len(by_bias)):
        e = np.zeros(by_bias.shape)
        e[i] = step
        assert by_bias[i] == pytest.approx((log_prob(bias=e) - log_prob(bias=-e)) / (2 * step), rel=1e-6)
    assert by_stddev == pytest.approx((log_prob(stddev=step) - log_prob(stddev=-step)) / (2 * step), rel=1e-6)


def test_exact_posterior_makes_every_bound_exact(truth):
    x = truth.sample(20)
    log_weights = truth.model(dtype="float64").log_weights(x, 3, 5, (0, 0))
    np.testing.assert_allclose(log_weights - truth.log_prob(x), np.zeros(log_weights.shape), atol=1e-9)
    for name in objectives.names():
        objective = objectives.get(name, m=3, k=5)
        for bound in (objective.decoder_bound, objective.encoder_bound):
            np.testing.assert_allclose(bound.value(log_weights), truth.log_prob(x), rtol=1e-10, err_msg=name)


def test_ladder_of_bounds(truth, seed):
    """elbo < L_2 < L_8 < L_64 < log p(x), on the same particles; and the ELBO is the closed form's."""
    x = truth.sample(20000, seed=3)
    model = truth.model(mismatch=0.5, dtype="float64")
    log_weights = model.log_weights(x, 1, 64, (seed, 0)).numpy().reshape(64, 1, -1)
    ladder = [bounds.ImportanceWeighted(groups=groups).value(log_weights).numpy() for groups in (64, 32, 8, 1)]
    ladder.append(truth.log_prob(x))
    for lower, higher in itertools.pairwise(ladder):
        mean, error = mean_and_error(higher - lower)
        assert mean > Z * error
    mean, error = mean_and_error(ladder[0] - closed_form_elbo(truth, x, model.encoder.get_weights()))
    assert abs(mean) < Z * error


def test_families_lie_between_elbo_and_iwae(truth, seed):
    x = truth.sample(5000, seed=3)
    log_weights = truth.model(mismatch=0.5, dtype="float64").log_weights(x, 2, 8, (seed, 0))
    elbo, iwae = bounds.Elbo().value(log_weights), bounds.ImportanceWeighted().value(log_weights)
    for bound in (
        bounds.ImportanceWeighted(groups=2),
        bounds.Combination(beta=0.3),
        bounds.VariationalRenyi(alpha=0.3),
        bounds.Thermodynamic(),
    ):
        value = bound.value(log_weights).numpy()
        assert (value >= elbo.numpy()).all()
        assert (value <= iwae.numpy() + 1e-12).all()


@pytest.mark.slow
def test_decoder_gradients_of_tighter_bounds_approach_the_score(truth, seed):
    x = truth.sample(5000, seed=3) + 1.0  # Off the model's own data, where the score is not zero.
    score = finite_differences(lambda parts: of_weights(truth, parts).log_prob(x).mean(), exact_weights(truth))
    distances = []
    for k in (1, 4, 16, 64):
        model = truth.model(objectives.get("iwae", m=1, k=k), mismatch=0.5, dtype="float64")
        gradient = -flat(model.compute_gradients(x, seed=(seed, 0)).decoder)
        distances.append(np.linalg.norm(gradient - score) / np.linalg.norm(score))
    assert all(far > 1.5 * near for far, near in itertools.pairwise(distances)), distances
    assert distances[-1] < 0.05


@pytest.mark.slow
def test_elbo_gradient_is_the_closed_forms(truth, seed):
    """Finite differences of the ELBO's closed form, in the encoder's parameters, in float64."""
    x = truth.sample(1, seed=7)
    draws = encoder_gradients(truth, objectives.get("elbo", m=4, k=5), seed)
    weights = truth.model(mismatch=0.4, dtype="float64").encoder.get_weights()
    expected = finite_differences(lambda parts: closed_form_elbo(truth, x, parts)[0], weights)
    mean, error = mean_and_error(draws)
    assert (np.abs(-mean - expected) <= Z * error + 1e-7).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("iwae", {}),
        ("miwae", {}),
        ("piwae", {}),
        ("ciwae", {"beta": 0.3}),
        ("vr_iwae", {"alpha": 0.4}),
        ("elbo", {}),
        ("tvo", {"points": 3}),
    ],
)
def test_doubly_reparameterized_is_unbiased(name, options, truth, seed):
    plain, doubly = (
        encoder_gradients(truth, objectives.get(name, m=2, k=3, estimator=estimator, **options), seed)
        for estimator in ("reparameterized", "doubly_reparameterized")
    )
    mean, error = mean_and_error(doubly - plain)
    assert (np.abs(mean) <= Z * error + 1e-12).all()
    assert np.abs(doubly - plain).max() > 1e-3  # They are different estimators of the same thing.


@pytest.mark.slow
def test_reparameterized_wake_has_the_mean_of_wake(truth, seed):
    wake, doubly = (encoder_gradients(truth, objectives.get(name, m=2, k=3), seed) for name in ("rws", "rws_dreg"))
    mean, error = mean_and_error(doubly - wake)
    assert (np.abs(mean) <= Z * error + 1e-12).all()


@pytest.mark.slow
def test_sticking_the_landing_is_unbiased_for_the_elbo_only(truth, seed):
    def z_scores(name):
        plain, landing = (
            encoder_gradients(truth, objectives.get(name, m=2, k=3, estimator=estimator), seed)
            for estimator in ("reparameterized", "sticking_the_landing")
        )
        mean, error = mean_and_error(landing - plain)
        return np.abs(mean) / (error + 1e-12), mean

    assert z_scores("elbo")[0].max() < Z
    scores, bias = z_scores("iwae")
    assert scores.max() > 4 * Z
    # What was dropped is minus the wake update: the bias pulls towards KL(p || q).
    wake = encoder_gradients(truth, objectives.get("rws", m=2, k=3), seed).mean(axis=0)
    assert bias @ wake > 0.9 * np.linalg.norm(bias) * np.linalg.norm(wake)


@pytest.mark.slow
def test_wake_approaches_the_gradient_of_the_inclusive_divergence(truth, seed):
    """By the bias of q(z_1 | x), -KL(p || q) is S_q^-1 (mean_p - mean_q); self-normalising shrinks it."""
    x = truth.sample(1, seed=7)
    weight, bias, scale = truth.model(mismatch=0.4, dtype="float64").encoder.get_weights()[:3]
    exact_weight, exact_bias, _ = truth.model(dtype="float64").encoder.get_weights()[:3]
    scale = np.tril(scale)
    target = np.linalg.solve(scale @ scale.T, (x @ (exact_weight - weight).T + exact_bias - bias)[0])
    shares = []
    for k in (2, 8, 64):
        draws = encoder_gradients(truth, objectives.get("rws", m=1, k=k), seed)
        shares.append(-draws.mean(axis=0)[6:8] @ target / (target @ target))
    assert shares[0] < shares[1] < shares[2]
    assert shares[0] < 0.7
    assert shares[2] == pytest.approx(1.0, abs=0.1)


def test_stacked_oracle_agrees_with_itself():
    """With the exact posterior the ELBO, a sum of expectations, is log p(x), which is that of another model."""
    truth = StackedLinearGaussian.random(seed=2)
    x = truth.sample(5)
    lower, upper = truth.lower, truth.upper
    mean = lower.weight @ upper.bias + lower.bias
    of_z_1 = upper.weight @ upper.weight.T + upper.stddev**2 * np.eye(3)
    covariance = lower.weight @ of_z_1 @ lower.weight.T + lower.stddev**2 * np.eye(4)
    np.testing.assert_allclose(truth.log_prob(x), scipy.stats.multivariate_normal(mean, covariance).logpdf(x))
    np.testing.assert_allclose(truth.elbo(x, *truth.encoder_parameters()), truth.log_prob(x), rtol=1e-12)
    for mismatch in (0.1, -0.1):
        assert (truth.elbo(x, *truth.encoder_parameters(mismatch)) < truth.log_prob(x)).all()


def without_path(path):
    """`Stacked._sample_n` without the gradient from a layer to what its draws, or their density, are given."""
    sample_n = Stacked._sample_n

    def sample(self, n, seed=None, first_row=0, hold=None):
        in_density = {}

        def given(conditional, z):
            kinds = {"kept": conditional(z), "lost": conditional(tf.stop_gradient(z))}
            drawn_from = kinds["lost" if path == "draws" else "kept"]
            in_density[id(drawn_from)] = kinds["lost" if path == "density" else "kept"]
            return drawn_from

        other = Stacked(self._first, [functools.partial(given, each) for each in self._conditionals])
        held = hold and (lambda q, layer: hold(in_density.get(id(q), q), layer))
        return sample_n(other, n, seed, first_row, held)

    return sample


log_prob_of_stacked = Stacked._log_prob


def without_path_of_prior(self, z):
    """`Stacked._log_prob` where each layer is a constant for the one that was drawn given it."""
    conditionals = [lambda z, conditional=each: conditional(tf.stop_gradient(z)) for each in self._conditionals]
    other = Stacked(self._first, conditionals, self._reverse)
    return log_prob_of_stacked(other, z)


@pytest.mark.slow
@pytest.mark.parametrize("path", ["draws", "density", "prior"])
def test_a_layer_without_its_path_is_seen(path, seed, monkeypatch):
    """Where z_2 is drawn, or its density taken, as if what it is given were a constant.

    Without the path by way of the density of q(z_2 | z_1) the ELBO's gradient is the same in mean, others' are not.
    """
    truth = TRUTHS["two layers"]
    if path == "prior":
        monkeypatch.setattr(Stacked, "_log_prob", without_path_of_prior)
    else:
        monkeypatch.setattr(Stacked, "_sample_n", without_path(path))
    monkeypatch.setitem(globals(), "_DRAWN", {})
    with pytest.raises(AssertionError):
        if path == "density":
            test_doubly_reparameterized_is_unbiased("iwae", {}, truth, seed)
        else:
            test_elbo_gradient_is_the_closed_forms(truth, seed)


@pytest.mark.slow
def test_signal_to_noise_of_two_layers(seed):
    """Of the plain estimator it falls with the number of particles, as 1 / sqrt(K); doubly reparameterised it grows."""

    def snr(name, k):
        draws = encoder_gradients(TRUTHS["two layers"], objectives.get(name, m=1, k=k), seed)
        mean, deviation = draws.mean(axis=0), draws.std(axis=0, ddof=1)
        return np.median(np.abs(mean[deviation > 0]) / deviation[deviation > 0])

    assert 2.0 < snr("iwae", 2) / snr("iwae", 32) < 8.0  # Theory: 4.
    assert snr("dreg", 2) < snr("dreg", 32)
