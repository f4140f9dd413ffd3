"""Counts: Poisson and negative binomial values, with or without more zeros."""

import dataclasses
import math

import numpy as np
import tensorflow as tf

from iwae_zoo.distributions import fitting, fusion
from iwae_zoo.distributions.stirling import beyond_stirling
from iwae_zoo.distributions.units import Standardized
from iwae_zoo.distributions.values import ValueLikelihood, limited, positive

__all__ = ["NegativeBinomial", "Poisson", "ZeroInflatedNegativeBinomial"]

# Logarithms of rates beyond which single precision ends.
_LEAST_LOG_RATE, _LARGEST_LOG_RATE = -1e4, 40.0
# Total that stands for a row without any count.
_NO_TOTAL = 1e-30
# Of a concentration over a rate, where derivatives of it are finite.
_LARGEST_RELATIVE = 1e9


@dataclasses.dataclass(frozen=True)
class _Counts(Standardized, ValueLikelihood):
    """What all counts have in common: the first parameter is the logarithm of the rate.

    Densities are taken relative to those at the rate that fits each count best, its own: of large counts, all that is
    left to compute are small numbers. What they are relative to does not depend on the parameters.

    Args:
      offset: whether rates are those of a row with the mean total of the training data, and a row's own go with its
        total. log p(x) is then that of x beside a total that was read off x, as single-cell models have it, and not
        normalised over x. Draws and means are those of a row of the mean total.
      total: float, that mean; `fitted` sets it.
      shift: of the columns of log(1 + x), as `Standardized`: what an encoder is given.
      scale: the same.
    """

    offset: bool = False
    total: float = 1.0

    kinds = ("count",)
    values = "whole numbers from 0"
    by_blocks = True

    def __post_init__(self):
        super().__post_init__()
        if self.offset and self.missing:
            raise ValueError("With offset=True a row's total is read off its counts, none of which may be missing.")

    @property
    def not_drawn(self):
        return "with offset=True it is that of x given the total of its own row" if self.offset else None

    def features(self, x):
        return self.standardized_features(tf.math.log1p(tf.nn.relu(x)))

    def holds(self, x):
        return (x >= 0.0) & tf.math.is_finite(x) & (x == tf.round(x))

    def statistics(self, x):
        """The count, its logarithm (0 for 0), and the logarithm of the row's total over the mean total."""
        offset = tf.zeros_like(x)
        if self.offset:
            total = tf.reduce_sum(x, axis=-1, keepdims=True)
            offset += tf.math.log(tf.maximum(total, _NO_TOTAL) / self.total)
        return tf.stack([x, tf.math.log(tf.maximum(x, 1.0)), offset], axis=-2)

    def _fitted(self, data):
        values = data.map(lambda block: np.asarray(block, np.float64))
        mean = values.mean()
        head = dataclasses.replace(self, total=float(np.sum(mean)) or 1.0, **self.of(values.map(np.log1p)))
        # No rate is 0: half a count might have been missed.
        rate = np.maximum(mean, 0.5 / len(values))
        return head._with_start(values, np.log(rate)[np.newaxis])

    def _with_start(self, values, start):
        return dataclasses.replace(self, start=start)


@fusion.fused
def _at_own_rate(x, r=None):
    """Log-probability of a count at the rate that fits it best, x itself; of a Poisson count where there is no r.

    Stirling's formula for each log-gamma leaves log(r / (2 pi x (x + r))) / 2 and what it misses: small numbers, where
    the log-gammas themselves are as large as x log x and cancel.
    """
    count = tf.maximum(x, 1.0)
    log_prob = -0.5 * tf.math.log(2.0 * math.pi * count) - beyond_stirling(count)
    if r is not None:
        log_prob += beyond_stirling(count + r) - beyond_stirling(r) - 0.5 * tf.math.log1p(count / r)
    return tf.where(x > 0.0, log_prob, 0.0)


def _log_rate(parameters, offset):
    return tf.clip_by_value(parameters[..., 0, :] + offset, _LEAST_LOG_RATE, _LARGEST_LOG_RATE)


