"""Stacked stochastic layers: encoders and priors of z = [z_1, ..., z_L], one vector.

    q(z | x) = q(z_1 | x) q(z_2 | z_1) ... q(z_L | z_{L-1})      StackedEncoder
    p(z) = p(z_L) p(z_{L-1} | z_L) ... p(z_1 | z_2)              StackedPrior
    p(x | z) = p(x | z_1)                                        a decoder that reads the first values of z

A layer's distribution given its neighbour is any Keras layer with a method `distribution(z)`, such as `Conditional`.
"""

import keras
import tensorflow as tf

from iwae_zoo._shapes import shape_of
from iwae_zoo.distributions import Stacked, posteriors
from iwae_zoo.networks.encoder import Encoder

__all__ = ["Conditional", "StackedEncoder", "StackedPrior"]


@keras.saving.register_keras_serializable(package="iwae_zoo")
class Conditional(Encoder):
    """The distribution of a layer of latents given its neighbour, whose parameters come from a body.

    Args:
      body: Keras layer from z [N, D] to [N, head.num_parameters].
      head: `posteriors.Posterior`.
      seed: int, of the head's initial weights, where it has some.
      given: optional `posteriors.Posterior`, the head of the neighbour: the body is given its features of z instead of
        z.
    """

    def __init__(self, body, head, seed=0, given=None, **kwargs):
        super().__init__(body, head, seed=seed, **kwargs)
        self.given = given

    def distribution(self, z):
        """Batch [...], event [head.latent_size], for the neighbour z [..., D]."""
        z = tf.convert_to_tensor(z) if self.given is None else self.given.features(tf.convert_to_tensor(z))
        parameters = self._parameters(tf.reshape(z, [-1, z.shape[-1]]))
        return self._read(tf.reshape(parameters, [*shape_of(z)[:-1], self.head.num_parameters]))

    def get_config(self):
        config = {**super().get_config(), "given": self.given and posteriors.to_config(self.given)}
        del config["inputs"]  # Of x.
        return config

    @classmethod
    def from_config(cls, config):
        return super().from_config({**config, "given": posteriors.optional(config.get("given"))})


class _Stack(keras.Layer):
    """A first layer, and the conditionals of the others in the order in which they are drawn."""

    def __init__(self, first, conditionals, **kwargs):
        super().__init__(**kwargs)
        for layer in conditionals:
            if not isinstance(layer, keras.Layer) or not callable(getattr(layer, "distribution", None)):
                raise ValueError(
                    "A conditional must be a keras.Layer with a method distribution(z) that returns a TFP "
                    f"distribution: received {layer!r}."
                )
        self.first = first
        self.conditionals = list(conditionals)

    @property
    def supports(self):
        """As of an encoder, of the layers in the order in which they are drawn; None of one that does not say."""
        unknown = ((None, None, True),)
        return sum((getattr(layer, "supports", unknown) for layer in [self.first, *self.conditionals]), ())

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        conditionals = [serialize(layer) for layer in self.conditionals]
        return {**super().get_config(), "first": serialize(self.first), "conditionals": conditionals}

    @classmethod
    def from_config(cls, config):
        deserialize = keras.saving.deserialize_keras_object
        conditionals = [deserialize(layer) for layer in config["conditionals"]]
        return cls(**{**config, "first": deserialize(config["first"]), "conditionals": conditionals})


@keras.saving.register_keras_serializable(package="iwae_zoo")
class StackedEncoder(_Stack):
    """q(z | x) = q(z_1 | x) q(z_2 | z_1) ... q(z_L | z_{L-1}).

    Args:
      first: Keras layer with `posterior(x)`, of z_1.
      conditionals: sequence of Keras layers with `distribution(z)`, of z_2, ..., z_L: for the layer before it, z
        [..., D], a `tfd.Distribution` of batch shape [...].

    #### Examples
    >>> from iwae_zoo.distributions import posteriors
    >>> from iwae_zoo.networks import Perceptron
    >>> heads = [posteriors.Normal(latent_size=size) for size in (5, 2)]
    >>> bodies = [Perceptron((8,), head.num_parameters) for head in heads]
    >>> encoder = StackedEncoder(Encoder(bodies[0], heads[0]), [Conditional(bodies[1], heads[1])])
    >>> encoder.posterior(tf.zeros([3, 4])).event_shape
    TensorShape([7])
    """

    @property
    def inputs(self):
        """The `Likelihood` whose features of x the first layer is given; None where it is given x."""
        return getattr(self.first, "inputs", None)

    @property
    def takes_missing(self):
        """Whether the first layer takes x with missing values; None where it does not say."""
        return getattr(self.first, "takes_missing", None)

    def posterior(self, x):
        """q(z | x): batch [B], event [D_1 + ... + D_L], for x [B, ...]."""
        return Stacked(self.first.posterior(x), [layer.distribution for layer in self.conditionals])


@keras.saving.register_keras_serializable(package="iwae_zoo")
class StackedPrior(_Stack):
    """p(z) = p(z_L) p(z_{L-1} | z_L) ... p(z_1 | z_2).

    Args:
      first: Keras layer with `distribution()`, of z_L.
      conditionals: sequence of Keras layers with `distribution(z)`, of z_{L-1}, ..., z_1, from the top downwards.
    """

    @property
    def supports(self):
        """As of an encoder, of the layers from x upwards."""
        return super().supports[::-1]

    def distribution(self):
        """p(z): batch [], event [D_1 + ... + D_L]."""
        return Stacked(self.first.distribution(), [layer.distribution for layer in self.conditionals], reverse=True)
