"""What a body returns, checked against what its head reads."""

import math

__all__ = ["checked"]


def checked(layer, body, outputs, needed, reader, flat=False):
    """Returns the outputs of a body.

    Args:
      layer: the Keras layer that holds it.
      body: Keras layer.
      outputs: tensor [N, ...].
      needed: int, how many numbers are read for each row.
      reader: str, what reads them.
      flat: bool, whether they have to be in one axis.

    Raises:
      ValueError: if there are others for each row; where a graph does not know how many there are, they pass.
    """
    shape = outputs.shape[1:]
    if shape.is_fully_defined() and (math.prod(shape) != needed or (flat and len(shape) != 1)):
        raise ValueError(
            f"The body of the {type(layer).__name__} {layer.name!r}, {body.name!r}, must have {needed} outputs for "
            f"each row{' in one axis' if flat else ''}, which the {reader} reads: received {math.prod(shape)}, of "
            f"shape [N, {', '.join(map(str, shape))}]."
        )
    return outputs
