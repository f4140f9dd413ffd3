"""Objectives: what the decoder follows, what the encoder follows, and how the encoder's gradient is estimated.

    Objective = decoder bound  x  encoder bound  x  gradient estimator

The registry below is the only list of named objectives; any other combination is `get` with overrides.
"""

import dataclasses
from typing import NamedTuple

import keras
import tensorflow as tf

from iwae_zoo._checks import fraction, integer, look_up
from iwae_zoo.objectives import bounds, estimators

__all__ = ["Objective", "ParticleWeights", "check_reparameterized", "get", "names"]


class ParticleWeights(NamedTuple):
    """What each particle contributes to the gradients (ascent directions); float tensors [M, K, B].

    Attributes:
      decoder: weight of `d log p(x, z_i) / d theta` in the decoder's gradient.
      path: weight of the pathwise term in the encoder's gradient.
      score: weight of `d log q(z_i | x) / d phi`, z_i held fixed, in the encoder's gradient.
    """

    decoder: tf.Tensor
    path: tf.Tensor
    score: tf.Tensor


@keras.saving.register_keras_serializable(package="iwae_zoo")
@dataclasses.dataclass(frozen=True)
class Objective:
    """A pair of bounds over M groups of K particles and an estimator of the encoder's gradient.

    Attributes:
      name: str, the registered name that it was made from.
      m: int, number of groups.
      k: int, number of particles in a group.
      decoder_bound: `Bound` whose gradient the decoder (and the prior) follows.
      encoder_bound: `Bound` whose gradient the encoder follows.
      estimator: `GradientEstimator` of the encoder.
      sleep: float in [0, 1], share of the sleep update in the encoder's gradient: `d/d phi log q(z | x)` at draws of
        the model, one for each example. At 1 the encoder follows no bound.

    Raises:
      ValueError: if m or k is not a positive integer, sleep is out of range, or the parts do not fit together.
    """

    name: str
    m: int
    k: int
    decoder_bound: bounds.Bound
    encoder_bound: bounds.Bound
    estimator: estimators.GradientEstimator
    sleep: float = 0.0

    def __post_init__(self):
        for axis in ("m", "k"):
            object.__setattr__(self, axis, integer(axis, getattr(self, axis)))
        self.decoder_bound.validate(self.m, self.k)
        self.encoder_bound.validate(self.m, self.k)
        if not self.decoder_bound.for_decoder:
            raise ValueError(
                f"The decoder cannot follow {self.decoder_bound}: raising it does not raise log p(x). Give it a lower "
                "bound, such as decoder_bound='thermodynamic'."
            )
        estimators.identifier(self.estimator)  # By which a saved model finds it.
        sleep = fraction("sleep", self.sleep, " 0 is no sleep update, 1 is nothing else.")
        object.__setattr__(self, "sleep", sleep)
        if self.sleep < 1.0:
            self.estimator.validate(self.encoder_bound, self.m, self.k)

    @property
    def uses_path(self):
        """Whether the encoder's gradient has a pathwise term, which needs reparameterised particles."""
        return self.estimator.uses_path and self.sleep < 1.0

    @property
    def uses_score(self):
        """Whether the encoder's gradient has a score term."""
        return self.estimator.uses_score and self.sleep < 1.0

    @property
    def auxiliary(self):
        """int, how many particles are drawn and weighed besides the M K."""
        return self.estimator.auxiliary if self.sleep < 1.0 else 0

    def particle_weights(self, log_weights, auxiliary=None):
        """Weights of each particle's gradient contributions; treat them as constants.

        Args:
          log_weights: float tensor [M, K, B], nats.
          auxiliary: float tensor [S, B], log weights of the estimator's auxiliary particles, drawn like the others;
            None where it has none.

        Returns:
          `ParticleWeights` of three float tensors [M, K, B].

        Raises:
          ValueError: if `log_weights` is not [m, k, B], or `auxiliary` not [S, B].
        """
        log_weights = tf.convert_to_tensor(log_weights)
        if not log_weights.shape.is_compatible_with([self.m, self.k, None]):
            raise ValueError(
                f"log_weights must have shape [m={self.m}, k={self.k}, B]: received shape {log_weights.shape}."
            )
        count = self.auxiliary
        if (auxiliary is not None) != bool(count) or (count and not auxiliary.shape.is_compatible_with([count, None])):
            received = None if auxiliary is None else auxiliary.shape
            raise ValueError(
                f"The estimator {estimators.identifier(self.estimator)!r} needs the log weights of {count} auxiliary "
                f"particles, [{count}, B], or None for 0: received {received}."
            )
        decoder = self.decoder_bound.weights(log_weights)
        if self.sleep == 1.0:
            return ParticleWeights(decoder, tf.zeros_like(decoder), tf.zeros_like(decoder))
        path, score = self.estimator.weights(self.encoder_bound, log_weights, auxiliary)
        if self.sleep:
            path, score = (1.0 - self.sleep) * path, (1.0 - self.sleep) * score
        return ParticleWeights(decoder, path, score)

    @property
    def companions(self):
        """dict from the name of each metric that is shown beside the bounds to the `Bound` that has it."""
        sides = (self.encoder_bound, self.decoder_bound)  # Of the same name, the decoder's.
        return {bound.companion: bound for bound in sides if bound.companion}

    def get_config(self):
        """A JSON-compatible description from which `from_config` makes an equal objective."""
        return {
            "name": self.name,
            "m": self.m,
            "k": self.k,
            "decoder_bound": bounds.to_config(self.decoder_bound),
            "encoder_bound": bounds.to_config(self.encoder_bound),
            "estimator": estimators.identifier(self.estimator),
            "sleep": self.sleep,
        }

    @classmethod
    def from_config(cls, config):
        """The inverse of `get_config`."""
        return cls(
            **{
                **config,
                "decoder_bound": bounds.from_config(config["decoder_bound"]),
                "encoder_bound": bounds.from_config(config["encoder_bound"]),
                "estimator": estimators.get(config["estimator"]),
            }
        )


