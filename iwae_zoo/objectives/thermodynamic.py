"""Thermodynamic bounds: log p(x) as an integral over beta, from below and from above."""

import dataclasses
import math

import numpy as np
import tensorflow as tf

from iwae_zoo._checks import integer, look_up, number
from iwae_zoo._shapes import shape_of
from iwae_zoo.objectives.bound import Grouped, complement

__all__ = ["MOST_POINTS", "SPACINGS", "Thermodynamic", "ThermodynamicUpper", "partition"]

MOST_POINTS = 50
_BETA_1 = 0.1
# Betas above 0, ends included, for (their number, beta_1).
SPACINGS = {
    "log_uniform": lambda count, beta_1: np.geomspace(beta_1, 1.0, count) if count > 1 else np.ones(1),
    "uniform": lambda count, _: np.linspace(0.0, 1.0, count + 1)[1:],
}


def partition(points, spacing="log_uniform", beta_1=None):
    """The betas of a thermodynamic bound.

    Args:
      points: int from 2 to 50, how many, with 0 and 1.
      spacing: "log_uniform", 0 and then equal steps of log beta from `beta_1` to 1, or "uniform".
      beta_1: float in (0, 1), for "log_uniform"; None for 0.1.

    Returns:
      Tuple of floats, from 0 to 1.

    Raises:
      ValueError: on another spacing, or a number out of range.

    #### Examples
    >>> partition(5, spacing="uniform")
    (0.0, 0.25, 0.5, 0.75, 1.0)
    """
    if integer("points", points, least=2) > MOST_POINTS:
        raise ValueError(f"points must be an integer from 2 to {MOST_POINTS}: received {points!r}.")
    inner = look_up(SPACINGS, spacing, "spacing of betas")
    if beta_1 is not None and (spacing != "log_uniform" or not 0.0 < beta_1 < 1.0):
        raise ValueError(
            f"beta_1 must be in (0, 1), and spacing 'log_uniform': received beta_1={beta_1!r}, spacing={spacing!r}. "
            "Leave one of the two out."
        )
    return (0.0, *inner(points - 1, _BETA_1 if beta_1 is None else beta_1).tolist())


