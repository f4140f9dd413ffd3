"""Posteriors, priors and stacked layers with every objective: the gradients; `contract_test.py` has the rest."""

import functools
import itertools

import numpy as np
import pytest
import tensorflow as tf
from oracles import flat, naive_pass

from iwae_zoo import objectives, presets
from iwae_zoo.distributions import posteriors
from iwae_zoo.networks import prior as priors
from iwae_zoo.testing import StackedLinearGaussian

M, K = 2, 3
ONE = {"latent_size": 3, "hidden_sizes": ()}
TWO = {"latent_size": (3, 2), "hidden_sizes": ((), ())}
SMALL = {"coupling_flow": "coupling_flow,num_couplings=2"}
# What is discrete, or relaxes what is, has a prior of its own.
OWN_PRIORS = [q for q in posteriors.names() if posteriors.get(q, 2).prior != "standard_normal"]
PAIRS = [
    {**stack, "posterior": q, "prior": p}
    for q, p in itertools.product(posteriors.names(), priors.names())
    for stack in ([ONE, TWO] if p == "standard_normal" else [ONE])
    if not {q, p} & {*OWN_PRIORS}
]
PAIRS += [{**TWO, "posterior": q, "prior": q} for q in OWN_PRIORS]
MIXED = ("normal+categorical", "bernoulli+relaxed_bernoulli", "relaxed_categorical+coupling_flow")
PAIRS += [{**TWO, "posterior": q, "prior": None} for q in MIXED]


def followed(options):
    """Objectives that a posterior can follow."""
    heads = [posteriors.get(q, 2) for q in options["posterior"].split("+")]
    pathless = not all(head.reparameterized for head in heads)
    return [name for name in objectives.names() if not (pathless and objectives.get(name).estimator.uses_path)]


def title(options):
    return f"{options['posterior']}-{options['prior']}-{options['latent_size']}"


def built(options, objective, seed=0):
    objective = objectives.get(objective, m=M, k=K)
    small = {name: SMALL.get(options[name], options[name]) for name in ("posterior", "prior")}
    model = presets.build("plane", data_shape=(5,), objective=objective, seed=seed, **{**options, **small})
    rng = np.random.default_rng(seed)
    for variable in model.trainable_variables:  # Flows start as the identity.
        variable.assign_add(0.1 * rng.normal(size=variable.shape))
    return model


def binary(count):
    return (np.random.default_rng(0).random((count, 5)) < 0.4).astype("float32")


@pytest.mark.slow
@pytest.mark.parametrize("options", PAIRS, ids=title)
def test_gradients_are_those_of_two_naive_tapes(options):
    """Finite, the last of them in a graph."""
    x = binary(4)
    model = built(options, followed(options)[0])
    forward = functools.cache(functools.partial(naive_pass, model, x, (3, 4)))
    for name in followed(options):
        model.objective = objectives.get(name, m=M, k=K)
        encoder, decoder, log_weights = forward(model.objective.estimator.uses_path)(name)
        compute = model.compute_gradients
        if name == followed(options)[-1]:
            compute = tf.function(compute, autograph=False)
        received = compute(x, seed=(3, 4))
        assert received.log_weights.shape == (M, K, 4)
        np.testing.assert_allclose(received.log_weights, log_weights, rtol=1e-5, atol=1e-4)
        for ours, theirs in ((received.encoder, encoder), (received.decoder, decoder)):
            assert np.isfinite(flat(ours)).all()
            error = np.linalg.norm(flat(ours) - flat(theirs)) / np.linalg.norm(flat(theirs))
            assert error < 1e-5, name
    # Every weight of encoder, decoder and prior takes part.
    assert all(np.abs(g).max() > 0 for g in (*received.encoder, *received.decoder))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_two_tapes_of_two_layers_at_extreme_weights(dtype):
    """A likelihood so sharp that particles differ by hundreds of nats."""
    truth = StackedLinearGaussian.random(stddevs=(0.01, 0.8), seed=3)
    x = truth.sample(6, seed=4).astype(dtype)
    model = truth.model(mismatch=0.5, dtype=dtype)
    forward = functools.cache(functools.partial(naive_pass, model, x, (0, 1)))
    for name in objectives.names():
        model.objective = objectives.get(name, m=M, k=K)
        encoder, decoder, log_weights = forward(model.objective.estimator.uses_path)(name)
        assert np.ptp(log_weights.numpy().reshape(M * K, -1), axis=0).max() > 200
        received = model.compute_gradients(x, seed=(0, 1))
        for ours, theirs in ((received.encoder, encoder), (received.decoder, decoder)):
            assert np.isfinite(flat(ours)).all()
            error = np.linalg.norm(flat(ours) - flat(theirs)) / np.linalg.norm(flat(theirs))
            assert error < (1e-5 if dtype == "float32" else 1e-9), name
