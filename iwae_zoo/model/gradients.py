"""Gradients of both objectives on one batch: two tapes at the price of one backward pass.

Each particle's back-propagated signal is linear in its own scalar weight. So the decoder is back-propagated once, with
the decoder objective's weights `v`, and the encoder's signal is read off at `z`: what arrives there for particle i is
`v_i d log p(x, z_i) / d z_i`, which divided by `v_i` and multiplied by the path weight is the encoder objective's. A
`v_i` that is smaller than 1e-12 gets that size, with its sign, so that the division is possible; the decoder's gradient
changes by at most 1e-12 of that particle's.

The layers of a stacked posterior are computed once, each given the one before as a constant: for its draw, and for its
density at that draw held fixed. What this leaves out of the encoder's signal at a layer, by way of the draw and of the
density of the next, is added layer by layer from the last one, in one pass back through each layer's network.

In two passes, the first weighs all particles and keeps nothing else; the second then goes through as many as there is
memory for at once, or through a few that stand for all.

Dreams are encoded by themselves, one particle each: a posterior is not to be taken apart by rows, whatever its kind.
"""

from typing import NamedTuple

import keras
import tensorflow as tf

from iwae_zoo._shapes import shape_of
from iwae_zoo.distributions import noise
from iwae_zoo.model import particles
from iwae_zoo.objectives import ParticleWeights

__all__ = ["Gradients", "compute"]

# Least size of the weight with which a particle goes through the decoder's backward pass.
_TINY = 1e-12


class Gradients(NamedTuple):
    """Gradients in descent direction, as optimizers take them, averaged over the batch.

    Attributes:
      encoder: list of tensors, in the order of the encoder's variables.
      decoder: list of tensors, in the order of the decoder's variables, then the prior's.
      log_weights: float tensor [M, K, B], nats.
    """

    encoder: list
    decoder: list
    log_weights: tf.Tensor


class _Layer(NamedTuple):
    """A layer of particles: all of z, but for stacked posteriors.

    Attributes:
      drawn: float tensor [..., D], a function of the encoder's variables and of the layer before, as that is held.
      held: the same numbers, without what they came from.
      log_q: float tensor [...], their log-density, nats, given the layer before, both held.
    """

    drawn: tf.Tensor
    held: tf.Tensor
    log_q: tf.Tensor


def compute(model, x, seed, first_row, global_batch, backward_particles=None, particle_chunk=None, dreamed=None):
    """The gradients of `model.objective` on one batch, or on a replica's part of it.

    Args:
      model: anything with `encoder`, `decoder`, `prior`, `objective`, `encoder_variables` and `decoder_variables`.
      x: tensor [B, ...].
      seed: stateless seed, two integers.
      first_row: int tensor [], index of x's first row in the global batch.
      global_batch: int tensor [], number of its rows: gradients are divided by it, and those of its parts add up.
      backward_particles: int, go back through so many particles of an example, resampled by their weights; None for
        all. The gradients' expectation stays the same.
      particle_chunk: int, most particles of an example that are decoded at once; None, or their number, for all.
      dreamed: `dreams.Dreams`, one for each row; None for an objective without sleep.

    Returns:
      `Gradients`.

    #### References
    Burda, Grosse, Salakhutdinov. Importance Weighted Autoencoders. ICLR 2016, section 3, on the cheaper backward pass.
    https://arxiv.org/abs/1509.00519
    """
    objective, extra = model.objective, model.objective.auxiliary
    layers: list[_Layer] = []

    def hold(distribution, drawn):
        held = tf.stop_gradient(drawn)
        density_tape.watch(held)
        layers.append(_Layer(drawn, held, distribution.log_prob(held)))
        return held

    with (
        tf.GradientTape() as encoder_tape,
        tf.GradientTape(persistent=True, watch_accessed_variables=False) as density_tape,
    ):
        posterior = model.encoder.posterior(x)
        # Auxiliary particles come after the M K, and go along with weights of zero.
        m, k = (1, objective.m * objective.k + extra) if extra else (objective.m, objective.k)
        z = particles.draw(posterior, m, k, seed, objective.uses_path, first_row, hold)
        z = tf.reshape(z, [m * k, -1, z.shape[-1]])  # [P, B, D], as everything from here on.
        log_q = tf.add_n([tf.reshape(layer.log_q, tf.shape(z)[:-1]) for layer in layers])
        if objective.sleep:
            log_q_dreamed = model.encoder.posterior(_as(x, dreamed.x)).log_prob(dreamed.z)  # [B]

    # Optimizers add up the gradients of replicas: each replica's is a share of the global batch's mean.
    scale = -1.0 / tf.cast(global_batch, log_q.dtype)
    if backward_particles or (particle_chunk and particle_chunk < z.shape[0]):
        log_joint = _log_joint_in_chunks(model, x, z, particle_chunk, log_q.dtype)
        log_weights, weights = _weigh(objective, log_joint, log_q)
        decoded = z
        if backward_particles:
            uniform = noise.uniform(tf.shape(x)[0], 1, particles.derive_seed(seed, 1), first_row, log_q.dtype)
            chosen, factor = _resample(weights, backward_particles, uniform[:, 0])
            decoded = tf.gather_nd(z, chosen)
            weights = ParticleWeights(*(factor * tf.gather_nd(w, chosen) for w in weights))
        v = _divisible(weights.decoder)
        by_variables, by_z = _backward_in_chunks(model, x, decoded, scale * v, objective.uses_path, particle_chunk)
    else:
        log_joint, backward = _decoder_pass(model, x, z, objective.uses_path)
        log_weights, weights = _weigh(objective, log_joint, log_q)
        v = _divisible(weights.decoder)
        by_variables, by_z = backward(scale * v)

    def of_all(of_decoded, like):
        """What the copies of a resampled particle receive is the particle's own."""
        return tf.scatter_nd(chosen, of_decoded, tf.shape(like)) if backward_particles else of_decoded

    targets, signals = [], []
    if objective.uses_path:
        at_z = of_all((weights.path / v)[..., tf.newaxis] * by_z, z)
        at_log_q = of_all(-scale * weights.path, log_q)
        targets += [layer.drawn for layer in layers]
        signals += _through_layers(density_tape, layers, [z, log_q], [at_z, at_log_q])
    if objective.uses_score:
        targets.append(log_q)
        signals.append(of_all(scale * weights.score, log_q))
    if objective.sleep:
        targets.append(log_q_dreamed)
        signals.append(tf.fill(tf.shape(log_q_dreamed), objective.sleep * scale))
    by_encoder = encoder_tape.gradient(
        targets, _values(model.encoder_variables), output_gradients=signals, unconnected_gradients="zero"
    )
    return Gradients(by_encoder, by_variables, log_weights)


