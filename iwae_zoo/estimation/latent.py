"""How much of the latent space is used: active units, and the parts of the KL term."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from iwae_zoo._checks import checked_seed, integer
from iwae_zoo._precision import tensor_float_32
from iwae_zoo.distributions import moments
from iwae_zoo.model import examples, particles

__all__ = ["ACTIVE_VARIANCE", "LatentUse", "latent_use"]

# Variance of the posterior mean above which Burda et al. call a latent dimension active.
ACTIVE_VARIANCE = 0.01


class LatentUse(NamedTuple):
    """What the encoder tells about x, averaged over the examples that were given.

    Attributes:
      active_units: int, number of dimensions whose `mean_variance` is above 0.01.
      active_by_layer: tuple of int, the same for each stochastic layer, from x upwards; one number where none are
        stacked.
      mean_variance: float64 array [D], variance over the examples of the mean of q(z | x).
      kl: float, mean of KL(q(z | x) || p(z)), nats.
      kl_by_dimension: float64 array [D], nats, of sum `kl`; None unless q(z | x) and p(z) are both `tfd.Independent`
        over the dimensions.
      mutual_information: float, nats, of z and the index of the example; at most log N.
      aggregate_kl: float, KL(q(z) || p(z)) of the aggregate posterior q(z) = mean_n q(z | x_n), nats.
    """

    active_units: int
    active_by_layer: tuple[int, ...]
    mean_variance: np.ndarray
    kl: float
    kl_by_dimension: np.ndarray | None
    mutual_information: float
    aggregate_kl: float


@tensor_float_32(False)
def latent_use(model, x, num_samples=100, seed=0):
    """Active units, and the mean KL term with the two parts that it is made of.

    mean_n KL(q(z | x_n) || p(z)) = I(n; z) + KL(q(z) || p(z)),  q(z) = mean_n q(z | x_n)

    The left side is in closed form where TFP has one and by Monte Carlo otherwise. The right side is always by Monte
    Carlo, and its sum differs from the left side by the sampling error. I(n; z) is at most log N: with too few examples
    it stops there.

    Args:
      model: `ImportanceWeightedAutoencoder`.
      x: array [N, ...]; time grows with N^2.
      num_samples: int, number of draws of z for each example.
      seed: int.

    Returns:
      `LatentUse`.

    Raises:
      ValueError: on fewer than one sample, or an x that does not fit the model.

    #### Examples
    >>> from iwae_zoo.testing import LinearGaussian
    >>> exact = LinearGaussian.random(latent_size=2, data_size=3)
    >>> latent_use(exact.model("iwae"), exact.sample(10)).active_units
    2

    #### References
    Burda, Grosse, Salakhutdinov. Importance Weighted Autoencoders. ICLR 2016, section 5.2 (active units).
    https://arxiv.org/abs/1509.00519
    Hoffman, Johnson. ELBO surgery. NIPS workshop on advances in approximate Bayesian inference, 2016 (the two parts).
    """
    samples = integer("num_samples", num_samples, 1)
    x = examples.some(model, x)
    posterior, prior = model.encoder.posterior(x), model.prior.distribution()
    z = posterior.sample(samples, seed=particles.derive_seed(checked_seed(seed)))  # [S, N, D]

    def log_aggregate(z_of_one):
        log_q = tf.cast(posterior.log_prob(z_of_one[:, tf.newaxis]), tf.float64)  # [S, N]
        return tf.reduce_logsumexp(log_q, axis=1) - np.log(len(x))

    def log_aggregates(z_by_one):
        # One example's draws at a time: [S, N, D] numbers instead of [S, N, N, D].
        return tf.map_fn(log_aggregate, z_by_one, fn_output_signature=tf.float64, parallel_iterations=1)

    z_by_one = tf.transpose(z, [1, 0, 2])
    # Traced for this call alone, of which TensorFlow would warn.
    traced = tf.function(log_aggregates, autograph=False).get_concrete_function(z_by_one)
    log_q_of_z = traced(z_by_one)  # [N, S]
    log_q = tf.transpose(tf.cast(posterior.log_prob(z), tf.float64))
    log_p = tf.transpose(tf.cast(prior.log_prob(z), tf.float64))
    by_dimension = _kl_by_dimension(posterior, prior, z)
    kl = np.mean(_kl(posterior, prior, z)) if by_dimension is None else by_dimension.sum()
    variance = np.var(np.asarray(moments.mean(posterior), np.float64), axis=0)
    active = variance > ACTIVE_VARIANCE
    ends = np.cumsum(getattr(posterior, "layer_sizes", (len(active),)))[:-1]
    return LatentUse(
        active_units=int(np.sum(active)),
        active_by_layer=tuple(int(np.sum(layer)) for layer in np.split(active, ends)),
        mean_variance=variance,
        kl=float(kl),
        kl_by_dimension=by_dimension,
        mutual_information=float(np.mean(log_q - log_q_of_z)),
        aggregate_kl=float(np.mean(log_q_of_z - log_p)),
    )


def _kl_by_dimension(posterior, prior, z):
    """float64 array [D], or None if one of the two does not factorise over the dimensions."""
    if not all(isinstance(d, tfd.Independent) and not d.distribution.event_shape.rank for d in (posterior, prior)):
        return None
    return np.mean(_kl(posterior.distribution, prior.distribution, z), axis=0)


def _kl(posterior, prior, z):
    """KL divergence of the batch members, float64 array, from the draws z [S, ...] if there is no closed form."""
    try:
        divergence = tfd.kl_divergence(posterior, prior)
    except NotImplementedError:
        divergence = tf.reduce_mean(posterior.log_prob(z) - prior.log_prob(z), axis=0)
    return np.asarray(divergence, np.float64)
