"""Models with discrete and relaxed latents: what they are asked, against sums over every z and against quadrature."""

import contextlib
import itertools

import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf
from iwae_zoo.relaxation import discrete
from oracles import flat

from iwae_zoo import annealing, imputation, likelihood, networks, objectives, particles, presets
from iwae_zoo.distributions import posteriors
from iwae_zoo.estimation.latent import latent_use
from iwae_zoo.model.supports import check_latent

SIZE = 4
SBN = {"posterior": "bernoulli", "latent_size": (3, 2)}
CLASSES = {"posterior": "normal+categorical", "latent_size": (1, 3)}


def built(objective="rws", spread=0.5, **options):
    """A model of linear conditionals and random weights."""
    objective = objectives.get(objective, m=2, k=3)
    model = presets.build("plane", data_shape=(SIZE,), objective=objective, hidden_sizes=(), **options)
    rng = np.random.default_rng(0)
    model.set_weights([spread * rng.normal(size=w.shape) for w in model.get_weights()])
    return model


def binary(count):
    return (np.random.default_rng(1).random((count, SIZE)) < 0.5).astype("float32")


def affine(layer, z):
    """What the body of one dense layer gives, in numpy."""
    kernel, bias = layer.body.get_weights()
    return np.float64(z) @ kernel + bias


def bernoulli(x, logits):
    """log p(x) of the values that are not missing."""
    return np.nansum(scipy.stats.bernoulli(scipy.special.expit(logits)).logpmf(x), axis=-1)


def belief_network(model, x):
    """Every z [N, 5] of a sigmoid belief network, and log p(x, z) [N, B], in numpy."""
    z = np.array(list(itertools.product([0.0, 1.0], repeat=5)))
    log_joint = bernoulli(z[:, 3:], model.prior.first.parameters.numpy())
    log_joint += bernoulli(z[:, :3], affine(model.prior.conditionals[0], z[:, 3:]))
    decoded = affine(model.decoder, z[:, :3])[:, np.newaxis]
    seen = ~np.isnan(x)
    terms = scipy.stats.bernoulli(scipy.special.expit(decoded)).logpmf(np.where(seen, x, 0.0))
    return z, log_joint[:, np.newaxis] + np.sum(seen * terms, axis=-1)


@pytest.fixture(scope="module")
def sbn():
    return built(**SBN)


@pytest.mark.slow
def test_a_belief_network_is_the_sum_over_every_z(sbn):
    x = binary(5)
    z, log_joint = belief_network(sbn, x)
    received = particles.log_joint(
        sbn.decoder, sbn.prior, x, tf.repeat(tf.constant(z[:, np.newaxis], tf.float32), 5, 1)
    )
    np.testing.assert_allclose(received, log_joint, rtol=1e-4, atol=1e-4)
    q = sbn.encoder.posterior(x)
    np.testing.assert_allclose(
        tf.reduce_sum(tf.exp(q.log_prob(z[:, np.newaxis].astype("float32"))), axis=0), 1, rtol=1e-5
    )
    truth = scipy.special.logsumexp(log_joint, axis=0)
    answer = likelihood.estimate_log_prob(sbn, x, 20_000, method="auto")
    assert (np.abs(answer.log_prob - truth) < 5 * answer.standard_error + 1e-5).all()
    assert answer.standard_error.max() < 0.05
    assert set(answer.method) == {"importance"}
    with pytest.raises(ValueError, match="no distribution of a continuous z .* Use importance sampling"):
        likelihood.estimate_log_prob(sbn, x, 10, method="annealed")
    use = latent_use(sbn, x)
    assert len(use.active_by_layer) == 2 and np.isfinite([use.kl, use.mutual_information, use.aggregate_kl]).all()


def test_what_is_missing_is_the_sum_over_every_z():
    model = built(likelihood="bernoulli,missing=True", **SBN)
    x = binary(3)
    x[0, 1] = x[1, :2] = x[2] = np.nan
    z, log_joint = belief_network(model, x)
    weights = scipy.special.softmax(log_joint, axis=0)
    expected = np.einsum("nb,nv->bv", weights, scipy.special.expit(affine(model.decoder, z[:, :3])))
    filled = imputation.impute(model, x, num_samples=20_000, num_imputations=2)
    error = 1 / np.sqrt(filled.ess)[:, np.newaxis]  # Of a number between 0 and 1 more than its own.
    missing = np.isnan(x)
    assert (np.abs(filled.mean - expected) < 5 * error)[missing].all() and error.max() < 0.02
    truth = scipy.special.logsumexp(log_joint, axis=0)
    assert (np.abs(filled.log_prob - truth) < 5 * filled.standard_error + 1e-5).all()


