"""A model of a few bits, where every expectation over particles is a finite sum.

z_d ~ Bernoulli(prior),   x | z ~ Bernoulli(W z + b),   q(z | x) = Bernoulli(A x + c)   (logits, independent)
"""

import itertools
import math

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from iwae_zoo.model import ImportanceWeightedAutoencoder

__all__ = ["BitsDecoder", "BitsEncoder", "BitsPrior", "Enumerable"]

tfd = tfp.distributions


class Enumerable:
    """Exact expectations of a model of bits, in float64, by a sum over all states of all particles.

    S = 2^D states of z; a sum over N particles has S^N terms.

    Args:
      latent_size: int, D.
      data_size: int, P.
      seed: int, of the weights.
      scale: float, standard deviation of the weights.
    """

    def __init__(self, latent_size=2, data_size=3, seed=0, scale=1.0):
        rng = np.random.default_rng(seed)
        shapes = ((latent_size, data_size), (latent_size,), (data_size, latent_size), (data_size,), (latent_size,))
        self.weights = [scale * rng.normal(size=shape) for shape in shapes]
        self.states = np.array(list(itertools.product((0.0, 1.0), repeat=latent_size)))  # [S, D]
        self.data = np.array(list(itertools.product((0.0, 1.0), repeat=data_size)))  # [2^P, P]

    def model(self, objective="vimco", seed=0, dtype="float64"):
        """The model as an `ImportanceWeightedAutoencoder`, built."""
        *encoder, weight, bias, logits = self.weights
        model = ImportanceWeightedAutoencoder(
            BitsEncoder(*encoder, dtype=dtype),
            BitsDecoder(weight, bias, dtype=dtype),
            BitsPrior(logits, dtype=dtype),
            objective=objective,
            seed=seed,
        )
        model.build((None, self.data.shape[1]))
        return model

    def log_q(self, x):
        """log q(z | x) [S, B] of all states, and its derivatives [S, B, .] by all variables of the encoder."""
        weight, bias = self.weights[:2]
        x = np.asarray(x, np.float64)
        value, by_logits = _bernoulli(self.states[:, np.newaxis], x @ weight.T + bias)  # [S, B, D]
        by_weight = by_logits[..., np.newaxis] * x[:, np.newaxis]
        return value, _joined(by_weight, by_logits, axes=2)

    def log_joint(self, x):
        """log p(x, z) [S, B] of all states, and its derivatives [S, B, .] by the variables of decoder and prior."""
        weight, bias, logits = self.weights[2:]
        z = self.states[:, np.newaxis]
        likelihood, by_output = _bernoulli(np.asarray(x, np.float64), z @ weight.T + bias)  # [S, B, P]
        prior, by_prior = _bernoulli(z, logits)  # [S, 1, D]
        by_weight = by_output[..., np.newaxis] * z[:, :, np.newaxis]
        by_prior = np.broadcast_to(by_prior, (*likelihood.shape, len(logits)))
        return likelihood + prior, _joined(by_weight, by_output, by_prior, axes=2)

    def log_prob(self, x):
        """log p(x) [B]."""
        return np.logaddexp.reduce(self.log_joint(x)[0], axis=0)

    def posterior(self, x):
        """p(z | x) [S, B]."""
        return np.exp(self.log_joint(x)[0] - self.log_prob(x))

    def expected(self, x, m, k, value):
        """E[value(log_weights)] [B] over M K particles.

        Args:
          x: array [B, P].
          m: int.
          k: int.
          value: function from float tensor [M, K, C] to float tensor [C].
        """
        log_q, log_joint = self.log_q(x)[0], self.log_joint(x)[0]
        states, _ = self.configurations(m * k)
        probability = np.exp(log_q[states].sum(axis=1))  # [C, B]
        log_weights = (log_joint - log_q)[states].transpose(1, 0, 2).reshape(m, k, -1)
        values = np.asarray(value(tf.constant(log_weights))).reshape(probability.shape)
        return np.sum(probability * values, axis=0)

    def configurations(self, count, exchangeable=False):
        """The states of `count` particles: int array [C, count], and how many orders each stands for, [C].

        Args:
          count: int.
          exchangeable: whether orders are the same, as they are to a bound of one group: then each is there once.
        """
        numbers = range(len(self.states))
        if not exchangeable:
            states = np.array(list(itertools.product(numbers, repeat=count)))
            return states, np.ones(len(states))
        states = np.array(list(itertools.combinations_with_replacement(numbers, count)))
        occurrences = (states[:, :, np.newaxis] == np.arange(len(self.states))).sum(axis=1)
        factorials = np.array([math.factorial(i) for i in range(count + 1)], object)
        orders = factorials[count] / np.prod(factorials[occurrences], axis=1)
        return states, orders.astype(np.float64)

    def gradients(self, objective, x, exchangeable=False):
        """Every value that an objective's ascent directions take for one example, with its probability.

        Score term only; the particles that `objective.particle_weights` weighs go through all their states.

        Args:
          objective: `Objective`.
          x: array [1, P].
          exchangeable: as in `configurations`; not for auxiliary particles.

        Returns:
          (probability [C], encoder's gradients [C, .], decoder's gradients [C, .]).
        """
        log_q, by_encoder = self.log_q(x)
        log_joint, by_decoder = self.log_joint(x)
        count, extra = objective.m * objective.k, objective.auxiliary
        states, orders = self.configurations(count + extra, exchangeable)
        log_weights = (log_joint - log_q)[states, 0].T  # [N, C]
        weighed = tf.constant(log_weights[:count].reshape(objective.m, objective.k, -1))
        auxiliary = tf.constant(log_weights[count:]) if extra else None
        weights = objective.particle_weights(weighed, auxiliary)
        encoder, decoder = (
            np.einsum("nc,cnp->cp", np.reshape(weight, (count, -1)), by[states[:, :count], 0])
            for weight, by in ((weights.score, by_encoder), (weights.decoder, by_decoder))
        )
        return orders * np.exp(log_q[states, 0].sum(axis=1)), encoder, decoder


