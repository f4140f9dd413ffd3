"""Estimators for latents that cannot be reparameterised, on a model whose expectations are finite sums.

All states of all particles are gone through: nothing here is drawn but in the tests at the end.
"""

import json

import numpy as np
import pytest
import tensorflow as tf
from oracles import gradients_in_step

from iwae_zoo import objectives
from iwae_zoo.model import dreams, particles
from iwae_zoo.objectives import bounds, estimators
from iwae_zoo.testing import Enumerable

M, K = 3, 2
BOUNDS = {
    "elbo": bounds.Elbo(),
    "iwae": bounds.ImportanceWeighted(),
    "miwae": bounds.ImportanceWeighted(groups=M),
    "vr_iwae": bounds.VariationalRenyi(alpha=0.3, groups=M),
    "combination": bounds.Combination(beta=0.3),
    "thermodynamic": bounds.Thermodynamic(groups=M, points=3),
}
UNBIASED = ("reinforce", "vimco", "ovis", "ovis,auxiliary=1")


@pytest.fixture(scope="module")
def truth():
    return Enumerable()


@pytest.fixture(scope="module")
def x(truth):
    return truth.data[5:6]


def exact(truth, x, bound):
    """Gradients of a bound's expectation by encoder and decoder: automatic differentiation of the finite sum."""
    model = truth.model()
    states, _ = truth.configurations(M * K)
    with tf.GradientTape() as tape:
        log_q = model.encoder.posterior(x).log_prob(truth.states)
        log_joint = model.decoder.likelihood(truth.states).log_prob(x) + model.prior.distribution().log_prob(
            truth.states
        )
        log_weights = tf.reshape(tf.transpose(tf.gather(log_joint - log_q, states)), [M, K, -1])
        probability = tf.exp(tf.reduce_sum(tf.gather(log_q, states), axis=1))
        value = tf.reduce_sum(probability * bound.value(log_weights))
    sides = [[v.value for v in side] for side in (model.encoder_variables, model.decoder_variables)]
    gradients = [np.concatenate([np.ravel(g) for g in side]) for side in tape.gradient(value, sides)]
    return float(value), *gradients


@pytest.fixture(scope="module", params=BOUNDS, ids=str)
def side(request, truth, x):
    """A bound and what is exact of it."""
    bound = BOUNDS[request.param]
    return (bound, *exact(truth, x, bound))


def of(bound, estimator, m=M, k=K, **options):
    return objectives.get("iwae", m=m, k=k, decoder_bound=bound, encoder_bound=bound, estimator=estimator, **options)


def moments(truth, x, objective, **options):
    """Exact mean and total variance of the encoder's gradient."""
    probability, encoder, _ = truth.gradients(objective, x, **options)
    mean = probability @ encoder
    return mean, probability @ np.sum((encoder - mean) ** 2, axis=1)


def test_the_model_is_what_its_layers_say(truth):
    model, x = truth.model(), truth.data[2:5]
    log_q = model.encoder.posterior(x).log_prob(truth.states[:, np.newaxis])
    z = tf.constant(np.broadcast_to(truth.states[:, np.newaxis], (len(truth.states), len(x), 2)))
    np.testing.assert_allclose(truth.log_q(x)[0], log_q, rtol=1e-12)
    np.testing.assert_allclose(truth.log_joint(x)[0], particles.log_joint(model.decoder, model.prior, x, z), rtol=1e-12)
    np.testing.assert_allclose(np.exp(truth.log_prob(truth.data)).sum(), 1.0, rtol=1e-12)
    np.testing.assert_allclose(truth.posterior(x).sum(axis=0), 1.0, rtol=1e-12)


