"""Binary data: independent Bernoulli pixels from logits, with a log-likelihood of few passes over the pixels."""

import dataclasses
import functools

import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from iwae_zoo._checks import below_half
from iwae_zoo._shapes import shape_of
from iwae_zoo.distributions import fusion, holes
from iwae_zoo.distributions.head import Likelihood

__all__ = ["Bernoulli", "IndependentBernoulli"]


@dataclasses.dataclass(frozen=True)
class Bernoulli(Likelihood):
    """Independent zeros and ones from logits; it starts at the logits of the means, as in the code of Burda et al.

    Args:
      smoothing: float, how far the means of `fitted` are kept from 0 and 1.

    #### Examples
    >>> head = Bernoulli().fitted(np.array([[0.0, 1.0], [1.0, 1.0]]))
    >>> head.start.round(2).tolist()  # The second mean is kept below 1.
    [[0.0, 6.91]]
    """

    smoothing: float = 1e-3

    name = "bernoulli"
    title = "Bernoulli"
    kinds = ("binary",)
    values = "0 and 1 only: binarise grey values"
    parameters_per_value = 1
    by_blocks = True

    def __post_init__(self):
        below_half("smoothing", self.smoothing)

    def distribution(self, parameters, event_ndims, dtype=None):
        return IndependentBernoulli(tf.squeeze(parameters, axis=-1 - event_ndims), event_ndims, dtype, self.missing)

    def holds(self, x):
        return _holds(x)

    def _fitted(self, data):
        mean = np.clip(data.mean(), self.smoothing, 1.0 - self.smoothing)
        return dataclasses.replace(self, start=(np.log(mean) - np.log1p(-mean))[np.newaxis])


class IndependentBernoulli(tfd.Independent):
    """Bernoulli variables from logits, independent over the event.

    log p(x) = sum_j x_j l_j - softplus(l_j) in nats, and minus infinity where some x_j is neither 0 nor 1.

    It is `tfd.Independent(tfd.Bernoulli(logits))` with a faster `log_prob`: `tfd.Bernoulli` evaluates softplus
    twice and masks, on an array of [particles, pixels], which alone can cost more than the matrix products.

    Args:
      logits: float tensor [..., *event].
      event_ndims: int, how many of the last axes are the event.
      dtype: of log-likelihoods and draws; that of the logits by default. Logits of a shorter type are widened within
        the one pass over them.
      missing: bool, whether values of x may be missing, as NaN; log p is then that of the others.

    #### Examples
    >>> float(IndependentBernoulli(tf.zeros([3]), event_ndims=1).log_prob([0.0, 1.0, 1.0]) / tf.math.log(0.5))
    3.0
    """

    def __init__(self, logits, event_ndims, dtype=None, missing=False, name="IndependentBernoulli"):
        parameters = dict(locals())
        self._logits = tf.convert_to_tensor(logits)
        dtype = tf.as_dtype(dtype or self._logits.dtype)
        super().__init__(
            tfd.Bernoulli(logits=tf.cast(self._logits, dtype), dtype=dtype),
            reinterpreted_batch_ndims=event_ndims,
            name=name,
        )
        self._parameters = parameters
        self._missing = missing

    @property
    def logits(self):
        """Float tensor [..., *event], the log odds of a 1."""
        return self._logits

    def class_probabilities(self):
        """Float tensor [..., *event, 2], the probabilities of 0 and 1."""
        logits = tf.cast(self._logits, self.dtype)
        return tf.sigmoid(tf.stack([-logits, logits], axis=-1))

    def information(self, x):
        """Pairs of parameters and their Fisher information, as those of `IndependentValues`."""
        observed = [~tf.math.is_nan(tf.cast(x, self.dtype))] if self._missing else []
        return [(self.distribution.logits_parameter(), holes.only(self.distribution.variance(), *observed))]

    def _log_prob(self, x, **kwargs):
        del kwargs
        event_ndims = self.event_shape.rank
        x = _flatten_event(tf.cast(x, self.dtype), event_ndims)
        observed = [~tf.math.is_nan(x)] if self._missing else []
        holds = _holds(x)
        x = tf.where(holds, x, tf.zeros_like(x))  # No gradient may be NaN: 0 * NaN is.
        log_prob = _log_likelihood(x, _flatten_event(self._logits, event_ndims), *observed)
        for seen in observed:
            holds |= ~seen
        return tf.where(tf.reduce_all(holds, axis=-1), log_prob, tf.constant(float("-inf"), log_prob.dtype))


def _holds(x):
    return (x == 0.0) | (x == 1.0)


def _flatten_event(x, event_ndims):
    batch = x.shape.rank - event_ndims
    pixels = x.shape[batch:].num_elements()
    return tf.reshape(x, [*shape_of(x)[:batch], -1 if pixels is None else pixels])


@fusion.custom_gradient
def _log_likelihood(x, logits, *observed):
    """Sum over the last axis of -softplus((1 - 2 x_j) l_j), which is log p(x_j) for x_j in {0, 1}.

    Args:
      x: float tensor [*b, P] of zeros and ones; it broadcasts against the logits and gets no gradient.
      logits: float tensor [..., *b, P], of the type of x or a shorter one.
      *observed: bool tensor [*b, P], which values the sum is over; none for all.
    """

    def gradient(upstream):
        return None, _log_likelihood_gradient(upstream, x, logits, *observed), *[None for _ in observed]

    return _log_likelihood_value(x, logits, *observed), gradient


@fusion.fused
def _log_likelihood_value(x, logits, *observed):
    """softplus(u) = max(u, 0) + log(1 + exp(-|u|)), and several factors in [1, 2] share one logarithm."""
    signed = holes.only((1.0 - 2.0 * x) * tf.cast(logits, x.dtype), *observed, otherwise=-np.inf)
    if fusion.is_portable():  # What is not fused gains nothing from more operations.
        return -tf.reduce_sum(tf.nn.softplus(signed), axis=-1)
    pixels = signed.shape[-1] or 1
    # At most 16, whose product is far from overflow; fastest with strips of whole vector registers.
    shared = max((n for n in range(1, 17) if pixels % n == 0), key=lambda n: (pixels // n % 8 == 0, n))
    strips = tf.unstack(tf.reshape(signed, [*shape_of(signed)[:-1], shared, -1]), axis=-2)
    linear = tf.add_n([tf.nn.relu(strip) for strip in strips])
    factors = functools.reduce(tf.multiply, [1.0 + tf.exp(-tf.abs(strip)) for strip in strips])
    return -tf.reduce_sum(linear + tf.math.log(factors), axis=-1)


@fusion.fused
def _log_likelihood_gradient(upstream, x, logits, *observed):
    residual = holes.only(x - tf.sigmoid(tf.cast(logits, x.dtype)), *observed)
    return tf.cast(residual * upstream[..., tf.newaxis], logits.dtype)
