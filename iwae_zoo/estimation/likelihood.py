"""log p(x), answered once, by the cheapest method that can be trusted for each row.

Importance samples from the encoder come first. Rows where their Pareto k or their error says no are annealed, from a
Laplace approximation of p(z | x) that knows nothing of the encoder's faults. Each row says where its answer is from.
"""

import warnings
from typing import NamedTuple

import keras
import numpy as np

from iwae_zoo._checks import look_up
from iwae_zoo._precision import tensor_float_32
from iwae_zoo.estimation import annealing, importance, tiles, walks
from iwae_zoo.estimation.importance import ANNEALED, IMPORTANCE, PARETO_K_LIMIT, Estimate, least_ess
from iwae_zoo.estimation.rows import numbered
from iwae_zoo.estimation.streaming import checked_counts, default_chunk, stream
from iwae_zoo.model import examples

__all__ = [
    "ANNEALED",
    "IMPORTANCE",
    "METHODS",
    "DatasetEstimate",
    "Estimate",
    "checked_counts",
    "climb",
    "default_chunk",
    "estimate_dataset",
    "estimate_log_prob",
    "evaluate_log_prob",
    "in_batches",
    "stream",
    "summarize",
]

# Examples per call while a data set is evaluated, whole tiles: how often the progress bar moves.
_ROWS = tiles.MOST
# Standard error in nats above which "auto" anneals where nothing else is asked for: about that of the annealed chains.
_TOLERANCE = 0.2
# Standard errors of the difference above which chains have missed what the samples found.
_FAR = 3.0
# How much longer a path is walked a second time by rows that the first did not answer.
_LONGER = 4


class DatasetEstimate(NamedTuple):
    """Mean log p(x) over a data set.

    Attributes:
      log_prob: mean over the examples, nats; over those in the support where some are not.
      importance_log_prob: the same of what importance samples alone say.
      standard_error: of that mean as an estimate for the distribution the examples come from: the spread of the
        examples' estimates, which includes their sampling error.
      sampling_standard_error: of that mean for these very examples: what more samples would reduce.
      ess: mean effective number of samples, or of chains.
      elbo: mean ELBO, nats.
      num_annealed: number of examples that were annealed.
      num_untrusted: number of examples whose answer cannot be trusted.
      num_outside_support: number of examples with log p(x) = -inf.
      examples: the `Estimate` of every example.
    """

    log_prob: float
    importance_log_prob: float
    standard_error: float
    sampling_standard_error: float
    ess: float
    elbo: float
    num_annealed: int
    num_untrusted: int
    num_outside_support: int
    examples: Estimate


def _untrusted(sampled, tolerance):
    return ~sampled.trusted | (sampled.standard_error > (_TOLERANCE if tolerance is None else tolerance))


# By method: which rows of an importance-sampled `Estimate` are annealed, given the tolerance.
METHODS = {
    IMPORTANCE: lambda sampled, tolerance: np.zeros(len(sampled.log_prob), bool),
    ANNEALED: lambda sampled, tolerance: np.ones(len(sampled.log_prob), bool),
    "auto": _untrusted,
}


