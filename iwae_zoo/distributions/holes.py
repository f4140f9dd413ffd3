"""Missing values: NaN is "not observed", and what is not observed counts for nothing."""

import numpy as np
import tensorflow as tf

__all__ = ["completed", "only"]


def only(values, *observed, otherwise=0.0):
    """Values where they were observed.

    Args:
      values: float tensor [..., V].
      *observed: bool tensor [..., V]; none where nothing can be missing.
      otherwise: float, what stands elsewhere.

    #### Examples
    >>> only(tf.constant([1.0, 2.0]), tf.constant([True, False])).numpy().tolist()
    [1.0, 0.0]
    """
    for seen in observed:
        values = tf.where(seen, values, tf.constant(otherwise, values.dtype))
    return values


def completed(data):
    """Data without holes, for statistics that are those of what was observed.

    Each missing value is replaced by one that was observed in the same place: the order statistics, evenly spaced. It
    is no imputation. Nothing is trained on it.

    Args:
      data: float array [N, ...], NaN where missing.

    Returns:
      float array [N, ...].

    #### Examples
    >>> completed(np.array([[1.0], [np.nan], [3.0], [np.nan]])).ravel().tolist()
    [1.0, 1.0, 3.0, 3.0]
    """
    columns = data.reshape(len(data), -1).copy()
    missing = np.isnan(columns)
    # Where a place was never observed; 1 is in the support of every likelihood.
    anywhere = np.nanmedian(columns) if not missing.all() else 1.0
    for column, holes in zip(columns.T, missing.T, strict=True):
        count = int(holes.sum())
        if count:
            seen = np.sort(column[~holes]) if count < len(column) else np.full(1, anywhere, column.dtype)
            column[holes] = seen[((np.arange(count) + 0.5) / count * len(seen)).astype(int)]
    return columns.reshape(data.shape)