@dataclasses.dataclass(frozen=True)
class Thermodynamic(Grouped):
    """Thermodynamic variational objective, the lower bound: a left Riemann sum over the betas.

    value[b] = mean_g sum_j (beta_{j+1} - beta_j) E_j[log w],   E_j the mean under pi_j ~ w^beta_j over a group

    log p(x) is the integral over beta from 0 to 1 of the mean of log w under q(z | x)^(1 - beta) p(x, z)^beta, which
    rises with beta: the left sum is below it, the right one above. Over the N particles of a group the same holds of
    L_N, the importance-weighted bound, whatever the particles are:

        ELBO <= lower <= L_N <= upper

    So this is a lower bound on log p(x) in expectation, at any N. The upper sum is above L_N, and above log p(x) where
    L_N is near it: `ThermodynamicUpper`, shown beside it as `thermodynamic_upper`. Two points make it the ELBO.

    Args:
      groups: int, into how many equal groups of neighbours the M K particles (M slowest) are divided.
      points: int from 2 to 50, number of betas with 0 and 1.
      spacing: "log_uniform", equal steps of log beta from `beta_1` to 1, or "uniform".
      beta_1: float in (0, 1), first beta above 0 of "log_uniform"; None for 0.1.

    #### References
    Masrani, Le, Wood. The Thermodynamic Variational Objective. NeurIPS 2019. https://arxiv.org/abs/1907.00031
    """

    name = "thermodynamic"
    companion = "thermodynamic_upper"

    points: int = dataclasses.field(default=6, kw_only=True)
    spacing: str = dataclasses.field(default="log_uniform", kw_only=True)
    beta_1: float | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "points", integer("points", self.points, least=2))
        if self.beta_1 is not None:
            object.__setattr__(self, "beta_1", number("beta_1", self.beta_1))
        partition(self.points, self.spacing, self.beta_1)

    @property
    def betas(self):
        """Tuple of floats, the betas at which means are taken; one for each of `steps`."""
        return partition(self.points, self.spacing, self.beta_1)[:-1]

    @property
    def steps(self):
        """Tuple of floats that sum to 1, the lengths of the intervals."""
        return tuple(np.diff(partition(self.points, self.spacing, self.beta_1)).tolist())

    def group_values(self, grouped):
        largest = tf.reduce_max(grouped, axis=1)
        steps, _, _, _, mean = self._terms(grouped)
        values = _shift(largest) + tf.reduce_sum(steps * mean, axis=0)[:, 0]
        return tf.where(largest > -math.inf, values, largest)

    def weights(self, log_weights):
        steps, beta, weights, centred, mean = self._terms(self.grouped(log_weights))
        return self._summed(steps * (weights + _product(centred - mean, beta * weights)), log_weights)

    def weight_derivatives(self, log_weights):
        # beta w (1 + (1 - 2 w) (1 + beta d)), d = log w_i - E[log w], with 1 - w where w is nearly 1.
        steps, beta, weights, centred, mean = self._terms(self.grouped(log_weights))
        rest = tf.reshape(complement(_flat(weights)), tf.shape(weights))
        difference = _product(centred - mean, beta * beta * weights)
        return self._summed(steps * (2.0 * beta * weights * rest + difference * (rest - weights)), log_weights)

    def covariance_weights(self, log_weights):
        """Weights of each particle's score, [M, K, B], in the gradient of the bound; see `estimators.Covariance`.

        score_i = sum_j step_j w_ij ( (1 - beta_j) (log w_i - E_j[log w]) - 1 )
        """
        steps, beta, weights, centred, mean = self._terms(self.grouped(log_weights))
        return self._summed(steps * (_product(centred - mean, (1.0 - beta) * weights) - weights), log_weights)

    def has_constant_weights(self, m, k):
        return m * k == self.groups or self.betas == (0.0,)

    def companion_value(self, log_weights):
        return ThermodynamicUpper(**dataclasses.asdict(self)).value(log_weights)

    def _terms(self, grouped):
        """Steps and betas [J, 1, 1, 1], weights [J, G, N, B], log weights less the largest, and their means."""
        steps, beta = (
            tf.reshape(tf.constant(numbers, grouped.dtype), [-1, 1, 1, 1]) for numbers in (self.steps, self.betas)
        )
        centred = grouped - _shift(tf.reduce_max(grouped, axis=1, keepdims=True))
        # Not `bound.softmax`: where weights are far apart, the derivatives lose a digit more by it.
        weights = tf.nn.softmax(_product(centred, beta), axis=2)
        mean = tf.reduce_sum(_product(centred, weights), axis=2, keepdims=True)
        return steps, beta, weights, centred, mean

    def _summed(self, terms, log_weights):
        return tf.reshape(tf.reduce_sum(terms, axis=0) / self.groups, tf.shape(log_weights))


@dataclasses.dataclass(frozen=True)
class ThermodynamicUpper(Thermodynamic):
    """The same from above: a right Riemann sum over the betas. No lower bound on log p(x).

    value[b] = mean_g sum_j (beta_{j+1} - beta_j) E_{j+1}[log w]

    Always above L_N of the same particles, and above log p(x) as far as N particles are enough: E_1[log w] of a few
    particles is too low, by O(1 / N), and one particle's is the ELBO. So the decoder cannot follow it, and the encoder
    descends it by the estimator "covariance", which estimates the gradient that it has with all particles; with two
    points that is the wake update. Wake updates take its weights, not its value. Metrics go by the lower bound,
    `reported`.

    Args:
      groups: as in `Thermodynamic`, as are those that follow.
      points: int.
      spacing: str.
      beta_1: float.
    """

    name = "thermodynamic_upper"
    is_lower_bound = False
    for_decoder = False

    @property
    def betas(self):
        return partition(self.points, self.spacing, self.beta_1)[1:]

    def reported(self, log_weights):
        return Thermodynamic(**dataclasses.asdict(self)).value(log_weights)

    def companion_value(self, log_weights):
        return self.value(log_weights)


def _product(logarithms, weights):
    """Zero times minus infinity is zero: a particle without weight counts at beta = 0 alone."""
    return tf.math.multiply_no_nan(logarithms, weights)


def _shift(largest):
    """What log weights are centred by: a constant, since it cancels."""
    return tf.stop_gradient(tf.where(tf.math.is_finite(largest), largest, tf.zeros_like(largest)))


def _flat(array):
    """[J, G, N, B] as [J G, N, B]."""
    return tf.reshape(array, [-1, *shape_of(array)[2:]])
