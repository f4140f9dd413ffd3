"""Random numbers by row: what a row draws depends on the seed and on its index alone.

So a batch draws the same numbers whole, in parts, or on several devices. One counter-based stream (Philox) is cut into
a part for each row. XLA's stream is another one than TensorFlow's.

Where rows have seeds of their own, [rows, 2], each draws what it draws with its seed as the only row, number
`first_row`.
"""

import math

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from iwae_zoo.distributions import philox

__all__ = ["by_row", "for_draws", "inner_uniform", "is_by_row", "normal", "split_seed", "takes_seeds_by_row", "uniform"]

_PHILOX = 1  # tf.random.Algorithm.PHILOX, as the operation takes it.
_BLOCK = 16  # Bytes of random bits for each count.
_STRIP = 128  # Normal numbers that are computed side by side: a multiple of any vector register.


def is_by_row(seed):
    """Whether a stateless seed is one for each row, [rows, 2], or their `philox.streams`."""
    return tf.convert_to_tensor(seed).shape.rank == 2


def takes_seeds_by_row(distribution):
    """Whether `sample` of a batch [..., B] takes seeds [B, 2], and each row then draws what it draws alone."""
    return bool(getattr(distribution, "seeds_by_row", False))


def split_seed(seed, count):
    """A list of `count` seeds from one, as `tfp.random.split_seed`; from seeds [rows, 2], lists of such."""
    if is_by_row(seed):
        drawn = philox.integers(seed, 2 * count)
        return tf.unstack(tf.reshape(drawn, [-1, count, 2]), axis=1)
    return tfp.random.split_seed(seed, n=count)


def uniform(rows, size, seed, first_row=0, dtype=tf.float32):
    """Uniform numbers in [0, 1).

    Args:
      rows: int or int tensor [], number of rows.
      size: int or int tensor [], numbers in a row.
      seed: stateless seed, two integers; or one for each row, [rows, 2].
      first_row: int or int tensor [], index of the first row; of every row where they have seeds.
      dtype: tf.float32 or tf.float64.

    Returns:
      Float tensor [rows, size].
    """
    of_block = _BLOCK // dtype.size
    blocks = (size + of_block - 1) // of_block
    if is_by_row(seed):
        return philox.uniform(seed, size, dtype, start=tf.cast(first_row, tf.int64) * tf.cast(blocks, tf.int64))
    key, counter = tf.raw_ops.StatelessRandomGetKeyCounter(seed=seed)
    if not _is(first_row, 0):
        offset = tf.cast(first_row, tf.uint64) * tf.cast(blocks, tf.uint64)
        counter += tf.stack([offset, tf.zeros_like(offset)])
    shape = [rows, blocks * of_block]
    drawn = tf.raw_ops.StatelessRandomUniformV2(shape=shape, key=key, counter=counter, alg=_PHILOX, dtype=dtype)
    return _first(size, drawn)


def inner_uniform(rows, size, seed, first_row=0, dtype=tf.float32):
    """Uniform numbers in (0, 1), as far from 0 as from 1; arguments as in `uniform`."""
    half_a_step = float(np.finfo(dtype.as_numpy_dtype).eps) / 2.0
    return uniform(rows, size, seed, first_row, dtype) + half_a_step


def normal(rows, size, seed, first_row=0, dtype=tf.float32):
    """Standard normal numbers [rows, size]; arguments as in `uniform`.

    Where `first_row` is 0, the first of row 0, and of each row where rows have seeds, do not depend on the size.

    Box-Muller on whole arrays takes four fifths of the time of TensorFlow's own normal numbers.
    """
    pair = 2 * _STRIP
    drawn = uniform(rows, (size + pair - 1) // pair * pair, seed, first_row, dtype)
    of_radius, of_angle = tf.unstack(tf.reshape(drawn, [-1, 2, _STRIP]), axis=1)
    radius = tf.sqrt(-2.0 * tf.math.log(1.0 - of_radius))
    angle = (2.0 * math.pi) * of_angle
    pairs = tf.concat([radius * tf.cos(angle), radius * tf.sin(angle)], axis=1)
    return _first(size, tf.reshape(pairs, tf.shape(drawn)))


def _first(size, drawn):
    """The first `size` columns of [rows, columns]."""
    return drawn if _is(size, drawn.shape[1]) else drawn[:, :size]


def _is(number, other):
    """Whether it is known, before anything is computed, that a number, which may be a tensor, is another."""
    return isinstance(number, (int, np.integer)) and number == other


def for_draws(draw, distribution, count, seed, first_row=0):
    """Numbers for draws of a distribution over vectors, one for each value: `by_row` of its batch and size.

    Args:
      draw: as in `by_row`.
      distribution: `tfd.Distribution`, batch [*b], event [D].
      count: int or int tensor [], number of draws.
      seed: as `sample` takes it.
      first_row: as in `by_row`.

    Returns:
      Float tensor [count, *b, D], as `by_row`.
    """
    size = distribution.event_shape[-1] or distribution.event_shape_tensor()[-1]
    seed, batch = tfp.random.sanitize_seed(seed), distribution.batch_shape_tensor()
    return by_row(draw, count, batch, size, seed, first_row, distribution.dtype)


def by_row(draw, count, batch, size, seed, first_row=0, dtype=tf.float32):
    """Numbers for the draws of a batch of distributions, whose rows are its last axis.

    Args:
      draw: `uniform`, `inner_uniform` or `normal`.
      count: int or int tensor [], number of draws.
      batch: int tensor [r], the batch's shape; one without axes has one row.
      size: int or int tensor [], numbers for one draw of one of them.
      seed: stateless seed, two integers; or one for each row, [rows, 2].
      first_row: int or int tensor [], as in `uniform`. None for all rows to get the numbers of row 0.
      dtype: tf.float32 or tf.float64.

    Returns:
      Float tensor [count, *batch, size]; for `first_row` None the axis of the rows has length 1.
    """
    known = tf.get_static_value(batch)
    batch = tf.unstack(batch) if known is None else known.tolist()
    outer, rows = math.prod(batch[:-1]), batch[-1] if batch else 1
    several = not _is(rows, 1)
    if first_row is None:
        first_row, rows, batch = 0, 1, [*batch[:-1], 1] if batch else []
    drawn = draw(rows, count * outer * size, seed, first_row, dtype)
    if several:
        drawn = tf.transpose(tf.reshape(drawn, [rows, count * outer, size]), [1, 0, 2])
        if len(batch) == 1:
            return drawn
    return tf.reshape(drawn, [count, *batch, size])