@pytest.mark.parametrize("estimator", UNBIASED)
def test_expectation_is_the_gradient_of_the_bound(truth, x, side, estimator):
    bound, value, encoder, decoder = side
    np.testing.assert_allclose(truth.expected(x, M, K, bound.value), [value], rtol=1e-12)
    probability, of_encoder, of_decoder = truth.gradients(of(bound, estimator), x)
    np.testing.assert_allclose(probability.sum(), 1.0, rtol=1e-12)
    np.testing.assert_allclose(probability @ of_encoder, encoder, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(probability @ of_decoder, decoder, rtol=1e-9, atol=1e-12)


def test_swapped_axes_would_be_seen(truth, x):
    _, encoder, _ = exact(truth, x, BOUNDS["miwae"])
    swapped, _ = moments(truth, x, of(bounds.ImportanceWeighted(groups=K), "vimco", m=K, k=M))
    assert np.abs(swapped - encoder).max() > 1e-2


@pytest.mark.parametrize("gamma", [0.5, 1.0])
def test_gamma_adds_so_much_of_the_wake_update(truth, x, gamma):
    """The baseline then depends on the particle: OVIS is biased, by exactly this."""
    bound = BOUNDS["iwae"]
    _, encoder, _ = exact(truth, x, bound)
    wake, _ = moments(truth, x, of(bound, "wake"))
    ovis, _ = moments(truth, x, of(bound, f"ovis,gamma={gamma}"))
    np.testing.assert_allclose(ovis, encoder + gamma * wake, rtol=1e-9)
    assert np.abs(wake).max() > 0.1


def test_variances_fall_and_signal_to_noise_goes_as_theory_says():
    """Where q is near the posterior: reinforce's and vimco's SNR fall with K, vimco's as 1 / sqrt(K); ovis' grows."""
    truth = Enumerable(scale=0.3)
    x, counts = truth.data[5:6], (4, 8, 16, 32)
    snr = {}
    for name in ("reinforce", "vimco", "ovis"):
        found = [moments(truth, x, of("iwae", name, m=1, k=k), exchangeable=True) for k in counts]
        snr[name] = np.array([np.linalg.norm(mean) / variance**0.5 for mean, variance in found])
    # The expectation is the same, so that variances go the other way.
    assert (snr["reinforce"] < snr["vimco"]).all() and (snr["vimco"] < snr["ovis"]).all()
    slopes = {name: np.diff(np.log(values)) / np.log(2.0) for name, values in snr.items()}
    assert (slopes["reinforce"] < -1.0).all() and (slopes["ovis"] > 0.5).all()
    np.testing.assert_allclose(slopes["vimco"][-1], -0.5, atol=0.01)


def test_auxiliary_particles_lower_the_variance(truth, x):
    variances = [
        moments(truth, x, of("iwae", name, m=1, k=3))[1]
        for name in ("reinforce", "ovis,auxiliary=1", "ovis,auxiliary=3")
    ]
    assert variances[0] > variances[1] > variances[2]


@pytest.mark.parametrize("name", list(BOUNDS))
@pytest.mark.parametrize("spread", [1.0, 200.0])
def test_replacing_agrees_with_doing_so(name, spread):
    """Against the general way, which builds all M K replaced sets of log weights; and in float32 to its rounding."""
    rng = np.random.default_rng(0)
    log_weights, by = rng.normal(size=(M, K, 4)) * spread, rng.normal(size=(5, 1, 1, 4)) * spread
    for _, bound in BOUNDS[name].components():
        expected = bounds.Bound.replaced(bound, tf.constant(log_weights), tf.constant(by))
        for tolerance, dtype in ((1e-12, "float64"), (3e-6, "float32")):
            found = bound.replaced(tf.constant(log_weights, dtype), tf.constant(by, dtype))
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance * spread)


def test_leaving_out_one_that_dominates():
    """Two hundred nats above the others, in float32, against numpy's sums in higher precision."""
    log_weights = np.array([0.0, -200.0, -201.0, -203.5]).reshape(1, 4, 1)
    found = np.ravel(bounds.ImportanceWeighted().leave_one_out(tf.constant(log_weights, tf.float32)))
    flat = log_weights.ravel().astype(np.longdouble)
    total = np.log(np.mean(np.exp(flat)))
    expected = [total - np.log(np.mean(np.exp(np.delete(flat, i)))) for i in range(4)]
    np.testing.assert_allclose(found, np.array(expected, np.float64), rtol=1e-6)
    # The closed form keeps its digits where a weight's square is far below rounding of the weight.
    many = np.random.default_rng(1).normal(size=(1, 2000, 1))
    score, exact_score = (
        of("iwae", "ovis", m=1, k=2000).particle_weights(tf.constant(many, dtype)).score.numpy()
        for dtype in ("float32", "float64")
    )
    np.testing.assert_allclose(score, exact_score, rtol=1e-3, atol=1e-6 / 2000)  # Rounding of 1 / N.
    np.testing.assert_allclose(score.sum(), exact_score.sum(), rtol=1e-3)


