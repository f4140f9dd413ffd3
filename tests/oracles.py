"""What the library computes cleverly, computed plainly."""

import itertools
import weakref

import keras
import numpy as np
import tensorflow as tf

from iwae_zoo import particles
from iwae_zoo.model import replicas


def jackknife(log_weights):
    """a of N L_N - (N - 1) mean_i L_{N-1}^(-i) over all particles, from each particle left out in turn."""
    particles = log_weights.reshape(-1, log_weights.shape[-1])
    n = len(particles)
    left_out = [np.insert(softmax(np.delete(particles, i, axis=0), 0), i, 0.0, axis=0) for i in range(n)]
    return (n * softmax(particles, 0) - (n - 1) * np.mean(left_out, axis=0)).reshape(log_weights.shape)


def thermodynamic(log_weights):
    """a of the left Riemann sum over all particles: of each mean of log w, its weights and their derivatives."""
    betas = (0.0, *np.logspace(-1, 0, 5))
    particles = log_weights.reshape(-1, log_weights.shape[-1])
    a = np.zeros_like(particles)
    for beta, after in itertools.pairwise(betas):
        weights = softmax(beta * particles, 0)
        jacobian = np.einsum("ib,ij->ijb", weights, np.eye(len(weights))) - weights[:, None] * weights
        a += (after - beta) * (weights + beta * np.einsum("ib,ijb->jb", particles, jacobian))
    return a.reshape(log_weights.shape)


def softmax(x, axis):
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


# (decoder, path, score) of ESTIMATORS' table, written out in numpy for log weights [M, K, B].
def table(name, log_weights):
    log_weights = np.asarray(log_weights, "float64")
    m, k, _ = log_weights.shape
    flat = softmax(log_weights.reshape(m * k, -1), 0).reshape(log_weights.shape)
    rows = softmax(log_weights, 1) / m
    uniform = np.full_like(log_weights, 1 / (m * k))
    zero = np.zeros_like(log_weights)
    renyi = softmax(0.5 * log_weights.reshape(m * k, -1), 0).reshape(log_weights.shape)
    heated = thermodynamic(log_weights)
    mixed = 0.5 * uniform + 0.5 * flat
    # 1 - flat, as the sum of all the others: a subtraction has no digits left where one particle dominates.
    particles = flat.reshape(m * k, -1)
    others = np.stack([np.delete(particles, i, axis=0).sum(axis=0) for i in range(m * k)]).reshape(flat.shape)
    return {
        "elbo": (uniform, uniform, -uniform),
        "iwae": (flat, flat, -flat),
        "miwae": (rows, rows, -rows),
        "piwae": (flat, rows, -rows),
        "ciwae": (mixed, mixed, -mixed),
        "vr_iwae": (renyi, renyi, -renyi),
        "stl": (flat, flat, zero),
        "dreg": (flat, flat**2, zero),
        "rws": (flat, zero, flat),
        "rws_dreg": (flat, flat * others, zero),
        "vimco": (flat, zero, learning_signal(log_weights, lambda others: others.mean(axis=0)) - flat),
        "ovis": (flat, zero, learning_signal(log_weights, lambda others: np.full(others.shape[1], -np.inf)) - flat),
        "tvo": (heated, heated, -heated),
        "jvi": (jackknife(log_weights), flat, -flat),
    }[name]


def learning_signal(log_weights, stand_in):
    """L - L^(-k) of one group, [M, K, B]: each log weight in turn replaced by what stands in for it."""
    flat = log_weights.reshape(-1, log_weights.shape[2])
    signal = np.empty_like(flat)
    for i in range(len(flat)):
        others = np.delete(flat, i, axis=0)
        signal[i] = np.logaddexp.reduce(flat) - np.logaddexp(np.logaddexp.reduce(others), stand_in(others))
    return signal.reshape(log_weights.shape)


COPIES = weakref.WeakKeyDictionary()  # Of encoders: making one takes longer than a gradient.


def frozen(layer, x):
    """A copy of an encoder, which has variables of its own; the next call may change them."""
    if layer not in COPIES:
        COPIES[layer] = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
        COPIES[layer].posterior(x)  # Makes the variables.
    COPIES[layer].set_weights(layer.get_weights())
    return COPIES[layer]


def naive_gradients(model, name, x, seed):
    """Two losses, two tapes, two backward passes through the decoder; weights from numpy."""
    return naive_pass(model, x, seed, model.objective.estimator.uses_path)(name)


def naive_pass(model, x, seed, uses_path):
    """The forward pass of both tapes; returns a function of an objective's name, for what `naive_gradients` returns."""
    m, k = model.objective.m, model.objective.k
    frozen_posterior = frozen(model.encoder, x).posterior(x)
    with tf.GradientTape(persistent=True) as encoder_tape:
        posterior = model.encoder.posterior(x)
        z = particles.draw(posterior, m, k, seed, reparameterized=uses_path)
        with tf.GradientTape(persistent=True) as decoder_tape:
            log_joint = particles.log_joint(model.decoder, model.prior, x, z)
        by_path = log_joint - frozen_posterior.log_prob(z)
        by_score = posterior.log_prob(tf.stop_gradient(z))
    log_weights = log_joint - posterior.log_prob(z)

    def gradient(tape, variables, *losses):
        """Of pairs of a tensor [M, K, B] and the weights of its elements."""
        targets, weights = zip(*losses, strict=True)
        weights = [tf.constant(-w / len(x), log_weights.dtype) for w in weights]
        values, zero = [v.value for v in variables], tf.UnconnectedGradients.ZERO
        return tape.gradient(targets, values, weights, unconnected_gradients=zero)

    def gradients(name):
        decoder, path, score = table(name, log_weights)
        return (
            gradient(encoder_tape, model.encoder_variables, (by_path, path), (by_score, score)),
            gradient(decoder_tape, model.decoder_variables, (log_joint, decoder)),
            log_weights,
        )

    return gradients


def gradients_in_step(model, x, seed):
    """Gradients as a training step has them, compiled where it is."""
    place = replicas.place(x)
    dreamed = model._dreamed(x, seed, place) if model.objective.sleep else None
    return model._gradients_in_step(x, seed, place, dreamed)


def flat(gradients):
    """A list of tensors as one float64 vector."""
    return np.concatenate([np.ravel(np.asarray(g, "float64")) for g in gradients])
