"""What a trained model is worth on held-out data, as numbers and as text."""

import dataclasses

import numpy as np

from iwae_zoo._checks import checked_seed, integer
from iwae_zoo.estimation import annealing, likelihood
from iwae_zoo.estimation.baselines import baseline, bernoulli_baseline, labelled_baseline

__all__ = [
    "Check",
    "Evaluation",
    "baseline",
    "bernoulli_baseline",
    "check",
    "check_table",
    "evaluate",
    "labelled_baseline",
    "sandwich_summary",
    "sandwich_table",
    "table",
]

# Least width of the labels of a table.
_LABEL = 36


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Averages over a data set, in nats per example where not stated otherwise, each with its standard error.

    Attributes:
      num_examples: int.
      particles: int, M K, the number of particles of the bound.
      iwae_bound: importance-weighted bound at M K particles.
      iwae_bound_error: its standard error.
      log_prob: log p(x), by the method that was asked for.
      log_prob_error: its standard error, over data and samples.
      log_prob_sampling_error: the part of it that more samples would reduce.
      importance_log_prob: what importance samples alone say: the figure of papers.
      gap: `log_prob` - `importance_log_prob`.
      gap_error: its standard error, example by example.
      num_samples: int, most importance samples per example.
      num_annealed: int, examples that were annealed.
      negative_kl: -KL(Q || P) = iwae_bound - log_prob, of the distributions over M K particles (article, eq. 11-12).
      negative_kl_error: its standard error, example by example.
      elbo: evidence lower bound.
      importance_ess: effective number of the M K particles.
      num_untrusted: int, examples whose log p(x) cannot be trusted.
    """

    num_examples: int
    particles: int
    iwae_bound: float
    iwae_bound_error: float
    log_prob: float
    log_prob_error: float
    log_prob_sampling_error: float
    importance_log_prob: float
    gap: float
    gap_error: float
    num_samples: int
    num_annealed: int
    negative_kl: float
    negative_kl_error: float
    elbo: float
    importance_ess: float
    num_untrusted: int


def evaluate(model, x, num_samples=5000, seed=0, *, m=None, k=None, verbose=1, **options):
    """Evaluates a model on a data set.

    Args:
      model: `ImportanceWeightedAutoencoder`.
      x: array [N, ...].
      num_samples: int, importance samples per example for log p(x).
      seed: int.
      m: int, groups of particles of the bound; the model's objective's by default.
      k: int, particles in a group; the same.
      verbose: 0 for no progress bar.
      **options: of `likelihood.evaluate_log_prob`, such as `method`; `chunk_size` and `tile_rows` are the bound's, too.

    Returns:
      `Evaluation`.

    Raises:
      ValueError, MemoryError: as `likelihood.evaluate_log_prob`.
    """
    count = integer("m", model.objective.m if m is None else m) * integer("k", model.objective.k if k is None else k)
    # With M K samples the importance-sampled log p(x) is, example by example, a draw of the bound at M K particles.
    # Another seed than below, so that the two are independent.
    seed = checked_seed(seed)
    sampling = {name: options.get(name) for name in ("chunk_size", "tile_rows")}
    if sampling["chunk_size"] is not None:
        sampling["chunk_size"] = min(sampling["chunk_size"], count)
    bound = likelihood.estimate_dataset(model, x, count, (seed + 1) % 2**31, method="importance", verbose=0, **sampling)
    marginal = likelihood.evaluate_log_prob(model, x, num_samples, seed, verbose=verbose, **options)
    inside = marginal.examples.in_support
    iwae_bound, iwae_bound_error = _mean_and_error(bound.log_prob[inside])
    negative_kl, negative_kl_error = _mean_and_error(bound.log_prob[inside] - marginal.examples.log_prob[inside])
    gap, gap_error = _mean_and_error((marginal.examples.log_prob - marginal.examples.importance_log_prob)[inside])
    return Evaluation(
        num_examples=len(inside),
        particles=count,
        iwae_bound=iwae_bound,
        iwae_bound_error=iwae_bound_error,
        log_prob=marginal.log_prob,
        log_prob_error=marginal.standard_error,
        log_prob_sampling_error=marginal.sampling_standard_error,
        importance_log_prob=marginal.importance_log_prob,
        gap=gap,
        gap_error=gap_error,
        num_samples=num_samples,
        num_annealed=marginal.num_annealed,
        negative_kl=negative_kl,
        negative_kl_error=negative_kl_error,
        elbo=float(np.mean(bound.elbo[inside])) if options.get("proposal") == "prior" else marginal.elbo,
        importance_ess=float(np.mean(bound.ess[inside])),
        num_untrusted=marginal.num_untrusted,
    )


@dataclasses.dataclass(frozen=True)
class Check:
    """Importance sampling against annealed importance sampling on the same examples; nats per example.

    Attributes:
      num_examples: int, of those in the likelihood's support.
      log_prob: mean importance-sampled log p(x).
      log_prob_error: its standard error for these very examples.
      annealed_log_prob: mean annealed log p(x).
      annealed_log_prob_error: its standard error for these very examples.
      difference: mean of annealed minus importance-sampled; both are too low in expectation, so the higher is nearer.
      difference_error: its standard error, example by example.
      acceptance_rate: mean over the chains.
    """

    num_examples: int
    log_prob: float
    log_prob_error: float
    annealed_log_prob: float
    annealed_log_prob_error: float
    difference: float
    difference_error: float
    acceptance_rate: float


def check(
    model,
    x,
    num_samples=5000,
    num_temperatures=None,
    num_chains=None,
    *,
    initial="laplace",
    seed=0,
    tile_rows=None,
    verbose=1,
    **sampling,
):
    """Checks importance sampling on a few examples against annealed importance sampling.

    Args:
      model: `ImportanceWeightedAutoencoder`.
      x: array [N, ...]; annealing takes far longer than importance sampling.
      num_samples: int, particles per example.
      num_temperatures: int, as in `annealing.estimate_log_prob`, like the two that follow.
      num_chains: int.
      initial: str.
      seed: int.
      tile_rows: int, or None, of `likelihood.estimate_log_prob` and of `annealing.estimate_log_prob`.
      verbose: 0 for no progress bar.
      **sampling: of `likelihood.estimate_log_prob`, how importance samples are drawn: `proposal` and `chunk_size`.

    Returns:
      `Check`.

    Raises:
      ValueError, MemoryError: as `likelihood.estimate_log_prob` and `annealing.estimate_log_prob`.
    """
    sampling |= {"method": "importance", "tile_rows": tile_rows}
    sampled = likelihood.estimate_dataset(model, x, num_samples, seed, verbose=0, **sampling)
    options = {"initial": initial, "seed": seed, "tile_rows": tile_rows, "verbose": verbose}
    annealed = annealing.estimate_log_prob(model, x, num_temperatures, num_chains, **options)

    inside = sampled.in_support

    def error_of_mean(errors):
        return float(np.sqrt(np.sum(errors[inside] ** 2)) / inside.sum())

    difference, difference_error = _mean_and_error(annealed.log_prob[inside] - sampled.log_prob[inside])
    return Check(
        num_examples=int(inside.sum()),
        log_prob=float(np.mean(sampled.log_prob[inside])),
        log_prob_error=error_of_mean(sampled.standard_error),
        annealed_log_prob=float(np.mean(annealed.log_prob[inside])),
        annealed_log_prob_error=error_of_mean(annealed.standard_error),
        difference=difference,
        difference_error=difference_error,
        acceptance_rate=float(np.mean(annealed.acceptance_rate[inside])),
    )


def table(result, baselines=None, units="nats per example", measures=None):
    """An `Evaluation` as text.

    Args:
      result: `Evaluation`.
      baselines: optional dict from a label to a number to be shown beside the bound.
      units: str, the head's.
      measures: optional dict from a name to a float: the same mean log p(x) in other units.
    """
    rows = [
        (f"IWAE bound at {result.particles} particles", result.iwae_bound, result.iwae_bound_error),
        *((f"  {label}", value, None) for label, value in (baselines or {}).items()),
        ("log p(x)", result.log_prob, result.log_prob_error),
        ("  from the estimate alone", None, result.log_prob_sampling_error),
        (f"  importance sampling, {result.num_samples} samples", result.importance_log_prob, None),
        ("  gap", result.gap, result.gap_error),
        ("ELBO", result.elbo, None),
        ("-KL(Q || P)", result.negative_kl, result.negative_kl_error),
    ]
    below = [("effective particles (ESS)", f"{result.importance_ess:10.2f}")]
    for label, count in (("annealed", result.num_annealed), ("untrusted", result.num_untrusted)):
        below.append((label, f"{count:7d} of {result.num_examples}"))
    below += [(name.replace("_", " "), f"{value:10.4f}") for name, value in (measures or {}).items()]
    return _lines(units, rows, below)


def check_table(result):
    """A `Check` as text."""
    rows = [
        ("importance sampling", result.log_prob, result.log_prob_error),
        ("annealed importance sampling", result.annealed_log_prob, result.annealed_log_prob_error),
        ("  difference", result.difference, result.difference_error),
    ]
    return _lines(f"nats, the same {result.num_examples} examples", rows)


def sandwich_summary(bounds):
    """Means over the examples of an `annealing.Sandwich`, and their standard errors, as a dict of floats."""
    summary = {"num_examples": len(bounds.x)}
    for name in ("lower", "upper", "gap"):
        summary[name], summary[f"{name}_error"] = _mean_and_error(getattr(bounds, name))
    return summary


def sandwich_table(bounds):
    """An `annealing.Sandwich` as text."""
    summary = sandwich_summary(bounds)
    labels = {"lower": "bound from below, forward chains", "upper": "bound from above, reverse chains", "gap": "  gap"}
    rows = [(label, summary[name], summary[f"{name}_error"]) for name, label in labels.items()]
    return _lines(f"nats, {summary['num_examples']} simulated examples", rows)


def _lines(title, rows, below=()):
    lines = [(title, f"{'mean':>10}{'std. error':>12}")]
    for name, mean, error in rows:
        cells = (f"{mean:10.2f}" if mean is not None else " " * 10) + (f" {error:11.3f}" if error is not None else "")
        lines.append((name, cells))
    lines += below
    width = max(_LABEL, *(len(label) + 1 for label, _ in lines))
    return "\n".join(f"{label:{width}}{cells}" for label, cells in lines)


def _mean_and_error(values):
    error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.inf
    return float(np.mean(values)), float(error)
