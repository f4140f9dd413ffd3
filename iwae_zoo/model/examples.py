"""What users pass as x: told what is wrong with it before training, by row and column."""

import warnings

import numpy as np
import tensorflow as tf

from iwae_zoo._rows import Rows
from iwae_zoo.distributions import likelihoods
from iwae_zoo.model import particles

__all__ = [
    "batch_rows",
    "check",
    "check_dense",
    "check_shape",
    "check_support",
    "check_unweighted",
    "data_shape",
    "fitting",
    "some",
    "warn_of_scale",
]

# Beyond which float32, in which models compute, has infinity.
_LARGEST = np.finfo(np.float32).max
# Root mean square above which a column is far from the scale that networks start at.
_LARGE = 30.0
_SHOWN = 8
# Rows of a table whose scale is looked at, evenly spaced.
_LOOKED_AT = 20_000
# What has to be made an array of first, and how.
_DENSE = {
    (tf.SparseTensor, tf.SparseTensorSpec): "tf.sparse.to_dense(x)",
    (tf.RaggedTensor, tf.RaggedTensorSpec): "x.to_tensor()",
}


def data_shape(x):
    """Shape of one example of an array or a `tf.data.Dataset`; None where it cannot be known beforehand."""
    shape = _shape(x)
    return tuple(shape[1:]) if shape.rank and shape.rank > 1 and shape[1:].is_fully_defined() else None


