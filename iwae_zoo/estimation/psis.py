"""Pareto shape of importance weights: can the estimate and its standard error be trusted?

A generalised Pareto distribution is fitted to the largest weights. A shape k below 0.5 means finite variance: the
central limit theorem and the standard error hold. Up to 0.7 the estimate is still usable; above, it is not, whatever
the standard error says.
"""

import math

import tensorflow as tf

__all__ = ["capacity", "pareto_shape", "pareto_shapes", "tail_length"]

# Fits of different rows that are on their way at once.
_FITS_ABREAST = 16


def tail_length(count):
    """Number of largest weights that the fit looks at, out of `count`: ceil(min(count / 5, 3 sqrt(count))).

    Args:
      count: int tensor [], number of weights.

    Returns:
      int32 tensor [].
    """
    count = tf.cast(count, tf.float64)
    return tf.cast(tf.math.ceil(tf.minimum(count / 5.0, 3.0 * tf.sqrt(count))), tf.int32)


def capacity(count):
    """How many of the largest weights to keep for `pareto_shape` of `count` or fewer: int from int."""
    with tf.init_scope():
        return int(tail_length(count)) + 1


def pareto_shape(largest_log_weights, count):
    """Shape k of the generalised Pareto distribution fitted to the largest of `count` importance weights.

    Args:
      largest_log_weights: float64 tensor [T], the T largest log weights in descending order, nats;
        T at least `capacity(count)`, padded with -inf.
      count: int tensor [], number of weights that they are the largest of.

    Returns:
      float64 tensor []; infinity where fewer than five weights stand out from the others, as in ArviZ. Minus infinity
      where more weights than the fit looks at are all the largest, as those of few discrete z can be: there is no tail.

    #### References
    Vehtari, Simpson, Gelman, Yao, Gabry. Pareto Smoothed Importance Sampling. JMLR 2024.
    https://arxiv.org/abs/1507.02646
    Zhang, Stephens. A New and Efficient Estimation Method for the Generalized Pareto Distribution. Technometrics 2009.
    """
    log_weights = largest_log_weights - largest_log_weights[0]
    smallest = math.log(2.2250738585072014e-308)  # the least normal double
    cutoff = tf.maximum(log_weights[tail_length(count)], tf.constant(smallest, tf.float64))
    in_tail = log_weights > cutoff
    size = tf.reduce_sum(tf.cast(in_tail, tf.int32))
    infinity = tf.constant(math.inf, tf.float64)

    def fit():
        tail = tf.exp(log_weights[:size]) - tf.exp(cutoff)  # descending
        shape = _fit_generalized_pareto(tail)
        return tf.where(tf.math.is_nan(shape), infinity, shape)

    bounded = tf.equal(log_weights[tail_length(count)], 0.0)
    return tf.cond(size > 4, fit, lambda: tf.where(bounded, -infinity, infinity))


def pareto_shapes(largest_log_weights, count):
    """`pareto_shape` of each row: of largest log weights [B, T] and counts [B], float64 tensor [B].

    On the host: a fit is many operations on few numbers, as many as the row's tail is long.
    """
    with tf.device("CPU:0"):
        return tf.map_fn(
            lambda row: pareto_shape(*row),
            (largest_log_weights, count),
            fn_output_signature=tf.float64,
            parallel_iterations=_FITS_ABREAST,
        )


def _fit_generalized_pareto(tail):
    """Empirical Bayes estimate of the shape from `tail` [n], float64, positive, in descending order."""
    count = tf.size(tail)
    n = tf.cast(count, tf.float64)
    grid_size = 30 + tf.cast(tf.math.floor(tf.sqrt(n)), tf.int32)
    grid = tf.range(1, grid_size + 1)
    quartile = tail[count - tf.cast(tf.math.floor(n / 4.0 + 0.5), tf.int32)]
    scale = tf.sqrt(tf.cast(grid_size, tf.float64) / (tf.cast(grid, tf.float64) - 0.5))
    b = (1.0 - scale) / (3.0 * quartile) + 1.0 / tail[0]  # [grid_size]
    k = tf.reduce_mean(tf.math.log1p(-b[:, tf.newaxis] * tail), axis=1)
    # At b = 0, which the grid may meet where most of a tail is equal, k is 0 and -b / k is its limit.
    inverse_scale = tf.where(k == 0.0, 1.0 / tf.reduce_mean(tail), -b / tf.where(k == 0.0, tf.ones_like(k), k))
    log_profile_likelihood = n * (tf.math.log(inverse_scale) - k - 1.0)
    posterior = tf.nn.softmax(log_profile_likelihood)
    posterior = tf.where(posterior >= 10 * 2.220446049250313e-16, posterior, tf.zeros_like(posterior))
    b_mean = tf.reduce_sum(b * posterior) / tf.reduce_sum(posterior)
    shape = tf.reduce_mean(tf.math.log1p(-b_mean * tail))
    # A weak prior of ten observations at 0.5 steadies short tails.
    return (n * shape + 10.0 * 0.5) / (n + 10.0)
