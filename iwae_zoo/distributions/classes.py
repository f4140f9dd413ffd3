"""Classes: values that are names, as whole numbers from 0."""

import dataclasses

import numpy as np
import tensorflow as tf

from iwae_zoo._checks import integer, positive
from iwae_zoo._rows import Rows
from iwae_zoo._shapes import shape_of
from iwae_zoo.distributions.values import ValueLikelihood, limited

# More are identifiers rather than classes.
_MOST_CLASSES = 100_000

__all__ = ["Categorical"]


@dataclasses.dataclass(frozen=True)
class Categorical(ValueLikelihood):
    """Independent classes 0, 1, ... from logits; the mean is that of these numbers.

    Args:
      classes: int, how many there are of each value, at least; `fitted` sees in the data if there are more.
      smoothing: float, count that each class has in `fitted` before the data.

    #### Examples
    >>> Categorical().fitted(np.array([[0, 2], [1, 2]])).classes
    3
    """

    classes: int = 2
    smoothing: float = 1e-3

    name = "categorical"
    title = "categorical"
    kinds = ("class",)
    values = "whole numbers from 0, below its number of classes"
    by_blocks = True

    def __post_init__(self):
        integer("classes", self.classes)
        positive("smoothing", self.smoothing)

    @property
    def parameters_per_value(self):
        return self.classes

    def features(self, x):
        """One-hot, in the last axis."""
        hot = tf.one_hot(tf.cast(limited(x, 1e6), tf.int32), self.classes, dtype=x.dtype)
        return tf.reshape(hot, [*shape_of(x)[:-1], x.shape[-1] * self.classes])

    def of_features(self, flags):
        return tf.repeat(flags, self.classes, axis=-1)

    def holds(self, x):
        return (x >= 0.0) & (x < self.classes) & (x == tf.round(x))

    @staticmethod
    def log_density(statistics, parameters, shared):
        logits = limited(parameters)
        logits -= tf.stop_gradient(tf.reduce_max(logits, axis=-2, keepdims=True))  # What all have would cost digits.
        names = tf.range(logits.shape[-2], dtype=logits.dtype)[:, tf.newaxis]
        chosen = tf.where(statistics[..., tf.newaxis, :] == names, logits, tf.zeros_like(logits))
        return tf.reduce_sum(chosen, axis=-2) - tf.reduce_logsumexp(logits, axis=-2)

    def information(self, statistics, parameters, shared):
        logits = limited(parameters)
        p = tf.nn.softmax(logits, axis=-2)
        same = tf.eye(self.classes, dtype=p.dtype)[:, :, tf.newaxis]
        return [(logits, p[..., tf.newaxis, :] * (same - p[..., tf.newaxis, :, :]))]

    def value_mean(self, parameters, shared):
        names = tf.range(self.classes, dtype=parameters.dtype)[:, tf.newaxis]
        return tf.reduce_sum(names * tf.nn.softmax(limited(parameters), axis=-2), axis=-2)

    def value_stddev(self, parameters, shared):
        names = tf.range(self.classes, dtype=parameters.dtype)[:, tf.newaxis]
        deviations = tf.square(names - self.value_mean(parameters, shared)[..., tf.newaxis, :])
        return tf.sqrt(tf.reduce_sum(deviations * tf.nn.softmax(limited(parameters), axis=-2), axis=-2))

    def value_probabilities(self, parameters):
        return tf.nn.softmax(tf.linalg.matrix_transpose(limited(parameters)), axis=-1)

    def value_draw(self, shape, seed, parameters, shared):
        """By Gumbel noise: the largest of logits with it."""
        shape = [*shape[:-1], self.classes, shape[-1]]
        smallest = np.finfo(parameters.dtype.as_numpy_dtype).tiny
        uniform = tf.random.stateless_uniform(shape, seed, smallest, dtype=parameters.dtype)
        noisy = limited(parameters) - tf.math.log(-tf.math.log(uniform))
        return tf.cast(tf.argmax(noisy, axis=-2), parameters.dtype)

    def fitted(self, data):
        return super(Categorical, self.covering(data)).fitted(data)

    def covering(self, data):
        """With as many classes as every row needs."""
        blocks = Rows.of(data).blocks()
        classes = int(max((np.fmax.reduce(block, axis=None, initial=0) for block in blocks), default=0)) + 1
        if classes > _MOST_CLASSES:
            raise ValueError(
                f"Classes are numbered 0, 1, ...: received {classes - 1}, and there can be at most {_MOST_CLASSES}. "
                "Number them without gaps, or take them for counts."
            )
        return dataclasses.replace(self, classes=max(self.classes, classes))

    def _fitted(self, data):
        counts = np.full([self.classes, *data.shape[1:]], self.smoothing)
        columns = counts.reshape(self.classes, -1)
        for block in data.blocks():
            for column, values in enumerate(block.reshape(len(block), -1).T):
                columns[:, column] += np.bincount(values.astype(np.int64), minlength=self.classes)
        return dataclasses.replace(self, start=np.log(counts / counts.sum(axis=0)))
