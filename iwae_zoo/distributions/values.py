"""Heads that are told by the density of one value: their distribution, its sums, their fit to data."""

import abc
import dataclasses
import functools
import math

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability import distributions as tfd

from iwae_zoo._shapes import shape_of
from iwae_zoo.distributions import fusion, holes
from iwae_zoo.distributions.head import Likelihood

__all__ = ["IndependentValues", "ValueLikelihood", "limited", "log_positive", "positive"]

# Least value of what has to be positive: a density of continuous values is not bounded without it.
FLOOR = 1e-3
_LARGEST = 1e6


def log_positive(raw, largest=_LARGEST):
    """What a body gives for a positive number, read as its logarithm; from log 0.001 to that of the largest."""
    return tf.clip_by_value(raw, math.log(FLOOR), math.log(largest))


def positive(raw, largest=_LARGEST):
    """exp(raw), kept from zero and infinity; the gradient is zero there."""
    return tf.exp(log_positive(raw, largest))


def limited(x, largest=1e9):
    """x, kept where squares and quotients of it are finite; the gradient is zero beyond."""
    return tf.clip_by_value(x, -largest, largest)


@dataclasses.dataclass(frozen=True)
class ValueLikelihood(Likelihood):
    """A head that is told by the density of one value.

    All values of x are in one axis here: x and results are [..., V], `parameters` [..., parameters_per_value, V], and
    `shared` [K, V], which are what `completed` makes of the shared parameters. For any finite parameters, densities and
    their gradients have to be finite.
    """

    @abc.abstractmethod
    def holds(self, x):
        """Whether each value is in the support: bool tensor [..., V]. Zero has to be."""

    @staticmethod
    @abc.abstractmethod
    def log_density(statistics, parameters, shared):
        """Log-density of each value, but for `constant` and `log_unit`; pure, and compiled together with its sum."""

    @staticmethod
    def constant(x, shared):
        """What does not depend on the parameters, where there is anything: float64 [..., V] or [V]."""
        raise NotImplementedError

    @property
    def has_constant(self):
        """Whether there is a `constant`."""
        return type(self).constant is not ValueLikelihood.constant

    @abc.abstractmethod
    def value_mean(self, parameters, shared):
        """Mean of each value."""

    def value_stddev(self, parameters, shared):
        """Standard deviation of each value, where it has a closed form."""
        raise NotImplementedError(f"The standard deviation of {self.title} values has no closed form: use draws.")

    def value_probabilities(self, parameters):
        """Probability of each class [..., V, C], where values are classes; None where they are numbers."""
        return None

    @abc.abstractmethod
    def value_draw(self, shape, seed, parameters, shared):
        """Draws of each value: float tensor of `shape` [N, ..., V], by a stateless seed."""

    def statistics(self, x):
        """What the density reads of x, once for all parameters: float tensor [..., V] or [..., R, V]."""
        return x

    def information(self, statistics, parameters, shared):
        """What a value tells about its parameters, as `IndependentValues.information`; None where it is not known."""
        del statistics, parameters, shared

    def completed(self, shared):
        """The shared parameters [shared_parameters, columns] with those that are no weights."""
        return shared

    def log_unit(self, size):
        """What is added to the log-densities of the values of an x of so many: float array [size], or 0."""
        del size
        return 0.0

    def distribution(self, parameters, event_ndims, dtype=None, shared=None):
        return IndependentValues(self, parameters, event_ndims, dtype, shared)