@dataclasses.dataclass(frozen=True)
class Poisson(_Counts):
    """Independent Poisson counts from the logarithms of their rates.

    #### Examples
    >>> Poisson().fitted(np.array([[1.0], [3.0]])).independent().mean().numpy().round(6).tolist()
    [2.0]
    """

    name = "poisson"
    title = "Poisson"
    parameters_per_value = 1

    @staticmethod
    def log_density(statistics, parameters, shared):
        x, log_x, offset = tf.unstack(statistics, axis=-2)
        log_rate = _log_rate(parameters, offset)
        excess = log_rate - log_x
        return tf.where(x > 0.0, x * (excess - tf.math.expm1(excess)), -tf.exp(log_rate))

    @staticmethod
    def constant(x, shared):
        del shared
        return _at_own_rate(x)

    def information(self, statistics, parameters, shared):
        log_rate = _log_rate(parameters, statistics[..., 2, :])
        return [(log_rate, tf.exp(log_rate))]

    def value_mean(self, parameters, shared):
        return tf.exp(_log_rate(parameters, 0.0))

    def value_stddev(self, parameters, shared):
        return tf.exp(0.5 * _log_rate(parameters, 0.0))

    def value_draw(self, shape, seed, parameters, shared):
        return tf.random.stateless_poisson(shape, seed, self.value_mean(parameters, shared), parameters.dtype)


@dataclasses.dataclass(frozen=True)
class NegativeBinomial(_Counts):
    """Independent negative binomial counts: the variance is rate + rate^2 / r.

    The concentration r, one number for each column, is learned; where it is large, counts are Poisson's.
    """

    name = "negative_binomial"
    title = "negative binomial"
    parameters_per_value = 1
    shared_parameters = 1

    @staticmethod
    def log_density(statistics, parameters, shared):
        return _negative_binomial(statistics, parameters, shared)

    @staticmethod
    def constant(x, shared):
        return _at_own_rate(x, positive(shared[0]))

    def information(self, statistics, parameters, shared):
        log_rate = _log_rate(parameters, statistics[..., 2, :])
        return [(log_rate, _information(log_rate, positive(shared[0])))]

    def value_mean(self, parameters, shared):
        return tf.exp(_log_rate(parameters, 0.0))

    def value_stddev(self, parameters, shared):
        mean = self.value_mean(parameters, shared)
        return tf.sqrt(mean + tf.square(mean) / positive(shared[0]))

    def value_draw(self, shape, seed, parameters, shared):
        first, second = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
        r = positive(shared[0])
        rate = tf.exp(_log_rate(parameters, 0.0)) / r * tf.random.stateless_gamma(shape, first, r, dtype=r.dtype)
        return tf.random.stateless_poisson(shape, second, rate, r.dtype)

    def _with_start(self, values, start):
        shape = start.shape
        start, shared = np.reshape(start, (len(start), -1)), np.full([1, shape[-1]], 0.0)
        rows = values.sampled()
        rows = rows.reshape(len(rows), -1)
        start, shared = fitting.maximized(self, rows, np.ones([len(rows), 1]), start, shared)
        return dataclasses.replace(self, start=start.reshape(shape), shared_start=shared)


def _information(log_rate, r):
    """Fisher information of the logarithm of a negative binomial rate."""
    rate = tf.exp(log_rate)
    return rate / (1.0 + rate / r)


def _negative_binomial(statistics, parameters, shared):
    """x log(rate / x) - (x + r) log((r + rate) / (r + x)), relative to its value where the rate is x.

    That is r log(x / rate) - (x + r) log((r + rate) x / ((r + x) rate)), too.
    """
    x, log_x, offset = tf.unstack(statistics, axis=-2)
    return _relative(x, _log_rate(parameters, offset) - log_x, positive(shared[0]))


@fusion.custom_gradient
def _relative(x, excess, r):
    """The same of x [..., V], log(rate / x) [..., V] (of the rate alone for x = 0) and r [V]; no gradient by x."""
    rate, precision = tf.maximum(x, 1.0) * tf.exp(excess), 1.0 / (r + x)
    # x log(rate / x) grows with x, and r log(x / rate) with r: what is left of the larger would be rounding.
    swapped = (x > r) & (rate * _LARGEST_RELATIVE > r)
    relative = r / tf.where(swapped, rate, 1.0)
    missed = tf.where(x > 0.0, x * tf.math.expm1(excess), rate)  # rate - x
    ratio = tf.where(swapped, (1.0 + relative) * (x * precision), (r + rate) * precision)
    growth = tf.where(swapped, -relative, 1.0) * (missed * precision)
    # log(1 + growth) is that of a ratio; rounding a ratio loses most of a small growth, which is known better.
    log_growth = tf.math.log(ratio) + (growth - (ratio - 1.0)) / tf.maximum(ratio, 1.0)

    def gradient(upstream):
        slope = missed / (r + rate)
        # The sum over particles as a product with ones, which is faster.
        by_r = upstream * (slope - log_growth - tf.where(swapped, excess, 0.0))
        by_r = tf.reshape(by_r, [-1, tf.shape(upstream)[-1]])
        by_r = tf.matmul(tf.ones([1, tf.shape(by_r)[0]], by_r.dtype), by_r)[0]
        return None, -upstream * r * slope, by_r

    return tf.where(swapped, -r, x) * excess - (x + r) * log_growth, gradient


