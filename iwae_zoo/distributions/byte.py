"""Bytes: logistic variables rounded to 0, 1, ... 255, and mixtures of them, exact to the ends."""

import abc
import dataclasses
import functools
import math

import numpy as np
import tensorflow as tf

from iwae_zoo.distributions import fitting, fusion
from iwae_zoo.distributions.values import ValueLikelihood, limited, log_positive, positive

__all__ = ["DiscretizedLogistic", "DiscretizedLogisticMixture"]

# Bytes are -1 to 1 inside, as networks like them.
_HALF_RANGE = 127.5
_HALF_BIN = 0.5 / _HALF_RANGE
_LARGEST_SPREAD = 1e4
_FARTHEST = 1e6
# Weight of uniform bytes beside the data: what the training data never show may still occur.
_SMOOTHING = 1e-3


@dataclasses.dataclass(frozen=True)
class _Bytes(ValueLikelihood):
    """What one and several components have in common.

    #### References
    Salimans, Karpathy, Chen, Kingma. PixelCNN++. ICLR 2017, section 2.1. https://arxiv.org/abs/1701.05517
    """

    kinds = ("byte",)
    values = "whole numbers from 0 to 255"
    by_blocks = True

    @abc.abstractmethod
    def _guess(self, mean, stddev):
        """Parameters [parameters_per_value, V] for values of such means and standard deviations, in -1 to 1."""

    def information(self, statistics, parameters, shared):
        """The mean square of the score over all bytes, E[score score']."""
        logits, loc, raw = _unpacked(parameters)
        log_spread = log_positive(raw, _LARGEST_SPREAD)
        weights, precision = tf.nn.softmax(logits, axis=-2), tf.exp(-log_spread)
        edges = tf.reshape((tf.range(255, dtype=loc.dtype) + 0.5) / _HALF_RANGE - 1.0, [255, *[1] * loc.shape.rank])
        t = limited(edges - loc, _FARTHEST) * precision
        below, above = tf.sigmoid(t), tf.sigmoid(-t)
        between = below[1:] * above[:-1] * -tf.math.expm1(-2.0 * _HALF_BIN * precision)
        mass = tf.concat([below[:1], between, above[-1:]], axis=0)  # Of each byte, in each component.
        # Nothing changes at the ends of the outer bins, infinity.
        ends = [[1, 1], *[[0, 0]] * loc.shape.rank]
        at_edges = [tf.pad(slope * below * above, ends) for slope in (precision, t)]
        by_loc, by_log_spread = (slopes[:-1] - slopes[1:] for slopes in at_edges)
        total = tf.reduce_sum(weights * mass, axis=-2, keepdims=True)
        changes = [weights * change for change in (mass - total, by_loc, by_log_spread)]
        alone = loc.shape[-2] == 1
        values, changes = (tf.concat(v[alone:], axis=-2) for v in ([logits, loc, log_spread], changes))
        scores = changes * tf.math.rsqrt(tf.maximum(total, np.finfo(loc.dtype.as_numpy_dtype).tiny))
        return [(values, tf.einsum("x...iv,x...jv->...ijv", scores, scores))]

    def features(self, x):
        return limited(x / _HALF_RANGE - 1.0, 1e6)

    def holds(self, x):
        return (x >= 0.0) & (x <= 255.0) & (x == tf.round(x))

    def measures(self, log_prob, x):
        there = (x.size - np.isnan(x).sum()) / len(x)  # Values of an example; those that are missing tell nothing.
        return {"bits_per_dimension": -log_prob / (there * math.log(2.0))}

    def _fitted(self, data):
        values = data.map(lambda block: block.reshape(len(block), -1), data.dtype, [math.prod(data.shape[1:])])
        grid = np.arange(256.0)[:, np.newaxis]
        counts = sum(map(_counted, values.blocks()))
        weights = counts / len(values) + _SMOOTHING / 256.0
        mean, stddev = values.mean(), values.std()
        guess = self._guess(mean / _HALF_RANGE - 1.0, np.maximum(stddev / _HALF_RANGE, 2 * _HALF_BIN))
        grid = np.tile(grid, [1, values.shape[1]])
        start, _ = fitting.maximized(self, grid, weights, guess, np.zeros([0, 1]))
        return dataclasses.replace(self, start=start.reshape(-1, *data.shape[1:]))

    def value_mean(self, parameters, shared):
        """The sum of P(x > k) over k = 0 ... 254."""
        return self._summed(parameters, lambda k, below, above: above)

    def value_stddev(self, parameters, shared):
        """About a byte c near the mean, as squares are large: (x - c)^2 sums 2 |k + 1/2 - c| over k between."""
        mean = self.value_mean(parameters, shared)
        centre = tf.round(mean)

        def term(k, below, above):
            return 2.0 * tf.abs(k + 0.5 - centre) * tf.where(k < centre, below, above)

        return tf.sqrt(tf.maximum(self._summed(parameters, term) - tf.square(mean - centre), 0.0))

    def _summed(self, parameters, term):
        """The sum of a function of (k, P(x <= k), P(x > k)) over k = 0 ... 254."""
        weights, loc, spread = self._components_of(parameters)

        def add(total, k):
            t = ((k + 0.5) / _HALF_RANGE - 1.0 - loc) / spread
            below, above = (tf.reduce_sum(weights * tf.sigmoid(end), axis=-2) for end in (t, -t))
            return total + term(k, below, above)

        return tf.foldl(add, tf.range(255, dtype=loc.dtype), tf.zeros_like(loc[..., 0, :]))

    def value_draw(self, shape, seed, parameters, shared):
        weights, loc, spread = self._components_of(parameters)
        first, second = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
        loc, spread = (self._chosen(weights, numbers, shape, first) for numbers in (loc, spread))
        smallest = np.finfo(loc.dtype.as_numpy_dtype).tiny
        uniform = tf.random.stateless_uniform(shape, second, smallest, dtype=loc.dtype)
        drawn = loc + spread * (tf.math.log(uniform) - tf.math.log1p(-uniform))
        return tf.clip_by_value(tf.round((drawn + 1.0) * _HALF_RANGE), 0.0, 255.0)

    def _chosen(self, weights, numbers, shape, seed):
        """Those of a component of each value, drawn by the weights."""
        uniform = tf.random.stateless_uniform(shape, seed, dtype=weights.dtype)
        passed = uniform[..., tf.newaxis, :] >= tf.cumsum(weights, axis=-2)[..., :-1, :]
        component = tf.reduce_sum(tf.cast(passed, tf.int32), axis=-2)
        chosen = component[..., tf.newaxis, :] == tf.range(weights.shape[-2])[:, tf.newaxis]
        return tf.reduce_sum(tf.where(chosen, numbers, tf.zeros_like(numbers)), axis=-2)

    def _components_of(self, parameters):
        """Weights, locations and spreads [..., C, V]."""
        logits, loc, raw = _unpacked(parameters)
        return tf.nn.softmax(logits, axis=-2), loc, positive(raw, _LARGEST_SPREAD)


