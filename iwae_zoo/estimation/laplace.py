"""A Gaussian at the mode of p(z | x): where annealed chains start, and the coordinates that they walk in.

The mode is found by damped Gauss-Newton steps on log p(x, z). Their matrix is the Fisher information of the likelihood,
J' W J with J the derivatives of its parameters by z, plus the curvature of log p(z); where a likelihood does not know
that, its exact Hessian. Both are found direction by direction, some at once.
"""

import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from iwae_zoo.distributions import fusion
from iwae_zoo.estimation.rows import swapped
from iwae_zoo.model import particles

__all__ = ["DIRECTIONS", "INFORMATION", "Laplace", "approximate", "product", "standard"]

# Most steps, and the gain in nats of a step after which there is no other: the mode is then a small part of a standard
# deviation away.
_MOST_STEPS, _LEAST_GAIN = 25, 0.01
# Steps that are tried at once: what is added to the curvatures, in units of the smallest, and of the largest. The first
# is Newton's own.
_DAMPING = np.array([0.0, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 1000.0, 10000.0]), np.array([1e-4, 1e-2])
# Least curvature, in units of the largest: of Fisher information, whose errors are those of its float32 derivatives
# squared, and of an exact Hessian, whose own they are. A latent that is not used has that of its prior, however sharp
# the others are.
_LEAST_CURVATURE, _LEAST_OF_HESSIAN = 1e-12, 1e-6
# Where small matrices are decomposed: TensorFlow does so one after the other on a GPU, and over all cores on a CPU.
_HOST = "CPU:0"
# Most directions whose products are computed at once.
DIRECTIONS = 64

# By distribution of a value of x: its parameters, and the Fisher information of each. Our own have a method for that.
INFORMATION = {
    tfd.Bernoulli: lambda p: [(p.logits_parameter(), p.variance())],
    tfd.Laplace: lambda p: [(p.loc, p.scale**-2), (p.scale, p.scale**-2)],
    tfd.Normal: lambda p: [(p.loc, p.scale**-2), (p.scale, 2.0 * p.scale**-2)],
    tfd.Poisson: lambda p: [(p.log_rate_parameter(), p.rate_parameter())],
}


class Laplace(NamedTuple):
    """The Gaussians N(mode, scale scale') of T examples, and the maps z = mode + scale u under which they are N(0, I).

    Attributes:
      mode: float tensor [T, D].
      scale: float tensor [T, D, D].
      log_det: float tensor [T], log |det scale|.
    """

    mode: tf.Tensor
    scale: tf.Tensor
    log_det: tf.Tensor

    def z(self, u):
        """z [N, T, D] of u [N, T, D]."""
        return self.mode + product(u, self.scale, transpose_b=True)

    def u(self, z):
        """u [N, T, D] of z [N, T, D]."""
        with tf.device(_HOST):
            return tf.transpose(tf.linalg.solve(self.scale, tf.transpose(z - self.mode, [1, 2, 0])), [2, 0, 1])

    def log_prob(self, u):
        """log-density [N, T] of z at the coordinates u [N, T, D], nats."""
        constant = self.log_det + 0.5 * math.log(2.0 * math.pi) * u.shape[-1]
        return -0.5 * tf.reduce_sum(tf.square(u), axis=-1) - constant


def product(values, matrices, **options):
    """Products [N, T, D] of values [N, T, D] with the matrices [T, D, D] of examples; options of `tf.matmul`."""
    if values.shape[1] == 1:  # A batch of one product takes longer than the product.
        return tf.matmul(values[:, 0], matrices[0], **options)[:, tf.newaxis]
    return swapped(tf.matmul(swapped(values), matrices, **options))


def standard(count, size, dtype):
    """The `Laplace` of N(0, I) for `count` examples, whose coordinates are z itself."""
    return Laplace(
        tf.zeros([count, size], dtype), tf.eye(size, batch_shape=[count], dtype=dtype), tf.zeros([count], dtype)
    )


def approximate(networks, x, start):
    """The Laplace approximation of p(z | x) for each of T examples; TensorFlow operations only, for graphs.

    Args:
      networks: anything with `decoder` and `prior`, such as a model.
      x: tensor [T, ...].
      start: float tensor [T, D], where the searches begin: the means of q(z | x).

    Returns:
      `Laplace`.

    #### References
    Tierney, Kadane. Accurate Approximations for Posterior Moments and Marginal Densities. JASA 1986.
    """
    with fusion.portable():  # Second derivatives go through plain operations.
        minus_infinity = tf.constant(-np.inf, start.dtype)

        def log_joint(z):
            values = particles.log_joint(networks.decoder, networks.prior, x, z)
            return tf.where(tf.math.is_finite(values), values, minus_infinity)

        curvature = tf.function(lambda z: _curvature(networks, x, z), autograph=False)

        def step(i, z, last_gain):
            with tf.GradientTape() as tape:
                tape.watch(z)
                here = log_joint(z[tf.newaxis])[0]
            curvatures, axes = curvature(z)
            slopes = tf.linalg.matvec(axes, tape.gradient(here, z), transpose_a=True)
            ends = tf.reduce_min(curvatures, axis=1), tf.reduce_max(curvatures, axis=1)
            damping = [
                tf.constant(part, z.dtype)[:, tf.newaxis] * end for part, end in zip(_DAMPING, ends, strict=True)
            ]
            damped = curvatures + tf.concat(damping, axis=0)[..., tf.newaxis]  # [steps, T, D]
            candidates = z + product(slopes / damped, axes, transpose_b=True)  # [steps, T, D]
            values = log_joint(candidates)
            best = tf.argmax(values)
            gain = tf.reduce_max(values, axis=0) - here
            # The searches that have ended wait for the others.
            moves = (gain > 0.0) & (last_gain > _LEAST_GAIN)
            ahead = tf.gather(swapped(candidates), best, axis=1, batch_dims=1)
            return i + 1, tf.where(moves[:, tf.newaxis], ahead, z), tf.where(last_gain > _LEAST_GAIN, gain, last_gain)

        _, mode, _ = tf.while_loop(
            lambda i, z, gain: (i < _MOST_STEPS) & tf.reduce_any(gain > _LEAST_GAIN),
            step,
            (0, start, tf.fill(start.shape[:1], -minus_infinity)),
            parallel_iterations=1,
        )
        curvatures, axes = curvature(mode)
    scale = axes * tf.math.rsqrt(curvatures)[:, tf.newaxis]
    return Laplace(mode, scale, -0.5 * tf.reduce_sum(tf.math.log(curvatures), axis=1))


