"""log p(x) by importance sampling from the encoder, streamed, and how far each answer can be trusted.

Each example is a problem of its own: its particles are drawn and weighed in chunks of one size, and a handful of
running sums is kept. So memory does not depend on the number of samples or of examples, and an answer does not depend
on the other examples in the batch, whether examples are computed one at a time or in `tiles`.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from iwae_zoo._checks import checked_seed, number
from iwae_zoo._tracing import Networks, per_model
from iwae_zoo.estimation import psis, tiles
from iwae_zoo.estimation.rows import by_rows, checked_answers
from iwae_zoo.estimation.streaming import checked_counts, stream
from iwae_zoo.model import examples

__all__ = [
    "ANNEALED",
    "IMPORTANCE",
    "OUTPUTS",
    "PARETO_K_LIMIT",
    "Estimate",
    "estimate_log_prob",
    "least_ess",
    "rounded",
]

# The methods that an answer may come from.
IMPORTANCE, ANNEALED = "importance", "annealed"
# Above it neither an importance-sampled estimate nor its error holds (Vehtari et al. 2024).
PARETO_K_LIMIT = 0.7
# Share of the annealed chains that has to be effective, and their number: few chains miss what others would find.
_LEAST_SHARE, _LEAST_CHAINS = 1 / 6, 5.0
# Nats that float32 may round log p(x) by, where its standard error is not larger.
_ROUNDED = 0.1


class Estimate(NamedTuple):
    """log p(x) of each example; arrays [B].

    Attributes:
      log_prob: log of the mean weight, nats. Its expectation is below log p(x) by about half the squared standard
        error. -inf where x is outside the likelihood's support.
      standard_error: of `log_prob`, nats, by the delta method; infinite for one sample. It holds where the answer is
        `trusted`.
      ess: effective number (Kong) of the particles, or of the annealed chains: between 1 and `num_samples`.
      pareto_k: Pareto shape of the largest weights; see `psis`.
      elbo: mean log weight of the particles, nats: the ELBO where they are the encoder's.
      in_support: bool, whether p(x) can be positive at all.
      num_samples: number of particles, or of annealed chains, that were used.
      method: "importance" or "annealed", where the answer comes from.
      importance_log_prob: what importance samples alone say, nats: the figure of papers.
    """

    log_prob: np.ndarray
    standard_error: np.ndarray
    ess: np.ndarray
    pareto_k: np.ndarray
    elbo: np.ndarray
    in_support: np.ndarray
    num_samples: np.ndarray
    method: np.ndarray
    importance_log_prob: np.ndarray

    @classmethod
    def of_importance(cls, log_prob, **fields):
        """The estimate that importance samples give; arguments by the names of `OUTPUTS`."""
        method = np.full(len(log_prob), IMPORTANCE)
        return cls(log_prob=log_prob, **fields, method=method, importance_log_prob=log_prob)

    @property
    def rounded(self):
        """bool array [B], whether float32, in which models compute, rounds log p(x) by more than its standard error."""
        return rounded(self.log_prob, self.standard_error) & self.in_support

    @property
    def trusted(self):
        """bool array [B], whether `log_prob` is right to within its standard error.

        Of importance samples Pareto k is at most 0.7; of annealed chains at least a sixth is effective, and five.
        Weights that are all equal leave no doubt where z is continuous, and neither does a row outside the support. Of
        a discrete z they say nothing about values that were never drawn: an encoder that is too sure may hide some.
        """
        annealed = self.method == ANNEALED
        heavy = np.where(annealed, self.ess < least_ess(self.num_samples), self.pareto_k > PARETO_K_LIMIT)
        return (~heavy | (self.standard_error == 0.0) | ~self.in_support) & ~self.rounded


def least_ess(num_chains):
    """The effective number of chains that an annealed answer is trusted from: float array, of any shape."""
    return np.maximum(_LEAST_SHARE * num_chains, _LEAST_CHAINS)


def rounded(log_prob, standard_error):
    """Whether float32 rounds log p(x) [B] by more than its standard error [B], and by more than 0.1 nats: bool [B].

    That is where it is beyond 800,000 nats, such as at an outlier of a thousand standard deviations.
    """
    return np.abs(log_prob) * 2.0**-23 > np.maximum(standard_error, _ROUNDED)


# What importance samples answer a row by, in graphs.
OUTPUTS = dict.fromkeys(Estimate._fields[:-2], tf.TensorSpec([], tf.float64)) | {
    "in_support": tf.TensorSpec([], tf.bool),
    "num_samples": tf.TensorSpec([], tf.int32),
}


def estimate_log_prob(model, x, num_samples, seed, chunk_size, *, tolerance, proposal, rows, tile_rows):
    """`likelihood.estimate_log_prob` with the method "importance", and its arguments."""
    if tolerance is not None and not number("tolerance", tolerance) > 0:
        raise ValueError(f"tolerance must be a positive number of nats, or None: received {tolerance!r}.")
    if proposal not in ("encoder", "prior"):
        raise ValueError(f"proposal must be 'encoder' or 'prior': received {proposal!r}.")
    num_samples, chunk_size = checked_counts(chunk_size, num_samples=num_samples)
    x, seed = examples.fitting(model, x), checked_seed(seed)
    tile_rows = tiles.choose(tile_rows, model, chunk_size, proposal)
    answer = _rows_function(model, chunk_size, psis.capacity(num_samples), proposal, tile_rows)
    with tiles.enough(tile_rows, model, chunk_size):
        answers = answer(rows, seed, x, num_samples, 0.0 if tolerance is None else tolerance)
    checked_answers(answers["log_prob"])
    return Estimate.of_importance(**{name: value.numpy() for name, value in answers.items()})


@per_model
def _rows_function(model, chunk_size, capacity, proposal, tile_rows=1):
    """The traced function that streams each example of a batch."""
    networks = Networks.of(model)

    def one(seed, x, num_samples, tolerance):
        num_samples = tf.fill(seed.shape[:-1], num_samples)
        return stream(networks, x, num_samples, seed, tolerance, chunk_size, capacity, proposal)

    shared = [tf.TensorSpec([], tf.int32), tf.TensorSpec([], tf.float64)]
    return by_rows(model, one, [tf.TensorSpec(model.data_shape)], shared, OUTPUTS, tile_rows)
