"""Shapes, as far as they are known: what is known while a function is traced takes no operations."""

import tensorflow as tf

__all__ = ["shape_of"]


def shape_of(x):
    """The shape of a tensor, to be taken apart and put together again.

    Args:
      x: tensor of known rank.

    Returns:
      List of int, and of int32 tensors [] for the axes of which the length is not known before the graph runs.
    """
    known = list(x.shape)
    if None not in known:
        return known
    dynamic = tf.shape(x)
    return [dynamic[axis] if size is None else size for axis, size in enumerate(known)]
