"""Priors p(z). Their variables train with the decoder. The table at the end is the only list of priors."""

import math

import keras
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from iwae_zoo._checks import integer, parse
from iwae_zoo.distributions import flow, posteriors
from iwae_zoo.distributions.gaussian import DiagonalNormal, StandardNormal
from iwae_zoo.distributions.posterior import positive_scale
from iwae_zoo.networks.weights import add_weights

__all__ = [
    "TABLE",
    "BernoulliPrior",
    "CategoricalPrior",
    "CouplingFlowPrior",
    "MixtureOfNormalsPrior",
    "Prior",
    "RelaxedBernoulliPrior",
    "RelaxedCategoricalPrior",
    "StandardNormalPrior",
    "get",
    "names",
]


class Prior(keras.Layer):
    """A distribution over the latent.

    Args:
      latent_size: int, D.
      seed: int, of the initial weights, where there are some.
    """

    # What can be asked for besides, as in "bernoulli,learned=False".
    settings: tuple[str, ...] = ()

    def __init__(self, latent_size, seed=0, **kwargs):
        super().__init__(**kwargs)
        self.latent_size = latent_size
        self.seed = seed

    @property
    def supports(self):
        """As `Posterior.supports`."""
        name = next((name for name, row in TABLE.items() if isinstance(self, row)), type(self).__name__)
        return ((name, posteriors.REAL, True),)

    def distribution(self):
        """p(z): batch [], event [D]."""
        raise NotImplementedError

    def get_config(self):
        return {**super().get_config(), "latent_size": self.latent_size, "seed": self.seed}


@keras.saving.register_keras_serializable(package="iwae_zoo")
class StandardNormalPrior(Prior):
    """p(z) = N(0, I).

    Args:
      latent_size: int, D.
    """

    def distribution(self):
        return StandardNormal(self.latent_size, self.variable_dtype)


@keras.saving.register_keras_serializable(package="iwae_zoo")
class MixtureOfNormalsPrior(Prior):
    """p(z) = sum_c w_c N(z; m_c, diag(s_c^2)), whose weights, means and standard deviations are learned.

    It starts with equal weights, and means so spread that the mixture has variance 1 in each dimension.

    Args:
      latent_size: int, D.
      num_components: int, number of Normals.
      seed: int, of the initial means.
    """

    settings = ("num_components",)

    def __init__(self, latent_size, num_components=10, seed=0, **kwargs):
        super().__init__(latent_size, seed, **kwargs)
        self.num_components = integer("num_components", num_components)
        shape = (num_components, latent_size)
        # Neighbours are then a few standard deviations apart, however many dimensions there are.
        spread = (1.0 / (latent_size + 1.0)) ** 0.5
        means = keras.initializers.RandomNormal(stddev=spread, seed=seed)
        raw_scale = keras.initializers.Constant(math.log(math.expm1((1.0 - spread**2) ** 0.5)))
        self.logits = self.add_weight(shape=(num_components,), initializer="zeros", name="logits")
        self.loc = self.add_weight(shape=shape, initializer=means, name="loc")
        self.raw_scale = self.add_weight(shape=shape, initializer=raw_scale, name="raw_scale")

    def distribution(self):
        logits, loc, raw_scale = (tf.convert_to_tensor(v) for v in (self.logits, self.loc, self.raw_scale))
        return tfd.MixtureSameFamily(tfd.Categorical(logits=logits), DiagonalNormal(loc, positive_scale(raw_scale)))

    def get_config(self):
        return {**super().get_config(), "num_components": self.num_components}


@keras.saving.register_keras_serializable(package="iwae_zoo")
class CouplingFlowPrior(Prior):
    """p(z) of a coupling flow: what N(0, I), where it starts, becomes under `distributions.flow`.

    Args:
      latent_size: int, D, at least 2.
      num_couplings: int, number of coupling layers.
      hidden_size: int, units in the network of each.
      seed: int, of the initial weights.

    Raises:
      ValueError: on a latent of one dimension.
    """

    settings = ("num_couplings", "hidden_size")

    def __init__(self, latent_size, num_couplings=4, hidden_size=32, seed=0, **kwargs):
        super().__init__(latent_size, seed, **kwargs)
        self.num_couplings = integer("num_couplings", num_couplings)
        self.hidden_size = integer("hidden_size", hidden_size)
        self.shared = add_weights(self, flow.weights(latent_size, num_couplings, hidden_size), seed)
        self.hidden_biases = self.add_weight(
            shape=(num_couplings, hidden_size), initializer="zeros", name="hidden_biases"
        )

    def distribution(self):
        base = StandardNormal(self.latent_size, self.variable_dtype)
        return flow.CouplingFlow(base, tf.convert_to_tensor(self.hidden_biases), self.shared)

    def get_config(self):
        return {**super().get_config(), "num_couplings": self.num_couplings, "hidden_size": self.hidden_size}


