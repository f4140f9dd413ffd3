"""Posterior heads: an encoder body's output, read as the parameters of q(z | x)."""

import dataclasses
import math
import typing
from types import MappingProxyType

import tensorflow as tf
import tensorflow_probability as tfp

from iwae_zoo._checks import integer, look_up, parse
from iwae_zoo._shapes import shape_of
from iwae_zoo.distributions import flow, full_normal
from iwae_zoo.distributions.discrete_heads import Bernoulli, Categorical, RelaxedBernoulli, RelaxedCategorical
from iwae_zoo.distributions.posterior import REAL, Normal, Posterior, positive_scale
from iwae_zoo.distributions.student_t import IndependentStudentT

__all__ = [
    "REAL",
    "TABLE",
    "Bernoulli",
    "Categorical",
    "CouplingFlow",
    "FullNormal",
    "Normal",
    "Posterior",
    "RelaxedBernoulli",
    "RelaxedCategorical",
    "StudentT",
    "from_config",
    "get",
    "names",
    "optional",
    "to_config",
]


# How many times larger than z rounding may become where a covariance is inverted, short of a conspiracy of its signs.
_GROWTH = 1e6


@dataclasses.dataclass(frozen=True)
class FullNormal(Posterior):
    """Gaussian latents that go together: the means, then a lower triangle, whose diagonal softplus makes positive.

    L_ii = softplus(t_ii) + 1e-4,   L_ij = L_ii a_ij / (1 + sum_j |a_ij| / c),   a_ij = t_ij / sqrt(D),   j < i

    The covariance is L L^T. What single precision draws, it has to invert: rows that go far beyond their diagonal make
    an inverse that grows with every row, and log q of its own draws is lost in rounding. So a row's sum stays below c
    times its diagonal, with D^c = 1e6.

    Args:
      latent_size: int, D.
      bounded: bool; False for L_ij = a_ij, as files from before this was known have it.
    """

    bounded: bool = True

    name = "full_normal"
    before = MappingProxyType({"bounded": False})

    @property
    def num_parameters(self):
        return self.latent_size + self._in_triangle

    @property
    def _in_triangle(self):
        return self.latent_size * (self.latent_size + 1) // 2

    def distribution(self, parameters):
        loc, raw_triangle = tf.split(parameters, [self.latent_size, self._in_triangle], axis=-1)
        triangle = tfp.math.fill_triangular(raw_triangle)
        diagonal = positive_scale(tf.linalg.diag_part(triangle))
        # Up to D numbers below the diagonal add up in one variable, which is not to start larger for that.
        # Not `tf.linalg.set_diag`, whose gradient XLA cannot compile for a batch of unknown size.
        on_diagonal = tf.eye(self.latent_size, dtype=tf.bool)
        below = tf.where(on_diagonal, tf.zeros_like(triangle), triangle / self.latent_size**0.5)
        if self.bounded:
            limit = math.log(_GROWTH) / math.log(max(self.latent_size, 2))
            sums = tf.reduce_sum(tf.abs(below), axis=-1, keepdims=True)
            below *= diagonal[..., tf.newaxis] / (1.0 + sums / limit)
        return full_normal.FullNormal(loc, tf.where(on_diagonal, diagonal[..., tf.newaxis], below))


class StudentT(Posterior):
    """Independent Student-t latents: locations, then what softplus makes scales, and degrees of freedom above 2."""

    name = "student_t"

    @property
    def num_parameters(self):
        return 3 * self.latent_size

    def distribution(self, parameters):
        loc, raw_scale, raw_df = tf.split(parameters, 3, axis=-1)
        return IndependentStudentT(2.0 + positive_scale(raw_df), loc, positive_scale(raw_scale))


@dataclasses.dataclass(frozen=True)
class CouplingFlow(Posterior):
    """Independent Gaussians under a coupling flow: as `Normal`, then the hidden biases of each coupling's network.

    Args:
      latent_size: int, D, at least 2.
      num_couplings: int, number of coupling layers.
      hidden_size: int, units in the network of each.

    Raises:
      ValueError: on a latent of one dimension.
    """

    num_couplings: int = 4
    hidden_size: int = 32

    name = "coupling_flow"

    def __post_init__(self):
        integer("num_couplings", self.num_couplings)
        integer("hidden_size", self.hidden_size)
        flow.weights(self.latent_size, self.num_couplings, self.hidden_size)  # Raises.

    @property
    def num_parameters(self):
        return 2 * self.latent_size + self.num_couplings * self.hidden_size

    @property
    def weights(self):
        return flow.weights(self.latent_size, self.num_couplings, self.hidden_size)

    def distribution(self, parameters, *weights):
        of_base, biases = tf.split(parameters, [2 * self.latent_size, -1], axis=-1)
        shape = [*shape_of(biases)[:-1], self.num_couplings, self.hidden_size]
        return flow.CouplingFlow(Normal(self.latent_size).distribution(of_base), tf.reshape(biases, shape), weights)


# A new posterior is a class and a row.
TABLE: dict[str, type[Posterior]] = {
    "normal": Normal,
    "full_normal": FullNormal,
    "student_t": StudentT,
    "coupling_flow": CouplingFlow,
    "bernoulli": Bernoulli,
    "categorical": Categorical,
    "relaxed_bernoulli": RelaxedBernoulli,
    "relaxed_categorical": RelaxedCategorical,
}


def names():
    """Every name that `get` accepts."""
    return tuple(TABLE)


def get(identifier, latent_size):
    """Returns a head by name, with settings where it has some.

    Raises:
      ValueError: on an unknown name, or a setting that the head does not have or take.

    #### Examples
    >>> get("categorical,classes=5", 10)
    Categorical(latent_size=10, classes=5)
    """
    head, settings = parse(identifier, "posterior", TABLE, _settings)
    return head(latent_size, **settings)


def to_config(head):
    """A JSON-compatible description of a head, from which `from_config` makes an equal one."""
    return {"name": head.name, **dataclasses.asdict(head)}


def from_config(config):
    """The inverse of `to_config`."""
    arguments = dict(config)
    head = look_up(TABLE, arguments.pop("name"), "posterior")
    return head(**{**head.before, **arguments})


def optional(config):
    """As `from_config`; None of None."""
    return config and from_config(config)


def _settings(head):
    kinds = typing.get_type_hints(head)
    return {field.name: kinds[field.name] for field in dataclasses.fields(head) if field.name != "latent_size"}
