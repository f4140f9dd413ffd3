"""Intensities in [0, 1]: continuous Bernoulli and beta values."""

import dataclasses
import math

import numpy as np
import tensorflow as tf

from iwae_zoo._checks import below_half
from iwae_zoo.distributions import fitting
from iwae_zoo.distributions.stirling import beyond_stirling
from iwae_zoo.distributions.values import ValueLikelihood, limited, positive

__all__ = ["Beta", "ContinuousBernoulli"]

# Below, the normaliser of a continuous Bernoulli is its series, which a tenth power ends at rounding in float64.
_SMALL_LOGIT = 0.5
# Coefficients of l^2, l^4, ... in log(sinh(l / 2) / (l / 2)).
_SERIES = (1 / 24, -1 / 2880, 1 / 181440, -1 / 9676800, 1 / 479001600)
# A beta density may be infinite at 0 and 1: it is asked half a grey level inside.
_LEVELS = 256.0
# At which the variable, near 0 and 1, is narrower than a grey level.
_LARGEST_CONCENTRATION = 1e3
# Weight of uniform intensities beside the data.
_SMOOTHING = 1e-3


@dataclasses.dataclass(frozen=True)
class _Intensities(ValueLikelihood):
    kinds = ("intensity",)
    values = "numbers in [0, 1]"

    def holds(self, x):
        return (x >= 0.0) & (x <= 1.0)

    def features(self, x):
        return limited(x, 1e6)


@dataclasses.dataclass(frozen=True)
class ContinuousBernoulli(_Intensities):
    """Independent values in [0, 1] with density proportional to exp(logit x).

    log p(x) = logit x - log((exp(logit) - 1) / logit)

    Args:
      smoothing: float, how far the means of `fitted` are kept from 0 and 1.

    #### Examples
    >>> head = ContinuousBernoulli().fitted(np.array([[0.5], [0.5]]))
    >>> bool(abs(head.start[0, 0]) < 1e-9)  # The uniform distribution.
    True

    #### References
    Loaiza-Ganem, Cunningham. The continuous Bernoulli: fixing a pervasive error in variational autoencoders. NeurIPS
    2019. https://arxiv.org/abs/1907.06845
    """

    smoothing: float = 1e-2

    name = "continuous_bernoulli"
    title = "continuous Bernoulli"
    parameters_per_value = 1
    by_blocks = True

    def __post_init__(self):
        below_half("smoothing", self.smoothing)

    @staticmethod
    def log_density(statistics, parameters, shared):
        logit = limited(parameters[..., 0, :])
        square = tf.square(logit)
        # Odd and even parts: at 0, where the sign of the logit has no derivative, the series has one.
        near = 0.5 * logit + square * _polynomial(tf.minimum(square, _SMALL_LOGIT**2), _SERIES)
        size = tf.maximum(tf.abs(logit), _SMALL_LOGIT)
        far = tf.math.log(-tf.math.expm1(-size) / size)
        # From the end that is likelier: from 0, all digits of a large logit would be lost near 1.
        distance = tf.where(logit < _SMALL_LOGIT, statistics, statistics - 1.0)
        return distance * logit - tf.where(tf.abs(logit) < _SMALL_LOGIT, near, far)

    def information(self, statistics, parameters, shared):
        logit = limited(parameters[..., 0, :])
        return [(logit, tf.square(self.value_stddev(parameters, shared)))]

    def value_mean(self, parameters, shared):
        """1 / (1 - exp(-l)) - 1 / l, and its series around 0."""
        logit = limited(parameters[..., 0, :])
        derivative = [2.0 * (i + 1) * c for i, c in enumerate(_SERIES)]
        near = 0.5 + logit * _polynomial(tf.minimum(tf.square(logit), _SMALL_LOGIT**2), derivative)
        size = tf.maximum(tf.abs(logit), _SMALL_LOGIT)
        far = 1.0 / size - 1.0 / tf.math.expm1(size)
        return tf.where(tf.abs(logit) < _SMALL_LOGIT, near, tf.where(logit < 0, far, 1.0 - far))

    def value_stddev(self, parameters, shared):
        """Root of 1 / l^2 - 1 / (2 sinh(l / 2))^2, and its series around 0."""
        size = tf.abs(limited(parameters[..., 0, :]))
        square = tf.square(tf.minimum(size, 1.0))
        near = 1.0 / 12.0 - square * (1.0 / 240.0 - square * (1.0 / 6048.0 - square / 172800.0))
        size = tf.maximum(size, 1.0)
        shrunk = tf.exp(-size)
        far = 1.0 / tf.square(size) - shrunk / tf.square(1.0 - shrunk)
        return tf.sqrt(tf.where(size > 1.0, far, near))

    def value_draw(self, shape, seed, parameters, shared):
        """By the inverse of the distribution function of -|l|, log(1 + u (exp(-|l|) - 1)) / -|l|."""
        logit = limited(parameters[..., 0, :])
        uniform = tf.random.stateless_uniform(shape, seed, dtype=logit.dtype)
        size = tf.maximum(tf.abs(logit), 1e-3)
        near_zero = -tf.math.log1p(uniform * tf.math.expm1(-size)) / size
        drawn = tf.where(logit < 0, near_zero, 1.0 - near_zero)
        return tf.clip_by_value(tf.where(tf.abs(logit) < 1e-3, uniform, drawn), 0.0, 1.0)

    def _fitted(self, data):
        mean = np.clip(data.mean(dtype=np.float64), self.smoothing, 1.0 - self.smoothing)
        low, high = np.full_like(mean, -2.0 / self.smoothing), np.full_like(mean, 2.0 / self.smoothing)
        for _ in range(60):  # The mean grows with the logit.
            logit = 0.5 * (low + high)
            above = self.value_mean(tf.constant(logit.reshape(1, -1)), None).numpy().reshape(mean.shape) > mean
            low, high = np.where(above, low, logit), np.where(above, logit, high)
        return dataclasses.replace(self, start=(0.5 * (low + high))[np.newaxis])