def batch_rows(x, batch_size=None, steps_per_epoch=None):
    """Rows of a batch that Keras' `fit` makes of x; None where a `tf.data.Dataset` does not say how many it has."""
    count = _shape(x)[:1].num_elements()
    if count is None or isinstance(x, tf.data.Dataset):
        return count
    return min(count, batch_size or (-(-count // steps_per_epoch) if steps_per_epoch else 32))


def check_dense(x, name="x"):
    """Raises ValueError on what holds numbers in no array, sparse and ragged ones, and on what holds no numbers.

    Args:
      x: what the user passes.
      name: str, what it is called.
    """
    if x is None:
        raise ValueError(f"{name} must be an array, or batches of it: received None.")
    batches, element = isinstance(x, tf.data.Dataset), _element(x)
    remedy = next((remedy for kinds, remedy in _DENSE.items() if isinstance(element, kinds)), None)
    if hasattr(x, "toarray"):  # SciPy's.
        remedy = "x.toarray()"
    if remedy:
        remedy = f"x.map(lambda x: {remedy})" if batches else f"{remedy}, or batches of it where that is too large"
        raise ValueError(f"{name} must be dense: received a {type(element).__name__}. Pass {remedy}.")
    dtype = getattr(element, "dtype", None)
    of_tensor = isinstance(dtype, tf.DType) and (dtype.is_complex or dtype == tf.string)
    if of_tensor or getattr(dtype, "kind", None) in ("S", "U", "M", "m", "c"):
        raise ValueError(f"{name} must hold real numbers: received dtype {dtype}.")


def check_shape(model, x, name="x"):
    """Raises ValueError as `check_dense`, or if x cannot be of the shape that the model is built for.

    Args:
      model: `ImportanceWeightedAutoencoder`; of one that is not built nothing is known.
      x: what the user passes.
      name: str, what it is called.
    """
    if isinstance(x, list | tuple | dict):
        raise ValueError(f"{name} must be one array, or batches of it: received a {type(x).__name__}.")
    check_dense(x, name)
    shape = _shape(x)
    if not model.built or shape.rank is None or shape[1:].is_compatible_with(model.data_shape):
        return
    batched = "x.batch(...)" if isinstance(x, tf.data.Dataset) else "x[np.newaxis]"
    raise ValueError(
        f"{name} must have shape [B, {', '.join(map(str, model.data_shape))}]: received shape {shape.as_list()}."
        + (f" Add a batch axis: {batched}." if shape.as_list() == list(model.data_shape) else "")
    )


def check_unweighted(sample_weight=None, class_weight=None, **others):
    """Raises ValueError on weights of rows, among the arguments of one of Keras' loops."""
    if sample_weight is not None or class_weight is not None:
        raise ValueError("Bounds are means over rows that count alike: leave out sample_weight and class_weight.")


def check(x, name="x", missing=False):
    """Returns x; what can be read as an array is looked at, anything else is left as it is.

    Args:
      x: what the user passes.
      name: str, what it is called.
      missing: bool, whether NaN stands for a missing value.

    Raises:
      ValueError: if an array holds what is infinite in float32, or NaN where nothing can be missing; the message names
        the first row.
    """
    array = _array(x)
    if array is not None and array.dtype.kind == "f" and array.size:
        wrong = (array > _LARGEST) | (array < -_LARGEST)
        wrong = wrong if missing else wrong | np.isnan(array)
        rows = np.flatnonzero(wrong.reshape(len(array), -1).any(axis=1))
        if len(rows):
            what, remedy = (
                ("infinity", "")
                if missing
                else (
                    "NaN or infinity",
                    ", or train a model that takes missing "
                    "values: pass the data to presets.build, or a likelihood such as 'normal,missing=True'",
                )
            )
            raise ValueError(
                f"{name} holds {what} in {len(rows)} of {len(array)} examples, the first at row {rows[0]}. Remove or "
                f"mend these examples{remedy}."
            )
    return x


def check_support(decoder, x, name="x"):
    """Raises ValueError if an array holds values outside the support of a decoder's likelihood, with the first row.

    Args:
      decoder: layer with `likelihood(z)`; of one without a `Likelihood` nothing is known.
      x: what the user passes, of a shape that fits.
      name: str, what it is called.
    """
    head, array = likelihoods.of(decoder), _array(x)
    if head is None or array is None or array.dtype.kind not in "buif":
        return
    outside: list[int] = []
    done = 0
    for block in Rows.of(array).blocks():
        values = tf.cast(block.reshape(len(block), -1), tf.float32)
        holds = head.holds(values)
        if holds is None:
            return
        holds = holds | tf.math.is_nan(values) if head.missing else holds
        outside.extend(done + np.flatnonzero(~tf.reduce_all(holds, axis=1).numpy()))
        done += len(block)
    if outside:
        raise ValueError(
            f"{name} is outside the support of the likelihood ({likelihoods.support(decoder)}) in {len(outside)} of "
            f"{len(array)} examples, the first at row {outside[0]}."
        )


def fitting(model, x):
    """Returns x as a float32 array [B, ...] that fits the model, which is built for it if need be.

    Raises:
      ValueError: on another shape, or values that are not finite (with the rows named); NaN is a missing value where
        the model takes that.
    """
    check_dense(x)
    x = np.asarray(x, np.float32)
    if not model.built:
        model.build((None, *x.shape[1:]))
    check_shape(model, x)
    return check(x, missing=particles.takes_missing(model.decoder))


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
    array = array[:: -(-len(array) // _LOOKED_AT)]  # Features of names are many more numbers than x.
    there = ~np.isnan(array)
    if inputs is not None:
        array = np.asarray(inputs.features(tf.cast(np.where(there, array, 0), tf.float32)))
        there = np.asarray(inputs.of_features(tf.constant(there)))
    squares = np.where(there, np.square(array, dtype=np.float64), 0.0)
    sizes = np.sqrt(np.sum(squares, axis=0) / np.maximum(np.sum(there, axis=0), 1))
    columns = np.flatnonzero(sizes > _LARGE)
    if len(columns):
        shown = ", ".join(f"{column} (about {sizes[column]:.3g})" for column in columns[:_SHOWN])
        more = f" and {len(columns) - _SHOWN} more" if len(columns) > _SHOWN else ""
        warnings.warn(
            f"x is far from the scale that networks start from, in columns {shown}{more}: training may go nowhere. "
            "Standardise them: subtract each column's mean and divide by its standard deviation.",
            stacklevel=3,
        )


def _shape(x):
    """`tf.TensorShape` of a batch of x."""
    return tf.TensorShape(getattr(_element(x), "shape", None))


def _element(x):
    """What says of what kind a batch of x is: x, or the specification of a `tf.data.Dataset`."""
    if isinstance(x, tf.data.Dataset):
        return x.element_spec[0] if isinstance(x.element_spec, tuple) else x.element_spec
    return x


def _array(x):
    """An array, tensor or data frame as an array; None for anything else."""
    return np.asarray(x) if hasattr(x, "__array__") else None