def _divisible(weights):
    """The same weights, none nearer to zero than 1e-12."""
    tiny = tf.constant(_TINY, weights.dtype)
    return tf.where(tf.abs(weights) < tiny, tf.where(weights < 0.0, -tiny, tiny), weights)


def _through_layers(tape, layers, targets, signals):
    """The signal at each layer as it was drawn, with what comes back from the layers that were drawn given it.

    Args:
      tape: persistent `tf.GradientTape` that watches what the layers are held at.
      layers: list of `_Layer`, in the order in which they were drawn.
      targets: list of tensors that depend on the layers.
      signals: list of the gradients by these.

    Returns:
      List of tensors, of the shapes of the layers.
    """
    of_layers: list[tf.Tensor] = []
    for layer, later in zip(reversed(layers), [None, *reversed(layers)], strict=False):
        # Layers below hold this one fixed: the next alone was drawn given it.
        next_target, next_signal = ([later.drawn], of_layers[:1]) if later else ([], [])
        signal = tape.gradient(targets + next_target, layer.held, output_gradients=signals + next_signal)
        of_layers.insert(0, signal)
    return of_layers


def _weigh(objective, log_joint, log_q):
    """Log weights [M, K, B], and each particle's `ParticleWeights` [P, B], which are zero for auxiliary ones."""
    log_weights, count = log_joint - tf.stop_gradient(log_q), objective.m * objective.k
    auxiliary = log_weights[count:] if objective.auxiliary else None
    log_weights = tf.reshape(log_weights[:count], [objective.m, objective.k, -1])
    weights = objective.particle_weights(log_weights, auxiliary)
    flat = ParticleWeights(*(tf.reshape(w, [count, -1]) for w in weights))
    if auxiliary is not None:
        flat = ParticleWeights(*(tf.concat([w, tf.zeros_like(auxiliary)], axis=0) for w in flat))
    return log_weights, flat


def _decoder_pass(model, x, z, by_z):
    """log p(x, z) [P, B], and the function that goes back through it.

    That function takes the gradient by it [P, B], and returns those by the decoder's variables and by z (if `by_z`).
    """
    with tf.GradientTape() as tape:
        if by_z:
            tape.watch(z)
        log_joint = particles.log_joint(model.decoder, model.prior, x, z)

    def backward(upstream):
        sources = _values(model.decoder_variables) + [z] * by_z
        gradients = tape.gradient(log_joint, sources, output_gradients=upstream, unconnected_gradients="zero")
        return (gradients[:-1], gradients[-1]) if by_z else (gradients, None)

    return log_joint, backward


