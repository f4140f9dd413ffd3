"""Gradient estimators of the encoder: from a bound and log weights to per-particle weights.

    encoder gradient = sum_i path_i  (d z_i / d phi)^T d/dz [log p(x, z) - log q(z | x)] at z_i
                     + sum_i score_i d/d phi log q(z_i | x), with z_i held fixed

Most are linear in `a = d bound / d log_weights` and `a'_i = d a_i / d log_weights_i`: four numbers each, and a new one
is one line of the table. The others have a score term only, for latents that cannot be reparameterised: the particle's
part L of the bound, less a baseline c_i that is to depend on the other particles alone, and less a_i,

    score_i = L - c_i - a_i

which is unbiased for every such baseline.
"""

import abc
import dataclasses
from typing import ClassVar

import tensorflow as tf

from iwae_zoo._checks import fraction, integer, parse
from iwae_zoo.objectives.thermodynamic import Thermodynamic

__all__ = ["Covariance", "GradientEstimator", "Linear", "Ovis", "Reinforce", "Vimco", "get", "identifier", "names"]


class GradientEstimator(abc.ABC):
    """A gradient estimator of the encoder.

    Attributes:
      name: str.
      settings: tuple of str, the attributes that can be asked for besides the name.
    """

    name: str
    settings: ClassVar[tuple[str, ...]] = ()

    @property
    def uses_path(self) -> bool:
        """Whether the pathwise term is there at all; it needs reparameterised particles."""
        return False

    @property
    def uses_score(self) -> bool:
        """Whether the score term is there at all."""
        return False

    @property
    def follows_weights(self) -> bool:
        """Whether its expectation is zero for a bound whose weights are constant.

        So it is of the wake updates, which descend KL(p || q) instead of following the bound: such a pair would train
        nothing.
        """
        return False

    @property
    def auxiliary(self) -> int:
        """Number of particles that it weighs besides the M K of the bound; they get no weights of their own."""
        return 0

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
            others = ["covariance"] if isinstance(bound, Thermodynamic) else []
            others += [row.name for row in TABLE.values() if row.follows_weights]
            raise ValueError(
                f"The estimator {self.name!r} would have the encoder raise {bound}, which is no lower bound on "
                "log p(x): a worse posterior can raise it without end. Use another encoder bound, or one of "
                f"{', '.join(others)}."
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


class _ScoreFunction(GradientEstimator):
    """A gradient estimator that is a learning signal times the score, and linear in the bound."""

    uses_score = True

    @property
    def _needs_others(self) -> bool:
        """Whether the baseline is made of the other particles of the group."""
        return False

    @abc.abstractmethod
    def _score(self, bound, log_weights, auxiliary):
        """float tensor [M, K, B]."""

    def weights(self, bound, log_weights, auxiliary=None):
        score = tf.add_n([share * self._score(part, log_weights, auxiliary) for share, part in bound.components()])
        return tf.zeros_like(score), score

    def validate(self, bound, m, k):
        super().validate(bound, m, k)
        size = min(part.group_size(m, k) for _, part in bound.components())
        if self._needs_others and size < 2:
            raise ValueError(
                f"The estimator {self.name!r} takes its baseline from the other particles of a group, and {bound} has "
                f"{size} in a group at m={m}, k={k}. Use at least two, or the estimator 'reinforce'."
            )


@dataclasses.dataclass(frozen=True)
class Reinforce(_ScoreFunction):
    """No baseline: score_i = L - a_i.

    #### References
    Williams. Simple statistical gradient-following algorithms for connectionist reinforcement learning. 1992.
    """

    name = "reinforce"

    def _score(self, bound, log_weights, auxiliary):
        return bound.parts(log_weights) - bound.weights(log_weights)


@dataclasses.dataclass(frozen=True)
class Vimco(_ScoreFunction):
    """The baseline is the bound with the mean of the others' log weights in the particle's place. Unbiased.

    #### References
    Mnih, Rezende. Variational inference for Monte Carlo objectives. ICML 2016, eq. 9 and 10.
    https://arxiv.org/abs/1602.06725
    """

    name = "vimco"
    _needs_others = True

    def _score(self, bound, log_weights, auxiliary):
        signal, _ = bound.replaced(log_weights, bound.mean_of_others(log_weights)[tf.newaxis])
        return signal[0] - bound.weights(log_weights)


@dataclasses.dataclass(frozen=True)
class Ovis(_ScoreFunction):
    """The baseline is near the one of least variance, so that the signal-to-noise ratio does not fall with K.

    With auxiliary particles it is the mean of `L - a_i` with each of their log weights in the particle's place, which
    is unbiased.

    Without, with L' the bound of the other N - 1 particles of the group alone (of thermodynamic bounds, L with the mean
    of their weights in the particle's place),

        c_i = L' - gamma a_i + (1 - gamma) log(1 - 1 / N) / groups

    which is unbiased for gamma = 0. The term in gamma depends on the particle itself: in expectation it adds gamma
    times the wake update.

    Args:
      gamma: float in [0, 1].
      auxiliary: int, number S of particles that are drawn and weighed for the baseline alone; 0 for the closed form.

    Raises:
      ValueError: if gamma is out of range, or is given with auxiliary particles.

    #### References
    Liévin, Dittadi, Christensen, Winther. Optimal Variance Control of the Score Function Gradient Estimator for
    Importance Weighted Bounds. NeurIPS 2020, eq. 12 (auxiliary particles) and 17 (gamma).
    https://arxiv.org/abs/2008.01998
    """

    name = "ovis"
    settings = ("gamma", "auxiliary")

    gamma: float = 0.0
    auxiliary: int = 0

    def __post_init__(self):
        object.__setattr__(self, "auxiliary", integer("auxiliary", self.auxiliary, 0))
        object.__setattr__(self, "gamma", fraction("gamma", self.gamma))
        if self.auxiliary and self.gamma:
            raise ValueError(
                f"gamma is of the form without auxiliary particles: received gamma={self.gamma!r} with "
                f"auxiliary={self.auxiliary}. Leave one out."
            )

    @property
    def _needs_others(self):
        return not self.auxiliary

    def _score(self, bound, log_weights, auxiliary):
        a = bound.weights(log_weights)
        if self.auxiliary:
            signal, weight = bound.replaced(log_weights, auxiliary[:, tf.newaxis, tf.newaxis])
            return tf.reduce_mean(signal + weight, axis=0) - a
        m, k, _ = log_weights.shape
        size = bound.group_size(m, k)
        one_less = tf.math.log1p(tf.constant(-1.0 / size, a.dtype)) * (size / (m * k))
        return bound.leave_one_out(log_weights) - (1.0 - self.gamma) * (a + one_less)


@dataclasses.dataclass(frozen=True)
class Covariance(GradientEstimator):
    """The gradient of thermodynamic bounds as covariances, for latents that cannot be reparameterised.

    d/d_phi E_pi[log w] = -E_pi[d log q] + (1 - beta) Cov_pi(log w, d log q),   pi = pi_beta

    estimated with self-normalised weights, for each beta of the sum: no learning signal multiplies a particle's score
    but its own distance to the mean. An upper bound is descended, a lower one ascended. The bias is O(1 / N) for N
    particles in a group.

    #### References
    Masrani, Le, Wood. The Thermodynamic Variational Objective. NeurIPS 2019. https://arxiv.org/abs/1907.00031
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
        Reinforce(),
        Vimco(),
        Ovis(),
        Covariance(),
    )
}


def names():
    """Every name that `get` accepts."""
    return tuple(TABLE)


def get(identifier):
    """Returns a gradient estimator by name; a `GradientEstimator` is returned as it is.

    Args:
      identifier: one of `names()`, with settings where it has some, as in "ovis,gamma=1" or "ovis,auxiliary=5".

    Raises:
      ValueError: on an unknown name or setting, or a value that it does not take.

    #### Examples
    >>> get("doubly_reparameterized").path
    (1, -1)
    >>> get("ovis,auxiliary=5")
    Ovis(gamma=0.0, auxiliary=5)
    """
    if isinstance(identifier, GradientEstimator):
        return identifier
    row, settings = parse(identifier, "gradient estimator", TABLE, lambda row: row.settings)
    return dataclasses.replace(row, **settings) if settings else row


def identifier(estimator):
    """The text from which `get` makes an equal estimator, for a configuration.

    Raises:
      ValueError: if there is none, because the estimator is none of the table's.
    """
    row = TABLE.get(estimator.name)
    changed = [name for name in estimator.settings if row and getattr(estimator, name) != getattr(row, name)]
    text = ",".join([estimator.name, *(f"{name}={getattr(estimator, name)!r}" for name in changed)])
    if row is None or get(text) != estimator:
        raise ValueError(
            f"A saved model finds its gradient estimator by name, and {estimator} is not that of {estimator.name!r} in "
            "iwae_zoo.objectives.estimators.TABLE: add it there under a name of its own."
        )
    return text
