"""Posterior heads of discrete latents, and of their relaxations."""

import dataclasses

import tensorflow as tf

from iwae_zoo._checks import integer, positive
from iwae_zoo.distributions.discrete import IndependentBits, OneHots, by_variable, joined
from iwae_zoo.distributions.posterior import Posterior
from iwae_zoo.distributions.relaxed import RelaxedBits, RelaxedOneHots

__all__ = ["Bernoulli", "Categorical", "RelaxedBernoulli", "RelaxedCategorical"]


class _OfLogits(Posterior):
    """A head that reads a logit for each value of z, of a family that p(z_l | z_{l+1}) is of too."""

    @property
    def downwards(self):
        return self

    @property
    def num_parameters(self):
        return self.latent_size


class Bernoulli(_OfLogits):
    """Independent bits, zeros and ones, from their logits."""

    name = "bernoulli"
    reparameterized = False

    @property
    def prior(self):
        return "bernoulli"

    @property
    def support(self):
        return "zeros and ones"

    def distribution(self, parameters):
        return IndependentBits(parameters)


@dataclasses.dataclass(frozen=True)
class RelaxedBernoulli(_OfLogits):
    """Log odds of binary Concrete variables, a relaxation of `Bernoulli`; a network is given numbers in (0, 1).

    Args:
      latent_size: int, D.
      temperature: float, t > 0.
    """

    temperature: float = 2 / 3

    name = "relaxed_bernoulli"

    def __post_init__(self):
        positive("temperature", self.temperature)

    @property
    def prior(self):
        return f"relaxed_bernoulli,temperature={self.temperature}"

    @property
    def discrete(self):
        return Bernoulli(self.latent_size)

    def features(self, z):
        return tf.sigmoid(z)

    def distribution(self, parameters):
        return RelaxedBits(parameters, self.temperature)


@dataclasses.dataclass(frozen=True)
class Categorical(_OfLogits):
    """Independent classes as one-hot vectors, from their logits.

    Args:
      latent_size: int, D, of all one-hot vectors together.
      classes: int, C, of each variable; D of one variable where it is None.

    Raises:
      ValueError: if C is below 2 or does not divide D.
    """

    classes: int | None = None

    name = "categorical"
    reparameterized = False

    def __post_init__(self):
        object.__setattr__(self, "classes", _classes(self.latent_size, self.classes))

    @property
    def prior(self):
        return f"categorical,classes={self.classes}"

    @property
    def support(self):
        return f"one-hot vectors of {self.classes} classes"

    def distribution(self, parameters):
        return OneHots(by_variable(parameters, self.classes))


@dataclasses.dataclass(frozen=True)
class RelaxedCategorical(_OfLogits):
    """Logits of Concrete variables, a relaxation of `Categorical`; a network is given points of the simplex.

    Args:
      latent_size: int, D, of all variables together.
      classes: int, C, of each variable; D of one variable where it is None.
      temperature: float, t > 0.

    Raises:
      ValueError: if C is below 2 or does not divide D.
    """

    classes: int | None = None
    temperature: float = 2 / 3

    name = "relaxed_categorical"

    def __post_init__(self):
        object.__setattr__(self, "classes", _classes(self.latent_size, self.classes))
        positive("temperature", self.temperature)

    @property
    def prior(self):
        return f"relaxed_categorical,classes={self.classes},temperature={self.temperature}"

    @property
    def discrete(self):
        return Categorical(self.latent_size, self.classes)

    def features(self, z):
        return joined(tf.nn.softmax(by_variable(z, self.classes)))

    def distribution(self, parameters):
        return RelaxedOneHots(by_variable(parameters, self.classes), self.temperature)


def _classes(latent_size, classes):
    """The number of classes, C; all if it is None."""
    if classes is None and latent_size < 2:
        raise ValueError(f"A categorical latent has at least two classes: received latent_size={latent_size}.")
    classes = integer("classes", latent_size if classes is None else classes, least=2)
    if latent_size % classes:
        raise ValueError(f"classes must divide the size of the latent, {latent_size}: received {classes}.")
    return classes
