"""log p(x) of trained models by importance samples and by annealing, and what follows for the published orders."""

import itertools

import keras
import numpy as np

import iwae_zoo_console as console
from iwae_zoo import likelihood, paths, walks
from studies import cells

__all__ = ["COLUMNS", "PUBLISHED", "measure", "orders", "over", "summary"]

# Examples after which what was measured is written.
_ROWS = 50

# Columns of the table: a title, and the values of the examples.
COLUMNS = {
    "bound": ("IWAE-{particles}", lambda found: found["bound"]),
    "sampled": ("log p(x), {num_samples} samples", lambda found: found["sampled"]),
    "annealed": ("log p(x), annealed", lambda found: found["annealed"]),
    "gap": ("gap", lambda found: found["annealed"] - found["sampled"]),
    "sampled_ess": ("ESS of {num_samples}", lambda found: found["sampled_ess"]),
    "annealed_ess": ("ESS of {num_chains} chains", lambda found: found["annealed_ess"]),
    "sampled_untrusted": ("untrusted samples, %", lambda found: 100.0 * ~found["sampled_trusted"]),
    "annealed_untrusted": ("untrusted chains, %", lambda found: 100.0 * ~found["annealed_trusted"]),
}

# log p(x) by 5000 samples, and its standard error over 4 runs: Rainforth et al. 2018, Table 1, in its order.
PUBLISHED = {
    "piwae": (-84.46, 0.06),
    "iwae": (-84.52, 0.02),
    "ciwae_05": (-84.57, 0.09),
    "miwae": (-84.97, 0.10),
    "ciwae_5": (-85.24, 0.08),
    "vae": (-86.21, 0.19),
}


def measure(load, x, path, particles, num_samples, seed=0):
    """Both estimates of log p(x) for each example, kept in a file with which a later call goes on.

    Args:
      load: function of nothing that returns the model; called only if something is missing.
      x: array [N, ...].
      path: of the JSON file.
      particles: int, those of the bound.
      num_samples: int, importance samples.
      seed: int.

    Returns:
      dict of arrays [N]: "bound", and of each way, "sampled" and "annealed", the estimate by that name, and with the
      endings "_error", "_ess" and "_trusted" how good it is.
    """
    start = paths.INITIAL[walks.Budget.of().initial]
    settings = {"particles": particles, "num_samples": num_samples, "seed": seed, "annealing": start._asdict()}
    found = cells.kept(path, settings)
    progress = keras.utils.Progbar(len(x), verbose=console.is_interactive(), unit_name="example")
    while (first := len(found.get("bound", []))) < len(x):
        part = _measured(load(), x[first : first + _ROWS], first, particles, num_samples, seed)
        found = {name: found.get(name, []) + values.tolist() for name, values in part.items()}
        cells.keep(path, settings, found)
        progress.update(len(found["bound"]))
    return {name: np.array(values[: len(x)]) for name, values in found.items()}


def over(values):
    """Mean and standard error of values [S, N] of S seeds and N examples.

    The error is that over the seeds; of a single seed, that over the examples.
    """
    values = np.asarray(values, float)
    return cells.mean_and_error(values.mean(axis=1) if len(values) > 1 else values[0])


def summary(found):
    """Mean and standard error of every column, from what `measure` found: dict of arrays [S, N]."""
    return {name: over(values(found)) for name, (_, values) in COLUMNS.items()}


def orders(found):
    """Differences of log p(x) between objectives: do the published orders hold, and do both estimates agree?

    Args:
      found: dict from an objective's name to what `measure` found: dict of arrays [S, N].

    Returns:
      dict of two lists of pairs: "published", the neighbours in the published order; and "disputed", those of all pairs
      that the two estimates judge differently, by the annealed order. A pair is a dict: "better" and "worse", names; by
      "published" (where both are), "sampled" and "annealed" the mean and the standard error of the difference of their
      log p(x), seed by seed and example by example, and a verdict: "holds", "reversed", or "undecided" within two
      errors.
    """
    published = itertools.pairwise(name for name in PUBLISHED if name in found)
    ranked = itertools.combinations(sorted(found, key=lambda name: -np.mean(found[name]["annealed"])), 2)
    pairs = [_compared(found, *pair) for pair in ranked]
    return {
        "published": [_compared(found, *pair) for pair in published],
        "disputed": [pair for pair in pairs if pair["sampled"][2] != pair["annealed"][2]],
    }


def _compared(found, better, worse):
    differences = {way: over(found[better][way] - found[worse][way]) for way in ("sampled", "annealed")}
    if better in PUBLISHED and worse in PUBLISHED:
        (high, high_error), (low, low_error) = PUBLISHED[better], PUBLISHED[worse]
        differences["published"] = high - low, np.hypot(high_error, low_error)
    return {"better": better, "worse": worse} | {way: _judged(*d) for way, d in differences.items()}


def _judged(mean, error):
    if abs(mean) > 2.0 * error:
        return mean, error, "holds" if mean > 0 else "reversed"
    return mean, error, "undecided"


def _measured(model, x, first_row, particles, num_samples, seed):
    # Another seed than below, so that the two are independent.
    found = {"bound": likelihood.estimate_log_prob(model, x, particles, seed + 1, first_row=first_row).log_prob}
    for way, method in (("sampled", likelihood.IMPORTANCE), ("annealed", likelihood.ANNEALED)):
        answer = likelihood.estimate_log_prob(model, x, num_samples, seed, method=method, first_row=first_row)
        found |= {way: answer.log_prob, f"{way}_error": answer.standard_error}
        found |= {f"{way}_ess": answer.ess, f"{way}_trusted": answer.trusted}
    return found
