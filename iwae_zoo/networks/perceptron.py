"""A body of dense layers."""

import keras
import tensorflow as tf

from iwae_zoo.networks.dense import Dense

__all__ = ["Perceptron"]


@keras.saving.register_keras_serializable(package="iwae_zoo")
class Perceptron(keras.Layer):
    """Hidden layers and a linear output, from [N, ...] to [N, output_size].

    Args:
      hidden_sizes: sequence of int.
      output_size: int.
      activation: Keras activation of the hidden layers.
      seed: int, of the initial weights: layer i has the seed `seed` + i.
      output_bias: Keras initializer of the last bias. Not kept in the configuration: a loaded body has its weights.
    """

    def __init__(self, hidden_sizes, output_size, activation="tanh", seed=0, output_bias="zeros", **kwargs):
        super().__init__(**kwargs)
        self.hidden_sizes = tuple(hidden_sizes)
        self.output_size = output_size
        self.activation = activation
        self.seed = seed
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
        shape = (None, tf.TensorShape(input_shape[1:]).num_elements())
        for dense in self.stack:
            dense.build(shape)
            shape = dense.compute_output_shape(shape)

    def call(self, x):
        if x.shape.rank != 2:
            x = tf.reshape(x, [tf.shape(x)[0], x.shape[1:].num_elements()])
        for dense in self.stack:
            x = dense(x)
        return x

    @property
    def settings(self):
        """What it was made from, but for its output: a dict, JSON-compatible."""
        return {"hidden_sizes": list(self.hidden_sizes), "activation": self.activation, "seed": self.seed}

    def get_config(self):
        return {**super().get_config(), **self.settings, "output_size": self.output_size}