@tensor_float_32(False)
def estimate_log_prob(
    model,
    x,
    num_samples=5000,
    seed=0,
    chunk_size=None,
    *,
    method=IMPORTANCE,
    tolerance=None,
    proposal="encoder",
    first_row=0,
    rows=None,
    tile_rows=None,
):
    """Estimates log p(x) of each example.

    log_prob[b] = log( (1 / S) sum_s p(x_b, z_s) / q(z_s | x_b) ),  z_s ~ q(z | x_b)

    or, for annealed rows, what `annealing.estimate_log_prob` gives.

    Args:
      model: `ImportanceWeightedAutoencoder`.
      x: array [B, ...], finite.
      num_samples: int, number S of particles per example; any number, memory does not grow with it.
      seed: int, 0 <= seed < 2^31. Example i draws from the stateless seed (`first_row` + i, `seed`), whatever the
        other examples are; an exported model asked with the seed (`first_row` + i) 2^32 + `seed` draws the same.
      chunk_size: int, number of particles decoded at once, at most `num_samples`; None chooses. It changes which
        random numbers are drawn, nothing else.
      method: "importance" for importance samples alone. "auto" anneals the rows where these cannot be trusted or have
        an error above the tolerance, and keeps what is annealed where its error is smaller or they cannot be trusted;
        unless it is more than three standard errors below them.
        "annealed" anneals every row.
      tolerance: float, nats; an example's importance samples stop at the first chunk after which its standard error is
        at most this. None for no early stop, and 0.2 nats for "auto".
      proposal: "encoder", or "prior" for the naive estimator that samples z from p(z).
      first_row: int, index of the first example within a larger data set.
      rows: int array [B], the rows that examples draw for, instead of `first_row` + i.
      tile_rows: int, number of examples that are answered at once, 1 or a multiple of 48; None for what suits the
        device (`tiles.choose`): 1 on a CPU. Answers differ by rounding, annealed ones by what it makes of their random
        numbers; of one number they depend on their row alone, bit for bit.

    Returns:
      `Estimate` of arrays [B].

    Raises:
      ValueError: on a number out of range, an x of another shape or with NaN in it, a model whose weights are NaN, or
        one that cannot be annealed, or be in tiles, and has to be.
      MemoryError: if the device is out of memory; the message has a `chunk_size` that would fit, or for annealed rows
        what there is to do instead.

    #### References
    Burda, Grosse, Salakhutdinov. Importance Weighted Autoencoders. ICLR 2016, section 5.
    https://arxiv.org/abs/1509.00519
    Wu, Burda, Salakhutdinov, Grosse. On the Quantitative Analysis of Decoder-Based Generative Models. ICLR 2017.
    https://arxiv.org/abs/1611.04273
    """
    look_up(METHODS, method, "method of estimating log p(x)")
    examples.check_dense(x)
    numbers = numbered(len(x), first_row, rows)
    options = {"tolerance": tolerance, "proposal": proposal, "rows": numbers, "tile_rows": tile_rows}
    sampled = importance.estimate_log_prob(model, x, num_samples, seed, chunk_size, **options)
    if method == "auto" and not annealing.is_possible(model):
        return sampled

    def anneal(rows):
        return _anneal(model, examples.fitting(model, x)[rows], numbers[rows], seed, tile_rows)

    return climb(sampled, anneal, method, tolerance)


def _anneal(model, x, rows, seed, tile_rows):
    """Annealed answers as `climb` takes them; where too few chains are effective, along a path of more temperatures."""
    budget = walks.Budget.of()
    options = {"tile_rows": tile_rows, "verbose": 0, "instead": f"method={IMPORTANCE!r}"}
    answers = annealing.estimate_rows(model, x, rows, seed, budget, **options)._asdict()
    weak = (answers["ess"] < least_ess(budget.num_chains)) & (answers["ess"] > 0)
    if weak.any():
        longer = budget._replace(num_temperatures=_LONGER * budget.num_temperatures)
        again = annealing.estimate_rows(model, x[weak], rows[weak], seed, longer, **options)
        for name, values in again._asdict().items():
            answers[name][weak] = values
    return answers | {"num_samples": np.full(len(rows), budget.num_chains)}


def climb(sampled, anneal, method, tolerance=None):
    """Anneals the rows of an importance-sampled estimate for which a method does.

    Args:
      sampled: `Estimate` of importance samples.
      anneal: function of row indices [R] that returns a dict of arrays [R], among them log_prob, standard_error, ess,
        pareto_k and num_samples.
      method: as in `estimate_log_prob`.
      tolerance: the same.

    Returns:
      `Estimate`.
    """
    rows = np.flatnonzero(METHODS[method](sampled, tolerance) & sampled.in_support)
    if not len(rows):
        return sampled
    annealed = anneal(rows)
    # What is sure enough stays, and so does what is far above chains that missed it: with a probability of at most
    # e^-c an unbiased estimate of p(x) is c nats too high, but for rounding. Unless annealing is asked for.
    better = ~sampled.trusted[rows] | (annealed["standard_error"] < sampled.standard_error[rows])
    of_chains = annealed["standard_error"]
    of_chains = np.where(of_chains < np.inf, of_chains, 0.0)  # That of one chain is not known, and excuses nothing.
    error = np.hypot(of_chains, sampled.standard_error[rows])
    better &= ~(annealed["log_prob"] < sampled.log_prob[rows] - _FAR * error) | sampled.rounded[rows]
    better |= method == ANNEALED
    better &= annealed["ess"] > 0  # Chains that were all lost say nothing.
    changed = {
        name: annealed[name][better] for name in ("log_prob", "standard_error", "ess", "pareto_k", "num_samples")
    }
    answer = {name: np.copy(value) for name, value in sampled._asdict().items()}
    for name, values in {**changed, "method": ANNEALED}.items():
        answer[name][rows[better]] = values
    return Estimate(**answer)


