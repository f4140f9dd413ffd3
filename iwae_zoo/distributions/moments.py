"""Means and standard deviations of distributions that have none in closed form."""

import tensorflow as tf
from tensorflow_probability import distributions as tfd

__all__ = ["SampledMoments", "mean", "point", "stddev"]

# Of which moments are means.
_DRAWS = 256


def point(distribution):
    """One z that stands for all of a distribution's: its mean, or what its own `point` returns, which is a draw."""
    return distribution.point() if hasattr(distribution, "point") else mean(distribution)


def mean(distribution):
    """The mean of a distribution; where it has none in closed form, that of 256 draws, always the same ones."""
    try:
        return distribution.mean()
    except NotImplementedError:
        return tf.reduce_mean(_drawn(distribution), axis=0)


def stddev(distribution):
    """Its standard deviation, likewise."""
    try:
        return distribution.stddev()
    except NotImplementedError:
        return tf.math.reduce_std(_drawn(distribution), axis=0)


def _drawn(distribution):
    draws = distribution.sample(_DRAWS, seed=(0, 0))
    return tf.cast(draws, tf.float32) if draws.dtype.is_integer else draws


class SampledMoments(tfd.Distribution):
    """A distribution that draws by row, whose moments are those of 256 draws.

    All rows are drawn from the same numbers, always the same ones. So the moments are functions of the parameters, they
    do not depend on a row's place in a batch, and rows with the same distribution have the same moments: a latent that
    tells nothing about x has a mean of no variance at all. The error of the mean is a sixteenth of the standard
    deviation.
    """

    def _draws(self):
        return self.sample(_DRAWS, seed=(0, 0), first_row=None)

    def _mean(self):
        return tf.reduce_mean(self._draws(), axis=0)

    def _stddev(self):
        return tf.math.reduce_std(self._draws(), axis=0)

    def _variance(self):
        return tf.square(self._stddev())
