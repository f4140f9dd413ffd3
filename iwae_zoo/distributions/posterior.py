"""What a posterior head is, and the one that most models have."""

import abc
import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import tensorflow as tf

from iwae_zoo.distributions.gaussian import DiagonalNormal

__all__ = ["REAL", "Normal", "Posterior", "positive_scale"]

# The support of a continuous latent.
REAL = "real numbers"


@dataclasses.dataclass(frozen=True)
class Posterior(abc.ABC):
    """A family of distributions over the latent.

    Args:
      latent_size: int, D.
    """

    latent_size: int

    name: ClassVar[str]
    # Settings that a configuration from before them does not have.
    before: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    # Whether draws have derivatives by the parameters.
    reparameterized: ClassVar[bool] = True

    @property
    def prior(self):
        """Name of the prior that it has where none is chosen."""
        return "standard_normal"

    @property
    def support(self):
        """What a draw holds, in words: posterior and prior have the same."""
        return REAL

    @property
    def supports(self):
        """Of each stochastic layer, here one: its name, its support, and whether it is reparameterised."""
        return ((self.name, self.support, self.reparameterized),)

    @property
    def downwards(self):
        """The head of p(z_l | z_{l+1}) where this is that of q(z_l | z_{l-1})."""
        return Normal(self.latent_size)

    @property
    def discrete(self):
        """The head that this one relaxes; the head itself where it is no relaxation."""
        return self

    def features(self, z):
        """What a network is given of z [..., D]: float tensor of the same shape."""
        return z

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
        return DiagonalNormal(loc, positive_scale(raw_scale))


def positive_scale(raw):
    """Positive numbers. The floor keeps the density of an (almost) deterministic dimension finite."""
    return tf.math.softplus(raw) + 1e-4
