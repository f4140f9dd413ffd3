"""Importance samples of one example, in chunks of one size, of which a handful of running sums is kept.

So memory does not depend on the number of samples, and an answer does not depend on other examples: TensorFlow
operations only, for graphs, those of exported models among them.

A tile of examples, each with a seed and sums of its own, is streamed at once; see `tiles`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from iwae_zoo._checks import integer
from iwae_zoo.distributions import noise
from iwae_zoo.estimation import psis
from iwae_zoo.estimation.rows import swapped
from iwae_zoo.model import particles

__all__ = [
    "Observer",
    "after",
    "checked_counts",
    "default_chunk",
    "observed",
    "proposed",
    "race",
    "standard_error",
    "stream",
    "supported",
]

# Most particles decoded at once: enough to keep the processor busy, few enough that memory is small.
_DEFAULT_CHUNK = 2500


class Observer(NamedTuple):
    """Something else that is learned of the particles of T examples while they pass by.

    Attributes:
      state: nested tensors [T, ...], what is known before the first chunk.
      update: function (state, z [chunk, T, D], log_weights float64 [T, chunk], log_sum [T] before and after the chunk,
        chunk's seed) that returns the state after it. Particles that do not count have log weight -inf: those of an
        example that is finished change nothing.
    """

    state: Any
    update: Callable


NOBODY = Observer((), lambda state, *_: state)


def stream(networks, x, num_samples, seed, tolerance, chunk_size, capacity, proposal="encoder"):
    """Streams one example's particles, or those of each example of a tile; TensorFlow operations only, for graphs.

    Args:
      networks: anything with `encoder`, `decoder` and `prior`, such as a model.
      x: tensor [...], one example; or a tile [T, ...], from an encoder whose draws take seeds by row.
      num_samples: int tensor [], number of particles; or [T], of each example.
      seed: stateless seed [2]; or [T, 2].
      tolerance: float64 tensor [], nats; 0 for no early stop.
      chunk_size: int, particles of an example that are decoded at once.
      capacity: int, number of largest weights to keep: `psis.capacity` of the largest `num_samples`.
      proposal: "encoder" or "prior"; of a tile "encoder".

    Returns:
      dict of tensors [], or [T], by the names of `importance.OUTPUTS`; the floats are float64.
    """
    return observed(networks, x, num_samples, seed, tolerance, chunk_size, capacity, proposal)[0]


def observed(networks, x, num_samples, seed, tolerance, chunk_size, capacity, proposal="encoder", observer=NOBODY):
    """As `stream`, with an `Observer`, whose T is 1 for one example; returns the dict and the observer's last state."""
    tile = [seed.shape[0]] if noise.is_by_row(seed) else []  # The shape of what is summed up.
    x, usable = (particles.abreast if tile else particles.alone)(networks.decoder, x)
    propose = proposed(networks, x, chunk_size, proposal)
    minus_infinity = tf.constant(-np.inf, tf.float64)

    def draw(start, log_sum, log_sum_of_squares, sum_of_logs, largest, state):
        chunk_seed = particles.derive_seed(seed, start // chunk_size)
        z, log_q = propose(chunk_seed)  # [chunk, 1 or T, D]
        log_weights = particles.log_joint(networks.decoder, networks.prior, x, z) - log_q
        log_weights = tf.cast(tf.transpose(log_weights) if tile else log_weights[:, 0], tf.float64)  # [..., chunk]
        wanted = tf.range(chunk_size) < (num_samples - start)[..., tf.newaxis]
        weighed = tf.where(wanted, log_weights, minus_infinity)
        total = _added(log_sum, weighed)
        return (
            after(start, chunk_size, num_samples),
            total,
            _added(log_sum_of_squares, 2.0 * weighed),
            sum_of_logs + tf.reduce_sum(tf.where(wanted, log_weights, tf.zeros_like(log_weights)), axis=-1),
            tf.math.top_k(tf.concat([largest, weighed], axis=-1), capacity).values,
            observer.update(state, z, *(v if tile else v[tf.newaxis] for v in (weighed, log_sum, total)), chunk_seed),
        )

    def unfinished(count, log_sum, log_sum_of_squares, *_):
        error = standard_error(count, log_sum, log_sum_of_squares)
        return (count < num_samples) & ((count == 0) | (tolerance <= 0.0) | ~(error <= tolerance))

    def draw_tile(*sums):
        """The sums of examples that are finished stay as they are."""
        goes_on = unfinished(*sums)
        *new, state = draw(*sums)
        kept = [_where(goes_on, after, before) for after, before in zip(new, sums, strict=False)]
        return (*kept, state)

    count, log_sum, log_sum_of_squares, sum_of_logs, largest, state = tf.while_loop(
        (lambda *sums: tf.reduce_any(unfinished(*sums))) if tile else unfinished,
        draw_tile if tile else draw,
        (
            tf.zeros_like(num_samples),
            tf.fill(tile, minus_infinity),
            tf.fill(tile, minus_infinity),
            tf.zeros(tile, tf.float64),
            tf.fill([*tile, capacity], minus_infinity),
            observer.state,
        ),
        parallel_iterations=1,
    )
    n = tf.cast(count, tf.float64)
    in_support = usable & ~(log_sum == minus_infinity)
    inside = {
        "log_prob": log_sum - tf.math.log(n),
        "standard_error": standard_error(count, log_sum, log_sum_of_squares),
        "ess": tf.exp(2.0 * log_sum - log_sum_of_squares),
        "pareto_k": (psis.pareto_shapes if tile else psis.pareto_shape)(largest, count),
        "elbo": sum_of_logs / n,
    }
    return {**supported(in_support, inside), "in_support": in_support, "num_samples": count}, state


def after(start, chunk_size, num_samples):
    """Number of particles there are after another chunk, the last one of which may be no whole one: int tensor."""
    return start + tf.minimum(chunk_size, num_samples - start)  # The end of a whole chunk may have no int32.


def supported(in_support, values):
    """Answers, a dict of float64 tensors, of rows in the support; elsewhere log_prob and elbo are -inf, the rest 0."""
    minus_infinity, zero = tf.constant(-np.inf, tf.float64), tf.constant(0.0, tf.float64)
    return {
        name: tf.where(in_support, value, minus_infinity if name in ("log_prob", "elbo") else zero)
        for name, value in values.items()
    }


def race(prior, count, rows):
    """An `Observer` that draws from the particles, `count` times, each with probability proportional to its weight.

    The particle with the largest log weight plus independent standard Gumbel noise has been chosen so, and a maximum
    can be kept while the particles pass by. The state is (that maximum [T, count], its z [T, count, D]); z is zero as
    long as no particle has any weight.

    Args:
      prior: p(z), of which the shape and the dtype of z are known.
      count: int.
      rows: int T.

    #### References
    Maddison, Tarlow, Minka. A* Sampling. NIPS 2014, section 2 (the Gumbel-max trick). https://arxiv.org/abs/1411.0030
    """
    begin = (
        tf.fill([rows, count], tf.constant(-np.inf, tf.float64)),
        tf.zeros([rows, count, *prior.event_shape], prior.dtype),
    )

    def update(state, z, log_weights, _before, _after, seed):
        best, best_z = state
        own_seed, chunk = particles.derive_seed(seed, 1), log_weights.shape[-1]
        uniform = noise.by_row(noise.uniform, count, tf.constant([rows]), chunk, own_seed, dtype=tf.float64)
        scores = swapped(log_weights - tf.math.log(-tf.math.log(uniform)))  # [T, count, chunk]
        winner, score = tf.argmax(scores, axis=-1), tf.reduce_max(scores, axis=-1)
        better = score > best
        chosen = tf.gather(swapped(z), winner, axis=1, batch_dims=1)
        return tf.where(better, score, best), tf.where(better[..., tf.newaxis], chosen, best_z)

    return Observer(begin, update)


def proposed(networks, x, count, proposal="encoder"):
    """What particles of examples x [T, ...] are drawn from.

    Of an example of which nothing is known the posterior is the prior, whatever an encoder that has hardly seen such
    examples makes of it: its particles are the prior's, with proposal="prior" as well as without.

    Args:
      networks: anything with `encoder`, `decoder` and `prior`, such as a model.
      x: tensor [T, ...], as `particles.abreast` gives it.
      count: int, number of particles for each example.
      proposal: "encoder" or "prior"; the latter of one example.

    Returns:
      Function of a stateless seed [2], or seeds [T, 2], that returns (z [count, T, D], log q(z) [count, T], nats).
    """
    prior = networks.prior.distribution()
    if proposal == "prior":

        def propose(seed):
            z = prior.sample([count, 1], seed=seed)
            return z, prior.log_prob(z)

        return propose
    posterior = networks.encoder.posterior(x)

    def encoded(seed):
        z = posterior.sample([count], seed=seed)
        return z, posterior.log_prob(z)

    if not particles.takes_missing(networks.decoder):
        return encoded
    unknown = tf.reduce_all(tf.math.is_nan(x), axis=list(range(1, x.shape.rank)))

    def propose_either(seed):
        z, log_q = encoded(seed)

        def with_the_priors():
            seeds = seed if noise.is_by_row(seed) else seed[tf.newaxis]
            draws = tf.map_fn(lambda own: prior.sample([count, 1], seed=own)[:, 0], seeds, fn_output_signature=z.dtype)
            mixed = tf.where(unknown[:, tf.newaxis], tf.transpose(draws, [1, 0, 2]), z)
            return mixed, tf.where(unknown, prior.log_prob(mixed), log_q)

        return tf.cond(tf.reduce_any(unknown), with_the_priors, lambda: (z, log_q))

    return propose_either


def _added(log_sum, logs):
    """The logarithm of the sum of numbers [..., chunk], given as logarithms, and of the sum [...] before them."""
    return tf.reduce_logsumexp(tf.concat([log_sum[..., tf.newaxis], logs], axis=-1), axis=-1)


def _where(rows, values, others):
    """`tf.where` of whole rows [T, ...], chosen by bool [T]."""
    return tf.where(tf.reshape(rows, [-1, *[1] * (values.shape.rank - 1)]), values, others)


def standard_error(count, log_sum, log_sum_of_squares):
    """Standard error of log mean w, in nats, by the delta method; infinite for one weight.

    sqrt( (sum w^2 / (sum w)^2 - 1 / n) n / (n - 1) )

    Args:
      count: int tensor [...], number n of weights.
      log_sum: float64 tensor [...], log sum w.
      log_sum_of_squares: float64 tensor [...], log sum w^2.
    """
    n = tf.cast(count, tf.float64)
    excess = tf.maximum(tf.exp(log_sum_of_squares - 2.0 * log_sum) - 1.0 / n, 0.0)
    return tf.where(count > 1, tf.sqrt(excess * n / tf.maximum(n - 1.0, 1.0)), tf.constant(np.inf, tf.float64))


def default_chunk(num_samples):
    """Number of particles to decode at once: equal chunks, so that little of the last one is thrown away."""
    return -(-num_samples // -(-num_samples // _DEFAULT_CHUNK))


def checked_counts(chunk_size, **particles_of):
    """The number of particles, and how many to decode at once.

    Args:
      chunk_size: int, or None to have it chosen.
      **particles_of: one int, the number of particles, by the name that its caller's user knows it by.

    Returns:
      (int, int).

    Raises:
      ValueError: if either is not a positive integer, there are more than 2^31 - 1 particles, or the chunk is larger.
    """
    ((name, count),) = particles_of.items()
    count = integer(name, count)
    if count >= 2**31:
        raise ValueError(f"{name} must be at most 2^31 - 1: received {count}.")
    if chunk_size is None:
        return count, default_chunk(count)
    if integer("chunk_size", chunk_size) > count:
        raise ValueError(
            f"chunk_size must be at most {name}: received chunk_size={chunk_size}, {name}={count}. Leave it out to "
            "have it chosen."
        )
    return count, int(chunk_size)
