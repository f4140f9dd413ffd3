"""The linear-Gaussian model with two stochastic layers; log p(x), the posterior and the ELBO have closed forms.

z_2 ~ N(0, I),   z_1 | z_2 ~ N(V z_2 + c, t^2 I),   x | z_1 ~ N(W z_1 + b, s^2 I)

Given z_1, z_2 does not depend on x: the exact posterior is q(z_1 | x) q(z_2 | z_1), as a stacked encoder has it.
"""

import dataclasses

import numpy as np

from iwae_zoo.model import ImportanceWeightedAutoencoder
from iwae_zoo.networks import StackedEncoder, StackedPrior, StandardNormalPrior
from iwae_zoo.testing.linear_gaussian import LinearGaussian, LinearGaussianConditional, LinearGaussianEncoder

__all__ = ["StackedLinearGaussian"]


@dataclasses.dataclass(frozen=True)
class StackedLinearGaussian:
    """Closed forms in numpy float64, written without TensorFlow so that they are an independent oracle.

    Attributes:
      lower: `LinearGaussian` of x given z_1; its own prior of z_1 takes no part.
      upper: `LinearGaussian` of z_1 given z_2.
    """

    lower: LinearGaussian
    upper: LinearGaussian

    @classmethod
    def random(cls, latent_sizes=(3, 2), data_size=4, stddevs=(0.7, 0.8), seed=0):
        """A model with standard normal W, V, b and c."""
        return cls(
            LinearGaussian.random(latent_sizes[0], data_size, stddevs[0], seed),
            LinearGaussian.random(latent_sizes[1], latent_sizes[0], stddevs[1], seed + 1),
        )

    @property
    def collapsed(self):
        """`LinearGaussian` of x given e ~ N(0, I), where z_1 = c + R e and R R^T is the covariance of z_1."""
        root = np.linalg.cholesky(self.upper.covariance)
        bias = self.lower.weight @ self.upper.bias + self.lower.bias
        return LinearGaussian(self.lower.weight @ root, bias, self.lower.stddev)

    def log_prob(self, x):
        """log p(x) [B], nats, for x [B, P]."""
        return self.collapsed.log_prob(x)

    def sample(self, size, seed=0):
        """Draws x [size, P]."""
        return self.collapsed.sample(size, seed)

    def encoder_parameters(self, mismatch=0.0):
        """(A, a, L), (C, d, S) of q(z_1 | x) = N(A x + a, L L^T) and q(z_2 | z_1) = N(C z_1 + d, S S^T).

        Args:
          mismatch: float, as in `LinearGaussian.encoder_parameters`, of either layer.
        """
        root = np.linalg.cholesky(self.upper.covariance)
        weight, bias, scale = self.collapsed.encoder_parameters(mismatch)  # Of e.
        first = root @ weight, self.upper.bias + root @ bias, root @ scale
        return first, self.upper.encoder_parameters(mismatch)

    def elbo(self, x, first, second):
        """ELBO [B], nats, of an encoder with parameters as in `encoder_parameters`, for x [B, P].

        E_q[ log p(x | z_1) + log p(z_1 | z_2) + log p(z_2) ] + entropy of q(z_1 | x) + entropy of q(z_2 | z_1)
        """
        (weight_1, bias_1, scale_1), (weight_2, bias_2, scale_2) = first, second
        lower, upper = self.lower, self.upper
        loc_1, covariance_1 = x @ weight_1.T + bias_1, scale_1 @ scale_1.T
        loc_2, covariance_2 = loc_1 @ weight_2.T + bias_2, weight_2 @ covariance_1 @ weight_2.T + scale_2 @ scale_2.T
        of_x = _expected_log_density(
            x - lower.bias - loc_1 @ lower.weight.T, lower.weight @ covariance_1 @ lower.weight.T, lower.stddev
        )
        # z_1 - V z_2 = (I - V C) z_1 - V (d + S noise)
        share, noise = np.eye(len(upper.bias)) - upper.weight @ weight_2, upper.weight @ scale_2
        of_z_1 = _expected_log_density(
            loc_1 - upper.bias - loc_2 @ upper.weight.T, share @ covariance_1 @ share.T + noise @ noise.T, upper.stddev
        )
        of_z_2 = _expected_log_density(loc_2, covariance_2, 1.0)
        entropies = [
            0.5 * len(scale) * (1 + np.log(2 * np.pi)) + np.sum(np.log(np.abs(np.diag(scale))))
            for scale in (scale_1, scale_2)
        ]
        return of_x + of_z_1 + of_z_2 + sum(entropies)

    def model(self, objective="iwae", mismatch=0.0, seed=0, dtype="float32"):
        """The same model as an `ImportanceWeightedAutoencoder`, built; arguments as in `LinearGaussian.model`."""
        first, second = self.encoder_parameters(mismatch)
        encoder = StackedEncoder(
            LinearGaussianEncoder(*first, dtype=dtype), [LinearGaussianEncoder(*second, dtype=dtype)]
        )
        decoder, between = (
            LinearGaussianConditional(part.weight, part.bias, part.stddev, dtype=dtype)
            for part in (self.lower, self.upper)
        )
        prior = StackedPrior(StandardNormalPrior(self.upper.weight.shape[1], dtype=dtype), [between])
        model = ImportanceWeightedAutoencoder(encoder, decoder, prior, objective=objective, seed=seed)
        model.build((None, len(self.lower.bias)))
        return model


def _expected_log_density(residual, covariance, stddev):
    """E[log N(y; 0, stddev^2 I)] [B] of a Gaussian y with means `residual` [B, P] and a covariance [P, P]."""
    square = np.sum(residual**2, axis=1) + np.trace(covariance)
    return -0.5 * (square / stddev**2 + residual.shape[1] * np.log(2 * np.pi * stddev**2))