def evaluate_log_prob(model, x, num_samples=5000, seed=0, chunk_size=None, *, method="auto", verbose=1, **options):
    """Estimates the mean log p(x) over a data set, with errors, and says how many answers not to trust.

    Args:
      model: `ImportanceWeightedAutoencoder`.
      x: array [N, ...], or an iterable of batches such as a `tf.data.Dataset`; every example counts.
      num_samples: int, particles per example.
      seed: int. The same seed gives the same answer, however the examples are batched.
      chunk_size: as in `estimate_log_prob`.
      method: as in `estimate_log_prob`; here, rows that importance samples cannot answer are annealed.
      verbose: 0 for no progress bar.
      **options: `tolerance`, `proposal` and `tile_rows` of `estimate_log_prob`.

    Returns:
      `DatasetEstimate`.

    Raises:
      ValueError: as `estimate_log_prob`, or if there is no example.

    Warns:
      UserWarning: with counts, when some answers cannot be trusted or some example is outside the support.
    """
    options = {"method": method, "verbose": verbose, **options}
    return summarize(estimate_dataset(model, x, num_samples, seed, chunk_size, **options))


@tensor_float_32(False)
def estimate_dataset(model, x, num_samples=5000, seed=0, chunk_size=None, *, method="auto", verbose=1, **options):
    """`estimate_log_prob` of every example of a data set, with a progress bar; arguments as `evaluate_log_prob`."""
    options = {"method": method, **options}

    def estimate(batch, first_row):
        return estimate_log_prob(model, batch, num_samples, seed, chunk_size, first_row=first_row, **options)

    return in_batches(estimate, x, verbose, _ROWS * model.distribute_strategy.num_replicas_in_sync)


def in_batches(estimate, x, verbose=1, size=_ROWS):
    """The `Estimate` of a whole data set from a function that gives that of a batch.

    Args:
      estimate: function of a batch [B, ...] and the index of its first row that returns an `Estimate`.
      x: array [N, ...], or an iterable of batches; of a tuple the first is x.
      verbose: 0 for no progress bar.
      size: int, rows of an array that are a batch.

    Returns:
      `Estimate` of arrays [N].

    Raises:
      ValueError: if there is no example.
    """
    examples.check_dense(x)
    sized = hasattr(x, "shape")
    batches = (x[i : i + size] for i in range(0, len(x), size)) if sized else x
    progress = keras.utils.Progbar(len(x) if sized else None, verbose=verbose, unit_name="example")
    parts = []
    row = 0
    for batch in batches:
        batch = batch[0] if isinstance(batch, tuple) else batch
        parts.append(estimate(batch, row))
        row += len(batch)
        progress.update(row, values=[("log_prob", np.mean(parts[-1].log_prob))], finalize=False)
    if not row:
        raise ValueError("There is no example to evaluate: received an empty data set.")
    progress.update(row, finalize=True)
    return Estimate(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def summarize(examples):
    """The `DatasetEstimate` of an `Estimate`; warns as `evaluate_log_prob` does."""
    inside = examples.in_support
    count = int(inside.sum())
    annealed = examples.method == ANNEALED
    untrusted, rounded = ~examples.trusted, examples.rounded
    if untrusted.any():
        heavy = untrusted & ~rounded
        digits = f" {rounded.sum()} are so large that float32 rounds them by more than that." if rounded.any() else ""
        warnings.warn(
            f"log p(x) of {untrusted.sum()} of {len(inside)} examples cannot be trusted: it is likely too low, and its "
            f"standard error too small. {(heavy & ~annealed).sum()} have a Pareto k above {PARETO_K_LIMIT} "
            f"(method='auto' anneals them where z is continuous), {(heavy & annealed).sum()} too few effective "
            f"chains.{digits}",
            stacklevel=3,
        )
    if count < len(inside):
        warnings.warn(
            f"{len(inside) - count} of {len(inside)} examples are outside the likelihood's support (log p(x) = -inf) "
            "and are left out of the mean.",
            stacklevel=3,
        )
    log_prob = examples.log_prob[inside]

    def mean(values):
        return float(np.mean(values[inside])) if count else float("nan")

    return DatasetEstimate(
        log_prob=mean(examples.log_prob) if count else float("-inf"),
        importance_log_prob=mean(examples.importance_log_prob) if count else float("-inf"),
        standard_error=float(np.std(log_prob, ddof=1) / np.sqrt(count)) if count > 1 else float("inf"),
        sampling_standard_error=float(np.sqrt(np.sum(examples.standard_error[inside] ** 2)) / max(count, 1)),
        ess=mean(examples.ess),
        elbo=mean(examples.elbo),
        num_annealed=int(annealed.sum()),
        num_untrusted=int(untrusted.sum()),
        num_outside_support=len(inside) - count,
        examples=examples,
    )
