"""The best single distribution for data, where it has no closed form: maximum likelihood by L-BFGS."""

import numpy as np
import scipy.optimize
import tensorflow as tf

__all__ = ["maximized"]

# Numbers looked at in each of the steps, of which there are tens.
_LARGEST = 1_000_000
# Beyond, what has to be positive is near its limits, and a network that started there would hardly move.
_LEAST, _MOST = -6.0, 20.0


def maximized(head, x, weights, start, shared_start):
    """Maximises the weighted mean log-likelihood over the parameters, from a guess; float64 throughout.

    Args:
      head: `ValueLikelihood`.
      x: float array [R, V], rows of all values of x.
      weights: float array [R, 1] or [R, V], of their log-likelihoods.
      start: float array [parameters_per_value, V], the guess.
      shared_start: float array [shared_parameters, columns].

    Returns:
      Arrays shaped as `start` and `shared_start`.
    """
    step = -(-x.size * max(1, len(start)) // _LARGEST) if np.shape(weights)[1] == 1 else 1
    x, weights = (tf.constant(array[::step], tf.float64) for array in (x, weights))
    weights /= tf.reduce_sum(weights) / weights.shape[1]
    shapes = [np.shape(start), np.shape(shared_start)]
    sizes = [int(np.prod(shape)) for shape in shapes]
    size = x.shape[-1]

    # Compiling takes longer than a few steps over little data.
    @tf.function(autograph=False, jit_compile=tf.size(x).numpy() > 100_000)
    def value_and_gradient(flat):
        with tf.GradientTape() as tape:
            tape.watch(flat)
            parameters, shared = (tf.reshape(p, s) for p, s in zip(tf.split(flat, sizes), shapes, strict=True))
            shared = head.completed(shared)
            shared = tf.tile(shared, [1, size // shared.shape[-1]])
            log_density = head.log_density(head.statistics(x), parameters, shared)
            if head.has_constant:
                log_density += head.constant(x, shared)
            loss = -tf.reduce_sum(weights * log_density)
        return loss, tape.gradient(loss, flat)

    guess = np.concatenate([np.ravel(start), np.ravel(shared_start)])
    best = scipy.optimize.minimize(
        lambda flat: tuple(tensor.numpy() for tensor in value_and_gradient(tf.constant(flat))),
        guess,
        jac=True,
        method="L-BFGS-B",
        bounds=np.stack([np.minimum(guess, _LEAST), np.maximum(guess, _MOST)], axis=1),
        options={"maxiter": 100},
    ).x
    return tuple(part.reshape(shape) for part, shape in zip(np.split(best, sizes[:1]), shapes, strict=True))
