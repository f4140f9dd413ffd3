import json

import numpy as np
import pytest
import tensorflow as tf
from oracles import softmax, table

from iwae_zoo import bounds, estimators, objectives

M, K, B = 2, 3, 4


@pytest.mark.parametrize("name", objectives.names())
def test_particle_weights_are_the_tables(name, seed):
    log_weights = np.random.default_rng(seed).normal(size=(M, K, B))
    weights = objectives.get(name, m=M, k=K).particle_weights(log_weights)
    for received, expected in zip(weights, table(name, log_weights), strict=True):
        np.testing.assert_allclose(received, expected, rtol=1e-10, atol=1e-14)


def test_derived_rows(seed):
    """Doubly reparameterised MIWAE, CIWAE and VR-IWAE: path is a - a', with a' by hand."""
    log_weights = np.random.default_rng(seed).normal(size=(M, K, B))
    wt = softmax(log_weights, 1)
    flat = softmax(log_weights.reshape(M * K, -1), 0).reshape(log_weights.shape)
    s = softmax(0.7 * log_weights.reshape(M * K, -1), 0).reshape(log_weights.shape)

    def path(name, **options):
        return (
            objectives.get(name, m=M, k=K, estimator="doubly_reparameterized", **options)
            .particle_weights(log_weights)
            .path
        )

    np.testing.assert_allclose(path("miwae"), wt**2 / M, rtol=1e-9)
    np.testing.assert_allclose(path("ciwae", beta=0.2), 0.2 / (M * K) + 0.8 * flat**2, rtol=1e-9)
    np.testing.assert_allclose(path("vr_iwae", alpha=0.3), 0.3 * s + 0.7 * s**2, rtol=1e-9)


@pytest.mark.parametrize("name", objectives.names())
def test_configuration_round_trip(name):
    objective = objectives.get(name, m=M, k=K)
    assert objectives.Objective.from_config(json.loads(json.dumps(objective.get_config()))) == objective


@pytest.mark.slow
@pytest.mark.parametrize("name", objectives.names())
def test_graph_mode(name, seed):
    objective = objectives.get(name, m=M, k=K)
    log_weights = tf.constant(np.random.default_rng(seed).normal(size=(M, K, B)), tf.float32)
    spec = tf.TensorSpec([M, K, None])
    traced = tf.function(objective.particle_weights, input_signature=[spec], autograph=False)(log_weights)
    for eager, graph in zip(objective.particle_weights(log_weights), traced, strict=True):
        np.testing.assert_allclose(eager, graph, rtol=1e-6)


def test_free_combination():
    objective = objectives.get(
        "piwae", m=2, k=8, decoder_bound="vr_iwae", encoder_bound="combination", alpha=0.2, beta=0.1, estimator="wake"
    )
    assert objective.decoder_bound == bounds.VariationalRenyi(alpha=0.2)
    assert objective.encoder_bound == bounds.Combination(beta=0.1)
    assert objective.estimator is estimators.get("wake")
    own = bounds.ImportanceWeighted(groups=4)
    assert objectives.get("iwae", m=2, k=8, encoder_bound=own).encoder_bound is own


def test_aliases_and_identity():
    assert objectives.get("vae", m=1, k=1) == objectives.get("elbo", m=1, k=1)
    objective = objectives.get("iwae")
    assert objectives.get(objective) is objective
    assert (objective.m, objective.k) == (8, 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"identifier": "miwea"}, "Unknown objective: received 'miwea'. Did you mean 'miwae'"),
        ({"identifier": "iwae", "m": 0}, "m must be an integer of at least 1: received 0"),
        ({"identifier": "iwae", "k": -3}, "k must be an integer of at least 1: received -3"),
        ({"identifier": "iwae", "k": 2.5}, "k must be an integer of at least 1: received 2.5"),
        ({"identifier": "ciwae", "beta": -0.1}, "beta must be in"),
        ({"identifier": "vr_iwae", "alpha": 1.0}, "alpha must be in"),
        ({"identifier": "iwae", "beta": 0.5}, "beta=0.5 was given to the objective 'iwae'"),
        ({"identifier": "ciwae", "alpha": 0.5}, "alpha=0.5 was given to the objective 'ciwae'"),
        ({"identifier": "iwae", "estimator": "path"}, "Unknown gradient estimator: received 'path'"),
        ({"identifier": "iwae", "encoder_bound": "elob"}, "Did you mean 'elbo'"),
        ({"identifier": "elbo", "estimator": "wake"}, "would give the encoder no signal"),
        ({"identifier": "rws", "m": 1, "k": 1}, "would give the encoder no signal"),
        ({"identifier": "miwae", "k": 1, "estimator": "doubly_reparameterized_wake"}, "no signal"),
        ({"identifier": "iwae", "m": 2, "k": 4, "encoder_bound": bounds.ImportanceWeighted(groups=3)}, "groups=3"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        objectives.get(**arguments)


def test_swapped_axes_are_refused():
    with pytest.raises(ValueError, match=r"must have shape \[m=2, k=3, B\]: received shape \(3, 2, 4\)"):
        objectives.get("miwae", m=2, k=3).particle_weights(np.zeros((3, 2, 4)))


def test_overrides_of_a_ready_objective_are_refused():
    with pytest.raises(ValueError, match="is complete"):
        objectives.get(objectives.get("iwae"), estimator="wake")
