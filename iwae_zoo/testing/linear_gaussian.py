"""The linear-Gaussian model, where log p(x), the posterior, the ELBO and their gradients have closed forms.

z ~ N(0, I),   x | z ~ N(W z + b, s^2 I),   so   x ~ N(b, W W^T + s^2 I)
"""

import dataclasses

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from iwae_zoo.model import ImportanceWeightedAutoencoder
from iwae_zoo.networks import StandardNormalPrior

__all__ = ["LinearGaussian", "LinearGaussianConditional", "LinearGaussianDecoder", "LinearGaussianEncoder"]

tfd = tfp.distributions


@dataclasses.dataclass(frozen=True)
class LinearGaussian:
    """Closed forms in numpy float64, written without TensorFlow so that they are an independent oracle.

    Attributes:
      weight: float array [P, D], W.
      bias: float array [P], b.
      stddev: float, s.
    """

    weight: np.ndarray
    bias: np.ndarray
    stddev: float

    @classmethod
    def random(cls, latent_size=2, data_size=3, stddev=0.7, seed=0):
        """A model with standard normal W and b."""
        rng = np.random.default_rng(seed)
        return cls(rng.normal(size=(data_size, latent_size)), rng.normal(size=data_size), stddev)

    @property
    def covariance(self):
        """Covariance [P, P] of x."""
        return self.weight @ self.weight.T + self.stddev**2 * np.eye(len(self.bias))

    @property
    def posterior_covariance(self):
        """Covariance [D, D] of z given x, the same for every x."""
        precision = np.eye(self.weight.shape[1]) + self.weight.T @ self.weight / self.stddev**2
        return np.linalg.inv(precision)

    def posterior_mean(self, x):
        """Mean [B, D] of z given x [B, P]."""
        return (x - self.bias) @ self.weight @ self.posterior_covariance / self.stddev**2

    def sample(self, size, seed=0):
        """Draws x [size, P]."""
        rng = np.random.default_rng(seed)
        z = rng.normal(size=(size, self.weight.shape[1]))
        return z @ self.weight.T + self.bias + self.stddev * rng.normal(size=(size, len(self.bias)))

    def log_prob(self, x):
        """log p(x) [B], nats, for x [B, P]."""
        centred = x - self.bias
        _, log_det = np.linalg.slogdet(2 * np.pi * self.covariance)
        return -0.5 * (np.sum(centred * np.linalg.solve(self.covariance, centred.T).T, axis=1) + log_det)

    def score(self, x):
        """Gradients of mean_b log p(x_b) by (W [P, D], b [P], s)."""
        inverse = np.linalg.inv(self.covariance)
        whitened = (x - self.bias) @ inverse  # [B, P]
        by_covariance = 0.5 * (whitened.T @ whitened / len(x) - inverse)
        return 2 * by_covariance @ self.weight, whitened.mean(axis=0), 2 * self.stddev * np.trace(by_covariance)

    def elbo(self, x, loc, scale_tril):
        """ELBO [B], nats, of q = N(loc [B, D], L L^T) for x [B, P]."""
        cov = scale_tril @ scale_tril.T
        residual = x - self.bias - loc @ self.weight.T
        variance = self.stddev**2
        likelihood = -0.5 * (
            (np.sum(residual**2, axis=1) + np.trace(self.weight @ cov @ self.weight.T)) / variance
            + len(self.bias) * np.log(2 * np.pi * variance)
        )
        latent_size = self.weight.shape[1]
        prior = -0.5 * (np.sum(loc**2, axis=1) + np.trace(cov) + latent_size * np.log(2 * np.pi))
        entropy = 0.5 * latent_size * (1 + np.log(2 * np.pi)) + np.sum(np.log(np.abs(np.diag(scale_tril))))
        return likelihood + prior + entropy

    def encoder_parameters(self, mismatch=0.0):
        """A [D, P], c [D], L [D, D] of q(z | x) = N(A x + c, L L^T).

        Args:
          mismatch: float, 0 for the exact posterior; otherwise the encoder's mean is shifted by `mismatch` posterior
            standard deviations and its scale multiplied by 1 + `mismatch`, and its weights are perturbed by as much.
        """
        scale_tril = np.linalg.cholesky(self.posterior_covariance)
        weight = self.posterior_covariance @ self.weight.T / self.stddev**2
        bias = -weight @ self.bias + mismatch * scale_tril.sum(axis=1)
        return weight * (1 + 0.5 * mismatch), bias, scale_tril * (1 + mismatch)

    def model(self, objective="iwae", mismatch=0.0, seed=0, dtype="float32"):
        """The same model as an `ImportanceWeightedAutoencoder`, built.

        Args:
          objective: an `Objective` or the name of one.
          mismatch: float, as in `encoder_parameters`.
          seed: int, the model's.
          dtype: "float32" or "float64".
        """
        encoder = LinearGaussianEncoder(*self.encoder_parameters(mismatch), dtype=dtype)
        decoder = LinearGaussianDecoder(self.weight, self.bias, self.stddev, dtype=dtype)
        prior = StandardNormalPrior(self.weight.shape[1], dtype=dtype)
        model = ImportanceWeightedAutoencoder(encoder, decoder, prior, objective=objective, seed=seed)
        model.build((None, len(self.bias)))
        return model