def _log_joint_in_chunks(model, x, z, particle_chunk, dtype):
    """log p(x, z) [P, B], a chunk of particles at a time."""
    chunks = _in_chunks(z, particle_chunk)

    def one(chunk):
        return particles.log_joint(model.decoder, model.prior, x, chunk)

    if chunks.shape[0] == 1:
        return one(chunks[0])
    log_joint = tf.map_fn(one, chunks, fn_output_signature=dtype, parallel_iterations=1)
    return _of_chunks(log_joint, tf.shape(z)[:-1])


def _backward_in_chunks(model, x, z, upstream, by_z, particle_chunk):
    """The gradients of a `_decoder_pass`, a chunk of particles at a time."""
    # What fills the last chunk has no part in the sums.
    chunks, upstreams = _in_chunks(z, particle_chunk), _in_chunks(upstream, particle_chunk, tf.zeros_like)
    if chunks.shape[0] == 1:
        return _decoder_pass(model, x, chunks[0], by_z)[1](upstreams[0])

    def one(i, sums, of_chunks):
        gradients, by_chunk = _decoder_pass(model, x, chunks[i], by_z)[1](upstreams[i])
        sums = [a + b for a, b in zip(sums, gradients, strict=True)]
        return i + 1, sums, of_chunks.write(i, by_chunk) if by_z else of_chunks

    _, sums, of_chunks = tf.while_loop(
        lambda i, *_: i < chunks.shape[0],
        one,
        (
            0,
            [tf.zeros_like(value) for value in _values(model.decoder_variables)],
            tf.TensorArray(z.dtype, chunks.shape[0]),
        ),
        parallel_iterations=1,
    )
    return sums, _of_chunks(of_chunks.stack(), tf.shape(z)) if by_z else None


def _in_chunks(array, particle_chunk, filler=tf.identity):
    """[P, ...] as [N, C, ...], with C the largest divisor of P that is not above `particle_chunk`.

    If that is less than half of what may be, as of a prime number P, C is as large as it needs to be for the least N,
    and the `filler` of the first particles fills the last chunk.
    """
    count = array.shape[0]
    most = min(particle_chunk or count, count)
    size = next(size for size in range(most, 0, -1) if count % size == 0)
    if 2 * size < most:
        size = -(-count // -(-count // most))
        array = tf.concat([array, filler(array[: -count % size])], axis=0)
    return tf.reshape(array, [-(-count // size), size, *shape_of(array)[1:]])


def _of_chunks(chunks, shape):
    """What chunks [N, C, ...] say of all P particles, of shape [P, ...]."""
    rows = tf.reshape(chunks, [-1, *shape_of(chunks)[2:]])
    return tf.reshape(rows[: shape[0]], shape)


def _resample(weights, count, uniform):
    """Chooses particles in proportion to their weights: systematic resampling, one uniform number for each example.

    Where the weights of decoder and encoder differ, a particle's probability is the mean of its shares in each.

    Args:
      weights: `ParticleWeights` of float tensors [P, B].
      count: int, number R of particles to choose.
      uniform: float tensor [B], in [0, 1).

    Returns:
      Indices [R, B, 2] for `tf.gather_nd` of a [P, B, ...], and the factors [R, B] by which a chosen particle's
      weights are multiplied: 1 / (R p_i).
    """
    sizes = [tf.abs(w) for w in weights]
    shares = tf.add_n([tf.math.divide_no_nan(size, tf.reduce_sum(size, axis=0)) for size in sizes])
    probabilities = shares / tf.reduce_sum(shares, axis=0)
    steps = tf.transpose(tf.cumsum(probabilities))  # [B, P]
    steps /= steps[:, -1:]
    places = (uniform[:, tf.newaxis] + tf.range(count, dtype=uniform.dtype)) / count
    places = tf.minimum(places, 1.0 - tf.experimental.numpy.finfo(uniform.dtype.as_numpy_dtype).eps)
    particle = tf.transpose(tf.searchsorted(steps, places, side="right"))  # [R, B]
    example = tf.broadcast_to(tf.range(tf.shape(particle)[1]), tf.shape(particle))
    chosen = tf.stack([particle, example], axis=-1)
    return chosen, 1.0 / (count * tf.gather_nd(probabilities, chosen))


def _as(x, dreamed):
    """Dreams in the data's dtype, where that holds them."""
    return tf.cast(dreamed, x.dtype) if x.dtype.is_floating else dreamed


def _values(sources):
    """The TensorFlow variables behind Keras variables, which is what a tape watches."""
    return [source.value if isinstance(source, keras.Variable) else source for source in sources]
