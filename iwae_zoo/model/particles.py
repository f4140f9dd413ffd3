"""Particles and their log weights: the one place that knows the axes.

    x            [B, ...]        examples
    z            [M, K, B, D]    M groups of K particles for each example
    log_weights  [M, K, B]       log p(x, z) - log q(z | x), nats

Seeds are stateless: a pair of integers determines the draw, whatever was drawn before.
"""

import tensorflow as tf
import tensorflow_probability as tfp

from iwae_zoo.distributions import Stacked, noise, philox

__all__ = ["abreast", "alone", "derive_seed", "draw", "log_joint", "log_weights", "takes_missing"]


def derive_seed(seed, *labels):
    """Returns the stateless seed [2] of a sub-stream of `seed`; of seeds by row, [B, 2], that of each.

    Args:
      seed: int, or int tensor [2] or [B, 2].
      *labels: ints or int tensors [], or [B] of seeds by row: the path to the sub-stream, such as (iteration, replica).
    """
    seed = tf.convert_to_tensor(seed)
    if seed.shape.rank == 0:
        seed = tf.stack([tf.zeros_like(seed), seed])
    for label in labels:
        if noise.is_by_row(seed):
            seed = philox.fold_in(seed, label)
            continue
        seed = tf.random.experimental.stateless_fold_in(seed, tf.cast(label, seed.dtype))
    return seed


def draw(posterior, m, k, seed, reparameterized=True, first_row=0, hold=None):
    """Draws particles from the encoder's distribution.

    Args:
      posterior: `tfd.Distribution`, batch [B], event [D].
      m: int, number of groups.
      k: int, number of particles in a group.
      seed: stateless seed, two integers.
      reparameterized: whether the gradient has to flow through the particles.
      first_row: int or int tensor [], the place of this batch's first row in the batch of which it is a part. Where the
        posterior's `sample` takes it (`samples_by_row`), rows get the same particles however that batch is split;
        otherwise other parts get other particles.
      hold: optional function of a distribution and particles that were drawn from it, which returns what stands in
        their place from there on. It is called once with all of z; for a `Stacked` posterior, with each layer and its
        distribution given the layer before it, whose networks are thus computed once for draw and density.

    Returns:
      float tensor [M, K, B, D].

    Raises:
      ValueError: if the posterior has other ranks, or cannot be reparameterised and has to be.
    """
    if posterior.event_shape.rank != 1 or posterior.batch_shape.rank != 1:
        raise ValueError(
            "encoder.posterior(x) must return a distribution with batch shape [B] and event shape [D]: received batch "
            f"shape {posterior.batch_shape} and event shape {posterior.event_shape}. tfd.Independent turns a batch "
            "axis into an event axis."
        )
    if reparameterized and posterior.reparameterization_type != tfp.distributions.FULLY_REPARAMETERIZED:
        raise ValueError(
            f"The objective's estimator needs reparameterised particles, and {posterior.name} cannot be "
            "reparameterised. Use a score-only estimator (estimator='vimco', 'ovis' or 'wake') or another posterior."
        )
    if isinstance(posterior, Stacked):
        return posterior.sample([m, k], seed=seed, first_row=first_row, hold=hold)
    if getattr(posterior, "samples_by_row", False):
        z = posterior.sample([m, k], seed=seed, first_row=first_row)
    else:
        z = _sampled(posterior, m, k, derive_seed(seed, first_row))
    return hold(posterior, z) if hold else z


def _sampled(posterior, m, k, seed):
    """Draws [M, K, B, D]; of a replica that a last batch has left without rows, none, which TFP's own cannot do."""

    def draw():
        return posterior.sample([m, k], seed=seed)

    if posterior.batch_shape[0] or tf.distribute.get_strategy().num_replicas_in_sync == 1:
        return draw()
    nothing = tf.zeros([m, k, 0, posterior.event_shape[0]], posterior.dtype)
    return tf.cond(posterior.batch_shape_tensor()[0] > 0, draw, lambda: nothing)


def takes_missing(decoder):
    """Whether values of x may be missing for a decoder, as NaN: log p is then that of the others."""
    return bool(getattr(decoder, "takes_missing", False))


def alone(decoder, x):
    """One example as a batch that no network chokes on.

    Args:
      decoder: layer with `likelihood(z)`.
      x: tensor [...], one example.

    Returns:
      (x [1, ...], whether it is what was received: bool tensor []); otherwise, where it holds infinity, or NaN that the
      decoder does not take for missing, zeros.
    """
    x, usable = abreast(decoder, x[tf.newaxis])
    return x, usable[0]


def abreast(decoder, x):
    """As `alone`, of a batch [B, ...]: (x [B, ...], bool tensor [B])."""
    numbers = tf.cast(x, tf.float32)
    wrong = tf.math.is_inf(numbers) if takes_missing(decoder) else ~tf.math.is_finite(numbers)
    usable = ~tf.reduce_any(wrong, axis=list(range(1, numbers.shape.rank)))
    return tf.where(tf.reshape(usable, [-1, *[1] * (numbers.shape.rank - 1)]), x, tf.zeros_like(x)), usable


def log_joint(decoder, prior, x, z):
    """log p(x, z) = log p(x | z) + log p(z).

    Args:
      decoder: layer with `likelihood(z)`.
      prior: layer with `distribution()`.
      x: tensor [B, ...].
      z: float tensor [..., B, D].

    Returns:
      float tensor [..., B], nats.
    """
    likelihood = decoder.likelihood(z)
    if likelihood.batch_shape.rank is not None and likelihood.batch_shape.rank != z.shape.rank - 1:
        raise ValueError(
            f"decoder.likelihood(z) must return a distribution with batch shape {z.shape[:-1]} for z of shape "
            f"{z.shape}: received batch shape {likelihood.batch_shape} and event shape {likelihood.event_shape}. "
            "tfd.Independent turns batch axes into event axes."
        )
    return _log_prob(likelihood, x) + prior.distribution().log_prob(z)


def _log_prob(likelihood, x):
    """log p(x | z); of a distribution of integers, minus infinity where x holds others."""
    x, numbers = tf.convert_to_tensor(x), tf.cast(x, likelihood.dtype)
    log_prob = likelihood.log_prob(numbers)
    if not (likelihood.dtype.is_integer and x.dtype.is_floating):
        return log_prob
    event = list(range(-likelihood.event_shape.rank, 0))
    holds = tf.reduce_all(tf.cast(numbers, x.dtype) == x, axis=event)
    return tf.where(holds, log_prob, tf.constant(float("-inf"), log_prob.dtype))


def log_weights(encoder, decoder, prior, x, m, k, seed, first_row=0):
    """Draws M K particles for each example and weighs them: no gradients, see the model for those.

    Args:
      encoder: layer with `posterior(x)`.
      decoder: layer with `likelihood(z)`.
      prior: layer with `distribution()`.
      x: float tensor [B, ...].
      m: int, number M of groups.
      k: int, number K of particles in a group.
      seed: stateless seed, two integers.
      first_row: int or int tensor [], index of the first example in the global batch, by which noise is drawn.

    Returns:
      float tensor [M, K, B], nats.
    """
    posterior = encoder.posterior(x)
    z = draw(posterior, m, k, seed, reparameterized=False, first_row=first_row)
    return log_joint(decoder, prior, x, z) - posterior.log_prob(z)
