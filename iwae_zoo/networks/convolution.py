"""Bodies of convolutions with residual blocks, for images: down from one to a vector, and up from a vector to one.

Each scale halves the image, or doubles it, and has its own number of channels and its residual blocks,
x + c(a(c(a(x)))), of 3x3 convolutions c and an activation a.
"""

import math

import keras
import tensorflow as tf

from iwae_zoo._checks import integer
from iwae_zoo._shapes import shape_of
from iwae_zoo.networks.dense import Dense, add_bias

__all__ = ["DownConvolution", "UpConvolution"]


class _Convolution(keras.Layer):
    """An activation and a convolution, from [N, height, width, channels] to another of these.

    Args:
      channels: int, of the output.
      seed: int.
      activation: Keras activation of the input.
      halves: bool, whether height and width become half of what they are, rounded up.
      size: optional pair of int, what height and width become: twice what they are, or 1 less.
    """

    def __init__(self, channels, seed, activation=None, halves=False, size=None, **kwargs):
        super().__init__(**kwargs)
        self.channels, self.seed, self.halves, self.size = channels, seed, halves, size
        self.activation = keras.activations.get(activation)

    def build(self, input_shape):
        outwards = (self.channels, input_shape[-1])
        # A transposed convolution of stride 2 with a kernel of 4 reaches each value by as many paths.
        shape = (4, 4, *outwards) if self.size else (3, 3, *outwards[::-1])
        initializer = keras.initializers.GlorotUniform(seed=self.seed)
        self.kernel = self.add_weight(name="kernel", shape=shape, initializer=initializer)
        self.bias = self.add_weight(name="bias", shape=(self.channels,), initializer="zeros")

    def call(self, x):
        x, kernel = self.activation(x), tf.convert_to_tensor(self.kernel)
        if self.size:
            y = tf.nn.conv2d_transpose(x, kernel, [shape_of(x)[0], *self.size, self.channels], strides=2)
        else:
            y = tf.nn.conv2d(x, kernel, strides=2 if self.halves else 1, padding="SAME")
        biased = add_bias(tf.reshape(y, [-1, self.channels]), tf.convert_to_tensor(self.bias))
        # Not of y: of no images, a replica's share of a last batch, oneDNN's convolution gives other axes.
        return tf.reshape(biased, [shape_of(x)[0], *y.shape[1:]])

    def compute_output_shape(self, input_shape):
        size = self.size or ([-(-side // 2) for side in input_shape[1:3]] if self.halves else input_shape[1:3])
        return (None, *size, self.channels)


class _Residual(keras.Layer):
    """x + c(a(c(a(x)))), for x [N, height, width, channels]; arguments as in `_Convolution`."""

    def __init__(self, channels, seed, activation, **kwargs):
        super().__init__(**kwargs)
        self.branch = [_Convolution(channels, seed + i, activation, dtype=self.dtype_policy) for i in range(2)]

    def build(self, input_shape):
        for convolution in self.branch:
            convolution.build(input_shape)

    def call(self, x):
        y = x
        for convolution in self.branch:
            y = convolution(y)
        return x + y

    def compute_output_shape(self, input_shape):
        return input_shape


def _blocks(channels, seed, activation, count, dtype):
    return [_Residual(channels, seed + 2 * i, activation, dtype=dtype) for i in range(count)]


def _build(stack, shape):
    for layer in stack:
        layer.build(shape)
        shape = layer.compute_output_shape(shape)
    return shape


@keras.saving.register_keras_serializable(package="iwae_zoo")
class DownConvolution(keras.Layer):
    """From images [N, height, width, channels] to vectors [N, output_size].

    Args:
      scales: sequence of int, the channels of each scale, from the image on: as many halvings.
      output_size: int.
      activation: Keras activation.
      blocks: int, residual blocks of each scale.
      seed: int, of the initial weights: convolution i has the seed `seed` + i.
    """

    def __init__(self, scales, output_size, activation="elu", blocks=1, seed=0, **kwargs):
        super().__init__(**kwargs)
        self.scales, self.output_size, self.seed = tuple(scales), output_size, seed
        self.blocks = integer("blocks", blocks, least=0)
        self._activate = keras.activations.get(activation)
        self.activation = keras.activations.serialize(self._activate)
        self.stack: list[keras.Layer] = []
        for channels in self.scales:
            before = activation if self.stack else None
            self.stack.append(_Convolution(channels, seed, before, halves=True, dtype=self.dtype_policy))
            self.stack += _blocks(channels, seed + 1, activation, blocks, self.dtype_policy)
            seed += 1 + 2 * blocks
        initializer = keras.initializers.GlorotUniform(seed=seed)
        self.output_layer = Dense(output_size, kernel_initializer=initializer, dtype=self.dtype_policy)

    def build(self, input_shape):
        shape = _build(self.stack, input_shape)
        self.output_layer.build((None, math.prod(shape[1:])))

    def call(self, x):
        for layer in self.stack:
            x = layer(x)
        return self.output_layer(tf.reshape(self._activate(x), [-1, self.output_layer.kernel.shape[0]]))

    def get_config(self):
        return {
            **super().get_config(),
            "scales": list(self.scales),
            "output_size": self.output_size,
            "activation": self.activation,
            "blocks": self.blocks,
            "seed": self.seed,
        }


@keras.saving.register_keras_serializable(package="iwae_zoo")
class UpConvolution(keras.Layer):
    """From vectors [N, D] to [N, parameters_per_value * values of an image], the parameters of all values in turn.

    Args:
      scales: sequence of int, the channels of each scale, down to the image: as many doublings.
      data_shape: height, width and channels of an image.
      parameters_per_value: int, numbers for each value of an image.
      activation: Keras activation.
      blocks: int, residual blocks of each scale.
      seed: int, of the initial weights: layer i has the seed `seed` + i.
      output_bias: Keras initializer of the last bias, which each value has for itself. Not kept in the configuration: a
        loaded body has its weights.
    """

    def __init__(
        self,
        scales,
        data_shape,
        parameters_per_value=1,
        activation="elu",
        blocks=1,
        seed=0,
        output_bias="zeros",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.scales, self.data_shape = tuple(scales), tuple(data_shape)
        self.parameters_per_value, self.seed = parameters_per_value, seed
        self.blocks = integer("blocks", blocks, least=0)
        self.activation = keras.activations.serialize(keras.activations.get(activation))
        self._output_bias = output_bias
        sizes = [tuple(-(-side // 2**i) for side in data_shape[:2]) for i in range(len(self.scales), -1, -1)]
        self._smallest = (*sizes[0], self.scales[0])
        initializer = keras.initializers.GlorotUniform(seed=seed)
        self.input_layer = Dense(math.prod(self._smallest), kernel_initializer=initializer, dtype=self.dtype_policy)
        self.stack: list[keras.Layer] = []
        seed += 1
        afterwards = (*self.scales[1:], parameters_per_value * self.data_shape[2])
        for channels, following, size in zip(self.scales, afterwards, sizes[1:], strict=True):
            self.stack += _blocks(channels, seed, activation, blocks, self.dtype_policy)
            seed += 2 * blocks
            self.stack.append(_Convolution(following, seed, activation, size=size, dtype=self.dtype_policy))
            seed += 1

    def build(self, input_shape):
        self.input_layer.build(input_shape)
        _build(self.stack, (None, *self._smallest))
        shape = (self.parameters_per_value * math.prod(self.data_shape),)
        self.bias = self.add_weight(name="bias", shape=shape, initializer=self._output_bias)

    def call(self, z):
        x = tf.reshape(self.input_layer(z), [-1, *self._smallest])
        for layer in self.stack:
            x = layer(x)
        height, width, channels = self.data_shape
        if self.parameters_per_value > 1:
            x = tf.reshape(x, [-1, height, width, self.parameters_per_value, channels])
            x = tf.transpose(x, [0, 3, 1, 2, 4])
        return add_bias(tf.reshape(x, [-1, self.bias.shape[0]]), tf.convert_to_tensor(self.bias))

    def get_config(self):
        return {
            **super().get_config(),
            "scales": list(self.scales),
            "data_shape": list(self.data_shape),
            "parameters_per_value": self.parameters_per_value,
            "activation": self.activation,
            "blocks": self.blocks,
            "seed": self.seed,
        }
