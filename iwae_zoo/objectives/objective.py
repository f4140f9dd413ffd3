"""Objectives: what the decoder follows, what the encoder follows, and how the encoder's gradient is estimated.

    Objective = decoder bound  x  encoder bound  x  gradient estimator

The registry below is the only list of named objectives; any other combination is `get` with overrides.
"""

import dataclasses
from typing import NamedTuple

import keras
import tensorflow as tf

from iwae_zoo._checks import integer, look_up
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

    Raises:
      ValueError: if m or k is not a positive integer, or the three do not fit together.
    """

    name: str
    m: int
    k: int
    decoder_bound: bounds.Bound
    encoder_bound: bounds.Bound
    estimator: estimators.GradientEstimator

    def __post_init__(self):
        for axis in ("m", "k"):
            object.__setattr__(self, axis, integer(axis, getattr(self, axis)))
        self.decoder_bound.validate(self.m, self.k)
        self.encoder_bound.validate(self.m, self.k)
        if self.estimator.follows_weights and self.encoder_bound.has_constant_weights(self.m, self.k):
            raise ValueError(
                f"The estimator {self.estimator.name!r} would give the encoder no signal: all weights of "
                f"{self.encoder_bound} are the same at m={self.m}, k={self.k}. Use an importance-weighted encoder "
                "bound with at least two particles in a group, or another estimator."
            )

    def particle_weights(self, log_weights):
        """Weights of each particle's gradient contributions; treat them as constants.

        Args:
          log_weights: float tensor [M, K, B], nats.

        Returns:
          `ParticleWeights` of three float tensors [M, K, B].

        Raises:
          ValueError: if `log_weights` is not [m, k, B].
        """
        log_weights = tf.convert_to_tensor(log_weights)
        if not log_weights.shape.is_compatible_with([self.m, self.k, None]):
            raise ValueError(
                f"log_weights must have shape [m={self.m}, k={self.k}, B]: received shape {log_weights.shape}."
            )
        path, score = self.estimator.weights(
            self.encoder_bound.weights(log_weights), self.encoder_bound.weight_derivatives(log_weights)
        )
        return ParticleWeights(self.decoder_bound.weights(log_weights), path, score)

    def get_config(self):
        """A JSON-compatible description from which `from_config` makes an equal objective."""
        return {
            "name": self.name,
            "m": self.m,
            "k": self.k,
            "decoder_bound": bounds.to_config(self.decoder_bound),
            "encoder_bound": bounds.to_config(self.encoder_bound),
            "estimator": self.estimator.name,
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
}
_ALIASES = {"vae": "elbo"}


def names():
    """Every registered name, in the order of the table."""
    return tuple(TABLE)


def get(identifier, *, m=8, k=8, beta=None, alpha=None, estimator=None, decoder_bound=None, encoder_bound=None):
    """Returns an objective by name, with any of its three parts replaced; an `Objective` is returned as it is.

    Args:
      identifier: one of `names()`, "vae" for "elbo", or an `Objective`.
      m: int, number of groups of particles.
      k: int, number of particles in a group.
      beta: float in [0, 1], share of the ELBO in "combination" bounds (default 0.5).
      alpha: float in [0, 1), order of "vr_iwae" bounds (default 0.5).
      estimator: name of a gradient estimator or a `GradientEstimator`, instead of the objective's own.
      decoder_bound: name of a bound or a `Bound`, instead of the objective's own.
      encoder_bound: the same for the encoder.

    Raises:
      ValueError: on an unknown name, a number out of range, a `beta` or `alpha` for bounds that have none, or parts
        that do not fit together.

    #### Examples
    >>> get("piwae", m=2, k=4).decoder_bound, get("piwae", m=2, k=4).encoder_bound
    (ImportanceWeighted(groups=1), ImportanceWeighted(groups=2))
    >>> get("miwae", m=2, k=4, estimator="doubly_reparameterized").estimator.name
    'doubly_reparameterized'
    """
    if isinstance(identifier, Objective):
        if any(part is not None for part in (beta, alpha, estimator, decoder_bound, encoder_bound)):
            raise ValueError(f"An Objective is complete and takes no overrides: received {identifier}. Give its name.")
        return identifier
    row = look_up(TABLE, _ALIASES.get(identifier, identifier), "objective")
    m, k = integer("m", m), integer("k", k)
    sides = (decoder_bound or row.decoder_bound, encoder_bound or row.encoder_bound)
    given = {name: value for name, value in (("beta", beta), ("alpha", alpha)) if value is not None}
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
    return Objective(name, m, k, decoder, encoder, estimators.get(estimator or row.estimator))


def check_reparameterized(objective, posterior, reparameterized):
    """Checks that an objective's estimator can have its particles.

    Args:
      objective: `Objective`.
      posterior: str, what the posterior is called.
      reparameterized: bool, whether its draws have derivatives by its parameters.

    Raises:
      ValueError: if the estimator needs derivatives that there are not.
    """
    if reparameterized or not objective.estimator.uses_path:
        return
    pathless = [name for name in estimators.names() if not estimators.get(name).uses_path]
    named = [name for name, row in TABLE.items() if row.estimator in pathless]
    raise ValueError(
        f"The estimator {objective.estimator.name!r} of the objective {objective.name!r} needs reparameterised "
        f"particles, and those of a posterior {posterior!r} are not. Use an estimator that needs none "
        f"({', '.join(pathless)}), an objective with one ({', '.join(named)}), or another posterior."
    )
