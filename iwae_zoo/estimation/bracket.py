"""The thermodynamic bracket of log p(x): Riemann sums over beta from below and from above, on streamed particles."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from iwae_zoo._checks import checked_seed
from iwae_zoo._precision import tensor_float_32
from iwae_zoo._tracing import Networks, per_model
from iwae_zoo.estimation import psis, tiles
from iwae_zoo.estimation.rows import by_rows, checked_answers, numbered
from iwae_zoo.estimation.streaming import Observer, checked_counts, observed
from iwae_zoo.model import examples
from iwae_zoo.objectives.thermodynamic import partition

__all__ = ["Bracket", "thermodynamic_bracket"]


class Bracket(NamedTuple):
    """Of each example, nats; arrays [B].

    Attributes:
      lower: left Riemann sum, a lower bound on log p(x) in expectation.
      log_prob: log of the mean weight of the same particles, always between the two.
      upper: right Riemann sum.
    """

    lower: np.ndarray
    log_prob: np.ndarray
    upper: np.ndarray


@tensor_float_32(False)
def thermodynamic_bracket(
    model,
    x,
    num_samples=1000,
    num_points=6,
    *,
    spacing="log_uniform",
    beta_1=None,
    seed=0,
    chunk_size=None,
    tile_rows=None,
):
    """Brackets log p(x) by the mean of log w under q(z | x)^(1 - beta) p(x, z)^beta, which rises with beta.

    lower <= log (1 / S) sum_i w_i <= upper holds of the S particles themselves, whatever they are. The lower sum is a
    lower bound on log p(x) in expectation at any S. The upper one is an upper bound on log p(x) only as S grows: its
    means are taken with self-normalised weights, which makes it too low by O(1 / S), by much where the weights are
    heavy (Pareto k above 0.7 in `likelihood.estimate_log_prob`). More points narrow the bracket, and more samples make
    it honest; where the encoder is poor, `annealing.sandwich` is the upper bound to ask for.

    Args:
      model: `ImportanceWeightedAutoencoder`.
      x: array [B, ...].
      num_samples: int, S, particles per example; those of `likelihood.estimate_log_prob` with the same seed.
      num_points: int from 2 to 50, number of betas with 0 and 1.
      spacing: "log_uniform" or "uniform"; as `objectives.thermodynamic.partition`.
      beta_1: float in (0, 1), or None; the same.
      seed: int.
      chunk_size: int, particles decoded at once, or None.
      tile_rows: int, as in `likelihood.estimate_log_prob`.

    Returns:
      `Bracket`; minus infinity where x is outside the likelihood's support.

    Raises:
      ValueError: on a number out of range, or an x that does not fit the model.
      MemoryError: if the device is out of memory; the message has a `chunk_size` that would fit.

    #### References
    Masrani, Le, Wood. The Thermodynamic Variational Objective. NeurIPS 2019. https://arxiv.org/abs/1907.00031
    """
    betas = partition(num_points, spacing, beta_1)
    num_samples, chunk_size = checked_counts(chunk_size, num_samples=num_samples)
    x, seed = examples.fitting(model, x), checked_seed(seed)
    tile_rows = tiles.choose(tile_rows, model, chunk_size)
    answer = _rows_function(model, chunk_size, psis.capacity(num_samples), betas, tile_rows)
    with tiles.enough(tile_rows, model, chunk_size):
        answers = answer(numbered(len(x)), seed, x, num_samples)
    checked_answers(answers["log_prob"])
    steps = np.diff(betas)
    means = np.concatenate([answers["elbo"].numpy()[:, np.newaxis], answers["means"]], axis=1)  # [B, J]
    log_prob = answers["log_prob"].numpy()
    sums = (np.where(np.isfinite(log_prob), part @ steps, -np.inf) for part in (means[:, :-1], means[:, 1:]))
    lower, upper = sums
    return Bracket(lower, log_prob, upper)


@per_model
def _rows_function(model, chunk_size, capacity, betas, tile_rows):
    """The traced function that streams each example of a batch."""
    networks = Networks.of(model)
    powers = np.array(betas[1:])

    def update(state, _, log_weights, *__):
        """Sums of w^beta, as logarithms, and the means of log w that they weigh, one for each beta above 0."""
        log_sums, means = state
        log_weights = log_weights[:, tf.newaxis]
        powered = powers[:, np.newaxis] * log_weights  # [T, J - 1, chunk]
        total = tf.reduce_logsumexp(tf.concat([log_sums[..., tf.newaxis], powered], axis=-1), axis=-1)
        known = tf.where(total > -np.inf, total, tf.zeros_like(total))
        shares = tf.exp(powered - known[..., tf.newaxis])
        added = tf.reduce_sum(tf.math.multiply_no_nan(log_weights, shares), axis=-1)
        return total, means * tf.exp(log_sums - known) + added

    def one(seed, x, num_samples):
        tile, never = list(seed.shape[:-1]), tf.constant(0.0, tf.float64)
        size = [*(tile or [1]), len(powers)]
        observer = Observer((tf.fill(size, tf.constant(-np.inf, tf.float64)), tf.zeros(size, tf.float64)), update)
        counts = tf.fill(tile, num_samples)
        answer, (_, means) = observed(networks, x, counts, seed, never, chunk_size, capacity, observer=observer)
        return {"elbo": answer["elbo"], "log_prob": answer["log_prob"], "means": means if tile else means[0]}

    outputs = {
        "elbo": tf.TensorSpec([], tf.float64),
        "log_prob": tf.TensorSpec([], tf.float64),
        "means": tf.TensorSpec([len(powers)], tf.float64),
    }
    return by_rows(model, one, [tf.TensorSpec(model.data_shape)], [tf.TensorSpec([], tf.int32)], outputs, tile_rows)
