"""Bodies by name: functions from numbers to numbers, which know nothing of probabilities.

A body is a Keras layer. An encoder's maps x [B, *data_shape] to [B, num_parameters], a decoder's maps z [N, D] to
[N, parameters_per_value * values of x]. The table at the end is the only list of bodies.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import keras

from iwae_zoo._checks import look_up
from iwae_zoo.networks.perceptron import Perceptron

__all__ = ["TABLE", "Body", "get", "names"]


class Body(NamedTuple):
    """A kind of body.

    Attributes:
      encoder: function (posterior head, data_shape, **sizes) that returns the body of an encoder.
      decoder: function (likelihood head, data_shape, **sizes) that returns the body of a decoder, which mirrors it.

    Both take `hidden_sizes`, as the encoder has them, `activation`, `seed` and `dtype`.
    """

    encoder: Callable
    decoder: Callable


def _perceptron_encoder(posterior, data_shape, *, hidden_sizes, activation, seed, dtype):
    del data_shape
    return Perceptron(hidden_sizes, posterior.num_parameters, activation, seed, dtype=dtype)


def _perceptron_decoder(likelihood, data_shape, *, hidden_sizes, activation, seed, dtype):
    size = likelihood.parameters_per_value * math.prod(data_shape)
    return Perceptron(
        tuple(hidden_sizes)[::-1], size, activation, seed, output_bias(likelihood, data_shape), dtype=dtype
    )


def output_bias(likelihood, data_shape):
    """Initializer of a decoder's last bias: the head's `start`, where it has one.

    Raises:
      ValueError: if the head was fitted to data of another shape.
    """
    if likelihood.start is None:
        return "zeros"
    shape = likelihood.start.shape[1:]
    if shape != tuple(data_shape):
        raise ValueError(
            f"The training data, or data_mean, must be of the shape of x, {tuple(data_shape)}: received {shape}."
        )
    return keras.initializers.Constant(likelihood.start.ravel())


# A new body is a row.
TABLE = {"perceptron": Body(_perceptron_encoder, _perceptron_decoder)}


def names():
    """Every name that `get` accepts."""
    return tuple(TABLE)


def get(name):
    """Returns a `Body` by name.

    Raises:
      ValueError: on an unknown name.
    """
    return look_up(TABLE, name, "network")
