"""Independent Student-t latents, reparameterised in all parameters, with draws by row."""

import math

import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability import distributions as tfd

from iwae_zoo.distributions import noise

__all__ = ["IndependentStudentT"]


class IndependentStudentT(tfd.Independent):
    """Student-t variables, independent over the last axis.

    z = loc + scale sqrt( df (u^(-2 / df) - 1) ) cos(2 pi v),   u, v ~ Uniform(0, 1)

    which is Box and Muller's transform where df is infinite. A draw is a smooth function of all three parameters.

    Args:
      df: float tensor [..., D], degrees of freedom, above 2 for a finite standard deviation.
      loc: float tensor [..., D].
      scale: positive float tensor [..., D].

    #### References
    Bailey. Polar Generation of Random Variates with the t-Distribution. Mathematics of Computation 62, 1994.
    """

    samples_by_row = seeds_by_row = True

    def __init__(self, df, loc, scale, name="IndependentStudentT"):
        parameters = dict(locals())
        super().__init__(tfd.StudentT(df, loc, scale), reinterpreted_batch_ndims=1, name=name)
        self._parameters = parameters

    def _sample_n(self, n, seed=None, first_row=0):
        t, batch, size = self.distribution, self.batch_shape_tensor(), self.event_shape[0]
        seed = tfp.random.sanitize_seed(seed)
        u, v = tf.split(noise.by_row(noise.uniform, n, batch, 2 * size, seed, first_row, self.dtype), 2, axis=-1)
        # 1 - u is in (0, 1]; at 1 the square root would have no derivative.
        log_u = tf.minimum(tf.math.log1p(-u), -1e-7)
        return t.loc + t.scale * tf.sqrt(t.df * tf.math.expm1(-2.0 * log_u / t.df)) * tf.cos(2.0 * math.pi * v)