def test_it_is_reconstructed_from_the_most_probable_bits(sbn):
    x = binary(6)
    probabilities = sbn.encoder.posterior(x).mean()[:, :3]
    np.testing.assert_allclose(probabilities, scipy.special.expit(affine(sbn.encoder.first, x)), rtol=1e-4)
    expected = scipy.special.expit(affine(sbn.decoder, np.round(probabilities)))
    np.testing.assert_allclose(sbn(x), expected, rtol=1e-4)


def test_a_class_above_a_normal_layer_is_the_quadrature():
    model = built(spread=0.3, **CLASSES)
    x = binary(5)
    prior = scipy.special.log_softmax(model.prior.first.parameters.numpy())
    loc, raw_scale = np.split(affine(model.prior.conditionals[0], np.eye(3)), 2, axis=-1)
    z = np.linspace(-30, 30, 6001)
    log_z = scipy.stats.norm(loc, np.log1p(np.exp(raw_scale)) + 1e-4).logpdf(z) + prior[:, np.newaxis]
    log_z = scipy.special.logsumexp(log_z, axis=0)
    log_x = bernoulli(x[:, np.newaxis], affine(model.decoder, z[:, np.newaxis]))
    truth = scipy.special.logsumexp(log_x + log_z, axis=1) + np.log(z[1] - z[0])
    answer = likelihood.estimate_log_prob(model, x, 20_000)
    assert (np.abs(answer.log_prob - truth) < 5 * answer.standard_error + 1e-5).all()
    assert answer.standard_error.max() < 0.05
    assert not annealing.is_possible(model)


@pytest.mark.slow
def test_the_bound_of_a_relaxed_model_is_its_own():
    """Of another temperature than the prior's, and of a z with a coordinate that says nothing."""
    options = {"posterior": "relaxed_categorical,temperature=0.5", "prior": "relaxed_categorical,temperature=0.9"}
    model = built("dreg", latent_size=2, **options)
    x = binary(4)
    first, second = model.prior.parameters.numpy()
    grid = np.linspace(-60, 60, 24_001)  # z_1 - z_2, which is Logistic.
    inside = scipy.special.expit(grid)
    log_x = bernoulli(x[:, np.newaxis], affine(model.decoder, np.stack([inside, 1 - inside], axis=-1)))
    log_z = scipy.stats.logistic((first - second) / 0.9, 1 / 0.9).logpdf(grid)
    truth = scipy.special.logsumexp(log_x + log_z, axis=1) + np.log(grid[1] - grid[0])
    for answer in (
        likelihood.estimate_log_prob(model, x, 20_000),
        annealing.estimate_log_prob(model, x, 20, 200, initial="prior", verbose=0),
    ):
        assert (np.abs(answer.log_prob - truth) < 5 * answer.standard_error + 1e-5).all()
        assert answer.standard_error.max() < 0.05