def test_every_bound_can_be_asked(truth, x):
    """A bound that says no more than it has to is estimated like the others, in more memory."""

    class Halfway(bounds.Bound):
        name = "halfway"

        def _mean(self, method, log_weights):
            sides = (bounds.ImportanceWeighted(), bounds.ImportanceWeighted(groups=M))
            return 0.5 * sum(getattr(side, method)(log_weights) for side in sides)

        def value(self, log_weights):
            return self._mean("value", log_weights)

        def weights(self, log_weights):
            return self._mean("weights", log_weights)

        def weight_derivatives(self, log_weights):
            return self._mean("weight_derivatives", log_weights)

        def has_constant_weights(self, m, k):
            return m * k == 1

    _, encoder, _ = exact(truth, x, Halfway())
    for estimator in UNBIASED:
        mean, _ = moments(truth, x, of(Halfway(), estimator))
        np.testing.assert_allclose(mean, encoder, rtol=1e-9, atol=1e-12)


def test_wake_tends_to_the_gradient_of_kl():
    """With a bias of 1 / K, which halves from each K to the next."""
    truth = Enumerable(scale=0.3)
    x = truth.data[5:6]
    by_kl = np.einsum("sb,sbp->p", truth.posterior(x), truth.log_q(x)[1])  # -d KL(p || q) / d phi
    means = [moments(truth, x, of("iwae", "wake", m=1, k=k), exchangeable=True)[0] for k in (8, 16, 32)]
    errors = [np.linalg.norm(mean - by_kl) for mean in means]
    np.testing.assert_allclose(np.divide(errors[1:], errors[:-1]), 0.5, atol=0.03)


def sleep_gradient(truth):
    """-d E_{p(x)} KL(p(z | x) || q(z | x)) / d phi: the sum over all z and all x."""
    probability = np.exp(truth.log_joint(truth.data)[0])
    return np.einsum("sx,sxp->p", probability, truth.log_q(truth.data)[1])


def repeated(model, x, count, seed):
    """Ascent directions of encoder and decoder [count, P] of as many seeds, in one graph."""

    def one(seed):
        computed = model.compute_gradients(x, seed)
        return -tf.concat([tf.reshape(g, [-1]) for g in (*computed.encoder, *computed.decoder)], axis=0)

    seeds = np.stack([np.full(count, seed), np.arange(count)], axis=1).astype(np.int32)
    return tf.function(lambda: tf.map_fn(one, seeds, fn_output_signature=tf.float64), autograph=False)().numpy()


def assert_mean(draws, expected):
    error = draws.std(axis=0, ddof=1) / len(draws) ** 0.5
    assert (np.abs(draws.mean(axis=0) - expected) <= 5 * error + 1e-15).all()  # Of a weight of x = 0 it is always 0.


@pytest.mark.parametrize("estimator", ["vimco", "ovis,auxiliary=2"])
def test_through_the_networks(truth, x, estimator, seed):
    _, *expected = exact(truth, x, BOUNDS["miwae"])
    draws = repeated(truth.model(of("miwae", estimator)), np.repeat(x, 20, axis=0), 200, seed)
    assert_mean(draws, np.concatenate(expected))


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"particle_chunk": 3}, {"backward_particles": 5}, {"jit_compile": True}])
def test_auxiliary_particles_go_along(truth, settings):
    """However gradients are computed: the same in chunks; of fewer particles, or of XLA's own draws, finite ones."""
    x = tf.constant(truth.data)
    models = [truth.model(of("miwae", "ovis,auxiliary=2")) for _ in range(2)]
    models[0].compile(jit_compile=False)
    models[1].compile(**settings)
    whole, other = (gradients_in_step(m, x, tf.constant([1, 2])) for m in models)
    assert whole.log_weights.shape == other.log_weights.shape == (M, K, len(x))
    if "particle_chunk" in settings:
        for one, two in zip((*whole.encoder, *whole.decoder), (*other.encoder, *other.decoder), strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-9, atol=1e-12)
    assert all(np.isfinite(g).all() for g in (*other.encoder, *other.decoder))


@pytest.mark.slow
def test_sleep_descends_kl_in_expectation_under_the_model(truth, x, seed):
    rows = np.repeat(x, 20, axis=0)
    asleep = repeated(truth.model(of("iwae", "wake", m=1, k=2, sleep=1.0)), rows, 200, seed)
    expected = sleep_gradient(truth)
    assert_mean(asleep[:, : len(expected)], expected)
    # Half awake is half of each, of the same noise.
    awake, half = (repeated(truth.model(of("iwae", "wake", m=1, k=2, sleep=s)), rows, 5, seed) for s in (0.0, 0.5))
    np.testing.assert_allclose(
        half[:, : len(expected)], (0.5 * awake + 0.5 * asleep[:5])[:, : len(expected)], rtol=1e-12, atol=1e-15
    )
    np.testing.assert_array_equal(half[:, len(expected) :], awake[:, len(expected) :])


