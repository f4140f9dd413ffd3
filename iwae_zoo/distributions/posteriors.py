"""Posterior heads: an encoder body's output, read as the parameters of q(z | x)."""

import abc
import dataclasses
from typing import ClassVar

import tensorflow as tf
import tensorflow_probability as tfp

from iwae_zoo._checks import look_up
from iwae_zoo.distributions import flow, full_normal
from iwae_zoo.distributions.gaussian import DiagonalNormal
from iwae_zoo.distributions.student_t import IndependentStudentT

__all__ = [
    "TABLE",
    "CouplingFlow",
    "FullNormal",
    "Normal",
    "Posterior",
    "StudentT",
    "from_config",
    "get",
    "names",
    "to_config",
]


@dataclasses.dataclass(frozen=True)
class Posterior(abc.ABC):
    """A family of distributions over the latent.

    Args:
      latent_size: int, D.
    """

    latent_size: int

    name: ClassVar[str]

    @property
    @abc.abstractmethod
    def num_parameters(self):
        """int, how many numbers a body has to give for each example."""

    @property
    def weights(self):
        """The arrays that all rows share: a list of `flow.Weight`, none for most heads.

        The layer that holds the head keeps them as variables and passes them to `distribution`, after the parameters.
        """
        return []

    @abc.abstractmethod
    def distribution(self, parameters):
        """q(z): batch [...], event [D], given its parameters, float tensor [..., num_parameters]."""


class Normal(Posterior):
    """Independent Gaussian latents: the means, then what softplus turns into standard deviations."""

    name = "normal"

    @property
    def num_parameters(self):
        return 2 * self.latent_size

    def distribution(self, parameters):
        loc, raw_scale = tf.split(parameters, 2, axis=-1)
        return DiagonalNormal(loc, _scale(raw_scale))


class FullNormal(Posterior):
    """Gaussian latents of any covariance: the means, then a lower triangle, whose diagonal softplus makes positive."""

    name = "full_normal"

    @property
    def num_parameters(self):
        return self.latent_size + self.latent_size * (self.latent_size + 1) // 2

    def distribution(self, parameters):
        loc, raw_triangle = tf.split(parameters, [self.latent_size, -1], axis=-1)
        triangle = tfp.math.fill_triangular(raw_triangle)
        diagonal = _scale(tf.linalg.diag_part(triangle))
        # Up to D numbers below the diagonal add up in one variable, which is not to start larger for that.
        return full_normal.FullNormal(loc, tf.linalg.set_diag(triangle / self.latent_size**0.5, diagonal))


class StudentT(Posterior):
    """Independent Student-t latents: locations, then what softplus makes scales, and degrees of freedom above 2."""

    name = "student_t"

    @property
    def num_parameters(self):
        return 3 * self.latent_size

    def distribution(self, parameters):
        loc, raw_scale, raw_df = tf.split(parameters, 3, axis=-1)
        return IndependentStudentT(2.0 + _scale(raw_df), loc, _scale(raw_scale))


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
        flow.weights(self.latent_size, self.num_couplings, self.hidden_size)  # Raises.

    @property
    def num_parameters(self):
        return 2 * self.latent_size + self.num_couplings * self.hidden_size

    @property
    def weights(self):
        return flow.weights(self.latent_size, self.num_couplings, self.hidden_size)

    def distribution(self, parameters, *weights):
        of_base, biases = tf.split(parameters, [2 * self.latent_size, -1], axis=-1)
        shape = tf.concat([tf.shape(biases)[:-1], [self.num_couplings, self.hidden_size]], axis=0)
        return flow.CouplingFlow(Normal(self.latent_size).distribution(of_base), tf.reshape(biases, shape), weights)


def _scale(raw):
    """Positive numbers. The floor keeps the density of an (almost) deterministic dimension finite."""
    return tf.math.softplus(raw) + 1e-4


# A new posterior is a class and a row.
TABLE = {"normal": Normal, "full_normal": FullNormal, "student_t": StudentT, "coupling_flow": CouplingFlow}


def names():
    """Every name that `get` accepts."""
    return tuple(TABLE)


def get(name, latent_size):
    """Returns a head by name.

    Raises:
      ValueError: on an unknown name.
    """
    return look_up(TABLE, name, "posterior")(latent_size)


def to_config(head):
    """A JSON-compatible description of a head, from which `from_config` makes an equal one."""
    return {"name": head.name, **dataclasses.asdict(head)}


def from_config(config):
    """The inverse of `to_config`."""
    arguments = dict(config)
    return look_up(TABLE, arguments.pop("name"), "posterior")(**arguments)
