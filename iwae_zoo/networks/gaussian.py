"""Independent Gaussian latents, with a log-density of few passes over the particles."""

import math

import tensorflow as tf
from tensorflow_probability import distributions as tfd

__all__ = ["DiagonalNormal"]


class DiagonalNormal(tfd.Independent):
    """Gaussian variables, independent over the last axis.

    log p(z) = sum_d -(z_d - loc_d)^2 / (2 scale_d^2) - log scale_d - log(2 pi) / 2, in nats

    It is `tfd.Independent(tfd.Normal(loc, scale), 1)` with half the passes over the particles: what does not depend on
    them is computed on the parameters alone.

    Args:
      loc: float tensor [..., D].
      scale: positive float tensor [..., D].

    #### Examples
    >>> round(float(DiagonalNormal(tf.zeros([2]), tf.ones([2])).log_prob([0.0, 0.0])), 4)  # -log(2 pi)
    -1.8379
    """

    def __init__(self, loc, scale, name="DiagonalNormal"):
        parameters = dict(locals())
        super().__init__(tfd.Normal(loc, scale), reinterpreted_batch_ndims=1, name=name)
        self._parameters = parameters

    def _log_prob(self, z, **kwargs):
        del kwargs
        loc, scale = self.distribution.loc, self.distribution.scale
        weight = math.sqrt(0.5) / scale
        normalizer = tf.reduce_sum(tf.math.log(scale) + 0.5 * math.log(2.0 * math.pi), axis=-1)
        return -tf.reduce_sum(tf.math.squared_difference(z * weight, loc * weight), axis=-1) - normalizer
