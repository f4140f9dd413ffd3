"""Posterior heads: an encoder body's output, read as the parameters of q(z | x)."""

import abc
import dataclasses
from typing import ClassVar

import tensorflow as tf
import tensorflow_probability as tfp

from iwae_zoo._checks import integer, look_up, parse, positive
from iwae_zoo.distributions import flow, full_normal
from iwae_zoo.distributions.discrete import IndependentBits, OneHots
from iwae_zoo.distributions.gaussian import DiagonalNormal
from iwae_zoo.distributions.relaxed import RelaxedBits, RelaxedOneHots
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
        shape = tf.concat([tf.shape(biases)[:-1], [self.num_couplings, self.hidden_size]], axis=0)
        return flow.CouplingFlow(Normal(self.latent_size).distribution(of_base), tf.reshape(biases, shape), weights)


class Bernoulli(Posterior):
    """Independent bits, zeros and ones, from their logits."""

    name = "bernoulli"
    reparameterized = False

    @property
    def prior(self):
        return "bernoulli"

    @property
    def support(self):
        return "zeros and ones"

    @property
    def downwards(self):
        return self

    @property
    def num_parameters(self):
        return self.latent_size

    def distribution(self, parameters):
        return IndependentBits(parameters)


@dataclasses.dataclass(frozen=True)
class RelaxedBernoulli(Posterior):
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
    def downwards(self):
        return self

    @property
    def discrete(self):
        return Bernoulli(self.latent_size)

    def features(self, z):
        return tf.sigmoid(z)

    @property
    def num_parameters(self):
        return self.latent_size

    def distribution(self, parameters):
        return RelaxedBits(parameters, self.temperature)


@dataclasses.dataclass(frozen=True)
class Categorical(Posterior):
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

    @property
    def downwards(self):
        return self

    @property
    def num_parameters(self):
        return self.latent_size

    def distribution(self, parameters):
        return OneHots(_by_variable(parameters, self.classes))


@dataclasses.dataclass(frozen=True)
class RelaxedCategorical(Posterior):
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
    def downwards(self):
        return self

    @property
    def discrete(self):
        return Categorical(self.latent_size, self.classes)

    def features(self, z):
        return tf.reshape(tf.nn.softmax(_by_variable(z, self.classes)), tf.shape(z))

    @property
    def num_parameters(self):
        return self.latent_size

    def distribution(self, parameters):
        return RelaxedOneHots(_by_variable(parameters, self.classes), self.temperature)


def _classes(latent_size, classes):
    """The number of classes, C; all if it is None."""
    classes = integer("classes", latent_size if classes is None else classes, least=2)
    if latent_size % classes:
        raise ValueError(f"classes must divide the size of the latent, {latent_size}: received {classes}.")
    return classes


def _by_variable(values, classes):
    """[..., G C] as [..., G, C]."""
    return tf.reshape(values, tf.concat([tf.shape(values)[:-1], [values.shape[-1] // classes, classes]], axis=0))


def _scale(raw):
    """Positive numbers. The floor keeps the density of an (almost) deterministic dimension finite."""
    return tf.math.softplus(raw) + 1e-4


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
    return look_up(TABLE, arguments.pop("name"), "posterior")(**arguments)


def optional(config):
    """As `from_config`; None of None."""
    return config and from_config(config)


def _settings(head):
    return [field.name for field in dataclasses.fields(head) if field.name != "latent_size"]