def _polynomial(x, coefficients):
    """c_0 + c_1 x + c_2 x^2 + ... by Horner's rule."""
    result = tf.zeros_like(x)
    for coefficient in reversed(coefficients):
        result = result * x + coefficient
    return result


@dataclasses.dataclass(frozen=True)
class Beta(_Intensities):
    """Independent values in [0, 1] whose squeeze to [1/512, 511/512] is a beta variable.

    log p(x) = log Beta(y; a, b) + log(255 / 256),   y = (255 x + 1/2) / 256

    A beta density is 0 or infinite at 0 and 1, which grey values often are. It is asked half a grey level inside, so
    that each log p(x) is finite. What the beta variable has beyond is no part of p: over [0, 1] it integrates to less
    than 1, much less where 0 and 1 are frequent, and is never too high. Draws there are 0 or 1.

    #### References
    Smithson, Verkuilen. A Better Lemon Squeezer? Maximum-Likelihood Regression With Beta-Distributed Dependent
    Variables. Psychological Methods 11, 2006.
    """

    name = "beta"
    title = "beta"
    parameters_per_value = 2

    def statistics(self, x):
        squeezed = ((_LEVELS - 1.0) * x + 0.5) / _LEVELS
        return tf.stack([tf.math.log(squeezed), tf.math.log1p(-squeezed)], axis=-2)

    @staticmethod
    def log_density(statistics, parameters, shared):
        log_x, log_rest = tf.unstack(statistics, axis=-2)
        a, b = _concentrations(parameters)
        # Log-gammas are far larger than what their difference leaves: their large parts go with x.
        log_share, log_other = -tf.math.log1p(b / a), -tf.math.log1p(a / b)
        beyond = beyond_stirling(a) + beyond_stirling(b) - beyond_stirling(a + b)
        log_peak = 0.5 * (tf.math.log(a) + log_other - math.log(2.0 * math.pi)) - beyond
        return a * (log_x - log_share) + b * (log_rest - log_other) - log_x - log_rest + log_peak

    def information(self, statistics, parameters, shared):
        """Of the variable itself, not squeezed: trigamma(a) by a, the same by b, less trigamma(a + b) by a + b."""
        a, b = _concentrations(parameters)
        one = tf.ones_like(a)
        return [(c, sign * tf.math.polygamma(one, c)) for c, sign in ((a, 1.0), (b, 1.0), (a + b, -1.0))]

    def log_unit(self, size):
        return np.full(size, math.log1p(-1.0 / _LEVELS))

    def value_mean(self, parameters, shared):
        """Of the variable itself, brought back from the squeeze: what is beyond counts as it is."""
        a, b = _concentrations(parameters)
        return tf.clip_by_value(_unsqueezed(a / (a + b)), 0.0, 1.0)

    def value_stddev(self, parameters, shared):
        """Of the variable itself, as the mean."""
        a, b = _concentrations(parameters)
        mean = a / (a + b)
        return _LEVELS / (_LEVELS - 1.0) * tf.sqrt(mean * (1.0 - mean) / (a + b + 1.0))

    @property
    def not_drawn(self):
        return "draws are often exactly 0 or 1, of which it has the density half a grey level inside"

    def value_draw(self, shape, seed, parameters, shared):
        seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
        log_a, log_b = (_log_gamma_draw(shape, s, c) for s, c in zip(seeds, _concentrations(parameters), strict=True))
        return tf.clip_by_value(_unsqueezed(tf.sigmoid(log_a - log_b)), 0.0, 1.0)

    def _fitted(self, data):
        values = np.asarray(data, np.float64).reshape(len(data), -1)
        uniform = np.broadcast_to(np.linspace(0.0, 1.0, 256)[:, np.newaxis], (256, values.shape[1]))
        mean, variance = np.mean(values, axis=0), np.var(values, axis=0) + 1e-3
        mean = np.clip(mean, 0.01, 0.99)
        total = np.maximum(mean * (1.0 - mean) / variance - 1.0, 0.1)
        guess = np.stack([np.log(np.maximum(total * m, 0.01)) for m in (mean, 1.0 - mean)])
        rows = np.concatenate([uniform, values])
        weights = np.concatenate([np.full([256, 1], _SMOOTHING / 256), np.full([len(values), 1], 1.0 / len(values))])
        start, _ = fitting.maximized(self, rows, weights, guess, np.zeros([0, 1]))
        return dataclasses.replace(self, start=start.reshape(2, *np.shape(data)[1:]))


def _concentrations(parameters):
    return (positive(raw, _LARGEST_CONCENTRATION) for raw in tf.unstack(parameters, axis=-2))


def _unsqueezed(y):
    return (_LEVELS * y - 0.5) / (_LEVELS - 1.0)


def _log_gamma_draw(shape, seed, concentration):
    """Logarithm of a gamma variable, from one of a concentration above 1, as those of small ones underflow."""
    first, second = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
    uniform = 1.0 - tf.random.stateless_uniform(shape, second, dtype=concentration.dtype)
    larger = tf.random.stateless_gamma(shape, first, concentration + 1.0, dtype=concentration.dtype)
    return tf.math.log(larger) + tf.math.log(uniform) / concentration
