"""Gaussian latents with a covariance of their own for each row."""

import math

import tensorflow as tf
from tensorflow_probability import distributions as tfd

from iwae_zoo._shapes import shape_of
from iwae_zoo.distributions import noise

__all__ = ["FullNormal"]


class FullNormal(tfd.Distribution):
    """Gaussian variables with any covariance, L L^T.

    log p(z) = -|L^-1 (z - loc)|^2 / 2 - sum_d log L_dd - D log(2 pi) / 2, in nats

    It is `tfd.MultivariateNormalTriL` that inverts L once for each row, instead of solving with it for each particle,
    and draws by row, as `DiagonalNormal` does.

    Args:
      loc: float tensor [..., D].
      scale_tril: float tensor [..., D, D] of the same batch shape, lower triangular with a positive diagonal, L.

    #### Examples
    >>> round(float(FullNormal(tf.zeros([2]), tf.eye(2)).log_prob([0.0, 0.0])), 4)  # -log(2 pi)
    -1.8379
    """

    samples_by_row = seeds_by_row = True

    def __init__(self, loc, scale_tril, name="FullNormal"):
        parameters = dict(locals())
        self._loc, self._scale_tril = tf.convert_to_tensor(loc), tf.convert_to_tensor(scale_tril)
        super().__init__(
            dtype=self._loc.dtype,
            reparameterization_type=tfd.FULLY_REPARAMETERIZED,
            validate_args=False,
            allow_nan_stats=True,
            parameters=parameters,
            name=name,
        )

    def _event_shape(self):
        return self._loc.shape[-1:]

    def _event_shape_tensor(self):
        return tf.shape(self._loc)[-1:]

    def _batch_shape(self):
        return self._loc.shape[:-1]

    def _batch_shape_tensor(self):
        return tf.shape(self._loc)[:-1]

    def _log_prob(self, z):
        size = self._loc.shape[-1]
        identity = tf.eye(size, dtype=self.dtype)
        inverse = tf.linalg.triangular_solve(self._scale_tril, tf.broadcast_to(identity, tf.shape(self._scale_tril)))
        residual = _transform(inverse, z - self._loc)
        log_scale = tf.reduce_sum(tf.math.log(tf.linalg.diag_part(self._scale_tril)), axis=-1)
        return -0.5 * tf.reduce_sum(tf.square(residual), axis=-1) - log_scale - 0.5 * size * math.log(2.0 * math.pi)

    def _sample_n(self, n, seed=None, first_row=0):
        return self._loc + _transform(self._scale_tril, noise.for_draws(noise.normal, self, n, seed, first_row))

    def _mean(self):
        return self._loc

    def _covariance(self):
        return tf.matmul(self._scale_tril, self._scale_tril, transpose_b=True)

    def _variance(self):
        return tf.reduce_sum(tf.square(self._scale_tril), axis=-1)

    def _stddev(self):
        return tf.sqrt(self._variance())


def _transform(matrix, vectors):
    """The products of matrices [*b, D, D] with vectors [..., *b, D]: one matrix product for each matrix."""
    shape, axes = shape_of(vectors), matrix.shape.rank - 1
    products = tf.einsum("p...j,...ij->p...i", tf.reshape(vectors, [-1, *shape[-axes:]]), matrix)
    return tf.reshape(products, [*shape[:-axes], *shape_of(products)[1:]])
