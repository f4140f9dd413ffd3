"""A Gaussian at the mode of p(z | x): where annealed chains start, and the coordinates that they walk in.

The mode is found by damped Gauss-Newton steps on log p(x, z). Their matrix is the Fisher information of the likelihood,
J' W J with J the derivatives of its parameters by z, plus the curvature of log p(z); where a likelihood is not in the
table below, its exact Hessian. Both are products with directions: no Jacobian is ever whole.
"""

import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from iwae_zoo.distributions import fusion, holes
from iwae_zoo.model import particles

__all__ = ["INFORMATION", "Laplace", "approximate", "standard"]

# Most steps, and the gain in nats of a step after which there is no other: the mode is then a small part of a standard
# deviation away.
_MOST_STEPS, _LEAST_GAIN = 25, 0.01
# Steps that are tried at once: what is added to the curvatures, in units of the smallest. The first is Newton's own.
_DAMPING = np.array([0.0, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 1000.0, 10000.0])
# Least curvature, in units of the largest.
_LEAST_CURVATURE = 1e-6
# Most directions whose products are computed at once.
_DIRECTIONS = 64

# By distribution of a value of x: its parameters, and the Fisher information of each.
INFORMATION = {
    tfd.Bernoulli: lambda p: [(p.logits_parameter(), p.variance())],
    tfd.Laplace: lambda p: [(p.loc, p.scale**-2), (p.scale, p.scale**-2)],
    tfd.Normal: lambda p: [(p.loc, p.scale**-2), (p.scale, 2.0 * p.scale**-2)],
    tfd.Poisson: lambda p: [(p.log_rate_parameter(), p.rate_parameter())],
}


class Laplace(NamedTuple):
    """The Gaussian N(mode, scale scale'), and the map z = mode + scale u under which it is N(0, I).

    Attributes:
      mode: float tensor [D].
      scale: float tensor [D, D].
      log_det: float tensor [], log |det scale|.
    """

    mode: tf.Tensor
    scale: tf.Tensor
    log_det: tf.Tensor

    def z(self, u):
        """z [N, D] of u [N, D]."""
        return self.mode + tf.matmul(u, self.scale, transpose_b=True)

    def u(self, z):
        """u [N, D] of z [N, D]."""
        return tf.transpose(tf.linalg.solve(self.scale, tf.transpose(z - self.mode)))

    def log_prob(self, u):
        """log-density [N] of z at the coordinates u [N, D], nats."""
        constant = self.log_det + 0.5 * math.log(2.0 * math.pi) * u.shape[-1]
        return -0.5 * tf.reduce_sum(tf.square(u), axis=-1) - constant


def standard(size, dtype):
    """The `Laplace` of N(0, I), whose coordinates are z itself."""
    return Laplace(tf.zeros([size], dtype), tf.eye(size, dtype=dtype), tf.zeros([], dtype))


def approximate(networks, x, start):
    """The Laplace approximation of p(z | x) for one example; TensorFlow operations only, for graphs.

    Args:
      networks: anything with `decoder` and `prior`, such as a model.
      x: tensor [1, ...], one example.
      start: float tensor [D], where the search begins: the mean of q(z | x).

    Returns:
      `Laplace`.

    #### References
    Tierney, Kadane. Accurate Approximations for Posterior Moments and Marginal Densities. JASA 1986.
    """
    with fusion.portable():  # Second derivatives go through plain operations.
        minus_infinity = tf.constant(-np.inf, start.dtype)

        def log_joint(z):
            values = particles.log_joint(networks.decoder, networks.prior, x, z[:, tf.newaxis])[:, 0]
            return tf.where(tf.math.is_finite(values), values, minus_infinity)

        curvature = tf.function(lambda z: _curvature(networks, x, z), autograph=False)

        def step(i, z, _):
            with tf.GradientTape() as tape:
                tape.watch(z)
                here = log_joint(z[tf.newaxis])[0]
            curvatures, axes = curvature(z)
            slopes = tf.linalg.matvec(axes, tape.gradient(here, z), transpose_a=True)
            damping = tf.constant(_DAMPING[:, np.newaxis], z.dtype) * tf.reduce_min(curvatures)
            candidates = z + tf.matmul(slopes / (curvatures + damping), axes, transpose_b=True)  # [steps, D]
            values = log_joint(candidates)
            best = tf.argmax(values)
            gain = values[best] - here
            return i + 1, tf.where(gain > 0.0, candidates[best], z), gain

        _, mode, _ = tf.while_loop(
            lambda i, z, gain: (i < _MOST_STEPS) & (gain > _LEAST_GAIN),
            step,
            (0, start, -minus_infinity),
            parallel_iterations=1,
        )
        curvatures, axes = curvature(mode)
    return Laplace(mode, axes * tf.math.rsqrt(curvatures), -0.5 * tf.reduce_sum(tf.math.log(curvatures)))


