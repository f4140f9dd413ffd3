"""Gradient estimators of the encoder: from the derivatives of a bound to per-particle weights.

With `a = d bound / d log_weights` and `a'_i = d a_i / d log_weights_i`, every estimator here is linear in the two:

    encoder gradient = sum_i path_i  (d z_i / d phi)^T d/dz [log p(x, z) - log q(z | x)] at z_i
                     + sum_i score_i d/d phi log q(z_i | x), with z_i held fixed

so an estimator is four numbers, and a new one is one line of the table.
"""

import dataclasses

from iwae_zoo._checks import look_up

__all__ = ["GradientEstimator", "get", "names"]


@dataclasses.dataclass(frozen=True)
class GradientEstimator:
    """A gradient estimator of the encoder, linear in `(a, a')`.

    Attributes:
      name: str.
      path: (float, float), the factors of `a` and `a'` in the weight of the pathwise term.
      score: (float, float), the factors of `a` and `a'` in the weight of the score term.
      follows_weights: whether its expectation is zero for a bound whose weights are constant (the wake updates, which
        descend KL(p || q) instead of following the bound): such a pair would train nothing.
    """

    name: str
    path: tuple[float, float]
    score: tuple[float, float]
    follows_weights: bool = False

    @property
    def uses_path(self):
        """Whether the pathwise term is there at all; it needs reparameterised particles."""
        return any(self.path)

    @property
    def uses_score(self):
        """Whether the score term is there at all."""
        return any(self.score)

    def weights(self, a, a_derivative):
        """Returns `(path, score)`, each of the shape of `a`.

        Args:
          a: float tensor [M, K, B], the derivative of a bound by the log weights.
          a_derivative: float tensor [M, K, B], the derivative of each `a` by its own log weight.
        """
        return tuple(p * a + q * a_derivative for p, q in (self.path, self.score))


# A new estimator that is linear in the two is a row.
TABLE = {
    row.name: row
    for row in (
        # The total derivative of a reparameterised bound: Kingma & Welling 2014, Burda et al. 2016.
        GradientEstimator("reparameterized", path=(1, 0), score=(-1, 0)),
        # Roeder et al. 2017, arXiv 1703.09194. Unbiased for the elbo only; BIASED for every tighter bound.
        GradientEstimator("sticking_the_landing", path=(1, 0), score=(0, 0)),
        # Tucker et al. 2019, arXiv 1810.04152: E[a dlogq/dphi] = E[a' dz/dphi dlogw/dz] turns score into path.
        GradientEstimator("doubly_reparameterized", path=(1, -1), score=(0, 0)),
        # Wake-phase update of the encoder: Bornschein & Bengio 2015, arXiv 1406.2751. Bias O(1/K) for KL(p || q).
        GradientEstimator("wake", path=(0, 0), score=(1, 0), follows_weights=True),
        # The same in expectation, reparameterised: Tucker et al. 2019, section 5 (RWS-DReG).
        GradientEstimator("doubly_reparameterized_wake", path=(0, 1), score=(0, 0), follows_weights=True),
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
