"""The jackknife estimate of log p(x): less biased than any bound, and not a bound."""

import dataclasses
import math
from typing import NamedTuple

import tensorflow as tf

from iwae_zoo.objectives.bound import Grouped, complement, log_mean_exp, softmax, without_one

__all__ = ["Jackknife"]


@dataclasses.dataclass(frozen=True)
class Jackknife(Grouped):
    """First-order jackknife of the importance-weighted bound (JVI-1). NOT a bound on log p(x).

    value[b] = mean_g [ N L_N - (N - 1) mean_i L_{N-1}^(-i) ],   L_{N-1}^(-i) the bound without particle i

    Its bias falls as 1 / N^2, where that of L_N falls as 1 / N, and has either sign: a posterior that is far too wide
    raises it above log p(x) without end. So the decoder may follow it, and of the encoder's estimators only the wake
    updates, which take its weights and not its value. Metrics and model selection go by L_N over the same groups,
    `reported`; the estimate stands beside it under a name of its own.

    Its weights can be negative. All but one particle impossible, it is plus infinity.

    Args:
      groups: int, into how many equal groups of neighbours, of at least two, the M K particles are divided.

    #### Examples
    >>> round(float(Jackknife().value(tf.math.log([[[1.0], [3.0]]]))[0]), 4)  # 2 log 2 - (log 1 + log 3) / 2
    0.837

    #### References
    Nowozin. Debiasing Evidence Approximations: On Importance-weighted Autoencoders and Jackknife Variational Inference.
    ICLR 2018. https://openreview.net/forum?id=HyZoi-WRb
    """

    name = "jackknife"
    is_lower_bound = False
    companion = "jackknife_estimate"

    def group_values(self, grouped):
        # L_{N-1}^(-i) = L_N + log(1 - w_i) - log(1 - 1 / N).
        n, (largest, _, log_rest) = _count(grouped), without_one(grouped)
        values = log_mean_exp(grouped, axis=1)
        values -= (n - 1.0) * tf.reduce_mean(log_rest - tf.math.log1p(-1.0 / n), axis=1)
        return tf.where(largest[:, 0] > -math.inf, values, largest[:, 0])

    def weights(self, log_weights):
        # N w_k - (N - 1) / N sum_{i != k} w_k / c_i, with 1 / c_i = 1 + o_i; of the largest, w_k / c_i is its own.
        grouped = self.grouped(log_weights)
        n, left = _count(grouped), _leave_one_out(grouped)
        r = (n - 1.0) / n
        odds = tf.reduce_sum(left.odds, axis=1, keepdims=True) - left.odds
        a = left.weights * ((1.0 + r) - r * odds) - r * left.top_weight * left.without_top
        return tf.reshape(a / self.groups, tf.shape(log_weights))

    def weight_derivatives(self, log_weights):
        # N w_k (1 - w_k) - (N - 1) / N sum_{i != k} v_ik (1 - v_ik), v_ik = w_k / c_i, in the same terms.
        grouped = self.grouped(log_weights)
        n, left = _count(grouped), _leave_one_out(grouped)
        r, w, c = (n - 1.0) / n, left.weights, complement(left.weights)
        odds = tf.reduce_sum(left.odds, axis=1, keepdims=True) - left.odds
        squares = tf.reduce_sum(left.odds**2, axis=1, keepdims=True) - left.odds**2
        not_top = tf.reduce_sum(tf.where(left.is_top, tf.zeros_like(w), w), axis=1, keepdims=True)
        of_top = not_top - 2.0 * w + left.top_weight * complement(left.without_top)
        derivative = (1.0 + r) * w * c + r * w * ((2.0 * w - 1.0) * odds + w * squares)
        derivative -= r * left.top_weight * left.without_top * of_top
        return tf.reshape(derivative / self.groups, tf.shape(log_weights))

    def has_constant_weights(self, m, k):
        return False

    def reported(self, log_weights):
        return tf.reduce_mean(log_mean_exp(self.grouped(log_weights), axis=1), axis=0)

    def companion_value(self, log_weights):
        return self.value(log_weights)

    def validate(self, m, k):
        super().validate(m, k)
        if m * k // self.groups < 2:
            raise ValueError(
                f"The jackknife leaves out one particle of a group after the other, and needs at least two: received "
                f"groups={self.groups} for m={m} times k={k}. Raise k."
            )


def _count(grouped):
    """N of log weights [G, N, B], as a float."""
    return tf.cast(tf.shape(grouped)[1], grouped.dtype)


class _LeaveOneOut(NamedTuple):
    """What the weights without one particle are made of; [G, N, B], or [G, 1, B].

    Attributes:
      weights: w, normalised.
      is_top: bool, true for one of the largest.
      top_weight: [G, 1, B], its w.
      without_top: the weights normalised without it; its own is 0.
      odds: o = w / (1 - w), at most 1; 0 for the largest, whose odds could be infinite.
    """

    weights: tf.Tensor
    is_top: tf.Tensor
    top_weight: tf.Tensor
    without_top: tf.Tensor
    odds: tf.Tensor


def _leave_one_out(grouped):
    """All leave-one-out weights of groups [G, N, B], in memory O(N) and accurate however far apart they are."""
    weights = softmax(grouped, axis=1)
    places = tf.range(tf.shape(grouped)[1], dtype=tf.int64)[:, tf.newaxis]
    is_top = places == tf.argmax(grouped, axis=1)[:, tf.newaxis]
    zeros = tf.zeros_like(weights)
    top_weight = tf.reduce_max(weights, axis=1, keepdims=True)
    without_top = softmax(tf.where(is_top, tf.constant(-math.inf, grouped.dtype), grouped), axis=1)
    odds = tf.where(is_top, zeros, weights / (1.0 - tf.where(is_top, zeros, weights)))
    return _LeaveOneOut(weights, is_top, top_weight, without_top, odds)