class Row(NamedTuple):
    decoder_bound: str
    encoder_bound: str
    estimator: str = "reparameterized"


# A new name for a combination is a row.
TABLE = {
    "elbo": Row("elbo", "elbo"),  # Kingma & Welling 2014
    "iwae": Row("iwae", "iwae"),  # Burda et al. 2016
    "miwae": Row("miwae", "miwae"),  # Rainforth et al. 2018
    "piwae": Row("iwae", "miwae"),  # Rainforth et al. 2018
    "ciwae": Row("combination", "combination"),  # Rainforth et al. 2018
    "vr_iwae": Row("vr_iwae", "vr_iwae"),  # Daudel et al. 2023
    "stl": Row("iwae", "iwae", "sticking_the_landing"),  # Roeder et al. 2017
    "dreg": Row("iwae", "iwae", "doubly_reparameterized"),  # Tucker et al. 2019
    "rws": Row("iwae", "iwae", "wake"),  # Bornschein & Bengio 2015
    "rws_dreg": Row("iwae", "iwae", "doubly_reparameterized_wake"),  # Tucker et al. 2019
    "vimco": Row("iwae", "iwae", "vimco"),  # Mnih & Rezende 2016
    "ovis": Row("iwae", "iwae", "ovis"),  # Liévin et al. 2020
    "tvo": Row("thermodynamic", "thermodynamic"),  # Masrani et al. 2019
    "jvi": Row("jackknife", "iwae"),  # Nowozin 2018
}
_ALIASES = {"vae": "elbo"}


def names():
    """Every registered name, in the order of the table."""
    return tuple(TABLE)


