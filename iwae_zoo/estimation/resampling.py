"""Draws from the posterior p(z | x) by sampling-importance-resampling from the encoder's q(z | x).

With K particles a draw has the distribution that the importance-weighted bound implicitly fits to the posterior. It is
the encoder's for K = 1 and tends to the posterior as K grows.
"""

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from iwae_zoo._checks import checked_seed, integer
from iwae_zoo._precision import tensor_float_32
from iwae_zoo._tracing import Networks, per_model, read_once
from iwae_zoo.distributions import likelihoods
from iwae_zoo.estimation.rows import checked_answers
from iwae_zoo.estimation.streaming import checked_counts, proposed
from iwae_zoo.model import examples, memory, particles

__all__ = ["resample", "sample_posterior"]


@tensor_float_32(False)
def sample_posterior(model, x, num_samples=1, num_particles=100, seed=0, chunk_size=None):
    """Draws z from the encoder, corrected towards the posterior by importance resampling.

    z = z_i with probability w_i / sum_k w_k,  w_k = p(x, z_k) / q(z_k | x),  z_1 ... z_K ~ q(z | x)

    Each draw has K particles of its own. Draws that shared their particles would repeat the heavy ones: they would not
    be independent, and not draws of the resampling distribution.

    Args:
      model: `ImportanceWeightedAutoencoder`.
      x: array [B, ...], finite.
      num_samples: int, number S of draws for each example; time grows with S K.
      num_particles: int, number K of particles for each draw; memory does not grow with it.
      seed: int. Draw s of example b comes from the sub-stream (`seed`, b, s), whatever the other examples are and
        however many draws there are.
      chunk_size: int, number of particles decoded at once, at most `num_particles`; None chooses. It changes which
        random numbers are drawn, nothing else.

    Returns:
      (z, ess): float array [S, B, D], of the dtype of the encoder's draws, and float64 array [B], the effective number
      of the K particles (Kong), averaged over the draws. An `ess` near 1 means that a few particles stand for the
      posterior, and that more of them would change the answer.

    Raises:
      ValueError: on a number out of range, an x of another shape, not finite or outside the likelihood's support (it
        has no posterior), or a model whose weights are NaN.

    #### Examples
    >>> from iwae_zoo.testing import LinearGaussian
    >>> exact = LinearGaussian.random(latent_size=2, data_size=3)
    >>> z, ess = sample_posterior(exact.model("iwae"), exact.sample(4), num_samples=3, num_particles=5)
    >>> z.shape, ess.round(3).tolist()  # The encoder is the posterior: all weights are the same.
    ((3, 4, 2), [5.0, 5.0, 5.0, 5.0])

    #### References
    Cremer, Morris, Duvenaud. Reinterpreting Importance-Weighted Autoencoders. ICLR workshop, 2017, Algorithm 1.
    https://arxiv.org/abs/1704.02916
    Kosiorek. What is wrong with VAEs? 2018, eq. 11-12.
    """
    num_samples = integer("num_samples", num_samples)
    num_particles, chunk_size = checked_counts(chunk_size, num_particles=num_particles)
    x, seed = examples.fitting(model, x), particles.derive_seed(checked_seed(seed))
    with memory.enough(model, 1, chunk_size, name="chunk_size"):
        z, ess = _batch_function(model, chunk_size)(x, num_samples, num_particles, seed)
    z, ess = z.numpy(), checked_answers(ess.numpy())
    rows = np.flatnonzero((ess == 0.0).any(axis=0))
    if len(rows):
        raise ValueError(
            f"x is outside the likelihood's support in {len(rows)} of {len(x)} examples, the first at row {rows[0]}: "
            f"these have no posterior. Of the likelihood, {likelihoods.support(model.decoder)}. Mend or remove them."
        )
    return z, ess.mean(axis=0)