def _bernoulli(value, logits):
    """Log probability, summed over the last axis, and its derivatives by the logits."""
    log_prob = value * logits - np.logaddexp(0.0, logits)
    return log_prob.sum(axis=-1), np.broadcast_to(value - 1.0 / (1.0 + np.exp(-logits)), log_prob.shape)


def _joined(*arrays, axes):
    return np.concatenate([array.reshape(*array.shape[:axes], -1) for array in arrays], axis=-1)


class _Bits(keras.Layer):
    """Keeps weights as variables, and makes independent Bernoullis of logits."""

    def __init__(self, *initial, **kwargs):
        super().__init__(**kwargs)
        self.initial = [np.asarray(value, "float64") for value in initial]
        self.parts = [
            self.add_weight(shape=value.shape, initializer=keras.initializers.Constant(value), name=f"part{number}")
            for number, value in enumerate(self.initial)
        ]

    def _bernoulli(self, inputs=None):
        *weight, bias = (tf.convert_to_tensor(part) for part in self.parts)
        logits = bias
        if weight:
            logits += tf.einsum("...i,ji->...j", tf.cast(inputs, self.variable_dtype), weight[0])
        return tfd.Independent(tfd.Bernoulli(logits=logits, dtype=logits.dtype), 1)

    def get_config(self):
        names = ("weight", "bias")[-len(self.initial) :]
        return {**super().get_config(), **dict(zip(names, (v.tolist() for v in self.initial), strict=True))}


@keras.saving.register_keras_serializable(package="iwae_zoo")
class BitsEncoder(_Bits):
    """q(z | x) of logits A x + c.

    Args:
      weight: float array [D, P], A.
      bias: float array [D], c.
    """

    def __init__(self, weight, bias, **kwargs):
        super().__init__(weight, bias, **kwargs)

    def posterior(self, x):
        return self._bernoulli(x)


@keras.saving.register_keras_serializable(package="iwae_zoo")
class BitsDecoder(_Bits):
    """p(x | z) of logits W z + b.

    Args:
      weight: float array [P, D], W.
      bias: float array [P], b.
    """

    def __init__(self, weight, bias, **kwargs):
        super().__init__(weight, bias, **kwargs)

    def likelihood(self, z):
        return self._bernoulli(z)


@keras.saving.register_keras_serializable(package="iwae_zoo")
class BitsPrior(_Bits):
    """p(z).

    Args:
      bias: float array [D], logits.
    """

    def __init__(self, bias, **kwargs):
        super().__init__(bias, **kwargs)

    def distribution(self):
        return self._bernoulli()