def _curvature(networks, x, z):
    """Curvatures [D] of -log p(x, z) at z [D] along the columns of axes [D, D]; positive."""
    size = z.shape[0]
    products = tf.function(lambda directions: _products(networks, x, z, directions), autograph=False)
    matrix = tf.concat([products(part) for part in _in_parts(tf.eye(size, dtype=z.dtype))], axis=0)[:size]
    matrix = tf.cast(matrix, tf.float64)
    matrix = tf.where(tf.math.is_finite(matrix), matrix, tf.eye(size, dtype=tf.float64))
    curvatures, axes = tf.linalg.eigh((matrix + tf.transpose(matrix)) / 2.0)
    curvatures = tf.abs(curvatures)
    curvatures = tf.maximum(curvatures, _LEAST_CURVATURE * tf.reduce_max(curvatures))
    return tf.cast(curvatures, z.dtype), tf.cast(axes, z.dtype)


def _in_parts(directions):
    """Parts of one shape of directions [N, D], the last filled up with zeros."""
    count = -(-directions.shape[0] // _DIRECTIONS)
    size = -(-directions.shape[0] // count)
    return tf.split(tf.pad(directions, [[0, count * size - directions.shape[0]], [0, 0]]), count)


def _products(networks, x, z, directions):
    """Products [N, D] of the curvature of -log p(x, z) at z [D] with directions [N, D]."""
    z = tf.repeat(z[tf.newaxis, tf.newaxis], directions.shape[0], axis=0)  # [N, 1, D]
    directions = directions[:, tf.newaxis]
    likelihood = networks.decoder.likelihood
    information = _information(likelihood(z[:1]))
    if information is None:
        return _hessian(lambda z: particles.log_joint(networks.decoder, networks.prior, x, z), z, directions)
    with tf.GradientTape(watch_accessed_variables=False) as outer:
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(z)
            parameters, weights = zip(*_information(likelihood(z)), strict=True)
        # Signals go back linearly: the derivatives of what arrives are those of the parameters along the directions.
        signals = [tf.zeros_like(parameter) for parameter in parameters]
        outer.watch(signals)
        along = tf.reduce_sum(directions * tape.gradient(parameters, z, output_gradients=signals))
    changes = outer.gradient(along, signals, unconnected_gradients="zero")
    # What is missing tells nothing about z.
    observed = [~tf.math.is_nan(x)] if particles.takes_missing(networks.decoder) else []
    weighted = [holes.only(weight * change, *observed) for weight, change in zip(weights, changes, strict=True)]
    fisher = tape.gradient(parameters, z, output_gradients=weighted)[:, 0]
    return fisher + _hessian(lambda z: networks.prior.distribution().log_prob(z), z, directions)


def _hessian(log_prob, z, directions):
    """Products [N, D] of minus the Hessian of a log-density at z [N, 1, D] with directions [N, 1, D]."""
    with tf.GradientTape(watch_accessed_variables=False) as outer:
        outer.watch(z)
        with tf.GradientTape(watch_accessed_variables=False) as inner:
            inner.watch(z)
            value = log_prob(z)
        along = tf.reduce_sum(directions * inner.gradient(value, z))
    return -outer.gradient(along, z, unconnected_gradients="zero")[:, 0]


def _information(distribution):
    """Parameters and their Fisher information, as `INFORMATION` has it; None where that does not know."""
    while isinstance(distribution, tfd.Independent):
        distribution = distribution.distribution
    known = INFORMATION.get(type(distribution))
    return known and known(distribution)
