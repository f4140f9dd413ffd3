"""Keras' dense layer with a faster gradient."""

import keras
import tensorflow as tf

from iwae_zoo.distributions import fusion

__all__ = ["Dense", "add_bias"]


class Dense(keras.layers.Dense):
    """`keras.layers.Dense` on [N, features], with the bias' gradient of `add_bias`."""

    def call(self, x):
        product = tf.matmul(x, tf.convert_to_tensor(self.kernel))
        return self.activation(add_bias(product, tf.convert_to_tensor(self.bias)))


@fusion.custom_gradient
def add_bias(x, bias):
    """x [N, features] + bias [features], with the bias' gradient as a matrix product with ones.

    TensorFlow's own sum over the rows takes nearly twice as long, a twentieth of a train step.
    """

    def gradient(upstream):
        ones = tf.ones([1, tf.shape(upstream)[0]], upstream.dtype)
        return upstream, tf.matmul(ones, upstream)[0]

    return tf.nn.bias_add(x, bias), gradient
