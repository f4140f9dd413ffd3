"""Real data: Normal, Student-t and Laplace values, standardised inside, with densities per unit of x."""

import abc
import dataclasses
import math
from typing import ClassVar

import numpy as np
import tensorflow as tf

from iwae_zoo._rows import Rows
from iwae_zoo.distributions import fitting
from iwae_zoo.distributions.units import Standardized
from iwae_zoo.distributions.values import FLOOR, ValueLikelihood, limited, log_positive, positive

__all__ = ["Laplace", "LogNormal", "Normal", "StudentT"]

# Least spread of a start, standardised: constant values would begin at a spread that nothing moves.
_LEAST_START = 0.03
# Logarithm of the most degrees of freedom, less 2, of a start: at their limit nothing would move them, and values whose
# own tails are light have heavy ones given z.
_MOST_FREEDOM = math.log(100.0)
# Means and draws of positive numbers stay finite: so far from the middle of the data, in logarithms, and single.
_FARTHEST_LOG, _LARGEST_LOG = 40.0, 85.0


@dataclasses.dataclass(frozen=True)
class _LocationScale(Standardized, ValueLikelihood):
    """Locations, and spreads that are learned or fixed; both standardised.

    Args:
      spread: "value" for a spread of each value, which depends on z as the location does; "column" for one of each
        column, the same whatever z; or a number, the same for all, in standard deviations of the column.
      shift: of the columns, as `Standardized`.
      scale: the same.
    """

    spread: str | float = "value"

    kinds = ("real",)
    values = "any finite number"
    # Besides the spread.
    _more_shared: ClassVar[int] = 0

    def __post_init__(self):
        super().__post_init__()
        if isinstance(self.spread, str | bool):
            known = self.spread in ("value", "column")
        else:
            known = 2 * FLOOR <= self.spread < math.inf
        if not known:
            raise ValueError(
                f"spread must be 'value', 'column' or a number of at least {2 * FLOOR}: received {self.spread!r}."
            )

    @abc.abstractmethod
    def _standard_information(self, shared):
        """Fisher information of the location and of the log spread at spread 1, which are orthogonal."""

    @abc.abstractmethod
    def _standard_draw(self, shape, seed, shared):
        """Draws at location 0 and spread 1: float tensor of `shape`, by a stateless seed."""

    @abc.abstractmethod
    def _location_and_spread_of(self, values):
        """Of the best single distribution, or a guess, for standardised data, `Rows` [N, ...]."""

    @property
    def parameters_per_value(self):
        return 2 if self.spread == "value" else 1

    @property
    def shared_parameters(self):
        return (self.spread == "column") + self._more_shared

    def completed(self, shared):
        if self.spread in ("value", "column"):
            return shared
        row = tf.fill([1, shared.shape[-1]], tf.constant(math.log(float(self.spread)), shared.dtype))
        return tf.concat([row, shared], axis=0)

    def features(self, x):
        return self.standardized_features(x)

    def holds(self, x):
        return tf.math.is_finite(x)

    def statistics(self, x):
        return limited(self.standardized(x))

    def information(self, statistics, parameters, shared):
        loc, log_spread = _location_and_log_spread(parameters, shared)
        of_loc, of_spread = self._standard_information(shared)
        pairs = [(loc, of_loc * tf.exp(-2.0 * log_spread)), (log_spread, of_spread * tf.ones_like(log_spread))]
        return pairs[: parameters.shape[-2]]  # A spread of a column is no function of z.

    def log_unit(self, size):
        return -self.log_scales(size)

    def value_mean(self, parameters, shared):
        return self.in_units(parameters[..., 0, :])

    def value_draw(self, shape, seed, parameters, shared):
        loc, log_spread = _location_and_log_spread(parameters, shared)
        return self.in_units(loc + tf.exp(log_spread) * self._standard_draw(shape, seed, shared))

    def _fitted(self, data):
        rows = Rows.of(data)
        head = dataclasses.replace(self, **self.of(rows))
        values = rows.map(lambda block: head.standardized(np.asarray(block, np.float64)))
        loc, spread = self._location_and_spread_of(values)
        spread = np.maximum(spread, _LEAST_START)
        start, shared = [loc], []
        if self.spread == "value":
            start.append(np.log(spread))
        elif self.spread == "column":
            shared.append(np.log(self._pooled(spread)))
        return head._with_start(values, np.stack(start), np.reshape(shared, (len(shared), values.shape[-1])))

    def _pooled(self, spread):
        """One spread for each column from those of its values."""
        return np.mean(spread, axis=tuple(range(spread.ndim - 1)))

    def _with_start(self, values, start, shared):
        return dataclasses.replace(self, start=start, shared_start=shared if len(shared) else None)


