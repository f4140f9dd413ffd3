import types

import numpy as np
import pytest
import tensorflow as tf

from iwae_zoo import particles, presets, resampling


def moments(z):
    """Mean [B, D] and covariance [B, D, D] over the draws of z [S, B, D]."""
    return z.mean(axis=0), np.array([np.cov(z[:, b].T) for b in range(z.shape[1])])


def assert_normal(z, mean, covariance):
    """z-tests of the first two moments of draws [S, B, D] against N(mean [B, D], covariance [D, D])."""
    count = len(z)
    received_mean, received_covariance = moments(z)
    variance = np.diag(covariance)
    assert np.abs((received_mean - mean) / np.sqrt(variance / count)).max() < 4.0
    error = np.sqrt((np.outer(variance, variance) + covariance**2) / count)
    assert np.abs((received_covariance - covariance) / error).max() < 4.0


def drawn_particles(model, x, num_particles, chunk_size, seeds):
    """The particles [S, K, D] and log weights [S, K] that one example's draws chose from."""
    x = tf.constant(x[np.newaxis], tf.float32)
    posterior = model.encoder.posterior(x)

    def one(seed):
        chunks = []
        for chunk in range(-(-num_particles // chunk_size)):
            chunks.append(posterior.sample([chunk_size], seed=particles.derive_seed(seed, chunk)))
        z = tf.concat(chunks, axis=0)[:num_particles]
        return z[:, 0], (particles.log_joint(model.decoder, model.prior, x, z) - posterior.log_prob(z))[:, 0]

    signature = (tf.float32, tf.float32)
    z, log_weights = tf.function(lambda s: tf.map_fn(one, s, fn_output_signature=signature), autograph=False)(seeds)
    return z.numpy(), log_weights.numpy().astype(np.float64)


def test_one_particle_is_the_encoder(linear_gaussian, seed):
    model = linear_gaussian.model("iwae", mismatch=0.5)
    x = linear_gaussian.sample(2, seed=seed)
    z, ess = resampling.sample_posterior(model, x, num_samples=2000, num_particles=1, seed=seed)
    posterior = model.encoder.posterior(x.astype(np.float32))
    assert_normal(z, posterior.mean().numpy(), posterior.covariance()[0].numpy())
    np.testing.assert_allclose(ess, [1.0, 1.0])


@pytest.mark.slow
def test_many_particles_are_the_posterior(linear_gaussian, seed):
    model = linear_gaussian.model("iwae", mismatch=0.5)
    x = linear_gaussian.sample(2, seed=seed)
    # Chunks that do not divide the particles.
    z, _ = resampling.sample_posterior(model, x, 2000, num_particles=1000, seed=seed, chunk_size=300)
    assert_normal(z, linear_gaussian.posterior_mean(x), linear_gaussian.posterior_covariance)


def test_few_particles_are_closer_than_the_encoder(linear_gaussian, seed):
    model = linear_gaussian.model("iwae", mismatch=0.5)
    x = linear_gaussian.sample(2, seed=seed)
    exact_mean, exact_covariance = linear_gaussian.posterior_mean(x), linear_gaussian.posterior_covariance
    posterior = model.encoder.posterior(x.astype(np.float32))
    z, _ = resampling.sample_posterior(model, x, 1000, num_particles=10, seed=seed)
    mean, covariance = moments(z)
    assert np.linalg.norm(mean - exact_mean) < 0.5 * np.linalg.norm(posterior.mean() - exact_mean)
    assert np.linalg.norm(covariance - exact_covariance) < 0.5 * np.linalg.norm(
        posterior.covariance() - exact_covariance
    )


@pytest.mark.slow
def test_choice_and_ess_are_those_of_the_weights(linear_gaussian, seed):
    """The chosen particle has its weight's probability, and the ESS is Kong's, over chunks of 3, 3 and 1."""
    model = linear_gaussian.model("iwae", mismatch=0.5)
    x = linear_gaussian.sample(3, seed=seed)
    row, count, size, chunk = 2, 500, 7, 3
    z, ess = resampling.sample_posterior(model, x, count, size, seed, chunk)
    seeds = tf.stack([particles.derive_seed(tf.constant([row, seed]), s) for s in range(count)])
    candidates, log_weights = drawn_particles(model, x[row], size, chunk, seeds)
    weights = np.exp(log_weights - log_weights.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(ess[row], (1 / np.sum(weights**2, axis=1)).mean(), rtol=1e-5)
    distance = np.abs(candidates - z[:, row, np.newaxis]).max(axis=2)  # [S, K]
    chosen = distance.argmin(axis=1)
    np.testing.assert_allclose(distance.min(axis=1), 0.0, atol=1e-5)
    for particle in range(size):
        p = weights[:, particle]
        assert abs(np.sum((chosen == particle) - p)) / np.sqrt(np.sum(p * (1 - p))) < 4.0, particle
    heaviest = weights.max(axis=1)
    hits = chosen == weights.argmax(axis=1)
    assert abs(np.sum(hits - heaviest)) / np.sqrt(np.sum(heaviest * (1 - heaviest))) < 4.0


def test_seed_determines_the_draws(linear_gaussian, seed):
    model = linear_gaussian.model("iwae", mismatch=0.5)
    x = linear_gaussian.sample(2, seed=seed)
    z, ess = resampling.sample_posterior(model, x, 3, 20, seed)
    again, ess_again = resampling.sample_posterior(model, x, 3, 20, seed)
    more, _ = resampling.sample_posterior(model, x, 5, 20, seed)
    other, _ = resampling.sample_posterior(model, x, 3, 20, seed + 1)
    np.testing.assert_array_equal(z, again)
    np.testing.assert_array_equal(ess, ess_again)
    np.testing.assert_array_equal(z, more[:3])
    assert len(np.unique(np.concatenate([more.ravel(), other.ravel()]))) == more.size + other.size


def test_row_does_not_depend_on_its_neighbours(seed):
    rng = np.random.default_rng(seed)
    model = presets.build("small", data_shape=(8, 8, 1))
    x = rng.binomial(1, 0.5, size=(4, 8, 8, 1)).astype(np.float32)
    others = x.copy()
    others[[0, 2, 3]] = rng.binomial(1, 0.2, size=(3, 8, 8, 1))
    z, ess = resampling.sample_posterior(model, x, 3, 30, seed)
    z_others, ess_others = resampling.sample_posterior(model, others, 3, 30, seed)
    z_fewer, ess_fewer = resampling.sample_posterior(model, x[:2], 3, 30, seed)
    np.testing.assert_array_equal(z[:, 1], z_others[:, 1])
    np.testing.assert_array_equal(z[:, :2], z_fewer)
    assert ess[1] == ess_others[1] == ess_fewer[1]
    assert z.shape == (3, 4, 16) and z.dtype == np.float32 and ess.shape == (4,)
    assert not np.array_equal(z[:, 0], z_others[:, 0])


def test_resample_in_a_graph_answers_for_any_x(seed):
    """A row that has no posterior is not an error in a graph, which may hold other clients' rows."""
    model = presets.build("small", data_shape=(8, 8, 1))
    networks = types.SimpleNamespace(encoder=model.encoder, decoder=model.decoder, prior=model.prior)

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([8, 8, 1]), tf.TensorSpec([], tf.int32)])
    def draw(x, num_particles):
        drawn = resampling.resample(networks, x, num_particles, particles.derive_seed(seed), 16, capacity=9)
        return drawn["z"], drawn["ess"]

    x = np.zeros((8, 8, 1), np.float32)
    z, ess = draw(x, 40)
    assert np.isfinite(z).all() and 1.0 <= ess <= 40.0
    for bad in (0.5, np.nan):
        x[0, 0, 0] = bad
        z, ess = draw(x, 40)
        assert np.isnan(z).all() and ess == 0.0


def test_bad_arguments(linear_gaussian, seed):
    model = linear_gaussian.model("iwae")
    x = linear_gaussian.sample(2, seed=seed)
    with pytest.raises(ValueError, match="num_samples must be an integer of at least 1: received 0"):
        resampling.sample_posterior(model, x, num_samples=0)
    with pytest.raises(ValueError, match=r"num_particles must be an integer of at least 1: received 2\.5"):
        resampling.sample_posterior(model, x, num_particles=2.5)
    with pytest.raises(ValueError, match="chunk_size must be at most num_particles: received chunk_size=9"):
        resampling.sample_posterior(model, x, num_particles=8, chunk_size=9)
    with pytest.raises(ValueError, match="Add a batch axis"):
        resampling.sample_posterior(model, x[0])
    model.encoder.bias.assign([np.nan, 0.0])
    with pytest.raises(ValueError, match="log weights are NaN"):
        resampling.sample_posterior(model, x)


def test_x_outside_the_support_is_named(seed):
    model = presets.build("small", data_shape=(8, 8, 1))
    x = np.zeros((3, 8, 8, 1), np.float32)
    x[1, 0, 0, 0] = 0.5
    with pytest.raises(ValueError, match="support in 1 of 3 examples, the first at row 1"):
        resampling.sample_posterior(model, x, seed=seed)
