"""Posterior heads: an encoder body's output, read as the parameters of q(z | x)."""

import abc
import dataclasses
from typing import ClassVar

import tensorflow as tf

from iwae_zoo._checks import look_up
from iwae_zoo.distributions.gaussian import DiagonalNormal

__all__ = ["TABLE", "Normal", "Posterior", "from_config", "get", "names", "to_config"]


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

    @abc.abstractmethod
    def distribution(self, parameters):
        """q(z): batch [B], event [D], given its parameters, float tensor [B, num_parameters]."""


class Normal(Posterior):
    """Independent Gaussian latents: the means, then what softplus turns into standard deviations."""

    name = "normal"

    @property
    def num_parameters(self):
        return 2 * self.latent_size

    def distribution(self, parameters):
        loc, raw_scale = tf.split(parameters, 2, axis=-1)
        # The floor keeps the density of an (almost) deterministic dimension finite.
        return DiagonalNormal(loc, tf.math.softplus(raw_scale) + 1e-4)


# A new posterior is a class and a row.
TABLE = {"normal": Normal}


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
