"""What an encoder is given where values of x are missing."""

import keras
import tensorflow as tf

__all__ = ["Holes"]


@keras.saving.register_keras_serializable(package="iwae_zoo")
class Holes(keras.Layer):
    """A learned number in place of each missing feature, and which values are missing."""

    def build(self, features_shape, *_):
        self.fill = self.add_weight(name="fill", shape=tuple(features_shape[1:]), initializer="zeros")

    def call(self, features, features_missing, missing):
        """Features for a body.

        Args:
          features: float tensor [B, ...], finite, of the values of x.
          features_missing: bool tensor of the same shape.
          missing: bool tensor [B, *data_shape], of the values themselves.

        Returns:
          Float tensor [B, ...], the features and then, along the last axis, 1 for each value that is missing.
        """
        filled = tf.where(features_missing, tf.convert_to_tensor(self.fill), features)
        return tf.concat([filled, tf.cast(missing, filled.dtype)], axis=-1)
