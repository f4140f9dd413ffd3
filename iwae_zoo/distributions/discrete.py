"""Discrete latents: bits, and classes as one-hot vectors, with draws that do not depend on how a batch is split."""

import tensorflow as tf
from tensorflow_probability import distributions as tfd

from iwae_zoo._shapes import shape_of
from iwae_zoo.distributions import noise

__all__ = ["ByVariable", "IndependentBits", "OneHots", "by_variable", "joined"]


class IndependentBits(tfd.Independent):
    """Bits, independent over the last axis: z in {0, 1}^D, as floats.

    log p(z) = sum_d z_d l_d - softplus(l_d), in nats

    It is `tfd.Independent(tfd.Bernoulli(logits), 1)` with draws by row, as `DiagonalNormal` has them, and a `log_prob`
    that loses nothing at large logits: what it sums is 0 wherever z_d is the likelier of the two. Between 0 and 1,
    where no draw is, log p(z) is linear in z; that is what a gradient by z is of.

    Args:
      logits: float tensor [..., D], the log odds of a 1.

    #### Examples
    >>> bits = IndependentBits(tf.zeros([3]))
    >>> float(bits.log_prob([0.0, 1.0, 1.0]) / tf.math.log(0.5))
    3.0
    """

    samples_by_row = seeds_by_row = True

    def __init__(self, logits, name="IndependentBits"):
        parameters = dict(locals())
        self._logits = tf.convert_to_tensor(logits)
        base = tfd.Bernoulli(logits=self._logits, dtype=self._logits.dtype)
        super().__init__(base, reinterpreted_batch_ndims=1, name=name)
        self._parameters = parameters

    def point(self):
        """The most probable z, [..., D]."""
        return self.mode()

    def _log_prob(self, z, **kwargs):
        del kwargs
        positive = self._logits > 0.0
        # softplus(l) = relu(l) + softplus(-|l|); of |l| there is no derivative at 0.
        unlikely = tf.math.softplus(tf.where(positive, -self._logits, self._logits))
        residual = tf.cast(positive, self.dtype) - tf.convert_to_tensor(z)
        return -tf.reduce_sum(residual * self._logits, axis=-1) - tf.reduce_sum(unlikely, axis=-1)

    def _sample_n(self, n, seed=None, first_row=0):
        uniform = noise.for_draws(noise.inner_uniform, self, n, seed, first_row)
        return tf.cast(uniform > tf.sigmoid(-self._logits), self.dtype)


class ByVariable:
    """The shapes of a distribution of G variables of C values each, z [..., G C], that has `_logits` [..., G, C]."""

    _logits: tf.Tensor

    def _event_shape(self):
        return tf.TensorShape([self._logits.shape[-2] * self._logits.shape[-1]])

    def _event_shape_tensor(self):
        return tf.constant(self._event_shape().as_list())

    def _batch_shape(self):
        return self._logits.shape[:-2]

    def _batch_shape_tensor(self):
        return tf.shape(self._logits)[:-2]


class OneHots(ByVariable, tfd.Distribution):
    """G variables of C classes each, independent and one-hot: z in {0, 1}^(G C), as floats.

    log p(z) = sum_gc z_gc log softmax(l_g)_c, in nats

    Off the one-hot vectors log p(z) is linear in z. Draws are by row: of each variable the class with the largest
    logit after Gumbel noise.

    Args:
      logits: float tensor [..., G, C].

    #### Examples
    >>> float(OneHots(tf.zeros([1, 4])).log_prob([0.0, 0.0, 1.0, 0.0]) / tf.math.log(0.25))
    1.0
    """

    samples_by_row = seeds_by_row = True

    def __init__(self, logits, name="OneHots"):
        parameters = dict(locals())
        self._logits = tf.convert_to_tensor(logits)
        super().__init__(
            dtype=self._logits.dtype,
            reparameterization_type=tfd.NOT_REPARAMETERIZED,
            validate_args=False,
            allow_nan_stats=True,
            parameters=parameters,
            name=name,
        )

    def log_probabilities(self):
        """Float tensor [..., G C], of each class."""
        return joined(tf.nn.log_softmax(self._logits))

    def point(self):
        """The most probable z, [..., G C]."""
        return self.mode()

    def _log_prob(self, z):
        return tf.reduce_sum(tf.convert_to_tensor(z) * self.log_probabilities(), axis=-1)

    def _sample_n(self, n, seed=None, first_row=0):
        uniform = noise.for_draws(noise.inner_uniform, self, n, seed, first_row)
        gumbel = -tf.math.log(-tf.math.log(uniform))
        return self._largest(self._logits + by_variable(gumbel, self._logits.shape[-1]))

    def _largest(self, scores):
        return joined(tf.one_hot(tf.argmax(scores, axis=-1), scores.shape[-1], dtype=self.dtype))

    def _mode(self):
        return self._largest(self._logits)

    def _mean(self):
        return joined(tf.nn.softmax(self._logits))

    def _variance(self):
        mean = self._mean()
        return mean * (1.0 - mean)

    def _stddev(self):
        return tf.sqrt(self._variance())


@tfd.RegisterKL(OneHots, OneHots)
def _kl(one, other, name=None):
    del name
    log_p = one.log_probabilities()
    return tf.reduce_sum(tf.exp(log_p) * (log_p - other.log_probabilities()), axis=-1)


def by_variable(values, classes):
    """[..., G C] as [..., G, C]."""
    return tf.reshape(values, [*shape_of(values)[:-1], values.shape[-1] // classes, classes])


def joined(classes):
    """[..., G, C] as [..., G C]."""
    size = classes.shape[-2] * classes.shape[-1]
    return tf.reshape(classes, [*shape_of(classes)[:-2], size])