def _curvature(networks, x, z):
    """Curvatures [T, D] of -log p(x, z) at z [T, D] along the columns of axes [T, D, D]; positive."""
    matrix, least = _matrix(networks, x, z)
    matrix = tf.where(tf.math.is_finite(matrix), matrix, tf.eye(z.shape[1], dtype=tf.float64))
    with tf.device(_HOST):
        curvatures, axes = tf.linalg.eigh((matrix + tf.linalg.matrix_transpose(matrix)) / 2.0)
    curvatures = tf.abs(curvatures)
    curvatures = tf.maximum(curvatures, least * tf.reduce_max(curvatures, axis=1, keepdims=True))
    return tf.cast(curvatures, z.dtype), tf.cast(axes, z.dtype)


def _matrix(networks, x, z):
    """The curvature of -log p(x, z) at z [T, D], or with the Fisher information of p(x | z) in place of its own.

    Returns:
      (float64 tensor [T, D, D], float): the matrices, and the least curvature that they can tell, in units of the
      largest.
    """
    likelihood, prior = networks.decoder.likelihood, networks.prior
    information = _information(likelihood(z[tf.newaxis]), x)
    if information is None:
        hessian = _hessian(lambda z: particles.log_joint(networks.decoder, prior, x, z), z)
        return tf.cast(hessian, tf.float64), _LEAST_OF_HESSIAN
    matrix = tf.cast(_hessian(lambda z: prior.distribution().log_prob(z), z), tf.float64)
    jacobian = _jacobian(lambda z: [parameter for parameter, _ in _information(likelihood(z), x)], z)
    for derivatives, (_, weights) in zip(jacobian, information, strict=True):
        # In float32 what is large would leave no digits to directions that the likelihood does not see.
        weighted = (tf.cast(_by_row(part), tf.float64) for part in (derivatives, _weighted(weights, derivatives)))
        matrix += tf.matmul(*weighted, transpose_b=True)
    return matrix, _LEAST_CURVATURE


def _jacobian(function, z):
    """Derivatives [D, T, ...] of each of the tensors [N, T, ...] that are a function of z [N, T, D], at z [T, D]."""

    def along(z, directions):
        with tf.GradientTape(watch_accessed_variables=False) as outer:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(z)
                values = function(z)
            # Signals go back linearly: the derivatives of what arrives are those of the values along the directions.
            signals = [tf.zeros_like(value) for value in values]
            outer.watch(signals)
            arrived = tf.reduce_sum(directions * tape.gradient(values, z, output_gradients=signals))
        return outer.gradient(arrived, signals, unconnected_gradients="zero")

    return _along_axes(along, z)


def _hessian(log_prob, z):
    """Minus the Hessian [T, D, D] of a log-density, a function of z [N, T, D], at z [T, D]."""

    def along(z, directions):
        with tf.GradientTape(watch_accessed_variables=False) as outer:
            outer.watch(z)
            with tf.GradientTape(watch_accessed_variables=False) as inner:
                inner.watch(z)
                value = log_prob(z)
            arrived = tf.reduce_sum(directions * inner.gradient(value, z))
        return [-outer.gradient(arrived, z, unconnected_gradients="zero")]

    return _by_row(*_along_axes(along, z))


def _along_axes(along, z):
    """All rows of the tensors that `along` makes of z [N, T, D] and directions [N, 1, D], of each axis at z [T, D]."""
    size = z.shape[1]
    count = -(-size // DIRECTIONS)
    rows = -(-size // count)
    directions = tf.pad(tf.eye(size, dtype=z.dtype), [[0, count * rows - size], [0, 0]])
    z = tf.repeat(z[tf.newaxis], rows, axis=0)
    along = tf.function(along, autograph=False)
    parts = [along(z, part[:, tf.newaxis]) for part in tf.split(directions, count)]
    return [tf.concat(part, axis=0)[:size] for part in zip(*parts, strict=True)]


def _by_row(values):
    """[N, T, ...] as [T, N, P]."""
    return swapped(tf.reshape(values, [*values.shape[:2], -1]))


def _weighted(weights, derivatives):
    """Products of Fisher information with derivatives of parameters, value by value or matrix by matrix."""
    if weights.shape.rank > derivatives.shape.rank:
        return tf.einsum("...ijv,...jv->...iv", weights, derivatives)
    return weights * derivatives


def _information(distribution, x):
    """Parameters and their Fisher information, as `IndependentValues.information`; None where it is not known."""
    if hasattr(distribution, "information"):
        return distribution.information(x)
    while isinstance(distribution, tfd.Independent):
        distribution = distribution.distribution
    known = INFORMATION.get(type(distribution))
    # Those that are the same for all z have a batch too, as derivatives have.
    shape = distribution.batch_shape_tensor()
    return known and [(tf.broadcast_to(value, shape), weights) for value, weights in known(distribution)]
