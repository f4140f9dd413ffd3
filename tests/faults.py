"""What goes wrong on purpose."""

import tensorflow as tf


def exhausted(*_, **__):
    """In place of a function: a device that is out of memory."""
    raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
