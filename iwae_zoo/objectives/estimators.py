"""Gradient estimators of the encoder: from a bound and log weights to per-particle weights.

    encoder gradient = sum_i path_i  (d z_i / d phi)^T d/dz [log p(x, z) - log q(z | x)] at z_i
                     + sum_i score_i d/d phi log q(z_i | x), with z_i held fixed

Most are linear in `a = d bound / d log_weights` and `a'_i = d a_i / d log_weights_i`: four numbers each, and a new one
is one line of the table.
"""

import abc
import dataclasses

import tensorflow as tf

from iwae_zoo._checks import look_up
from iwae_zoo.objectives.thermodynamic import Thermodynamic

__all__ = ["Covariance", "GradientEstimator", "Linear", "get", "names"]


class GradientEstimator(abc.ABC):
    """A gradient estimator of the encoder.

    Attributes:
      name: str.
      uses_path: whether the pathwise term is there at all; it needs reparameterised particles.
      uses_score: whether the score term is there at all.
      follows_weights: whether its expectation is zero for a bound whose weights are constant (the wake updates, which
        descend KL(p || q) instead of following the bound): such a pair would train nothing.
      auxiliary: int, number of particles that it weighs besides the M K of the bound; they get no weights of their own.
    """

    name: str
    uses_path: bool = False
    uses_score: bool = False
    follows_weights: bool = False
    auxiliary: int = 0

    @abc.abstractmethod
    def weights(self, bound, log_weights, auxiliary=None):
        """Returns `(path, score)`, each of the shape of `log_weights`.

        Args:
          bound: `Bound` that the encoder follows.
          log_weights: float tensor [M, K, B], nats.
          auxiliary: float tensor [S, B], log weights of the auxiliary particles; None where there are none.
        """

    def validate(self, bound, m, k):
        """Raises ValueError if it cannot estimate the gradient of `bound` with log weights of shape [m, k, B]."""
        if not (bound.is_lower_bound or self.follows_weights):
            wake = ", ".join(row.name for row in TABLE.values() if row.follows_weights)
            raise ValueError(
                f"The estimator {self.name!r} would have the encoder raise {bound}, which is no lower bound on "
                f"log p(x): a worse posterior can raise it without end. Use another encoder bound, or one of {wake}."
            )
        if self.follows_weights and bound.has_constant_weights(m, k):
            raise ValueError(
                f"The estimator {self.name!r} would give the encoder no signal: all weights of {bound} are the same at "
                f"m={m}, k={k}. Use an importance-weighted encoder bound with at least two particles in a group, or "
                "another estimator."
            )


@dataclasses.dataclass(frozen=True)
class Linear(GradientEstimator):
    """A gradient estimator that is linear in `(a, a')`.

    Args:
      name: str.
      path: (float, float), the factors of `a` and `a'` in the weight of the pathwise term.
      score: (float, float), the factors of `a` and `a'` in the weight of the score term.
      follows_weights: as in `GradientEstimator`.
    """

    name: str
    path: tuple[float, float]
    score: tuple[float, float]
    follows_weights: bool = False

    @property
    def uses_path(self):
        return any(self.path)

    @property
    def uses_score(self):
        return any(self.score)

    def weights(self, bound, log_weights, auxiliary=None):
        a, derivative = bound.weights(log_weights), bound.weight_derivatives(log_weights)
        return tuple(p * a + q * derivative for p, q in (self.path, self.score))


@dataclasses.dataclass(frozen=True)
class Covariance(GradientEstimator):
    """The gradient of thermodynamic bounds as covariances, for latents that cannot be reparameterised.

    d/d_phi E_pi[log w] = -E_pi[d log q] + (1 - beta) Cov_pi(log w, d log q),   pi = pi_beta

    estimated with self-normalised weights, for each beta of the sum: no learning signal multiplies a particle's score
    but its own distance to the mean. An upper bound is descended, a lower one ascended. The bias is O(1 / N) for N
    particles in a group.

    #### References
    Masrani, Le, Wood. The Thermodynamic Variational Objective. NeurIPS 2019, section 4.
    https://arxiv.org/abs/1907.00031
    """

    name = "covariance"
    uses_score = True

    def weights(self, bound, log_weights, auxiliary=None):
        score = bound.covariance_weights(log_weights)
        return tf.zeros_like(score), score if bound.is_lower_bound else -score

    def validate(self, bound, m, k):
        if not isinstance(bound, Thermodynamic):
            raise ValueError(
                f"The estimator {self.name!r} is that of thermodynamic bounds: received {bound}. Use the encoder bound "
                "'thermodynamic', or another estimator."
            )
        if m * k == bound.groups:
            raise ValueError(
                f"The estimator {self.name!r} needs at least two particles in a group: received {bound} at m={m}, "
                f"k={k}. Raise k."
            )


# A new estimator that is linear in the two is a row.
TABLE = {
    row.name: row
    for row in (
        # The total derivative of a reparameterised bound: Kingma & Welling 2014, Burda et al. 2016.
        Linear("reparameterized", path=(1, 0), score=(-1, 0)),
        # Roeder et al. 2017, arXiv 1703.09194. Unbiased for the elbo only; BIASED for every tighter bound.
        Linear("sticking_the_landing", path=(1, 0), score=(0, 0)),
        # Tucker et al. 2019, arXiv 1810.04152: E[a dlogq/dphi] = E[a' dz/dphi dlogw/dz] turns score into path.
        Linear("doubly_reparameterized", path=(1, -1), score=(0, 0)),
        # Wake-phase update of the encoder: Bornschein & Bengio 2015, arXiv 1406.2751. Bias O(1/K) for KL(p || q).
        Linear("wake", path=(0, 0), score=(1, 0), follows_weights=True),
        # The same in expectation, reparameterised: Tucker et al. 2019, section 5 (RWS-DReG).
        Linear("doubly_reparameterized_wake", path=(0, 1), score=(0, 0), follows_weights=True),
        Covariance(),
    )
}


def names():
    """Every name that `get` accepts."""
    return tuple(TABLE)


def get(identifier):
    """Returns a gradient estimator by name; a `GradientEstimator` is returned as it is.

    Raises:
      ValueError: on an unknown name.

    #### Examples
    >>> get("doubly_reparameterized").path
    (1, -1)
    """
    if isinstance(identifier, GradientEstimator):
        return identifier
    return look_up(TABLE, identifier, "gradient estimator")
