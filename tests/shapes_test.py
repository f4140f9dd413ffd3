"""Shapes of which a graph has to compute no more than it must."""

import numpy as np
import tensorflow as tf

from iwae_zoo._shapes import shape_of


def test_what_is_known_is_a_number():
    @tf.function(input_signature=[tf.TensorSpec([None, 3, None]), tf.TensorSpec([2, 3])], autograph=False)
    def reshaped(some, whole):
        before = len(tf.compat.v1.get_default_graph().get_operations())
        assert shape_of(whole) == [2, 3]
        assert len(tf.compat.v1.get_default_graph().get_operations()) == before
        first, second, third = shape_of(some)
        assert tf.is_tensor(first) and second == 3 and tf.is_tensor(third)
        return tf.reshape(some, [first, third, second])

    assert reshaped(np.zeros([4, 3, 5], "float32"), np.zeros([2, 3], "float32")).shape == (4, 5, 3)
    assert reshaped(np.zeros([0, 3, 5], "float32"), np.zeros([2, 3], "float32")).shape == (0, 5, 3)
    assert shape_of(np.zeros([4, 0])) == [4, 0]
