"""Bodies by name: functions from numbers to numbers, which know nothing of probabilities.

A body is a Keras layer. An encoder's maps x [B, *data_shape] to [B, num_parameters], a decoder's maps z [N, D] to
[N, numbers of its head's parameter_shape]. The table at the end is the only list of bodies.
"""

import functools
import importlib
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import keras

from iwae_zoo._checks import parse
from iwae_zoo.networks.convolution import DownConvolution, UpConvolution
from iwae_zoo.networks.perceptron import Perceptron

__all__ = ["TABLE", "Body", "get", "names", "output_bias"]


class Body(NamedTuple):
    """A kind of body.

    Attributes:
      encoder: function (posterior head, data_shape, **sizes) that returns the body of an encoder.
      decoder: function (likelihood head, data_shape, **sizes) that returns the body of a decoder, which mirrors it.
      settings: dict from what can be asked for besides, as in "perceptron,residual=True", to its type.
      check: function (data_shape, hidden_sizes) that raises ValueError if they cannot be had.

    Both take `hidden_sizes`, as the encoder has them, `activation`, `seed` and `dtype`, and the settings.
    """

    encoder: Callable
    decoder: Callable
    settings: Mapping[str, type] = MappingProxyType({})
    check: Callable = lambda data_shape, hidden_sizes: None


def _perceptron_encoder(posterior, data_shape, *, hidden_sizes, **options):
    del data_shape
    return Perceptron(hidden_sizes, posterior.num_parameters, **options)


def _perceptron_decoder(likelihood, data_shape, *, hidden_sizes, **options):
    size = math.prod(likelihood.parameter_shape(data_shape))
    return Perceptron(tuple(hidden_sizes)[::-1], size, output_bias=output_bias(likelihood, data_shape), **options)


def _convolution_encoder(posterior, data_shape, *, hidden_sizes, **options):
    del data_shape
    return DownConvolution(hidden_sizes, posterior.num_parameters, **options)


def _convolution_decoder(likelihood, data_shape, *, hidden_sizes, **options):
    return UpConvolution(
        tuple(hidden_sizes)[::-1],
        data_shape,
        likelihood.parameters_per_value,
        output_bias=output_bias(likelihood, data_shape),
        **options,
    )


def _check_image(data_shape, scales):
    if len(data_shape) != 3 or min(data_shape[:2]) < 2 ** len(scales) or not scales:
        raise ValueError(
            f"A convolution needs x of shape [height, width, channels], with sides of at least {2 ** len(scales)} for "
            f"{len(scales)} scales (hidden_sizes), and at least one scale: received data of shape {tuple(data_shape)}."
        )


def output_bias(likelihood, data_shape):
    """Initializer of a decoder's last bias: the head's `start`, where it has one.

    Raises:
      ValueError: if the head was fitted to data of another shape.
    """
    if likelihood.start is None:
        return "zeros"
    shape = likelihood.start.shape
    if shape != likelihood.parameter_shape(data_shape):
        raise ValueError(
            f"The training data, or data_mean, must be of the shape of x, {tuple(data_shape)}: received {shape[1:]}."
        )
    return keras.initializers.Constant(likelihood.start.ravel())


# A new body is a row.
TABLE = {
    "perceptron": Body(_perceptron_encoder, _perceptron_decoder, {"residual": bool, "normalized": bool}),
    "convolution": Body(_convolution_encoder, _convolution_decoder, {"blocks": int}, _check_image),
}


def names():
    """Every name that `get` accepts."""
    return tuple(TABLE)


def get(identifier):
    """Returns a `Body` by name.

    Args:
      identifier: a name, with settings where it has some; or "module:attribute", a `Body` of your own.

    Raises:
      ValueError: on an unknown name or setting, or a module without such a `Body`.

    #### Examples
    >>> from iwae_zoo.distributions import posteriors
    >>> sizes = {"hidden_sizes": (16, 32), "activation": "elu", "seed": 0, "dtype": None}
    >>> get("convolution,blocks=2").encoder(posteriors.Normal(5), (28, 28, 1), **sizes).blocks
    2
    """
    if ":" in str(identifier):
        return _own(identifier)
    body, settings = parse(identifier, "network", TABLE, lambda row: row.settings)
    return body._replace(
        encoder=functools.partial(body.encoder, **settings), decoder=functools.partial(body.decoder, **settings)
    )


def _own(identifier):
    module, _, attribute = identifier.partition(":")
    try:
        body = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # Whatever a module of the user's own does.
        raise ValueError(f"The network {identifier!r} cannot be had: {type(error).__name__}: {error}.") from error
    if not isinstance(body, Body):
        raise ValueError(f"{identifier!r} must be a networks.bodies.Body: received {body!r}.")
    return body