def _location_and_log_spread(parameters, shared):
    """Of each value; of the shared parameters a spread is the first."""
    return parameters[..., 0, :], log_positive(parameters[..., 1, :] if parameters.shape[-2] == 2 else shared[0])


def _spread(parameters, shared):
    return tf.exp(_location_and_log_spread(parameters, shared)[1])


def _residual(x, parameters, shared):
    """(x - location) / spread, and log spread."""
    loc, log_spread = _location_and_log_spread(parameters, shared)
    return limited(x - loc) * tf.exp(-log_spread), log_spread


@dataclasses.dataclass(frozen=True)
class Normal(_LocationScale):
    """Independent Gaussian values; its `fitted` is the maximum of the likelihood.

    #### Examples
    >>> head = Normal(spread="column").fitted(np.array([[1.0, 10.0], [3.0, 30.0]]))
    >>> head.shift, head.scale
    ((2.0, 20.0), (1.0, 10.0))
    >>> round(float(head.independent().log_prob([2.0, 20.0])), 4)  # -log(2 pi) - log(10)
    -4.1405
    """

    name = "normal"
    title = "Normal"
    by_blocks = True

    @staticmethod
    def log_density(statistics, parameters, shared):
        residual, log_spread = _residual(statistics, parameters, shared)
        return -0.5 * tf.square(residual) - log_spread - 0.5 * math.log(2.0 * math.pi)

    def value_stddev(self, parameters, shared):
        return self.in_units(_spread(parameters, shared), shifted=False)

    def _standard_information(self, shared):
        return 1.0, 2.0

    def _standard_draw(self, shape, seed, shared):
        return tf.random.stateless_normal(shape, seed, dtype=shared.dtype)

    def _location_and_spread_of(self, values):
        return values.mean(), values.std()

    def _pooled(self, spread):
        return np.sqrt(np.mean(np.square(spread), axis=tuple(range(spread.ndim - 1))))


@dataclasses.dataclass(frozen=True)
class LogNormal(Normal):
    """Independent positive values whose logarithms are Gaussian; `shift` and `scale` are those of the logarithms.

    #### Examples
    >>> head = LogNormal().fitted(np.array([[1.0], [math.e**2]]))
    >>> head.shift, head.scale
    ((1.0,), (1.0,))
    """

    name = "log_normal"
    title = "log-normal"
    kinds = ("positive",)
    values = "any finite number above 0"

    def features(self, x):
        return limited(self._standardized_log(x), 1e6)

    def holds(self, x):
        return (x > 0.0) & tf.math.is_finite(x)

    def statistics(self, x):
        return limited(self._standardized_log(x))

    def _standardized_log(self, x):
        """The logarithm, standardised. Near the middle of the data x is divided first: large logarithms lose digits."""
        plain = self.standardized(_log(x))
        if not self.shift:
            return plain
        shift, scale = (numbers.astype(np.float64) for numbers in self._tiled(x.shape[-1], tf.float64))
        dtype = x.dtype.as_numpy_dtype
        factor = np.exp(-np.clip(shift, -_LARGEST_LOG, _LARGEST_LOG)).astype(dtype)
        missed = np.log(factor.astype(np.float64)) + shift
        ratio = x * factor
        near = (ratio > 0.5) & (ratio < 2.0)
        divided = (tf.math.log(tf.where(near, ratio, 1.0)) - missed.astype(dtype)) / scale.astype(dtype)
        return tf.where(near, divided, plain)

    @staticmethod
    def constant(x, shared):
        """The derivative of the logarithm."""
        return -_log(tf.cast(x, tf.float64))

    def value_mean(self, parameters, shared):
        return self._exp(self._log_mean(parameters, shared))

    def value_stddev(self, parameters, shared):
        variance = tf.minimum(tf.square(super().value_stddev(parameters, shared)), _FARTHEST_LOG)
        relative = tf.maximum(tf.math.expm1(variance), np.finfo(np.float32).tiny)
        return self._exp(self._log_mean(parameters, shared) + 0.5 * tf.math.log(relative))

    def value_draw(self, shape, seed, parameters, shared):
        return self._exp(super().value_draw(shape, seed, parameters, shared))

    def _log_mean(self, parameters, shared):
        return super().value_mean(parameters, shared) + 0.5 * tf.square(super().value_stddev(parameters, shared))

    def _exp(self, logarithm):
        middle = self.in_units(tf.zeros_like(logarithm))
        return tf.exp(limited(middle + limited(logarithm - middle, _FARTHEST_LOG), _LARGEST_LOG))

    def _fitted(self, data):
        return super()._fitted(data.map(lambda block: np.log(np.asarray(block, np.float64))))