def resample(networks, x, num_particles, seed, chunk_size):
    """One draw for one example, in a stream of particles; TensorFlow operations only, for graphs.

    The particle with the largest log weight plus independent standard Gumbel noise has been chosen with probability
    proportional to its weight, and a maximum can be kept while the particles pass by.

    Args:
      networks: anything with `encoder`, `decoder` and `prior`, such as a model.
      x: tensor [...], one example.
      num_particles: int tensor [], number K of particles.
      seed: stateless seed [2].
      chunk_size: int, particles decoded at once.

    Returns:
      (z [D], ess float64 []): NaN and 0 for an x that is not finite or outside the likelihood's support.

    #### References
    Maddison, Tarlow, Minka. A* Sampling. NIPS 2014, section 2 (the Gumbel-max trick). https://arxiv.org/abs/1411.0030
    """
    x, usable = particles.alone(networks.decoder, x)
    propose, prior = proposed(networks, x, chunk_size), networks.prior.distribution()
    noise = tfp.distributions.Gumbel(np.float64(0.0), np.float64(1.0))
    minus_infinity = tf.constant(-np.inf, tf.float64)

    def draw(start, log_sum, log_sum_of_squares, best_score, best_z):
        chunk_seed = particles.derive_seed(seed, start // chunk_size)
        z, log_q = propose(particles.derive_seed(chunk_seed, 0))  # [chunk, 1, D]
        log_weights = particles.log_joint(networks.decoder, networks.prior, x, z) - log_q
        wanted = tf.range(chunk_size) < num_particles - start
        log_weights = tf.where(wanted, tf.cast(log_weights[:, 0], tf.float64), minus_infinity)
        scores = log_weights + noise.sample([chunk_size], seed=particles.derive_seed(chunk_seed, 1))
        winner = tf.argmax(scores)
        better = scores[winner] > best_score
        return (
            tf.minimum(start + chunk_size, num_particles),
            tf.reduce_logsumexp(tf.concat([[log_sum], log_weights], axis=0)),
            tf.reduce_logsumexp(tf.concat([[log_sum_of_squares], 2.0 * log_weights], axis=0)),
            tf.where(better, scores[winner], best_score),
            tf.where(better, z[winner, 0], best_z),
        )

    nothing = tf.fill(prior.event_shape, tf.constant(np.nan, prior.dtype))
    _, log_sum, log_sum_of_squares, _, z = tf.while_loop(
        lambda start, *_: start < num_particles,
        draw,
        (tf.zeros_like(num_particles), minus_infinity, minus_infinity, minus_infinity, nothing),
        parallel_iterations=1,
    )
    supported = usable & ~(log_sum == minus_infinity)
    ess = tf.where(supported, tf.exp(2.0 * log_sum - log_sum_of_squares), tf.constant(0.0, tf.float64))
    return tf.where(supported, z, nothing), ess


@per_model
def _batch_function(model, chunk_size):
    """The traced function that draws for each example of a batch."""
    networks, weights = Networks.of(model), model.weights

    def batch(x, num_samples, num_particles, seed):
        count = tf.shape(x)[0]

        def one(i):
            # Example b's draw s is number s B + b.
            draw_seed = particles.derive_seed(seed, i % count, i // count)
            return resample(networks, x[i % count], num_particles, draw_seed, chunk_size)

        posterior = networks.encoder.posterior(x[:1])
        signature = (tf.TensorSpec(posterior.event_shape, posterior.dtype), tf.TensorSpec([], tf.float64))
        with read_once(weights):
            draws = tf.map_fn(one, tf.range(num_samples * count), fn_output_signature=signature)
        return [tf.reshape(part, tf.concat([[num_samples, count], tf.shape(part)[1:]], axis=0)) for part in draws]

    number = tf.TensorSpec([], tf.int32)
    signature = (tf.TensorSpec([None, *model.data_shape]), number, number, tf.TensorSpec([2], tf.int32))
    return tf.function(batch, input_signature=signature, autograph=False)
