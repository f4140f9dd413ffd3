"""Relaxations of discrete latents: continuous ones, reparameterised, which tend to them as a temperature goes to 0.

Both live on the real line, where float32 has room at both ends: what a network is given of them is a number in (0, 1),
or a point of the simplex, which rounding takes to the edge. A ratio of densities does not depend on such coordinates,
nor does any bound.
"""

import math

import tensorflow as tf
from tensorflow_probability import distributions as tfd

from iwae_zoo.distributions import noise
from iwae_zoo.distributions.discrete import ByVariable, by_variable, joined
from iwae_zoo.distributions.moments import SampledMoments

__all__ = ["RelaxedBits", "RelaxedOneHots"]

# Logarithm of a sum of exponentials beyond which a density falls by its tangent: e^60 is far from the end of float32.
_STEEP = 60.0


class RelaxedBits(tfd.Independent):
    """Log odds of relaxed bits, independent over the last axis: z in R^D.

    z_d = (l_d + log u - log(1 - u)) / t,   u ~ Uniform(0, 1)
    log p(z) = sum_d log t - |r_d| - 2 softplus(-|r_d|),   r_d = l_d - t z_d

    sigmoid(z_d) is the binary Concrete variable, `tfd.RelaxedBernoulli`. For the same seed, z_d > 0 is the bit that
    `IndependentBits` draws.

    Args:
      logits: float tensor [..., D], l.
      temperature: float, t > 0.

    #### Examples
    >>> round(float(RelaxedBits(tf.zeros([1]), 2.0).log_prob([0.0])), 4)  # log(2 / 4)
    -0.6931

    #### References
    Maddison, Mnih, Teh. The Concrete Distribution. ICLR 2017, appendices B and C.3. https://arxiv.org/abs/1611.00712
    Jang, Gu, Poole. Categorical Reparameterization with Gumbel-Softmax. ICLR 2017. https://arxiv.org/abs/1611.01144
    """

    samples_by_row = seeds_by_row = True

    def __init__(self, logits, temperature, name="RelaxedBits"):
        parameters = dict(locals())
        self._logits = tf.convert_to_tensor(logits)
        self._temperature = temperature
        scale = tf.constant(1.0 / temperature, self._logits.dtype)
        super().__init__(tfd.Logistic(self._logits * scale, scale), reinterpreted_batch_ndims=1, name=name)
        self._parameters = parameters

    def _log_prob(self, z, **kwargs):
        del kwargs
        distance = tf.abs(self._logits - self._temperature * tf.convert_to_tensor(z))
        constant = math.log(self._temperature) * self.event_shape.num_elements()
        return constant - tf.reduce_sum(distance + 2.0 * tf.math.softplus(-distance), axis=-1)

    def _sample_n(self, n, seed=None, first_row=0):
        uniform = noise.for_draws(noise.inner_uniform, self, n, seed, first_row)
        return (self._logits + tf.math.log(uniform) - tf.math.log1p(-uniform)) / self._temperature


class RelaxedOneHots(ByVariable, SampledMoments):
    """Logits of G relaxed variables of C classes each: z in R^(G C).

    z_g = v_g - logsumexp(v_g) + log sum_c e_gc,   v_gc = (l_gc - log e_gc) / t,   e_gc ~ Exponential(1)
    log p(z) = sum_g (C - 1) log t + sum_c r_gc - C logsumexp(r_g) + C s_g - exp(s_g),
               r_g = l_g - t z_g,   s_g = logsumexp(z_g)

    softmax(z_g) is the Concrete variable, `tfd.RelaxedOneHotCategorical`. It has a dimension less than z_g: the other
    one, s_g, is the logarithm of a Gamma variable, independent of it and the same whatever the logits and the
    temperature are. So it cancels in every ratio of densities, and z has a density on all of R^(G C). For the same
    seed, the largest of z_g is the class that `OneHots` draws.

    Args:
      logits: float tensor [..., G, C], l.
      temperature: float, t > 0.

    #### References
    Maddison, Mnih, Teh. The Concrete Distribution. ICLR 2017, section 3.1 and appendix C.3.
    https://arxiv.org/abs/1611.00712
    Jang, Gu, Poole. Categorical Reparameterization with Gumbel-Softmax. ICLR 2017. https://arxiv.org/abs/1611.01144
    """

    samples_by_row = seeds_by_row = True

    def __init__(self, logits, temperature, name="RelaxedOneHots"):
        parameters = dict(locals())
        self._logits = tf.convert_to_tensor(logits)
        self._temperature = temperature
        super().__init__(
            dtype=self._logits.dtype,
            reparameterization_type=tfd.FULLY_REPARAMETERIZED,
            validate_args=False,
            allow_nan_stats=True,
            parameters=parameters,
            name=name,
        )

    def _log_prob(self, z):
        size, classes = self._logits.shape[-2:]
        z = by_variable(tf.convert_to_tensor(z), classes)
        residual = self._logits - self._temperature * z
        # As differences from the largest, which large numbers do not cancel in.
        residual -= tf.stop_gradient(tf.reduce_max(residual, axis=-1, keepdims=True))
        shift = tf.reduce_logsumexp(z, axis=-1)
        value = tf.reduce_sum(residual, axis=-1) - classes * tf.reduce_logsumexp(residual, axis=-1)
        # Where z is no draw of such a distribution the exponential would overflow: it goes on along its tangent.
        nearer = tf.minimum(shift, _STEEP)
        value += classes * shift - tf.exp(nearer) * (1.0 + shift - nearer)
        return size * (classes - 1) * math.log(self._temperature) + tf.reduce_sum(value, axis=-1)

    def _sample_n(self, n, seed=None, first_row=0):
        uniform = noise.for_draws(noise.inner_uniform, self, n, seed, first_row)
        exponential = by_variable(-tf.math.log(uniform), self._logits.shape[-1])
        value = (self._logits - tf.math.log(exponential)) / self._temperature
        total = tf.math.log(tf.reduce_sum(exponential, axis=-1, keepdims=True))
        value += total - tf.reduce_logsumexp(value, axis=-1, keepdims=True)
        return joined(value)
