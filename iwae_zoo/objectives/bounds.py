"""Bounds on log p(x) as functions of log importance weights.

A bound is a small frozen value. It maps `log_weights` [M, K, B] (M groups of K particles for each of B examples,
`log p(x, z) - log q(z | x)`, in nats) to its value [B] and to the two derivatives from which every gradient estimator
is made. There are no tapes and no networks here; everything works in the dtype of `log_weights`.
"""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import tensorflow as tf
import tensorflow_probability as tfp

from iwae_zoo._checks import fraction, look_up, number
from iwae_zoo._shapes import shape_of
from iwae_zoo.objectives.bound import Bound, Grouped, checked, complement, log_mean_exp, softmax, without_one
from iwae_zoo.objectives.jackknife import Jackknife
from iwae_zoo.objectives.thermodynamic import Thermodynamic, ThermodynamicUpper

__all__ = [
    "TABLE",
    "Bound",
    "Combination",
    "Elbo",
    "ImportanceWeighted",
    "Jackknife",
    "Row",
    "Thermodynamic",
    "ThermodynamicUpper",
    "VariationalRenyi",
    "get",
    "importance_ess",
    "names",
]


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
        return tf.reduce_mean(checked(log_weights), axis=[0, 1])

    def weights(self, log_weights):
        log_weights = checked(log_weights)
        particles = tf.cast(tf.reduce_prod(tf.shape(log_weights)[:2]), log_weights.dtype)
        return tf.ones_like(log_weights) / particles

    def weight_derivatives(self, log_weights):
        return tf.zeros_like(checked(log_weights))

    def has_constant_weights(self, m, k):
        return True

    def parts(self, log_weights):
        return checked(log_weights) * self.weights(log_weights)

    def replaced(self, log_weights, by):
        weights = self.weights(log_weights)
        change = weights * (log_weights - by)
        return change, tf.broadcast_to(weights, tf.shape(change))

    def leave_one_out(self, log_weights):
        return self.weights(log_weights) * (log_weights - self.mean_of_others(log_weights))


@dataclasses.dataclass(frozen=True)
class ImportanceWeighted(Grouped):
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

    @property
    def _power(self):
        """The power that the importance weights are raised to."""
        return 1.0

    def group_values(self, grouped):
        return log_mean_exp(self._power * grouped, axis=1) / self._power

    def weights(self, log_weights):
        normalized = self._normalized_weights(log_weights)
        return tf.reshape(normalized / self.groups, tf.shape(log_weights))

    def weight_derivatives(self, log_weights):
        normalized = self._normalized_weights(log_weights)
        return tf.reshape(self._power * normalized * complement(normalized) / self.groups, tf.shape(log_weights))

    def has_constant_weights(self, m, k):
        return m * k == self.groups

    def replaced(self, log_weights, by):
        shift, total, log_rest = without_one(self._power * self.grouped(log_weights))
        shape = [shape_of(by)[0], *shape_of(log_weights)]
        by = tf.reshape(tf.broadcast_to(by, shape), [shape[0], *shape_of(log_rest)])
        by = self._power * by - shift  # [S, G, N, B]
        after = tfp.math.log_add_exp(total + log_rest, by)
        change = (total - after) / self._power
        return tf.reshape(change / self.groups, shape), tf.reshape(tf.exp(by - after) / self.groups, shape)

    def leave_one_out(self, log_weights):
        _, _, log_rest = without_one(self._power * self.grouped(log_weights))
        one_less = tf.math.log1p(-1.0 / tf.cast(tf.shape(log_rest)[1], log_rest.dtype))
        return tf.reshape((one_less - log_rest) / self._power / self.groups, tf.shape(log_weights))

    def _normalized_weights(self, log_weights):
        return softmax(self._power * self.grouped(log_weights), axis=1)  # [G, N, B]


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
        object.__setattr__(self, "alpha", number("alpha", self.alpha))
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
        hint = " 1 is the ELBO, 0 is the IWAE bound."
        object.__setattr__(self, "beta", fraction("beta", self.beta, hint))

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
    defaults: Mapping[str, Any] = MappingProxyType({})


_PARTITION = {field.name: field.default for field in dataclasses.fields(Thermodynamic) if field.kw_only}

# A new bound is a class and a row.
TABLE = {
    "elbo": Row(Elbo),
    "iwae": Row(ImportanceWeighted),
    "miwae": Row(ImportanceWeighted, group_per_row=True),
    "combination": Row(Combination, defaults={"beta": 0.5}),
    "vr_iwae": Row(VariationalRenyi, defaults={"alpha": 0.5}),
    "jackknife": Row(Jackknife),
    "thermodynamic": Row(Thermodynamic, defaults=_PARTITION),
    "thermodynamic_upper": Row(ThermodynamicUpper, defaults=_PARTITION),
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
      **hyperparameters: `beta` of "combination" (default 0.5), `alpha` of "vr_iwae" (default 0.5), or `points`,
        `spacing` and `beta_1` of "thermodynamic" and "thermodynamic_upper" (see `Thermodynamic`).

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
