"""Keras' dense layer with a faster gradient."""

import keras
import tensorflow as tf

from iwae_zoo.distributions import fusion

__all__ = ["Dense"]


class Dense(keras.layers.Dense):
    """`keras.layers.Dense` on [N, features], with the bias' gradient as a matrix product with ones.

    TensorFlow's own sum over the rows takes nearly twice as long, a twentieth of a train step.
    """

    def call(self, x):
        return self.activation(_affine(x, tf.convert_to_tensor(self.kernel), tf.convert_to_tensor(self.bias)))


@fusion.custom_gradient
def _affine(x, kernel, bias):
    def gradient(upstream):
        ones = tf.ones([1, tf.shape(upstream)[0]], upstream.dtype)
        by_x = tf.matmul(upstream, kernel, transpose_b=True)
        return by_x, tf.matmul(x, upstream, transpose_a=True), tf.matmul(ones, upstream)[0]

    return tf.nn.bias_add(tf.matmul(x, kernel), bias), gradient