class _HeadPrior(Prior):
    """p(z) of a posterior's head whose parameters, zeros at the start, are the same for every z.

    Args:
      latent_size: int, D.
      learned: bool, whether the parameters are learned, or stay zeros.
      seed: int, without effect.
    """

    head_class: type[posteriors.Posterior]

    def __init__(self, latent_size, learned=True, seed=0, **kwargs):
        fields = {name: kwargs.pop(name) for name in self.settings if name in kwargs}
        super().__init__(latent_size, seed, **kwargs)
        if not isinstance(learned, bool):
            raise ValueError(f"learned must be True or False: received {learned!r}.")
        self.learned = learned
        self.head = self.head_class(latent_size, **fields)
        self.parameters = self.add_weight(
            shape=(self.head.num_parameters,), initializer="zeros", trainable=learned, name="parameters"
        )

    @property
    def supports(self):
        return self.head.supports

    def distribution(self):
        return self.head.distribution(tf.convert_to_tensor(self.parameters))

    def get_config(self):
        own = {name: getattr(self if name == "learned" else self.head, name) for name in self.settings}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="iwae_zoo")
class BernoulliPrior(_HeadPrior):
    """Independent bits, fair ones at the start.

    Args:
      latent_size: int, D.
      learned: bool, whether their logits are learned; otherwise the bits stay fair.
    """

    head_class = posteriors.Bernoulli
    settings = ("learned",)


@keras.saving.register_keras_serializable(package="iwae_zoo")
class CategoricalPrior(_HeadPrior):
    """Independent classes, all as probable at the start.

    Args:
      latent_size: int, D.
      learned: bool, whether their logits are learned; otherwise the classes stay as probable.
      classes: int, as of `posteriors.Categorical`.
    """

    head_class = posteriors.Categorical
    settings = ("learned", "classes")


@keras.saving.register_keras_serializable(package="iwae_zoo")
class RelaxedBernoulliPrior(_HeadPrior):
    """Relaxed bits, of logits 0 at the start.

    Args:
      latent_size: int, D.
      learned: bool, whether their logits are learned.
      temperature: float, as of `posteriors.RelaxedBernoulli`; it may be another one than the posterior's.
    """

    head_class = posteriors.RelaxedBernoulli
    settings = ("learned", "temperature")


@keras.saving.register_keras_serializable(package="iwae_zoo")
class RelaxedCategoricalPrior(_HeadPrior):
    """Relaxed classes, of logits 0 at the start.

    Args:
      latent_size: int, D.
      learned: bool, whether their logits are learned.
      classes: int, as of `posteriors.RelaxedCategorical`.
      temperature: float, as there; it may be another one than the posterior's.
    """

    head_class = posteriors.RelaxedCategorical
    settings = ("learned", "classes", "temperature")


# A new prior is a class of (latent_size, seed) and a row.
TABLE: dict[str, type[Prior]] = {
    "standard_normal": StandardNormalPrior,
    "mixture_of_normals": MixtureOfNormalsPrior,
    "coupling_flow": CouplingFlowPrior,
    "bernoulli": BernoulliPrior,
    "categorical": CategoricalPrior,
    "relaxed_bernoulli": RelaxedBernoulliPrior,
    "relaxed_categorical": RelaxedCategoricalPrior,
}


def names():
    """Every name that `get` accepts."""
    return tuple(TABLE)


def get(identifier, latent_size, seed=0):
    """Returns a prior by name, with settings where it has some.

    Raises:
      ValueError: on an unknown name, a setting that the prior does not have or take, or a size that it is not for.

    #### Examples
    >>> get("bernoulli,learned=False", 5).trainable_variables
    []
    """
    prior, settings = parse(identifier, "prior", TABLE, lambda row: row.settings)
    return prior(latent_size, seed=seed, **settings)
