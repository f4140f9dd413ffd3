"""Two passes: in chunks the same gradients, through resampled particles the same in expectation."""

import numpy as np
import pytest
import tensorflow as tf
from oracles import flat

from iwae_zoo import gradients, objectives
from iwae_zoo.objectives import ParticleWeights

M, K = 2, 6
REGISTRY = pytest.mark.parametrize("name", objectives.names())


def model_of(linear_gaussian, name, dtype="float64", **settings):
    model = linear_gaussian.model(objectives.get(name, m=M, k=K), mismatch=0.4, dtype=dtype)
    model.compile(**settings)
    return model


@pytest.mark.slow
@REGISTRY
@pytest.mark.parametrize(("particle_chunk", "traced"), [(5, False), (1, True)])
@tf.autograph.experimental.do_not_convert  # AutoGraph would rewrite the loops over chunks.
def test_chunks_do_not_change_gradients(name, particle_chunk, traced, linear_gaussian):
    """Chunks that do not divide the particles, or one particle at a time in a graph."""
    x = linear_gaussian.sample(5)
    model = model_of(linear_gaussian, name)
    whole = model.compute_gradients(x, seed=(1, 2))
    model.compile(particle_chunk=particle_chunk)
    compute = model.compute_gradients
    if traced:
        signature = [tf.TensorSpec([None, 3], tf.float64), tf.TensorSpec([2], tf.int32)]
        compute = tf.function(compute, input_signature=signature, autograph=False)
    chunked = compute(x, seed=tf.constant([1, 2]))
    np.testing.assert_allclose(chunked.log_weights, whole.log_weights, rtol=1e-12)
    np.testing.assert_allclose(flat(chunked.encoder), flat(whole.encoder), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(flat(chunked.decoder), flat(whole.decoder), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["dreg", "rws"])
def test_a_last_chunk_may_be_filled(name, linear_gaussian):
    """Of a number of particles that has no divisor: what fills it changes nothing."""
    models = [linear_gaussian.model(objectives.get(name, m=1, k=7), mismatch=0.4, dtype="float64") for _ in range(2)]
    x, answers = linear_gaussian.sample(5), []
    for model, chunk in zip(models, (None, 4), strict=True):
        model.compile(particle_chunk=chunk)
        answers.append(tf.function(model.compute_gradients, autograph=False)(x, seed=tf.constant([1, 2])))
    for chunked, whole in zip(answers[1], answers[0], strict=True):
        np.testing.assert_allclose(flat(chunked), flat(whole), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("particle_chunk", "passes"), [(M * K - 1, 2), (M * K, 1), (1000, 1)])
def test_a_chunk_of_all_particles_is_decoded_once(particle_chunk, passes, linear_gaussian, monkeypatch):
    model = model_of(linear_gaussian, "iwae", particle_chunk=particle_chunk)
    decode, sizes = model.decoder.likelihood, []
    monkeypatch.setattr(model.decoder, "likelihood", lambda z: sizes.append(z.shape[0]) or decode(z))
    model.compute_gradients(linear_gaussian.sample(2), seed=(1, 2))
    assert sum(sizes) == passes * M * K


@pytest.mark.parametrize(("count", "size"), [(1, 1), (5, 4), (6, 6), (11, 6), (12, 12), (100, 12)])
def test_a_chunk_is_a_divisor(count, size):
    assert gradients._in_chunks(tf.zeros([12, 3, 2]), count).shape == (12 // size, size, 3, 2)


@pytest.mark.parametrize(("particles", "most", "chunks"), [(61, 60, (2, 31)), (101, 64, (2, 51)), (13, 6, (3, 5))])
def test_few_divisors_are_not_many_passes(particles, most, chunks):
    assert gradients._in_chunks(tf.zeros([particles, 2]), most).shape == (*chunks, 2)


@pytest.mark.parametrize("count", [1, 3, 11])
def test_resampled_weights_average_to_the_weights(count):
    """Systematic resampling has one uniform number for each example: the mean over a fine grid of it is exact."""
    rng = np.random.default_rng(0)
    decoder, path, score = rng.dirichlet(np.full(12, 0.3)), rng.normal(size=12), np.zeros(12)
    path[3] = score[3] = decoder[3] = 0.0
    decoder[5], path[5] = 0.0, 2.0
    grid = 200_000
    uniform = tf.constant((np.arange(grid) + 0.5) / grid)
    weights = [np.tile(w[:, np.newaxis], grid) for w in (decoder, path, score)]
    chosen, factor = gradients._resample(ParticleWeights(*map(tf.constant, weights)), count, uniform)
    assert chosen.shape == (count, grid, 2)
    for expected, weight in zip((decoder, path, score), weights, strict=True):
        mean = np.zeros(12)
        np.add.at(mean, chosen[..., 0].numpy(), factor.numpy() * tf.gather_nd(weight, chosen).numpy() / grid)
        np.testing.assert_allclose(mean, expected, atol=1e-4)
    assert np.isfinite(factor).all()
    assert not np.any(chosen[..., 0] == 3)


def test_resampling_at_the_edges():
    """The largest uniform number below 1, and a last particle without weight."""
    decoder = np.zeros((8, 2), "float32")
    decoder[0] = 1.0
    weights = ParticleWeights(*map(tf.constant, (decoder, decoder, 0 * decoder)))
    chosen, factor = gradients._resample(weights, 3, tf.constant([0.0, 1 - 2**-23], tf.float32))
    np.testing.assert_array_equal(chosen[..., 0], 0)
    np.testing.assert_allclose(factor, 1 / 3, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "particle_chunk", "backward"),
    [("elbo", None, 4), ("jvi", 2, 4), ("dreg", None, 4), ("rws", None, 4), ("iwae", None, 1)],
)
def test_resampled_gradients_are_unbiased(name, particle_chunk, backward, linear_gaussian, seed):
    """In each repeat many rows of the same few examples, which draw independently."""
    x = np.repeat(linear_gaussian.sample(4), 32, axis=0)
    whole = model_of(linear_gaussian, name)
    resampled = model_of(linear_gaussian, name, backward_particles=backward, particle_chunk=particle_chunk)

    @tf.function(autograph=False)
    def difference(i):
        pairs = [model.compute_gradients(x, tf.stack([i, seed])) for model in (whole, resampled)]
        tf.debugging.assert_equal(pairs[0].log_weights, pairs[1].log_weights)
        one, other = (tf.concat([tf.reshape(g, [-1]) for g in (*p.encoder, *p.decoder)], axis=0) for p in pairs)
        return one - other

    repeats = 100
    differences = tf.map_fn(difference, tf.range(repeats), fn_output_signature=tf.float64).numpy()
    error = differences.std(axis=0, ddof=1) / np.sqrt(repeats)
    varied = error > 0
    assert varied.any()
    assert np.abs(differences.mean(axis=0)[varied] / error[varied]).max() < 5


def test_one_backward_particle_of_the_iwae_is_burdas(linear_gaussian):
    """R = 1: one particle, with weight 1, drawn in proportion to its weight."""
    x = linear_gaussian.sample(3)
    model = model_of(linear_gaussian, "iwae", backward_particles=1)
    received = model.compute_gradients(x, seed=(1, 2))
    weights = tf.nn.softmax(tf.reshape(received.log_weights, [M * K, -1]), axis=0)
    uniform = tf.constant([0.2, 0.5, 0.9], tf.float64)
    chosen, factor = gradients._resample(ParticleWeights(weights, weights, -weights), 1, uniform)
    np.testing.assert_allclose(factor * tf.gather_nd(weights, chosen), 1.0, rtol=1e-12)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backward_particles": 0}, "backward_particles must be an integer of at least 1: received 0"),
        ({"backward_particles": 12}, "backward_particles must be below M K = 12: received 12"),
        ({"particle_chunk": 0}, "particle_chunk must be an integer of at least 1: received 0"),
        ({"particle_chunk": 2.5}, "particle_chunk must be an integer of at least 1: received 2.5"),
    ],
)
def test_errors(settings, message, linear_gaussian):
    with pytest.raises(ValueError, match=message):
        model_of(linear_gaussian, "iwae", **settings)