class IndependentValues(tfd.Distribution):
    """Values that are independent given their parameters, with a log-likelihood of few passes over them.

    Forward, and backward from the same inputs, each is compiled to few loops over [particles, values]; and a gradient
    keeps nothing from the forward pass but the parameters.

    Args:
      head: `ValueLikelihood`.
      parameters: float tensor [..., parameters_per_value, *event].
      event_ndims: int, how many of the last axes are the event.
      dtype: of log-likelihoods and draws; that of the parameters by default. Parameters of a shorter type are widened
        within the passes over them.
      shared: float tensor [shared_parameters, columns]; None for zeros.
    """

    def __init__(self, head, parameters, event_ndims, dtype=None, shared=None, name="IndependentValues"):
        arguments = dict(locals())
        parameters = tf.convert_to_tensor(parameters)
        dtype = tf.as_dtype(dtype or parameters.dtype)
        split = parameters.shape.rank - event_ndims
        self._head = head
        self._event = parameters.shape[split:]
        self._batch = parameters.shape[: split - 1]
        self._raw = tf.reshape(parameters, [*shape_of(parameters)[:split], self._size])
        if shared is None:
            shared = tf.zeros([head.shared_parameters, 1], dtype)
        shared = tf.cast(head.completed(shared), dtype)
        self._shared = tf.tile(shared, [1, self._size // shared.shape[-1]])
        super().__init__(
            dtype=dtype,
            reparameterization_type=tfd.NOT_REPARAMETERIZED,
            validate_args=False,
            allow_nan_stats=True,
            parameters=arguments,
            name=name,
        )

    @property
    def _size(self):
        return self._event.num_elements()

    @property
    def _known_batch(self):
        return shape_of(self._raw)[:-2]

    def _batch_shape(self):
        return self._batch

    def _batch_shape_tensor(self, **kwargs):
        del kwargs
        return tf.shape(self._raw)[:-2]

    def _event_shape(self):
        return self._event

    def _event_shape_tensor(self, **kwargs):
        del kwargs
        return tf.constant(self._event.as_list(), tf.int32)

    def information(self, x):
        """Fisher information of the parameters; it depends on x only by what is missing, or read off x itself.

        Returns:
          Pairs of functions of the parameters [..., V] and their Fisher information [..., V], where these are
          orthogonal; or of J functions [..., J, V] and their matrices [..., J, J, V]. None where the head does not
          know.
        """
        x, _, observed = self._read(x)
        pairs = self._head.information(self._head.statistics(x), tf.cast(self._raw, self.dtype), self._shared)
        return pairs and [(value, self._of_observed(weights, *observed)) for value, weights in pairs]

    def _of_observed(self, weights, *observed):
        """Numbers [..., V] or [..., J, J, V], zero where x [..., V] is missing."""
        axes = weights.shape.rank - (self._raw.shape.rank - 1)
        return holes.only(weights, *(seen[..., *[tf.newaxis] * axes, :] for seen in observed))

    def _read(self, x):
        """x [..., V], zero outside the support; whether each value is within it; and which are there, if not all."""
        x = tf.cast(x, self.dtype)
        x = tf.reshape(x, [*shape_of(x)[: x.shape.rank - self._event.rank], self._size])
        observed = [~tf.math.is_nan(x)] if self._head.missing else []
        holds = self._head.holds(x)
        return tf.where(holds, x, tf.zeros_like(x)), holds, observed

    def _log_prob(self, x):
        x, holds, observed = self._read(x)
        log_prob = _summed(self._head.log_density)(self._head.statistics(x), self._raw, self._shared, *observed)
        if self._head.has_constant:
            constant = holes.only(self._head.constant(x, self._shared), *observed)
            log_prob += tf.cast(tf.reduce_sum(constant, axis=-1), self.dtype)
        log_prob += tf.cast(self._log_units(*observed), self.dtype)
        for seen in observed:
            holds |= ~seen
        return tf.where(tf.reduce_all(holds, axis=-1), log_prob, tf.constant(float("-inf"), self.dtype))

    def _log_units(self, *observed):
        """Sum of the log units: float64 [] if all values are there."""
        units = np.broadcast_to(self._head.log_unit(self._size), [self._size]).astype(np.float64)
        total = tf.constant(np.sum(units))
        for seen in observed:  # To the bit the same if none is missing.
            total -= tf.reduce_sum(holes.only(tf.constant(units), ~seen), axis=-1)
        return total

    def _mean(self):
        return self._in_event(self._head.value_mean(tf.cast(self._raw, self.dtype), self._shared))

    def _stddev(self):
        stddev = self._head.value_stddev(tf.cast(self._raw, self.dtype), self._shared)
        # One that is shared by all rows has no batch of its own.
        return self._in_event(tf.broadcast_to(stddev, [*self._known_batch, self._size]))

    def class_probabilities(self):
        """Float tensor [..., *event, C], where the values are classes; None where they are numbers."""
        probabilities = self._head.value_probabilities(tf.cast(self._raw, self.dtype))
        if probabilities is None:
            return None
        return tf.reshape(probabilities, [*self._known_batch, *self._event, probabilities.shape[-1]])

    def _sample_n(self, n, seed=None):
        shape = [n, *self._known_batch, self._size]
        seed = tfp.random.sanitize_seed(seed)
        drawn = self._head.value_draw(shape, seed, tf.cast(self._raw, self.dtype), self._shared)
        return self._in_event(drawn)

    def _in_event(self, values):
        return tf.reshape(values, [*shape_of(values)[:-1], *self._event])


def _strips(shape):
    """In how many parts the values of parameters [..., K, V] are added up: sums of vectors are faster than of values.

    Strips of whole vector registers, that is: others are no faster, and up to twice as slow. Densities of many
    parameters would only be more code, and so would any that are not fused.
    """
    parameters, size = shape[-2], shape[-1] or 1
    gains = parameters <= 3 and not fusion.is_portable()
    return max((n for n in range(2, 9) if size % (8 * n) == 0 and gains), default=1)


@functools.cache
def _summed(log_density):
    """A head's log-density, summed over the values (of those observed) and compiled; there is no gradient by x.

    Backward, XLA derives the gradient and fuses it with what it needs of the density, computed again.
    """

    @fusion.fused
    def value(statistics, parameters, shared, *observed):
        count = _strips(parameters.shape)
        parts = zip(*(tf.split(a, count, axis=-1) for a in (statistics, parameters, shared, *observed)), strict=True)
        values = [holes.only(log_density(x, tf.cast(p, x.dtype), s), *seen) for x, p, s, *seen in parts]
        return tf.reduce_sum(tf.add_n(values), axis=-1)

    @fusion.fused
    def gradients(upstream, statistics, parameters, shared, *observed):
        with tf.GradientTape() as tape:
            tape.watch([parameters, shared])
            log_probs = log_density(statistics, tf.cast(parameters, statistics.dtype), shared)
            summed = tf.reduce_sum(holes.only(log_probs, *observed), axis=-1)
        return tape.gradient(summed, [parameters, shared], output_gradients=upstream, unconnected_gradients="zero")

    @fusion.custom_gradient
    def call(*tensors):
        def gradient(upstream):
            return None, *gradients(upstream, *tensors), *[None for _ in tensors[3:]]

        return value(*tensors), gradient

    return call