def get(
    identifier,
    *,
    m=8,
    k=8,
    beta=None,
    alpha=None,
    points=None,
    spacing=None,
    beta_1=None,
    estimator=None,
    decoder_bound=None,
    encoder_bound=None,
    sleep=None,
):
    """Returns an objective by name, with any of its parts replaced; an `Objective` is returned as it is.

    Args:
      identifier: one of `names()`, "vae" for "elbo", or an `Objective`.
      m: int, number of groups of particles; an `Objective` keeps its own.
      k: int, number of particles in a group; the same.
      beta: float in [0, 1], share of the ELBO in "combination" bounds (default 0.5).
      alpha: float in [0, 1), order of "vr_iwae" bounds (default 0.5).
      points: int from 2 to 50, number of betas of "thermodynamic" bounds (default 6).
      spacing: "log_uniform" or "uniform", where their betas lie (default "log_uniform").
      beta_1: float in (0, 1), their first beta above 0 where spacing is "log_uniform" (default 0.1).
      estimator: name of a gradient estimator, with settings where it has some, or a `GradientEstimator`, instead of the
        objective's own.
      decoder_bound: name of a bound or a `Bound`, instead of the objective's own.
      encoder_bound: the same for the encoder.
      sleep: float in [0, 1], share of the sleep update in the encoder's gradient (default 0).

    Raises:
      ValueError: on an unknown name, a number out of range, a hyper-parameter for bounds that have none of its name, or
        parts that do not fit together.

    #### Examples
    >>> get("piwae", m=2, k=4).decoder_bound, get("piwae", m=2, k=4).encoder_bound
    (ImportanceWeighted(groups=1), ImportanceWeighted(groups=2))
    >>> get("miwae", m=2, k=4, estimator="doubly_reparameterized").estimator.name
    'doubly_reparameterized'
    """
    chosen = {"beta": beta, "alpha": alpha, "points": points, "spacing": spacing, "beta_1": beta_1}
    given = {name: value for name, value in chosen.items() if value is not None}
    if isinstance(identifier, Objective):
        if given or any(part is not None for part in (estimator, decoder_bound, encoder_bound, sleep)):
            raise ValueError(f"An Objective is complete and takes no overrides: received {identifier}. Give its name.")
        return identifier
    row = look_up(TABLE, _ALIASES.get(identifier, identifier), "objective")
    m, k = integer("m", m), integer("k", k)
    sides = (decoder_bound or row.decoder_bound, encoder_bound or row.encoder_bound)
    for name, value in given.items():
        if not any(name in bounds.hyperparameters(side) for side in sides):
            takers = [bound for bound in bounds.names() if name in bounds.hyperparameters(bound)]
            raise ValueError(
                f"{name}={value!r} was given to the objective {identifier!r}, whose bounds {sides[0]!r} (decoder) and "
                f"{sides[1]!r} (encoder) have no {name}. Leave it out, or use the bound {' or '.join(takers)}."
            )
    decoder, encoder = (
        bounds.get(side, m=m, **{name: given[name] for name in bounds.hyperparameters(side) if name in given})
        for side in sides
    )
    name = _ALIASES.get(identifier, identifier)
    return Objective(name, m, k, decoder, encoder, estimators.get(estimator or row.estimator), sleep or 0.0)


def check_reparameterized(objective, posterior, reparameterized):
    """Checks that an objective's estimator can have its particles.

    Args:
      objective: `Objective`.
      posterior: str, what the posterior is called.
      reparameterized: bool, whether its draws have derivatives by its parameters.

    Raises:
      ValueError: if the estimator needs derivatives that there are not.
    """
    if reparameterized or not objective.uses_path:
        return
    pathless = [name for name in estimators.names() if not estimators.get(name).uses_path]
    named = [name for name, row in TABLE.items() if row.estimator in pathless]
    raise ValueError(
        f"The estimator {objective.estimator.name!r} of the objective {objective.name!r} needs reparameterised "
        f"particles, and those of a posterior {posterior!r} are not. Use an estimator that needs none "
        f"({', '.join(pathless)}), an objective with one ({', '.join(named)}), or another posterior."
    )