def test_dreams_do_not_depend_on_how_a_batch_is_split(truth):
    model = truth.model(of("iwae", "wake", sleep=0.5))
    whole = dreams.draw(model, (0, 1), 0, 8, 8)
    part = dreams.draw(model, (0, 1), 3, 4, 8.0)
    for one, other in zip(whole, part, strict=True):
        np.testing.assert_array_equal(one[3:7], other)
    assert len(np.unique(whole.x, axis=0)) > 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"estimator": "vimco", "m": 1, "k": 1}, "takes its baseline from the other particles"),
        ({"estimator": "ovis", "m": 4, "k": 1, "encoder_bound": "miwae"}, "has 1 in a group at m=4, k=1"),
        ({"estimator": "ovis,gamma=2"}, "gamma must be in"),
        ({"estimator": "ovis,gamma=x"}, "gamma must be in"),
        ({"estimator": "ovis,auxiliary=1.5"}, "auxiliary must be an integer"),
        ({"estimator": "ovis,auxiliary=2,gamma=1"}, "Leave one out"),
        ({"estimator": "vimco,gamma=1"}, "Unknown setting of vimco"),
        ({"sleep": 1.5}, "sleep must be in"),
        ({"sleep": True}, "sleep must be in"),
    ],
)
def test_errors_say_what_to_do(arguments, message):
    with pytest.raises(ValueError, match=message):
        objectives.get("iwae", **arguments)


def test_auxiliary_log_weights_are_asked_for():
    with pytest.raises(ValueError, match="log weights of 2 auxiliary particles"):
        of("iwae", "ovis,auxiliary=2").particle_weights(tf.zeros([M, K, 1]))
    with pytest.raises(ValueError, match="or None for 0: received"):
        of("iwae", "vimco").particle_weights(tf.zeros([M, K, 1]), tf.zeros([2, 1]))


def test_a_particle_outside_the_support_leaves_vimco_its_numbers(seed):
    """Against numpy, one particle at a time: a log weight of minus infinity among finite ones."""
    log_weights = np.random.default_rng(seed).normal(size=[M, K, 2]).astype(np.float32)
    log_weights[1, 0, 0] = -np.inf
    flat = log_weights.reshape(-1, 2).astype(np.float64)

    def value(flat):
        return np.log(np.mean(np.exp(flat), axis=0))

    a = np.exp(flat) / np.exp(flat).sum(axis=0)
    expected = np.zeros_like(flat)
    for i in range(len(flat)):
        replaced = flat.copy()
        replaced[i] = np.delete(flat, i, axis=0).mean(axis=0)
        expected[i] = value(flat) - value(replaced) - a[i]
    score = of("iwae", "vimco").particle_weights(tf.constant(log_weights)).score
    np.testing.assert_allclose(np.reshape(score, flat.shape), expected, rtol=1e-4, atol=1e-5)


def test_an_estimator_that_could_not_be_found_again_is_refused():
    for name, path in (("half", (0.5, 0)), ("reparameterized", (1, -1))):
        with pytest.raises(ValueError, match=f"is not that of '{name}' in .*TABLE: add it there"):
            of("iwae", estimators.Linear(name, path=path, score=(0, 0)))


def test_configurations():
    for estimator in ("reinforce", "vimco", "ovis,gamma=0.5", "ovis,auxiliary=3"):
        objective = of("iwae", estimator, sleep=0.25)
        config = objective.get_config()
        assert config["estimator"] == estimator and objectives.Objective.from_config(config) == objective
    of_numpy = of("iwae", estimators.Ovis(gamma=np.float64(0.5), auxiliary=np.int64(0)))
    assert of_numpy.get_config()["estimator"] == "ovis,gamma=0.5"
    single = {"beta": np.float32(0.25), "sleep": np.float32(0.5)}
    json.dumps(objectives.get("ciwae", m=np.int64(2), k=3, **single).get_config())
    json.dumps(objectives.get("tvo", points=np.int64(4), beta_1=np.float32(0.5)).get_config())
    assert bounds.ImportanceWeighted(groups=np.int64(2)) == bounds.ImportanceWeighted(groups=2)
    old = {key: value for key, value in of("iwae", "wake").get_config().items() if key != "sleep"}
    assert objectives.Objective.from_config(old) == of("iwae", "wake")
    # The encoder follows no bound: one that could not give it a signal is no fault.
    assert objectives.get("rws", m=1, k=1, sleep=1).uses_score is False
