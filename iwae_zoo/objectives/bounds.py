"""Bounds on log p(x) as functions of log importance weights.

A bound is a small frozen value. It maps `log_weights` [M, K, B] (M groups of K particles for each of B examples,
`log p(x, z) - log q(z | x)`, in nats) to its value [B] and to the two derivatives from which every gradient estimator
is made. There are no tapes and no networks here; everything works in the dtype of `log_weights`.
"""

import abc
import dataclasses
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, NamedTuple

import tensorflow as tf
import tensorflow_probability as tfp

from iwae_zoo._checks import look_up

__all__ = [
    "TABLE",
    "Bound",
    "Combination",
    "Elbo",
    "ImportanceWeighted",
    "Row",
    "VariationalRenyi",
    "get",
    "importance_ess",
    "names",
]


class Bound(abc.ABC):
    """A lower bound on log p(x), averaged over its groups of particles.

    Class attributes:
      name: str, what this class is called in a configuration.
    """

    name: ClassVar[str]

    @abc.abstractmethod
    def value(self, log_weights):
        """The bound itself (never a surrogate whose gradient happens to be right).

        Args:
          log_weights: float tensor [M, K, B], nats.

        Returns:
          float tensor [B], nats; not averaged over the batch.

        Raises:
          ValueError: if `log_weights` is not of rank 3, or the groups do not divide its particles.
        """

    @abc.abstractmethod
    def weights(self, log_weights):
        """`a = d value / d log_weights`, [M, K, B]; sums to 1 over the particles of an example."""

    @abc.abstractmethod
    def weight_derivatives(self, log_weights):
        """`a'_i = d a_i / d log_weights_i`, [M, K, B]; each weight's derivative by its own log weight alone."""

    @abc.abstractmethod
    def has_constant_weights(self, m, k):
        """Whether `weights` is the same for all log weights of shape [m, k, B]: then `weight_derivatives` is zero."""

    def validate(self, m, k):  # noqa: B027  (most bounds accept any shape)
        """Raises ValueError if the bound cannot be evaluated on log weights of shape [m, k, B]."""

    # What estimators with a learning signal ask besides. These work for every bound, in memory that grows with the
    # square of the number of particles.

    def components(self):
        """The bounds whose mean it is: a tuple of (share, `Bound`)."""
        return ((1.0, self),)

    def group_size(self, m, k):
        """int, how many neighbours of the M K particles (M slowest) a group has."""
        return m * k

    def parts(self, log_weights):
        """What of the value each particle's log weight enters, [M, K, B]: of a mean over groups, that of its own."""
        return tf.broadcast_to(self.value(log_weights), tf.shape(log_weights))

    def replaced(self, log_weights, by):
        """For each particle by itself: what changes where its log weight is another, and those of the others stay.

        Args:
          log_weights: float tensor [M, K, B], nats.
          by: float tensor [S, M, K, B], or one that broadcasts to it: S log weights to stand in each place.

        Returns:
          (value before minus value after, weight `a` of the particle after), float tensors [S, M, K, B].
        """
        log_weights = _checked(log_weights)
        shape = tf.concat([tf.shape(by)[:1], tf.shape(log_weights)], axis=0)
        flat = tf.reshape(log_weights, [-1, shape[-1]])  # [N, B]
        count = tf.shape(flat)[0]
        by = tf.reshape(tf.broadcast_to(by, shape), [shape[0], count, 1, shape[-1]])
        own = tf.eye(count, dtype=tf.bool)[:, :, tf.newaxis]
        after = tf.transpose(tf.where(own, by, flat), [2, 0, 1, 3])  # [N, S, N replaced, B]
        after = tf.reshape(after, tf.concat([shape[1:3], [-1]], axis=0))
        value = tf.reshape(self.value(after), shape)
        weight = tf.reshape(self.weights(after), [count, shape[0], count, shape[-1]])
        weight = tf.linalg.diag_part(tf.transpose(weight, [1, 3, 0, 2]))  # [S, B, N]
        return self.value(log_weights) - value, tf.reshape(tf.transpose(weight, [0, 2, 1]), shape)

    def mean_of_others(self, log_weights):
        """Mean log weight of the other particles of its group, [M, K, B]."""
        grouped = self._neighbors(log_weights)
        shift = tf.reduce_max(grouped, axis=1, keepdims=True)
        centered = grouped - shift
        others = tf.reduce_sum(centered, axis=1, keepdims=True) - centered
        mean = shift + others / tf.cast(tf.shape(grouped)[1] - 1, grouped.dtype)
        return tf.reshape(mean, tf.shape(log_weights))

    def leave_one_out(self, log_weights):
        """Value minus what it would be of the others of a particle's group, their mean weight in its place, [M, K, B].

        Exact to rounding of the difference, not of the value.
        """
        shift, total, log_rest = _leave_one_out(self._neighbors(log_weights))
        mean = shift + total + log_rest - tf.math.log(tf.cast(tf.shape(log_rest)[1] - 1, log_rest.dtype))
        return self.replaced(log_weights, tf.reshape(mean, tf.shape(log_weights))[tf.newaxis])[0][0]

    def _neighbors(self, log_weights):
        """Log weights by groups, [G, N, B]."""
        log_weights = _checked(log_weights)
        m, k, _ = log_weights.shape
        return tf.reshape(log_weights, [-1, self.group_size(m, k), tf.shape(log_weights)[2]])


