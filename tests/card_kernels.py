"""What TensorFlow has for a card, as its own table says, which needs none."""

import functools

from tensorflow.python.framework import kernels

_registered = functools.cache(kernels.get_registered_kernels_for_op)  # It looks through those of all operations.


def kernel(name, attribute, devices=("GPU", "DEFAULT")):
    """The kernel of an operation on a card, or None where it has none.

    Args:
      name: the operation's type.
      attribute: function from the name of an attribute to what it is.
      devices: the kinds of device that will do.
    """
    for found in _registered(name).kernel:
        fits = all(attribute(c.name) in c.allowed_values.list.type for c in found.constraint)
        if fits and found.device_type in devices and not found.label:
            return found
    return None
