"""Encoders: a body and a posterior head."""

import keras
import tensorflow as tf

from iwae_zoo.distributions import posteriors
from iwae_zoo.networks.perceptron import Perceptron
from iwae_zoo.networks.weights import add_weights

__all__ = ["Encoder", "MLPEncoder"]


@keras.saving.register_keras_serializable(package="iwae_zoo")
class Encoder(keras.Layer):
    """q(z | x) whose parameters come from a body.

    Args:
      body: Keras layer from x [B, ...] to [B, head.num_parameters].
      head: `posteriors.Posterior`.
      seed: int, of the head's initial weights, where it has some.
    """

    # The name under which a file keeps the body's weights.
    _body_name = "body"

    def __init__(self, body, head, seed=0, **kwargs):
        super().__init__(**kwargs)
        self.head = head
        self.head_weights = add_weights(self, head.weights, seed)
        setattr(self, self._body_name, body)

    def posterior(self, x):
        """q(z | x): batch [B], event [D], for x [B, ...]."""
        return self._read(self._parameters(x))

    def _parameters(self, x):
        """What the head reads, [B, head.num_parameters]."""
        x = tf.cast(tf.convert_to_tensor(x), self.compute_dtype)
        return tf.cast(getattr(self, self._body_name)(x), self.variable_dtype)

    def _read(self, parameters):
        return self.head.distribution(parameters, *self.head_weights)

    def get_config(self):
        body = keras.saving.serialize_keras_object(getattr(self, self._body_name))
        return {**super().get_config(), "body": body, "head": posteriors.to_config(self.head)}

    @classmethod
    def from_config(cls, config):
        config = {**config, "body": keras.saving.deserialize_keras_object(config["body"])}
        return cls(**{**config, "head": posteriors.from_config(config["head"])})


@keras.saving.register_keras_serializable(package="iwae_zoo")
class MLPEncoder(Encoder):
    """Diagonal Gaussian q(z | x) whose mean and standard deviation come from a perceptron.

    Args:
      latent_size: int, D.
      hidden_sizes: sequence of int.
      activation: Keras activation of the hidden layers.
      seed: int, seed of the initial weights.
    """

    _body_name = "perceptron"

    def __init__(self, latent_size, hidden_sizes=(200, 200), activation="tanh", seed=0, **kwargs):
        head = posteriors.Normal(latent_size)
        dtype = kwargs.get("dtype")
        super().__init__(Perceptron(hidden_sizes, head.num_parameters, activation, seed, dtype=dtype), head, **kwargs)

    def get_config(self):
        return {**keras.Layer.get_config(self), "latent_size": self.head.latent_size, **self.perceptron.settings}

    @classmethod
    def from_config(cls, config):
        return cls(**config)