@dataclasses.dataclass(frozen=True)
class Elbo(Bound):
    """Evidence lower bound.

    value[b] = mean_{m, k} log_weights[m, k, b]

    #### Examples
    >>> float(Elbo().value(tf.constant([[[1.0], [3.0]]]))[0])
    2.0

    #### References
    Kingma, Welling. Auto-Encoding Variational Bayes. ICLR 2014, eq. 3. https://arxiv.org/abs/1312.6114
    """

    name = "elbo"

    def value(self, log_weights):
        return tf.reduce_mean(_checked(log_weights), axis=[0, 1])

    def weights(self, log_weights):
        log_weights = _checked(log_weights)
        particles = tf.cast(tf.reduce_prod(tf.shape(log_weights)[:2]), log_weights.dtype)
        return tf.ones_like(log_weights) / particles

    def weight_derivatives(self, log_weights):
        return tf.zeros_like(_checked(log_weights))

    def has_constant_weights(self, m, k):
        return True

    def parts(self, log_weights):
        return _checked(log_weights) * self.weights(log_weights)

    def replaced(self, log_weights, by):
        weights = self.weights(log_weights)
        change = weights * (log_weights - by)
        return change, tf.broadcast_to(weights, tf.shape(change))

    def leave_one_out(self, log_weights):
        return self.weights(log_weights) * (log_weights - self.mean_of_others(log_weights))


