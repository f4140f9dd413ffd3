"""What users pass as x: told what is wrong with it before training, by row and column."""

import warnings

import numpy as np
import tensorflow as tf

__all__ = ["check", "data_shape", "fitting", "some", "warn_of_scale"]

# Root mean square above which a column is far from the scale that networks start at.
_LARGE = 30.0
_SHOWN = 8


def data_shape(x):
    """Shape of one example of an array or a `tf.data.Dataset`; None where it cannot be known beforehand."""
    if isinstance(x, tf.data.Dataset):
        spec = x.element_spec[0] if isinstance(x.element_spec, tuple) else x.element_spec
        shape = getattr(spec, "shape", tf.TensorShape(None))
        return tuple(shape[1:]) if shape.rank and shape[1:].is_fully_defined() else None
    shape = getattr(x, "shape", None)
    return tuple(shape[1:]) if shape is not None and len(shape) > 1 else None


def check(x, name="x"):
    """Returns x; what can be read as an array is looked at, anything else is left as it is.

    Raises:
      ValueError: if an array holds NaN or infinity; the message names the first row.
    """
    array = _array(x)
    if array is not None and array.dtype.kind == "f" and array.size:
        rows = np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(axis=1))
        if len(rows):
            raise ValueError(
                f"{name} holds NaN or infinity in {len(rows)} of {len(array)} examples, the first at row {rows[0]}. "
                "Remove or mend these examples."
            )
    return x


def fitting(model, x):
    """Returns x as a float32 array [B, ...] that fits the model, which is built for it if need be.

    Raises:
      ValueError: on another shape, or values that are not finite (with the rows named).
    """
    x = np.asarray(x, np.float32)
    if not model.built:
        model.build((None, *x.shape[1:]))
    if x.shape[1:] != tuple(model.data_shape):
        raise ValueError(
            f"x must have shape [B, {', '.join(map(str, model.data_shape))}]: received shape {list(x.shape)}."
            + (" Add a batch axis: x[np.newaxis]." if x.shape == tuple(model.data_shape) else "")
        )
    return check(x)


def some(model, x):
    """As `fitting`; raises ValueError also if there is no example."""
    x = fitting(model, x)
    if not len(x):
        raise ValueError("x must hold at least one example: received an empty array.")
    return x


def warn_of_scale(x, inputs=None):
    """Warns of columns of a table [N, P] that are far larger than what a network starts from.

    Args:
      x: what the user passes.
      inputs: the `Likelihood` whose features of x the network is given; None where it is given x.

    Warns:
      UserWarning: once, with the columns.
    """
    array = _array(x)
    if array is None or array.ndim != 2 or array.dtype.kind not in "iuf" or not len(array):
        return
    if inputs is not None:
        array = np.asarray(inputs.features(tf.cast(array, tf.float32)))
    sizes = np.sqrt(np.mean(np.square(array, dtype=np.float64), axis=0))
    columns = np.flatnonzero(sizes > _LARGE)
    if len(columns):
        shown = ", ".join(f"{column} (about {sizes[column]:.3g})" for column in columns[:_SHOWN])
        more = f" and {len(columns) - _SHOWN} more" if len(columns) > _SHOWN else ""
        warnings.warn(
            f"x is far from the scale that networks start from, in columns {shown}{more}: training may go nowhere. "
            "Standardise them: subtract each column's mean and divide by its standard deviation.",
            stacklevel=3,
        )


def _array(x):
    """An array, tensor or data frame as an array; None for anything else."""
    return np.asarray(x) if hasattr(x, "__array__") else None