def test_from_relaxed_to_discrete(sbn):
    """The same weights, and then the belief network's log p(x)."""
    relaxed = built("dreg", posterior="relaxed_bernoulli,temperature=0.4", latent_size=(3, 2))
    np.testing.assert_array_equal(flat(relaxed.get_weights()), flat(sbn.get_weights()))
    z = np.random.default_rng(2).normal(size=(5, 3)).astype("float32")
    for layer, of_bits in ((relaxed.encoder.conditionals[0], z), (relaxed.prior.conditionals[0], z[:, :2])):
        logits = affine(layer, scipy.special.expit(of_bits))  # Layers, too, are given what is in (0, 1).
        np.testing.assert_allclose(layer.distribution(of_bits).mean(), logits / 0.4, rtol=1e-4, atol=1e-5)
    model = discrete(relaxed, objective="rws")
    assert (model.objective.name, model.objective.m, model.objective.k) == ("rws", 2, 3)
    x = binary(4)
    np.testing.assert_array_equal(model.log_weights(x, 2, 3, (1, 2)), sbn.log_weights(x, 2, 3, (1, 2)))
    classes = discrete(built("dreg", posterior="relaxed_bernoulli+relaxed_categorical,classes=3", latent_size=(2, 6)))
    heads = [classes.encoder.first.head, classes.encoder.conditionals[0].head, classes.prior.first.head]
    assert heads == [posteriors.Bernoulli(2), posteriors.Categorical(6, 3), posteriors.Categorical(6, 3)]
    assert (classes.decoder.latent, classes.prior.conditionals[0].given) == tuple(heads[:2])
    with pytest.raises(ValueError, match="No latent of the model is relaxed"):
        discrete(model)
    with pytest.raises(ValueError, match="'dreg' needs reparameterised particles"):
        discrete(relaxed, objective="dreg")
    with pytest.raises(ValueError, match="'standard_normal' of what 'relaxed_bernoulli' draws relaxes nothing"):
        discrete(presets.build("plane", data_shape=(4,), posterior="relaxed_bernoulli", prior="standard_normal"))
    relaxed.decoder.latent = None
    with pytest.raises(ValueError, match=r"is given z itself.*Decoder\(..., latent=head\)"):
        discrete(relaxed)


@pytest.mark.parametrize(
    "options", [SBN, CLASSES, {"posterior": "relaxed_categorical+bernoulli", "latent_size": (4, 3)}]
)
def test_a_part_draws_what_the_whole_draws(options):
    model = built(spread=0.3, **options)
    x = binary(6)
    whole = particles.draw(model.encoder.posterior(x), 2, 40, (3, 4), reparameterized=False)
    part = particles.draw(model.encoder.posterior(x[4:]), 2, 40, (3, 4), reparameterized=False, first_row=4)
    np.testing.assert_allclose(part, whole[:, :, 4:], rtol=1e-5, atol=1e-5)
    other = particles.draw(model.encoder.posterior(x[4:]), 2, 40, (3, 4), reparameterized=False, first_row=3)
    assert np.mean(np.any(other != whole[:, :, 4:], axis=-1)) > 0.3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"posterior": "bernoulli", "objective": "dreg"},
            r"'doubly_reparameterized' of the objective 'dreg' .* posterior 'bernoulli' are not.*\(wake.*\(rws",
        ),
        ({"posterior": "normal+categorical", "latent_size": (2, 3), "objective": "iwae"}, "posterior 'categorical'"),
        (
            {"posterior": "bernoulli", "prior": "standard_normal"},
            "'bernoulli' draws zeros and ones, and 'standard_normal' real numbers. Leave the prior out",
        ),
        ({"prior": "bernoulli"}, "'normal' draws real numbers, and 'bernoulli' zeros and ones"),
        (
            {"posterior": "normal+categorical", "latent_size": (2, 6), "prior": "categorical,classes=3"},
            "of layer 2 have different supports: 'categorical' draws one-hot vectors of 6 classes, and",
        ),
        (
            {"posterior": "normal+bernoulli"},
            "one posterior, or one for each of 1 stochastic layers .*'normal.bernoulli'",
        ),
    ],
)
def test_what_does_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        presets.build("plane", **{"data_shape": (SIZE,), "objective": "rws", **options})


def test_a_support_of_ones_own_has_derivatives_where_it_says_so():
    """Positive numbers, say: neither real nor discrete."""
    for reparameterized in (True, False):
        latent = (("gamma", "positive numbers", reparameterized),)
        check_latent(objectives.get("rws"), latent, latent)
        with contextlib.nullcontext() if reparameterized else pytest.raises(ValueError, match="a posterior 'gamma'"):
            check_latent(objectives.get("dreg"), latent, latent)


def test_layers_of_ones_own_fit_where_they_do_not_say_otherwise():
    """The supports of networks that do not tell are not compared; a layer that tells is, in its place."""
    model = built(**SBN)
    with pytest.raises(ValueError, match="of layer 2 .*'bernoulli' draws zeros and ones, and 'standard_normal'"):
        prior = networks.StackedPrior(networks.StandardNormalPrior(2), model.prior.conditionals)
        type(model)(model.encoder, model.decoder, prior, objective="rws")