@dataclasses.dataclass(frozen=True)
class ImportanceWeighted(Bound):
    """Importance-weighted bound, averaged over groups; tighter than the ELBO when a group has several particles.

    value[b] = mean_g log( (1 / N) sum_{i in group g} exp(log_weights[i, b]) ),   N = M K / groups

    One group is the bound of Burda et al. over all M K particles; M groups are the *multiply* importance weighted
    bound of Rainforth et al., one group for each row of K particles.

    Args:
      groups: int, into how many equal groups of neighbours the M K particles (M slowest) are divided.

    #### Examples
    >>> round(float(ImportanceWeighted().value(tf.math.log([[[1.0], [3.0]]]))[0]), 4)  # log((1 + 3) / 2)
    0.6931

    #### References
    Burda, Grosse, Salakhutdinov. Importance Weighted Autoencoders. ICLR 2016, eq. 8. https://arxiv.org/abs/1509.00519
    Rainforth et al. Tighter Variational Bounds are Not Necessarily Better. ICML 2018, eq. 9.
    https://arxiv.org/abs/1802.04537
    """

    name = "iwae"

    groups: int = 1

    def __post_init__(self):
        if not isinstance(self.groups, int) or self.groups < 1:
            raise ValueError(f"groups must be an integer of at least 1: received {self.groups!r}.")

    @property
    def _power(self):
        """The power that the importance weights are raised to."""
        return 1.0

    def value(self, log_weights):
        grouped = self._grouped(log_weights)  # [G, N, B]
        return tf.reduce_mean(_log_mean_exp(self._power * grouped, axis=1) / self._power, axis=0)

    def weights(self, log_weights):
        normalized = self._normalized_weights(log_weights)
        return tf.reshape(normalized / self.groups, tf.shape(log_weights))

    def weight_derivatives(self, log_weights):
        normalized = self._normalized_weights(log_weights)
        # 1 - w, as the sum of the others where one is so near 1 that the subtraction would lose all digits.
        largest = normalized == tf.reduce_max(normalized, axis=1, keepdims=True)
        others = tf.reduce_sum(tf.where(largest, tf.zeros_like(normalized), normalized), axis=1, keepdims=True)
        complement = tf.where(normalized > 0.5, others, 1.0 - normalized)
        return tf.reshape(self._power * normalized * complement / self.groups, tf.shape(log_weights))

    def has_constant_weights(self, m, k):
        return m * k == self.groups

    def validate(self, m, k):
        if m * k % self.groups:
            raise ValueError(
                f"The number of groups must divide the number of particles: received groups={self.groups} for "
                f"m={m} times k={k} = {m * k} particles."
            )

    def group_size(self, m, k):
        return m * k // self.groups

    def parts(self, log_weights):
        grouped = self._grouped(log_weights)
        values = _log_mean_exp(self._power * grouped, axis=1) / self._power / self.groups  # [G, B]
        return tf.reshape(tf.broadcast_to(values[:, tf.newaxis], tf.shape(grouped)), tf.shape(log_weights))

    def replaced(self, log_weights, by):
        shift, total, log_rest = _leave_one_out(self._power * self._grouped(log_weights))
        shape = tf.concat([tf.shape(by)[:1], tf.shape(log_weights)], axis=0)
        by = tf.reshape(tf.broadcast_to(by, shape), tf.concat([shape[:1], tf.shape(log_rest)], axis=0))
        by = self._power * by - shift  # [S, G, N, B]
        after = tfp.math.log_add_exp(total + log_rest, by)
        change = (total - after) / self._power
        return tf.reshape(change / self.groups, shape), tf.reshape(tf.exp(by - after) / self.groups, shape)

    def leave_one_out(self, log_weights):
        _, _, log_rest = _leave_one_out(self._power * self._grouped(log_weights))
        one_less = tf.math.log1p(-1.0 / tf.cast(tf.shape(log_rest)[1], log_rest.dtype))
        return tf.reshape((one_less - log_rest) / self._power / self.groups, tf.shape(log_weights))

    def _grouped(self, log_weights):
        log_weights = _checked(log_weights)
        m, k, _ = log_weights.shape
        if m is not None and k is not None:
            self.validate(m, k)
        shape = tf.shape(log_weights)
        return tf.reshape(log_weights, [self.groups, shape[0] * shape[1] // self.groups, shape[2]])

    def _normalized_weights(self, log_weights):
        return tf.nn.softmax(self._power * self._grouped(log_weights), axis=1)  # [G, N, B]


@dataclasses.dataclass(frozen=True, kw_only=True)
class VariationalRenyi(ImportanceWeighted):
    """Variational Renyi importance-weighted (VR-IWAE) bound: between the ELBO (alpha -> 1) and IWAE (alpha = 0).

    value[b] = mean_g 1 / (1 - alpha) log( (1 / N) sum_{i in group g} exp((1 - alpha) log_weights[i, b]) )

    Args:
      alpha: float in [0, 1).
      groups: as in `ImportanceWeighted`.

    #### References
    Daudel, Benton, Shi, Doucet. Alpha-divergence Variational Inference Meets Importance Weighted Auto-Encoders.
    JMLR 2023, eq. 5. https://arxiv.org/abs/2210.06226
    """

    name = "vr_iwae"

    alpha: float

    def __post_init__(self):
        super().__post_init__()
        if not 0.0 <= self.alpha < 1.0:
            raise ValueError(
                f"alpha must be in [0, 1): received {self.alpha!r}. alpha=0 is the IWAE bound; for the limit "
                "alpha=1 use the elbo."
            )

    @property
    def _power(self):
        return 1.0 - self.alpha


@dataclasses.dataclass(frozen=True)
class Combination(Bound):
    """Convex combination of the ELBO and the importance-weighted bound over all particles (CIWAE).

    value[b] = beta ELBO[b] + (1 - beta) IWAE[b]

    Args:
      beta: float in [0, 1]; 1 is the ELBO, 0 is the IWAE bound.

    #### References
    Rainforth et al. Tighter Variational Bounds are Not Necessarily Better. ICML 2018, eq. 10.
    https://arxiv.org/abs/1802.04537
    """

    name = "combination"

    beta: float

    def __post_init__(self):
        if not 0.0 <= self.beta <= 1.0:
            raise ValueError(f"beta must be in [0, 1]: received {self.beta!r}. 1 is the ELBO, 0 is the IWAE bound.")

    def value(self, log_weights):
        return self._mix(Elbo().value(log_weights), ImportanceWeighted().value(log_weights))

    def weights(self, log_weights):
        return self._mix(Elbo().weights(log_weights), ImportanceWeighted().weights(log_weights))

    def weight_derivatives(self, log_weights):
        return (1.0 - self.beta) * ImportanceWeighted().weight_derivatives(log_weights)

    def has_constant_weights(self, m, k):
        return self.beta == 1.0 or m * k == 1

    def components(self):
        shares = ((self.beta, Elbo()), (1.0 - self.beta, ImportanceWeighted()))
        return tuple((share, bound) for share, bound in shares if share)

    def _mix(self, elbo, iwae):
        # At the ends the other term is left out: 0 times minus infinity would be NaN.
        if self.beta in (0.0, 1.0):
            return elbo if self.beta else iwae
        return self.beta * elbo + (1.0 - self.beta) * iwae


def importance_ess(log_weights):
    """Effective sample size of importance weights (Kong's; not the autocorrelation ESS of MCMC).

    ess[b] = (sum_i w_i)^2 / sum_i w_i^2, between 1 and M K.

    Args:
      log_weights: float tensor [M, K, B], nats.

    Returns:
      float tensor [B], number of particles.

    #### References
    Kong. A Note on Importance Sampling using Standardized Weights. Technical report 348, University of Chicago, 1992.
    """
    normalized = ImportanceWeighted().weights(log_weights)
    return 1.0 / tf.reduce_sum(normalized**2, axis=[0, 1])


class Row(NamedTuple):
    """A named bound.

    Attributes:
      kind: class of the bound.
      group_per_row: whether it has one group for each of the M rows of log weights, instead of one for all.
      defaults: dict of its hyper-parameters with their default values.
    """

    kind: type[Bound]
    group_per_row: bool = False
    defaults: Mapping[str, float] = MappingProxyType({})


# A new bound is a class and a row.
TABLE = {
    "elbo": Row(Elbo),
    "iwae": Row(ImportanceWeighted),
    "miwae": Row(ImportanceWeighted, group_per_row=True),
    "combination": Row(Combination, defaults={"beta": 0.5}),
    "vr_iwae": Row(VariationalRenyi, defaults={"alpha": 0.5}),
}


def names():
    """Every name that `get` accepts."""
    return tuple(TABLE)


def hyperparameters(identifier):
    """Names of the hyper-parameters that `get(identifier, ...)` takes besides `m`: a tuple of str."""
    return tuple(TABLE[identifier].defaults) if identifier in TABLE else ()


def get(identifier, *, m=1, **hyperparameters):
    """Returns a bound by name; a `Bound` is returned as it is.

    Args:
      identifier: one of `names()`, or a `Bound`. "iwae" has one group over all particles, "miwae" one for each of the
        M rows.
      m: int, the number of rows of the log weights.
      **hyperparameters: `beta` of "combination" (default 0.5) or `alpha` of "vr_iwae" (default 0.5).

    Raises:
      ValueError: on an unknown name, or a hyper-parameter out of range.

    #### Examples
    >>> get("miwae", m=8)
    ImportanceWeighted(groups=8)
    """
    if isinstance(identifier, Bound):
        return identifier
    row = look_up(TABLE, identifier, "bound")
    groups = {"groups": m} if row.group_per_row else {}
    return row.kind(**groups, **{**row.defaults, **hyperparameters})


def to_config(bound):
    """A JSON-compatible description of a bound, from which `from_config` makes an equal one."""
    return {"name": bound.name, **dataclasses.asdict(bound)}


def from_config(config):
    """The inverse of `to_config`."""
    classes = {row.kind.name: row.kind for row in TABLE.values()}
    arguments = dict(config)
    return look_up(classes, arguments.pop("name"), "kind of bound")(**arguments)


def _checked(log_weights):
    log_weights = tf.convert_to_tensor(log_weights)
    if log_weights.shape.rank != 3 or not log_weights.dtype.is_floating:
        raise ValueError(
            "log_weights must be a float tensor of shape [M, K, B] (groups, particles of a group, examples): received "
            f"shape {log_weights.shape} and dtype {log_weights.dtype.name}."
        )
    return log_weights


def _leave_one_out(x):
    """Of log weights [G, N, B]: their largest m [G, 1, B], log t [G, 1, B] and log(1 - w_i) [G, N, B].

    With `t = sum_i exp(x_i - m)` and `w_i = exp(x_i - m) / t`, the log of the sum without i is
    `m + log t + log(1 - w_i)`, however much one dominates.
    """
    shift = tf.reduce_max(x, axis=1, keepdims=True)
    x -= shift
    total = tf.reduce_logsumexp(x, axis=1, keepdims=True)
    first = tf.one_hot(tf.argmax(x, axis=1), tf.shape(x)[1], True, False, axis=1, dtype=tf.bool)
    lowest = tf.constant(-math.inf, x.dtype)
    others = tf.reduce_logsumexp(tf.where(first, lowest, x), axis=1, keepdims=True)
    normalized = tf.exp(x - total)
    # Only the largest can have more than half, where the subtraction from 1 would lose digits.
    dominant = normalized > 0.5
    rest = tf.math.log1p(-tf.where(dominant, tf.zeros_like(x), normalized))
    return shift, total, tf.where(dominant, others - total, rest)


def _log_mean_exp(x, axis):
    """log(mean(exp(x))), accurate also where all `x` are nearly equal, and -inf where all are -inf."""
    shift = tf.reduce_max(x, axis=axis, keepdims=True)
    shift = tf.stop_gradient(tf.where(tf.math.is_finite(shift), shift, tf.zeros_like(shift)))
    centred = x - shift
    # Near zero the log of a mean near 1 would lose the digits that a small power (alpha near 1) then divides by.
    small = tf.reduce_mean(tf.math.expm1(centred), axis=axis)
    large = tf.reduce_mean(tf.exp(centred), axis=axis)
    return tf.squeeze(shift, axis) + tf.where(small > -0.5, tf.math.log1p(small), tf.math.log(large))
