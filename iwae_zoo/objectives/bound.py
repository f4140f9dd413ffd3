"""What every bound has: the class that they are kinds of, groups of particles, and sums that keep their digits."""

import abc
import dataclasses
import math
from typing import ClassVar

import tensorflow as tf

from iwae_zoo._checks import integer
from iwae_zoo._shapes import shape_of

__all__ = ["Bound", "Grouped", "checked", "complement", "log_mean_exp", "without_one"]


class Bound(abc.ABC):
    """A bound on log p(x), averaged over its groups of particles.

    Class attributes:
      name: str, what this class is called in a configuration.
      is_lower_bound: bool, whether its expectation is at most log p(x), for any number of particles. Where it is not,
        no encoder ascends it, since a worse posterior can raise it, and `reported` is another number.
      for_decoder: bool, whether a decoder that follows it raises log p(x).
      companion: str, the name of the metric that is shown beside it, "" for none.
    """

    name: ClassVar[str]
    is_lower_bound: ClassVar[bool] = True
    for_decoder: ClassVar[bool] = True
    companion: ClassVar[str] = ""

    @abc.abstractmethod
    def value(self, log_weights):
        """The bound itself (never a surrogate whose gradient happens to be right).

        Args:
          log_weights: float tensor [M, K, B], nats.

        Returns:
          float tensor [B], nats; not averaged over the batch.

        Raises:
          ValueError: if `log_weights` is not of rank 3, or the groups do not divide its particles.
        """

    @abc.abstractmethod
    def weights(self, log_weights):
        """`a = d value / d log_weights`, [M, K, B]; sums to 1 over the particles of an example."""

    @abc.abstractmethod
    def weight_derivatives(self, log_weights):
        """`a'_i = d a_i / d log_weights_i`, [M, K, B]; each weight's derivative by its own log weight alone."""

    @abc.abstractmethod
    def has_constant_weights(self, m, k):
        """Whether `weights` is the same for all log weights of shape [m, k, B]: then `weight_derivatives` is zero."""

    def reported(self, log_weights):
        """The lower bound [B] on log p(x), nats, that metrics and model selection go by: itself, where it is one."""
        return self.value(log_weights)

    def companion_value(self, log_weights):
        """What is shown beside it, by the name `companion`: float tensor [B], nats."""
        raise NotImplementedError(f"{type(self).__name__} has no companion.")

    def validate(self, m, k):  # noqa: B027  (most bounds accept any shape)
        """Raises ValueError if the bound cannot be evaluated on log weights of shape [m, k, B]."""

    # What estimators with a learning signal ask besides. These work for every bound, in memory that grows with the
    # square of the number of particles.

    def components(self):
        """The bounds whose mean it is: a tuple of (share, `Bound`)."""
        return ((1.0, self),)

    def group_size(self, m, k):
        """int, how many neighbours of the M K particles (M slowest) a group has."""
        return m * k

    def parts(self, log_weights):
        """What of the value each particle's log weight enters, [M, K, B]: of a mean over groups, that of its own."""
        return tf.broadcast_to(self.value(log_weights), tf.shape(log_weights))

    def replaced(self, log_weights, by):
        """For each particle by itself: what changes where its log weight is another, and those of the others stay.

        Args:
          log_weights: float tensor [M, K, B], nats.
          by: float tensor [S, M, K, B], or one that broadcasts to it: S log weights to stand in each place.

        Returns:
          (value before minus value after, weight `a` of the particle after), float tensors [S, M, K, B].
        """
        log_weights = checked(log_weights)
        shape = [shape_of(by)[0], *shape_of(log_weights)]
        flat = tf.reshape(log_weights, [-1, shape[-1]])  # [N, B]
        count = shape_of(flat)[0]
        by = tf.reshape(tf.broadcast_to(by, shape), [shape[0], count, 1, shape[-1]])
        own = tf.eye(count, dtype=tf.bool)[:, :, tf.newaxis]
        after = tf.transpose(tf.where(own, by, flat), [2, 0, 1, 3])  # [N, S, N replaced, B]
        after = tf.reshape(after, [*shape[1:3], -1])
        value = tf.reshape(self.value(after), shape)
        weight = tf.reshape(self.weights(after), [count, shape[0], count, shape[-1]])
        weight = tf.linalg.diag_part(tf.transpose(weight, [1, 3, 0, 2]))  # [S, B, N]
        return self.value(log_weights) - value, tf.reshape(tf.transpose(weight, [0, 2, 1]), shape)

    def mean_of_others(self, log_weights):
        """Mean log weight of the other particles of its group, [M, K, B]."""
        grouped = self.grouped(log_weights)
        shift = tf.reduce_max(grouped, axis=1, keepdims=True)
        lost = grouped == -math.inf
        centered = tf.where(lost, tf.zeros_like(grouped), grouped - shift)
        others = tf.reduce_sum(centered, axis=1, keepdims=True) - centered
        lost = tf.cast(lost, tf.int32)  # A sum without one that is minus infinity may be finite.
        others_lost = tf.reduce_sum(lost, axis=1, keepdims=True) > lost
        others = tf.where(others_lost, tf.constant(-math.inf, others.dtype), others)
        mean = shift + others / tf.cast(tf.shape(grouped)[1] - 1, grouped.dtype)
        return tf.reshape(mean, tf.shape(log_weights))

    def leave_one_out(self, log_weights):
        """Value minus what it would be of the others of a particle's group, their mean weight in its place, [M, K, B].

        Exact to rounding of the difference, not of the value.
        """
        shift, total, log_rest = without_one(self.grouped(log_weights))
        mean = shift + total + log_rest - tf.math.log(tf.cast(tf.shape(log_rest)[1] - 1, log_rest.dtype))
        return self.replaced(log_weights, tf.reshape(mean, tf.shape(log_weights))[tf.newaxis])[0][0]

    def grouped(self, log_weights):
        """`log_weights` as [G, N, B]: G groups of N particles, here one of all."""
        log_weights = checked(log_weights)
        return tf.reshape(log_weights, [1, -1, shape_of(log_weights)[2]])