def _counted(values):
    """How often each byte is each value: int array [256, V] of values [N, V]."""
    return np.stack([np.bincount(column, minlength=256) for column in values.T.astype(np.int64)], axis=1)


def _unpacked(parameters):
    """Logits, locations and raw spreads [..., C, V] of parameters [..., 3 C, V], or of the last two alone."""
    if parameters.shape[-2] == 2:
        loc, raw = tf.split(parameters, 2, axis=-2)
        return tf.zeros_like(loc), loc, raw
    logits, loc, raw = tf.split(parameters, 3, axis=-2)
    return limited(logits), loc, raw


def _broadcast(*arrays):
    """The arrays in one shape, as functions with gradients by hand want them."""
    shape = functools.reduce(tf.broadcast_dynamic_shape, map(tf.shape, arrays))
    return [tf.broadcast_to(array, shape) for array in arrays]


@fusion.custom_gradient
def _log_bin(x, loc, raw):
    """Log-probability of a byte, which is that of its bin; the outer bins reach to infinity. All of one shape.

    With a and b the ends of the bin in spreads from the location, sigmoid(b) - sigmoid(a) is
    sigmoid(b) sigmoid(-a) (1 - exp(a - b)), without any difference of numbers that may be close; and the three factors
    share one logarithm. No gradient by x.
    """
    precision = tf.exp(-log_positive(raw, _LARGEST_SPREAD))
    centred = limited(x / _HALF_RANGE - 1.0 - loc, _FARTHEST)
    a, b, width = (centred - _HALF_BIN) * precision, (centred + _HALF_BIN) * precision, 2.0 * _HALF_BIN * precision
    ends = ((a, x > 0.0), (-b, x < 255.0))
    both = (x > 0.0) & (x < 255.0)
    mass = tf.where(both, _one_minus_exp(width), 1.0)
    # softplus(u) = max(u, 0) + log(1 + exp(-|u|))
    small = [tf.exp(-tf.abs(end)) for end, _ in ends]
    linear = tf.add_n([tf.where(inside, tf.nn.relu(end), 0.0) for end, inside in ends])
    below, above = (tf.where(inside, 1.0 + e, 1.0) for e, (_, inside) in zip(small, ends, strict=True))

    def gradient(upstream):
        of_a, of_b = (
            tf.where(inside, tf.where(end > 0.0, tf.ones_like(e), e) / (1.0 + e), 0.0)
            for e, (end, inside) in zip(small, ends, strict=True)
        )  # The sigmoids of a and -b.
        of_width = tf.where(both, width * (1.0 / mass - 1.0), 0.0)
        by_loc = upstream * precision * (of_a - of_b)
        by_raw = upstream * (a * of_a - b * of_b - of_width)
        near, within = tf.abs(centred) < _FARTHEST, log_positive(raw, _LARGEST_SPREAD) == raw
        return None, tf.where(near, by_loc, 0.0), tf.where(within, by_raw, 0.0)

    return tf.math.log(mass / (below * above)) - linear, gradient


