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
from iwae_zoo.model import particles

__all__ = ["INFORMATION", "Laplace", "approximate", "standard"]

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
# Most directions whose products are computed at once.
_DIRECTIONS = 64

# By distribution of a value of x: its parameters, and the Fisher information of each. Our own have a method for that.
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
            ends = tf.reduce_min(curvatures), tf.reduce_max(curvatures)
            damping = [tf.constant(part, z.dtype) * end for part, end in zip(_DAMPING, ends, strict=True)]
            damping = tf.concat(damping, axis=0)[:, tf.newaxis]
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
    matrix, least = _matrix(networks, x, z)
    matrix = tf.where(tf.math.is_finite(matrix), matrix, tf.eye(z.shape[0], dtype=tf.float64))
    curvatures, axes = tf.linalg.eigh((matrix + tf.transpose(matrix)) / 2.0)
    curvatures = tf.abs(curvatures)
    curvatures = tf.maximum(curvatures, least * tf.reduce_max(curvatures))
    return tf.cast(curvatures, z.dtype), tf.cast(axes, z.dtype)


def _matrix(networks, x, z):
    """The curvature of -log p(x, z) at z [D], or with the Fisher information of p(x | z) in place of its own.

    Returns:
      (float64 tensor [D, D], float): the matrix, and the least curvature that it can tell, in units of the largest.
    """
    likelihood, prior = networks.decoder.likelihood, networks.prior
    information = _information(likelihood(z[tf.newaxis, tf.newaxis]), x)
    if information is None:
        hessian = _hessian(lambda z: particles.log_joint(networks.decoder, prior, x, z), z)
        return tf.cast(hessian, tf.float64), _LEAST_OF_HESSIAN
    matrix = tf.cast(_hessian(lambda z: prior.distribution().log_prob(z), z), tf.float64)
    jacobian = _jacobian(lambda z: [parameter for parameter, _ in _information(likelihood(z), x)], z)
    for derivatives, (_, weights) in zip(jacobian, information, strict=True):
        # In float32 what is large would leave no digits to directions that the likelihood does not see.
        weighted = (tf.cast(_flat(part), tf.float64) for part in (derivatives, _weighted(weights, derivatives)))
        matrix += tf.matmul(*weighted, transpose_b=True)
    return matrix, _LEAST_CURVATURE


def _jacobian(function, z):
    """Derivatives [D, 1, ...] of each of the tensors [N, 1, ...] that are a function of z [N, 1, D], at z [D]."""

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
    """Minus the Hessian [D, D] of a log-density, a function of z [N, 1, D], at z [D]."""

    def along(z, directions):
        with tf.GradientTape(watch_accessed_variables=False) as outer:
            outer.watch(z)
            with tf.GradientTape(watch_accessed_variables=False) as inner:
                inner.watch(z)
                value = log_prob(z)
            arrived = tf.reduce_sum(directions * inner.gradient(value, z))
        return [-outer.gradient(arrived, z, unconnected_gradients="zero")]

    return _flat(*_along_axes(along, z))


def _along_axes(along, z):
    """All rows of the tensors that `along` makes of z [N, 1, D] and directions [N, 1, D], of each axis at z [D]."""
    size = z.shape[0]
    count = -(-size // _DIRECTIONS)
    rows = -(-size // count)
    directions = tf.pad(tf.eye(size, dtype=z.dtype), [[0, count * rows - size], [0, 0]])
    z = tf.repeat(z[tf.newaxis, tf.newaxis], rows, axis=0)
    along = tf.function(along, autograph=False)
    parts = [along(z, part[:, tf.newaxis]) for part in tf.split(directions, count)]
    return [tf.concat(part, axis=0)[:size] for part in zip(*parts, strict=True)]


def _flat(values):
    """[N, ...] as [N, P]."""
    return tf.reshape(values, [values.shape[0], -1])


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