class _Affine(keras.Layer):
    """Keeps an affine map and a scale as variables."""

    def __init__(self, weight, bias, scale, **kwargs):
        super().__init__(**kwargs)
        self.initial = [np.asarray(value, "float64") for value in (weight, bias, scale)]
        self.weight, self.bias, self.scale = (
            self.add_weight(shape=value.shape, initializer=keras.initializers.Constant(value), name=name)
            for name, value in zip(("weight", "bias", "scale"), self.initial, strict=True)
        )

    def get_config(self):
        weight, bias, scale = (value.tolist() for value in self.initial)
        return {**super().get_config(), "weight": weight, "bias": bias, "scale": scale}

    def _map(self, inputs):
        inputs = tf.cast(inputs, self.variable_dtype)
        return tf.einsum("...i,ji->...j", inputs, self.weight.value) + self.bias


@keras.saving.register_keras_serializable(package="iwae_zoo")
class LinearGaussianEncoder(_Affine):
    """q(z | x) = N(A x + c, L L^T).

    Args:
      weight: float array [D, P], A.
      bias: float array [D], c.
      scale: float array [D, D], lower triangular, L.
    """

    def posterior(self, x):
        return tfd.MultivariateNormalTriL(self._map(x), scale_tril=tf.linalg.band_part(self.scale.value, -1, 0))

    distribution = posterior  # For a layer of a stacked encoder.


@keras.saving.register_keras_serializable(package="iwae_zoo")
class LinearGaussianConditional(_Affine):
    """p(x | z) = N(W z + b, s^2 I), of the first values of z where W has fewer columns.

    Args:
      weight: float array [P, D], W.
      bias: float array [P], b.
      scale: float, s.
    """

    def likelihood(self, z):
        mean = self._map(z[..., : self.weight.shape[1]])
        return tfd.Independent(tfd.Normal(mean, self.scale.value), reinterpreted_batch_ndims=1)

    distribution = likelihood  # For a layer of a stacked prior.


@keras.saving.register_keras_serializable(package="iwae_zoo")
class LinearGaussianDecoder(LinearGaussianConditional):
    """p(x | z), linear in z with Gaussian noise, which knows its log p(x) under a standard normal prior."""

    def marginal_log_prob(self, x):
        """log p(x) [B], nats."""
        weight = tf.convert_to_tensor(self.weight)
        identity = tf.eye(weight.shape[0], dtype=weight.dtype)
        covariance = tf.matmul(weight, weight, transpose_b=True) + self.scale.value**2 * identity
        normal = tfd.MultivariateNormalTriL(tf.convert_to_tensor(self.bias), tf.linalg.cholesky(covariance))
        return normal.log_prob(tf.cast(x, weight.dtype))