@dataclasses.dataclass(frozen=True)
class Grouped(Bound):
    """A bound that is averaged over equal groups of particles.

    Args:
      groups: int, into how many equal groups of neighbours the M K particles (M slowest) are divided.
    """

    groups: int = 1

    def __post_init__(self):
        object.__setattr__(self, "groups", integer("groups", self.groups))

    def validate(self, m, k):
        if m * k % self.groups:
            raise ValueError(
                f"The number of groups must divide the number of particles: received groups={self.groups} for "
                f"m={m} times k={k} = {m * k} particles."
            )

    @abc.abstractmethod
    def group_values(self, grouped):
        """The bound of each group, [G, B], of log weights [G, N, B]."""

    def value(self, log_weights):
        return tf.reduce_mean(self.group_values(self.grouped(log_weights)), axis=0)

    def group_size(self, m, k):
        return m * k // self.groups

    def parts(self, log_weights):
        grouped = self.grouped(log_weights)
        values = self.group_values(grouped) / self.groups
        return tf.reshape(tf.broadcast_to(values[:, tf.newaxis], tf.shape(grouped)), tf.shape(log_weights))

    def grouped(self, log_weights):
        log_weights = checked(log_weights)
        m, k, _ = log_weights.shape
        if m is not None and k is not None:
            self.validate(m, k)
            return tf.reshape(log_weights, [self.groups, m * k // self.groups, -1])
        shape = tf.shape(log_weights)
        return tf.reshape(log_weights, [self.groups, shape[0] * shape[1] // self.groups, shape[2]])


def checked(log_weights):
    """Returns `log_weights` as a tensor.

    Raises:
      ValueError: if it is no float tensor of rank 3.
    """
    log_weights = tf.convert_to_tensor(log_weights)
    if log_weights.shape.rank != 3 or not log_weights.dtype.is_floating:
        raise ValueError(
            "log_weights must be a float tensor of shape [M, K, B] (groups, particles of a group, examples): received "
            f"shape {log_weights.shape} and dtype {log_weights.dtype.name}."
        )
    return log_weights


def log_mean_exp(x, axis):
    """log(mean(exp(x))), accurate also where all `x` are nearly equal, and -inf where all are -inf."""
    shift = tf.reduce_max(x, axis=axis, keepdims=True)
    shift = tf.stop_gradient(tf.where(tf.math.is_finite(shift), shift, tf.zeros_like(shift)))
    centred = x - shift
    # Near zero the log of a mean near 1 would lose the digits that a small power (alpha near 1) then divides by.
    small = tf.reduce_mean(tf.math.expm1(centred), axis=axis)
    large = tf.reduce_mean(tf.exp(centred), axis=axis)
    return tf.squeeze(shift, axis) + tf.where(small > -0.5, tf.math.log1p(small), tf.math.log(large))


def softmax(x, axis):
    """exp(x) / sum(exp(x)); `tf.nn.softmax` transposes for any axis but the last, in forty operations."""
    powers = tf.exp(x - tf.stop_gradient(tf.reduce_max(x, axis=axis, keepdims=True)))
    return powers / tf.reduce_sum(powers, axis=axis, keepdims=True)


def complement(normalized):
    """1 - `normalized` [G, N, B], weights that sum to 1 over N, accurate also where one of them is nearly 1."""
    # As the sum of the others where the subtraction would lose all digits.
    largest = normalized == tf.reduce_max(normalized, axis=1, keepdims=True)
    others = tf.reduce_sum(tf.where(largest, tf.zeros_like(normalized), normalized), axis=1, keepdims=True)
    return tf.where(normalized > 0.5, others, 1.0 - normalized)


def without_one(x):
    """Of log weights [G, N, B]: their largest m [G, 1, B], log t [G, 1, B] and log(1 - w_i) [G, N, B].

    With `t = sum_i exp(x_i - m)` and `w_i = exp(x_i - m) / t`, the log of the sum without i is
    `m + log t + log(1 - w_i)`, however much one dominates.
    """
    shift = tf.reduce_max(x, axis=1, keepdims=True)
    x -= shift
    total = tf.reduce_logsumexp(x, axis=1, keepdims=True)
    first = tf.one_hot(tf.argmax(x, axis=1), tf.shape(x)[1], True, False, axis=1, dtype=tf.bool)
    lowest = tf.constant(-math.inf, x.dtype)
    others = tf.reduce_logsumexp(tf.where(first, lowest, x), axis=1, keepdims=True)
    normalized = tf.exp(x - total)
    # Only the largest can have more than half, where the subtraction from 1 would lose digits.
    dominant = normalized > 0.5
    rest = tf.math.log1p(-tf.where(dominant, tf.zeros_like(x), normalized))
    return shift, total, tf.where(dominant, others - total, rest)