def _one_minus_exp(t):
    """1 - exp(-t) for t from 0 to 100, by its series where it is a difference of numbers that are close."""
    series = 1.0
    for n in range(10, 1, -1):
        series = 1.0 - t * (series / n)
    return tf.where(t < 0.25, t * series, 1.0 - tf.exp(-t))


@fusion.custom_gradient
def _log_mixed(logits, log_probs):
    """log sum_c softmax(logits)_c exp(log_probs_c), of [..., C, V]."""
    logits -= _largest(logits)[..., tf.newaxis, :]  # What all have in common would cost digits.

    def gradient(upstream):
        def shares(values):
            return upstream[..., tf.newaxis, :] * tf.exp(values - tf.reduce_logsumexp(values, axis=-2, keepdims=True))

        by_log_probs = shares(logits + log_probs)
        return by_log_probs - shares(logits), by_log_probs

    return _log_sum_exp(logits + log_probs) - _log_sum_exp(logits), gradient


def _log_sum_exp(values):
    """Over C of [..., C, V], in terms that XLA computes once, where it would compute those of a reduction twice."""
    largest = _largest(values)
    return largest + tf.math.log(tf.add_n([tf.exp(term - largest) for term in tf.unstack(values, axis=-2)]))


def _largest(values):
    return functools.reduce(tf.maximum, tf.unstack(values, axis=-2))


@dataclasses.dataclass(frozen=True)
class DiscretizedLogistic(_Bytes):
    """Independent bytes: logistic variables, of which the byte is the nearest."""

    name = "discretized_logistic"
    title = "discretised logistic"
    parameters_per_value = 2

    @staticmethod
    def log_density(statistics, parameters, shared):
        return _log_bin(*_broadcast(statistics, *tf.unstack(parameters, axis=-2)))

    def _guess(self, mean, stddev):
        return np.stack([mean, np.log(math.sqrt(3.0) / math.pi * stddev)])


@dataclasses.dataclass(frozen=True)
class DiscretizedLogisticMixture(_Bytes):
    """Independent bytes: mixtures of discretised logistic variables.

    Args:
      components: int, 1 to 10.
    """

    components: int = 5

    name = "discretized_logistic_mixture"
    title = "mixture of discretised logistics"

    def __post_init__(self):
        if self.components not in range(1, 11):
            raise ValueError(f"components must be an integer from 1 to 10: received {self.components!r}.")

    @property
    def parameters_per_value(self):
        return 3 * self.components

    @staticmethod
    def log_density(statistics, parameters, shared):
        logits, loc, raw = _unpacked(parameters)
        return _log_mixed(*_broadcast(logits, _log_bin(*_broadcast(statistics[..., tf.newaxis, :], loc, raw))))

    def _guess(self, mean, stddev):
        """Components side by side, within two standard deviations."""
        places = 2.0 * (np.arange(self.components) + 0.5) / self.components - 1.0
        loc = mean + 2.0 * places[:, np.newaxis] * stddev
        raw = np.log(np.broadcast_to(stddev / self.components, loc.shape))
        return np.concatenate([np.zeros_like(loc), loc, raw])
