"""Encoders: a body and a posterior head."""

import keras
import tensorflow as tf

from iwae_zoo.distributions import likelihoods, posteriors
from iwae_zoo.networks import outputs
from iwae_zoo.networks.holes import Holes
from iwae_zoo.networks.perceptron import Perceptron
from iwae_zoo.networks.weights import add_weights

__all__ = ["Encoder", "MLPEncoder"]


@keras.saving.register_keras_serializable(package="iwae_zoo")
class Encoder(keras.Layer):
    """q(z | x) whose parameters come from a body.

    Args:
      body: Keras layer from x [B, ...] to [B, head.num_parameters].
      head: `posteriors.Posterior`.
      inputs: optional `likelihoods.Likelihood`, or the name of one: the body is given its features of x instead of x.
        Where that takes missing values, a learned number stands for each feature that is missing, and the body is given
        besides, along the last axis, which values are.
      seed: int, of the head's initial weights, where it has some.
    """

    # The name under which a file keeps the body's weights.
    _body_name = "body"

    def __init__(self, body, head, inputs=None, seed=0, **kwargs):
        super().__init__(**kwargs)
        self.head = head
        self.inputs = inputs if inputs is None else likelihoods.get(inputs)
        self.head_weights = add_weights(self, head.weights, seed)
        setattr(self, self._body_name, body)
        self.holes = Holes(name="holes", dtype=self.variable_dtype) if self.takes_missing else None

    @property
    def supports(self):
        """As `Posterior.supports`."""
        return self.head.supports

    @property
    def takes_missing(self):
        """Whether values of x may be missing, as NaN."""
        return self.inputs is not None and self.inputs.missing

    def posterior(self, x):
        """q(z | x): batch [B], event [D], for x [B, ...]."""
        x = tf.convert_to_tensor(x)
        if self.inputs is not None:
            x = self._features(tf.cast(x, self.variable_dtype), self.inputs)
        return self._read(self._parameters(x))

    def _features(self, x, head):
        if self.holes is None:
            return head.features(x)
        missing = tf.math.is_nan(x)
        features = head.features(tf.where(missing, tf.zeros_like(x), x))
        return self.holes(features, head.of_features(missing), missing)

    def _parameters(self, features):
        """What the head reads, [B, head.num_parameters]."""
        body, head = getattr(self, self._body_name), self.head
        parameters = body(tf.cast(features, self.compute_dtype))
        parameters = outputs.checked(self, body, parameters, head.num_parameters, f"posterior {head.name!r}", flat=True)
        return tf.cast(parameters, self.variable_dtype)

    def _read(self, parameters):
        return self.head.distribution(parameters, *self.head_weights)

    def get_config(self):
        body = keras.saving.serialize_keras_object(getattr(self, self._body_name))
        inputs = self.inputs and likelihoods.to_config(self.inputs)
        return {**super().get_config(), "body": body, "head": posteriors.to_config(self.head), "inputs": inputs}

    @classmethod
    def from_config(cls, config):
        config = {**config, "body": keras.saving.deserialize_keras_object(config["body"])}
        config["inputs"] = config.get("inputs") and likelihoods.from_config(config["inputs"])
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
        config = super().get_config()
        del config["body"], config["head"]
        return {**config, "latent_size": self.head.latent_size, **self.perceptron.settings}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "inputs": config.get("inputs") and likelihoods.from_config(config["inputs"])})