@fusion.custom_gradient
def _inflated(is_zero, gate, log_prob):
    """log(exp(gate) + p) for 0, log p for others, minus softplus(gate); gate and log p of one shape."""
    # Of both, the terms within [1, 2] share a logarithm.
    open_gate, excess = tf.nn.relu(gate), gate - log_prob
    from_zero, from_gate = tf.exp(-tf.abs(excess)), tf.exp(-tf.abs(gate))
    factor = tf.where(is_zero, 1.0 + from_zero, 1.0) / (1.0 + from_gate)

    def gradient(upstream):
        one, none = tf.ones_like(gate), tf.zeros_like(gate)
        lost = tf.where(is_zero, tf.where(excess > 0.0, one, from_zero) / (1.0 + from_zero), none)
        gone = tf.where(gate > 0.0, one, from_gate) / (1.0 + from_gate)
        return None, upstream * (lost - gone), upstream * (1.0 - lost)

    return tf.where(is_zero, tf.maximum(gate, log_prob), log_prob) - open_gate + tf.math.log(factor), gradient


@dataclasses.dataclass(frozen=True)
class ZeroInflatedNegativeBinomial(NegativeBinomial):
    """Independent negative binomial counts, some of which were lost and are 0.

    The second parameter of each value is the logit of that.
    """

    name = "zero_inflated_negative_binomial"
    title = "zero-inflated negative binomial"
    parameters_per_value = 2

    @staticmethod
    def log_density(statistics, parameters, shared):
        of_binomial = _negative_binomial(statistics, parameters, shared)
        gate = tf.broadcast_to(limited(parameters[..., 1, :]), tf.shape(of_binomial))
        return _inflated(statistics[..., 0, :] == 0.0, gate, of_binomial)

    def information(self, statistics, parameters, shared):
        ((log_rate, of_rate),) = super().information(statistics, parameters, shared)
        gate, r = limited(parameters[..., 1, :]), positive(shared[0])
        lost, kept = tf.sigmoid(gate), tf.sigmoid(-gate)
        # Of a count that was not lost: the probability of 0, whose score by the log rate is -of_rate.
        none = tf.exp(-r * tf.math.log1p(tf.exp(log_rate) / r))
        # Of those that are 0: the share that was lost.
        share = lost / tf.maximum(lost + kept * none, np.finfo(lost.dtype.as_numpy_dtype).tiny)
        by_rate, by_gate = kept * of_rate * (1.0 - none * of_rate * share), kept * lost * (1.0 - none) * share
        by_both = -kept * none * of_rate * share
        rows = [[by_rate, by_both], [by_both, by_gate]]
        return [(tf.stack([log_rate, gate], axis=-2), tf.stack([tf.stack(row, axis=-2) for row in rows], axis=-3))]

    def value_mean(self, parameters, shared):
        return tf.sigmoid(-limited(parameters[..., 1, :])) * super().value_mean(parameters, shared)

    def value_stddev(self, parameters, shared):
        kept = tf.sigmoid(-limited(parameters[..., 1, :]))
        mean = NegativeBinomial.value_mean(self, parameters, shared)
        variance = mean + tf.square(mean) / positive(shared[0])
        return tf.sqrt(kept * (variance + (1.0 - kept) * tf.square(mean)))

    def value_draw(self, shape, seed, parameters, shared):
        first, second = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
        drawn = super().value_draw(shape, first, parameters, shared)
        lost = tf.sigmoid(limited(parameters[..., 1, :]))
        return tf.where(tf.random.stateless_uniform(shape, second, dtype=lost.dtype) < lost, 0.0, drawn)

    def _with_start(self, values, start):
        return super()._with_start(values, np.concatenate([start, np.full_like(start, -2.0)]))
