"""Independent Gaussian latents: fast draws that do not depend on how a batch is split, and a fast log-density."""

import math

import tensorflow as tf
from tensorflow_probability import distributions as tfd

from iwae_zoo.distributions import fusion, noise

__all__ = ["DiagonalNormal", "StandardNormal"]


class DiagonalNormal(tfd.Independent):
    """Gaussian variables, independent over the last axis.

    log p(z) = sum_d -(z_d - loc_d)^2 / (2 scale_d^2) - log scale_d - log(2 pi) / 2, in nats

    It is `tfd.Independent(tfd.Normal(loc, scale), 1)` with half the passes over the particles in `log_prob`: what does
    not depend on them is computed on the parameters alone. And the draws of a row depend on the seed and the index of
    that row, not on the other rows: `sample(shape, seed, first_row=100)` of ten rows is what `sample(shape, seed)` of
    the whole batch gives to its rows 100 to 109. With `first_row=None` all rows are drawn from the same numbers.

    Args:
      loc: float tensor [..., D].
      scale: positive float tensor [..., D].

    #### Examples
    >>> round(float(DiagonalNormal(tf.zeros([2]), tf.ones([2])).log_prob([0.0, 0.0])), 4)  # -log(2 pi)
    -1.8379
    """

    # `sample` takes `first_row`, and seeds [B, 2]; see `particles.draw` and `noise.takes_seeds_by_row`.
    samples_by_row = seeds_by_row = True

    def __init__(self, loc, scale, name="DiagonalNormal"):
        parameters = dict(locals())
        if loc.shape != scale.shape:
            loc, scale = loc + tf.zeros_like(scale), scale + tf.zeros_like(loc)
        super().__init__(tfd.Normal(loc, scale), reinterpreted_batch_ndims=1, name=name)
        self._parameters = parameters

    def _log_prob(self, z, **kwargs):
        del kwargs
        return _log_density(tf.convert_to_tensor(z), self.distribution.loc, self.distribution.scale)

    def _sample_n(self, n, seed=None, first_row=0):
        loc, scale = self.distribution.loc, self.distribution.scale
        return loc + scale * noise.for_draws(noise.normal, self, n, seed, first_row)


class StandardNormal(DiagonalNormal):
    """Independent standard Gaussian variables: a `DiagonalNormal` without what zeros and ones do not change.

    Args:
      size: int, number D of variables.
      dtype: of the variables.
    """

    def __init__(self, size, dtype=tf.float32, name="StandardNormal"):
        parameters = dict(locals())
        super().__init__(tf.zeros([size], dtype), tf.ones([size], dtype), name=name)
        self._parameters = parameters

    def _log_prob(self, z, **kwargs):
        del kwargs
        constant = 0.5 * math.log(2.0 * math.pi) * self.event_shape.num_elements()
        return -_half_square(tf.convert_to_tensor(z)) - constant


@fusion.custom_gradient
def _log_density(z, loc, scale):
    """Log-density with a gradient of few passes over z: sums come before whatever does not depend on z."""
    precision = 1.0 / scale
    residual = (z - loc) * precision

    def gradient(upstream):
        weighted = residual * upstream[..., tf.newaxis]
        by_scale = _sum_to(weighted * residual, scale) - _sum_to(upstream[..., tf.newaxis], scale)
        return _sum_to(weighted * -precision, z), _sum_to(weighted, loc) * precision, by_scale * precision

    normalizer = tf.reduce_sum(tf.math.log(scale) + 0.5 * math.log(2.0 * math.pi), axis=-1)
    return -0.5 * tf.reduce_sum(tf.square(residual), axis=-1) - normalizer, gradient


@fusion.custom_gradient
def _half_square(z):
    return 0.5 * tf.reduce_sum(tf.square(z), axis=-1), lambda upstream: z * upstream[..., tf.newaxis]


def _sum_to(gradient, source):
    """Sums a gradient over the axes along which its source was broadcast."""
    extra = gradient.shape.rank - source.shape.rank
    gradient = tf.reduce_sum(gradient, axis=list(range(extra))) if extra else gradient
    single = [i for i, size in enumerate(source.shape) if size == 1 != gradient.shape[i]]
    return tf.reduce_sum(gradient, axis=single, keepdims=True) if single else gradient
