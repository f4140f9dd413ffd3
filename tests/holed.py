"""The linear-Gaussian model with any values missing: closed forms in numpy, and the same from the library's parts."""

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from iwae_zoo import ImportanceWeightedAutoencoder, networks
from iwae_zoo.distributions import likelihoods
from iwae_zoo.testing import LinearGaussian


def every_mask(x):
    """Rows x [B, P] with, one after the other, each of the 2^P sets of values missing: [2^P B, P]."""
    size = x.shape[1]
    masks = (np.arange(2**size)[:, np.newaxis] >> np.arange(size)) & 1
    return np.concatenate([np.where(mask, np.nan, x) for mask in masks])


def observed_part(truth, row):
    """The linear-Gaussian model of the values of a row that are there, and these values [1, O]."""
    there = ~np.isnan(row)
    return LinearGaussian(truth.weight[there], truth.bias[there], truth.stddev), row[there][np.newaxis]


def log_prob(truth, x):
    """log p(x_obs) [B], nats."""
    parts = [observed_part(truth, row) for row in x]
    return np.array([part.log_prob(values)[0] if values.size else 0.0 for part, values in parts])


def conditional(truth, x):
    """Mean and standard deviation [B, P] of x given what of it is there; x and 0 where it is."""
    mean, stddev = np.array(x), np.zeros(x.shape)
    for row, (part, values) in zip(range(len(x)), (observed_part(truth, row) for row in x), strict=True):
        gone = np.isnan(x[row])
        weight = truth.weight[gone]
        mean[row, gone] = truth.bias[gone] + weight @ part.posterior_mean(values)[0]
        covariance = weight @ part.posterior_covariance @ weight.T + truth.stddev**2 * np.eye(gone.sum())
        stddev[row, gone] = np.sqrt(np.diag(covariance))
    return mean, stddev


class MaskedEncoder(keras.Layer):
    """The exact posterior of what is there, or one that is `mismatch` standard deviations off and as much too wide."""

    takes_missing = True

    def __init__(self, truth, mismatch=0.0, **kwargs):
        super().__init__(**kwargs)
        self.truth, self.mismatch = truth, mismatch
        self.shift = self.add_weight(shape=(truth.weight.shape[1],), initializer="zeros", name="shift")

    def posterior(self, x):
        weight, bias = (tf.constant(value, self.dtype) for value in (self.truth.weight, self.truth.bias))
        x = tf.cast(x, self.dtype)
        there = tf.cast(~tf.math.is_nan(x), self.dtype) / self.truth.stddev**2
        centred = tf.where(tf.math.is_nan(x), tf.zeros_like(x), x - bias)
        precision = tf.einsum("bp,pd,pe->bde", there, weight, weight) + tf.eye(weight.shape[1], dtype=self.dtype)
        covariance = tf.linalg.inv(precision)
        mean = tf.einsum("bde,bp,pe->bd", covariance, there * centred, weight)
        scale = tf.linalg.cholesky(covariance)
        mean += self.mismatch * tf.reduce_sum(scale, axis=-1) + self.shift
        return tfp.distributions.MultivariateNormalTriL(mean, scale * (1.0 + self.mismatch))


def model(truth, mismatch=0.0, objective="iwae", dtype="float32", missing=True):
    """The model, whose decoder is the library's."""
    head = likelihoods.get(f"normal,spread=column,missing={missing}")
    body = keras.layers.Dense(len(truth.bias), dtype=dtype)
    decoder = networks.Decoder(body, head, truth.bias.shape, dtype=dtype)
    prior = networks.StandardNormalPrior(truth.weight.shape[1], dtype=dtype)
    built = ImportanceWeightedAutoencoder(
        MaskedEncoder(truth, mismatch, dtype=dtype), decoder, prior, objective=objective
    )
    built.build((None, len(truth.bias)))
    body.set_weights([truth.weight.T, truth.bias])
    decoder.shared.assign(np.full(decoder.shared.shape, np.log(truth.stddev)))
    return built