def _log(x):
    """log(x), finite for 0, which stands for what is missing or outside the support."""
    return tf.math.log(tf.maximum(x, np.finfo(np.float32).tiny))


@dataclasses.dataclass(frozen=True)
class Laplace(_LocationScale):
    """Independent Laplace values, whose spread is the mean absolute deviation."""

    name = "laplace"
    title = "Laplace"

    @staticmethod
    def log_density(statistics, parameters, shared):
        residual, log_spread = _residual(statistics, parameters, shared)
        return -tf.abs(residual) - log_spread - math.log(2.0)

    def value_stddev(self, parameters, shared):
        return self.in_units(math.sqrt(2.0) * _spread(parameters, shared), shifted=False)

    def _standard_information(self, shared):
        return 1.0, 1.0

    def _standard_draw(self, shape, seed, shared):
        sign, size = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
        size = -tf.math.log1p(-tf.random.stateless_uniform(shape, size, dtype=shared.dtype))
        return tf.where(tf.random.stateless_uniform(shape, sign, dtype=shared.dtype) < 0.5, -size, size)

    def _location_and_spread_of(self, values):
        values = values[:]
        loc = np.median(values, axis=0)
        return loc, np.mean(np.abs(values - loc), axis=0)


@dataclasses.dataclass(frozen=True)
class StudentT(_LocationScale):
    """Independent Student-t values: an outlier costs its logarithm.

    The degrees of freedom, one number for each column, are learned; they are above 2, so that the variance is finite,
    and at most 1002.
    """

    name = "student_t"
    title = "Student-t"
    _more_shared = 1

    @staticmethod
    def log_density(statistics, parameters, shared):
        residual, log_spread = _residual(statistics, parameters, shared)
        freedom = _freedom(shared)
        return -0.5 * (freedom + 1.0) * tf.math.log(1.0 + tf.square(residual) / freedom) - log_spread

    @staticmethod
    def constant(x, shared):
        freedom = _freedom(tf.cast(shared, tf.float64))
        log_gammas = tf.math.lgamma(0.5 * freedom + 0.5) - tf.math.lgamma(0.5 * freedom)
        return log_gammas - 0.5 * tf.math.log(math.pi * freedom)

    def value_stddev(self, parameters, shared):
        # freedom / (freedom - 2), whose difference would be rounding near 2.
        stddev = _spread(parameters, shared) * tf.sqrt(1.0 + 2.0 / _freedom_above_2(shared))
        return self.in_units(stddev, shifted=False)

    def _standard_information(self, shared):
        freedom = _freedom(shared)
        return (freedom + 1.0) / (freedom + 3.0), 2.0 * freedom / (freedom + 3.0)

    def _standard_draw(self, shape, seed, shared):
        normal, chi_square = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
        half = 0.5 * _freedom(shared)
        variance = half / tf.random.stateless_gamma(shape, chi_square, half, dtype=shared.dtype)
        return tf.sqrt(variance) * tf.random.stateless_normal(shape, normal, dtype=shared.dtype)

    def _location_and_spread_of(self, values):
        low, median, high = np.quantile(values[:], (0.25, 0.5, 0.75), axis=0)
        return median, (high - low) / 1.5  # As of four degrees of freedom.

    def _with_start(self, values, start, shared):
        freedom = np.full([1, values.shape[-1]], math.log(2.0))
        shared = np.concatenate([shared, freedom])
        rows = values[:].reshape(len(values), -1)
        # In units of the data: `maximized` would standardise them again.
        plain = dataclasses.replace(self, shift=(), scale=())
        flat, shared = fitting.maximized(plain, rows, np.ones([len(rows), 1]), start.reshape(len(start), -1), shared)
        shared[-1] = np.minimum(shared[-1], _MOST_FREEDOM)
        return super()._with_start(values, flat.reshape(start.shape), shared)


def _freedom(shared):
    """At most some thousand: the difference to a Normal variable, and what rounding makes of it, stay small."""
    return 2.0 + _freedom_above_2(shared)


def _freedom_above_2(shared):
    return positive(shared[-1], 1e3)
