"""Decoders: a body and a likelihood head."""

import math

import keras
import numpy as np
import tensorflow as tf

from iwae_zoo._shapes import shape_of
from iwae_zoo.distributions import likelihoods, posteriors
from iwae_zoo.networks import bodies, outputs

__all__ = ["Decoder", "MLPDecoder"]


@keras.saving.register_keras_serializable(package="iwae_zoo")
class Decoder(keras.Layer):
    """p(x | z) whose parameters come from a body.

    Args:
      body: Keras layer from z [N, D] to [N, ...], with the numbers of head.parameter_shape(data_shape).
      head: `likelihoods.Likelihood`, or the name of one.
      data_shape: shape of one x.
      reads: int, how many of the first values of z it looks at, which are those of z_1 where layers are stacked; None
        for all.
      latent: optional `posteriors.Posterior`, the head of what it reads: the body is given its features of z instead of
        z.
    """

    # The name under which a file keeps the body's weights.
    _body_name = "body"

    def __init__(self, body, head, data_shape, reads=None, latent=None, **kwargs):
        super().__init__(**kwargs)
        self.head = likelihoods.get(head)
        self.data_shape = tuple(data_shape)
        self.reads = reads
        self.latent = latent
        setattr(self, self._body_name, body)
        if self.head.shared_parameters:
            start = self.head.shared_start
            self.shared = self.add_weight(
                name="shared",
                shape=self.head.shared_shape(self.data_shape),
                initializer="zeros" if start is None else keras.initializers.Constant(start),
            )

    @property
    def takes_missing(self):
        """Whether values of x may be missing, as NaN: p(x | z) is then that of the others."""
        return self.head.missing

    def likelihood(self, z):
        """p(x | z): batch [...], event `data_shape`, for z [..., D]."""
        z = tf.convert_to_tensor(z)
        # A split and not a slice, whose gradient takes longer.
        z = z if self.reads is None else tf.split(z, [self.reads, -1], axis=-1)[0]
        z = z if self.latent is None else self.latent.features(z)
        # One tall matrix: matrix products over more axes would be split into many small ones.
        rows = tf.reshape(tf.cast(z, self.compute_dtype), [-1, z.shape[-1]])
        body, parameter_shape = getattr(self, self._body_name), self.head.parameter_shape(self.data_shape)
        needed = math.prod(parameter_shape)
        parameters = outputs.checked(self, body, body(rows), needed, f"likelihood {self.head.name!r}")
        parameters = tf.reshape(parameters, [*shape_of(z)[:-1], *parameter_shape])
        shared = {"shared": tf.convert_to_tensor(self.shared)} if self.head.shared_parameters else {}
        return self.head.distribution(parameters, len(self.data_shape), self.variable_dtype, **shared)

    def get_config(self):
        body = keras.saving.serialize_keras_object(getattr(self, self._body_name))
        head = likelihoods.to_config(self.head)
        latent = self.latent and posteriors.to_config(self.latent)
        own = {"body": body, "head": head, "data_shape": list(self.data_shape), "reads": self.reads, "latent": latent}
        return {**super().get_config(), **own}

    @classmethod
    def from_config(cls, config):
        config = {**config, "body": keras.saving.deserialize_keras_object(config["body"])}
        config["latent"] = posteriors.optional(config.get("latent"))
        return cls(**{**config, "head": likelihoods.from_config(config["head"])})


@keras.saving.register_keras_serializable(package="iwae_zoo")
class MLPDecoder(Decoder):
    """Independent Bernoulli p(x | z) whose logits come from a perceptron.

    Args:
      data_shape: shape of one x.
      hidden_sizes: sequence of int, from z to x.
      activation: Keras activation of the hidden layers.
      seed: int, seed of the initial weights.
      data_mean: optional array of shape `data_shape`, the mean of the training data, from which the output bias starts.
    """

    _body_name = "perceptron"

    def __init__(self, data_shape, hidden_sizes=(200, 200), activation="tanh", seed=0, data_mean=None, **kwargs):
        head = likelihoods.Bernoulli()
        if data_mean is not None:
            head = head.fitted(np.asarray(data_mean)[np.newaxis])
        sizes = {"hidden_sizes": tuple(hidden_sizes)[::-1], "activation": activation, "seed": seed}
        body = bodies.get("perceptron").decoder(head, data_shape, **sizes, dtype=kwargs.get("dtype"))
        super().__init__(body, head, data_shape, **kwargs)

    def get_config(self):
        config = super().get_config()
        del config["body"], config["head"]
        return {**config, **self.perceptron.settings}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "latent": posteriors.optional(config.get("latent"))})
