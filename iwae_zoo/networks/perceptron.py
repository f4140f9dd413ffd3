"""A body of dense layers."""

import keras
import tensorflow as tf

from iwae_zoo._shapes import shape_of
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
      residual: bool, whether hidden layers that are as wide as what they are given are added to it.
      normalized: bool, whether hidden layers are normalised before their activation, each row by itself.
    """

    def __init__(
        self,
        hidden_sizes,
        output_size,
        activation="tanh",
        seed=0,
        output_bias="zeros",
        residual=False,
        normalized=False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.hidden_sizes = tuple(hidden_sizes)
        self.output_size = output_size
        self._activate = keras.activations.get(activation)
        self.activation = keras.activations.serialize(self._activate)
        self.seed = seed
        self.residual, self.normalized = residual, normalized
        sizes = [*hidden_sizes, output_size]
        last = len(sizes) - 1
        self.stack = [
            Dense(
                size,
                activation=None if normalized or i == last else activation,
                kernel_initializer=keras.initializers.GlorotUniform(seed=seed + i),
                bias_initializer=output_bias if i == last else "zeros",
                dtype=self.dtype_policy,
            )
            for i, size in enumerate(sizes)
        ]
        # Between the affine part of a hidden layer and its activation.
        self.norms = [keras.layers.LayerNormalization(dtype=self.dtype_policy) for _ in hidden_sizes if normalized]

    def build(self, input_shape):
        shape = (None, tf.TensorShape(input_shape[1:]).num_elements())
        for dense in self.stack:
            dense.build(shape)
            shape = dense.compute_output_shape(shape)
        for norm, size in zip(self.norms, self.hidden_sizes, strict=False):
            norm.build((None, size))

    def call(self, x):
        if x.shape.rank != 2:
            x = tf.reshape(x, [shape_of(x)[0], x.shape[1:].num_elements()])
        for i, dense in enumerate(self.stack[:-1]):
            y = dense(x)
            if self.normalized:
                y = self._activate(self.norms[i](y))
            x = x + y if self.residual and x.shape[-1] == y.shape[-1] else y
        return self.stack[-1](x)

    @property
    def settings(self):
        """What it was made from, but for its output: a dict, JSON-compatible."""
        return {"hidden_sizes": list(self.hidden_sizes), "activation": self.activation, "seed": self.seed}

    def get_config(self):
        own = {"output_size": self.output_size, "residual": self.residual, "normalized": self.normalized}
        return {**super().get_config(), **self.settings, **own}
