"""Multi-layer perceptrons in the three-method protocol: `posterior`, `likelihood`, `distribution`."""

import keras
import numpy as np
import tensorflow as tf

from iwae_zoo.distributions.bernoulli import IndependentBernoulli
from iwae_zoo.distributions.gaussian import DiagonalNormal, StandardNormal
from iwae_zoo.networks.dense import Dense

__all__ = ["MLPDecoder", "MLPEncoder", "StandardNormalPrior"]


class Perceptron(keras.Layer):
    """Hidden layers and a linear output, on [N, features]."""

    def __init__(self, hidden_sizes, output_size, activation, seed, output_bias="zeros", **kwargs):
        super().__init__(**kwargs)
        sizes = [*hidden_sizes, output_size]
        last = len(sizes) - 1
        self.stack = [
            Dense(
                size,
                activation=None if i == last else activation,
                kernel_initializer=keras.initializers.GlorotUniform(seed=seed + i),
                bias_initializer=output_bias if i == last else "zeros",
                dtype=self.dtype_policy,
            )
            for i, size in enumerate(sizes)
        ]

    def build(self, input_shape):
        for dense in self.stack:
            dense.build(input_shape)
            input_shape = dense.compute_output_shape(input_shape)

    def call(self, x):
        for dense in self.stack:
            x = dense(x)
        return x


@keras.saving.register_keras_serializable(package="iwae_zoo")
class MLPEncoder(keras.Layer):
    """Diagonal Gaussian q(z | x) whose mean and standard deviation come from a perceptron.

    Args:
      latent_size: int, D.
      hidden_sizes: sequence of int.
      activation: Keras activation of the hidden layers.
      seed: int, seed of the initial weights.
    """

    def __init__(self, latent_size, hidden_sizes=(200, 200), activation="tanh", seed=0, **kwargs):
        super().__init__(**kwargs)
        self.latent_size = latent_size
        self.hidden_sizes = tuple(hidden_sizes)
        self.activation = activation
        self.seed = seed
        self.perceptron = Perceptron(hidden_sizes, 2 * latent_size, activation, seed, dtype=self.dtype_policy)

    def posterior(self, x):
        """q(z | x): batch [B], event [D], for x [B, ...]."""
        x = tf.cast(tf.convert_to_tensor(x), self.compute_dtype)
        features = tf.reshape(x, [tf.shape(x)[0], x.shape[1:].num_elements()])
        loc, raw_scale = tf.split(tf.cast(self.perceptron(features), self.variable_dtype), 2, axis=-1)
        # The floor keeps the density of an (almost) deterministic dimension finite.
        return DiagonalNormal(loc, tf.math.softplus(raw_scale) + 1e-4)

    def get_config(self):
        return {
            **super().get_config(),
            "latent_size": self.latent_size,
            "hidden_sizes": list(self.hidden_sizes),
            "activation": self.activation,
            "seed": self.seed,
        }


@keras.saving.register_keras_serializable(package="iwae_zoo")
class MLPDecoder(keras.Layer):
    """Independent Bernoulli p(x | z) whose logits come from a perceptron.

    Args:
      data_shape: shape of one x.
      hidden_sizes: sequence of int.
      activation: Keras activation of the hidden layers.
      seed: int, seed of the initial weights.
      data_mean: optional array of shape `data_shape`, the mean of the training data: the output bias starts at its
        logit, clipped to [0.001, 0.999] as in the code of Burda et al. Not kept in the configuration: a loaded
        model's bias comes with its weights.
    """

    def __init__(self, data_shape, hidden_sizes=(200, 200), activation="tanh", seed=0, data_mean=None, **kwargs):
        super().__init__(**kwargs)
        self.data_shape = tuple(data_shape)
        self.hidden_sizes = tuple(hidden_sizes)
        self.activation = activation
        self.seed = seed
        output_bias = "zeros"
        if data_mean is not None:
            if np.shape(data_mean) != self.data_shape:
                raise ValueError(f"data_mean must have shape {self.data_shape}: received {np.shape(data_mean)}.")
            mean = np.clip(np.ravel(data_mean), 0.001, 0.999)
            output_bias = keras.initializers.Constant(np.log(mean) - np.log1p(-mean))
        pixels = int(np.prod(self.data_shape))
        self.perceptron = Perceptron(hidden_sizes, pixels, activation, seed, output_bias, dtype=self.dtype_policy)

    def likelihood(self, z):
        """p(x | z): batch [...], event `data_shape`, for z [..., D]."""
        z = tf.convert_to_tensor(z)
        # One tall matrix: matrix products over more axes would be split into many small ones.
        rows = tf.reshape(tf.cast(z, self.compute_dtype), [-1, z.shape[-1]])
        logits = self.perceptron(rows)
        batch = [static or dynamic for static, dynamic in zip(z.shape[:-1], tf.unstack(tf.shape(z)[:-1]), strict=True)]
        logits = tf.reshape(logits, [*batch, *self.data_shape])
        return IndependentBernoulli(logits, len(self.data_shape), self.variable_dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "data_shape": list(self.data_shape),
            "hidden_sizes": list(self.hidden_sizes),
            "activation": self.activation,
            "seed": self.seed,
        }


@keras.saving.register_keras_serializable(package="iwae_zoo")
class StandardNormalPrior(keras.Layer):
    """p(z) = N(0, I).

    Args:
      latent_size: int, D.
    """

    def __init__(self, latent_size, **kwargs):
        super().__init__(**kwargs)
        self.latent_size = latent_size

    def distribution(self):
        """p(z): batch [], event [D]."""
        return StandardNormal(self.latent_size, self.variable_dtype)

    def get_config(self):
        return {**super().get_config(), "latent_size": self.latent_size}
