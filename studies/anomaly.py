"""Anomalies among the rows of a table: scores of models and of scikit-learn's detectors, and how good they are."""

import numpy as np
import sklearn.datasets
import sklearn.ensemble
import sklearn.metrics
import sklearn.mixture
import sklearn.model_selection
import sklearn.neighbors
import sklearn.utils

from iwae_zoo import likelihood
from iwae_zoo._checks import look_up
from studies import holes

__all__ = [
    "METRICS",
    "PEERS",
    "PROBLEMS",
    "bootstrapped",
    "differences",
    "interval",
    "of_model",
    "of_peer",
    "problem",
    "takes_nan",
]


def _breast_cancer():
    loaded = sklearn.datasets.load_breast_cancer()
    return loaded.data, loaded.target == 0  # 0 is malignant.


def _digit(which):
    return holes.TABLES["digits"](), sklearn.datasets.load_digits().target == which


# A new problem is a function that returns rows [N, C] and which are anomalies, bool [N], and a row.
PROBLEMS = {"breast_cancer": _breast_cancer} | {f"digits_{n}": lambda n=n: _digit(n) for n in range(10)}


def problem(name):
    """Rows to fit to, none of them an anomaly, and rows to tell apart.

    Args:
      name: of `PROBLEMS`.

    Returns:
      (rows float32 [N, C], 80 % of those that are no anomalies; x float32 [T, C], all others; anomalous bool [T]), in
      units of the columns of the first.

    Raises:
      ValueError: on an unknown name.
    """
    x, anomalous = look_up(PROBLEMS, name, "problem")()
    normal = np.random.RandomState(0).permutation(np.flatnonzero(~anomalous))
    rows, rest = normal[: int(0.8 * len(normal))], normal[int(0.8 * len(normal)) :]
    others = np.concatenate([rest, np.flatnonzero(anomalous)])
    return holes.standardised(x[rows], x[rows]), holes.standardised(x[others], x[rows]), anomalous[others]


def _seen(x, rate):
    return x if rate == 0.0 else np.where(holes.remove(x, "mcar", rate), np.float32(np.nan), x)


def _mixture(rows, seed):
    """Of as many full Normals as the Bayesian information criterion chooses."""
    fitted = [sklearn.mixture.GaussianMixture(n, reg_covar=1e-3, random_state=seed).fit(rows) for n in range(1, 7)]
    return min(fitted, key=lambda mixture: mixture.bic(rows))


def _density(rows, seed):
    """With the bandwidth that cross-validation chooses."""
    del seed
    bandwidths = {"bandwidth": np.geomspace(0.1, 10.0, 20)}
    search = sklearn.model_selection.GridSearchCV(sklearn.neighbors.KernelDensity(), bandwidths)
    return search.fit(rows).best_estimator_


# Label and function (rows, seed) that returns what is fitted to them. A new peer is a row.
PEERS = {
    "forest": (
        "IsolationForest",
        lambda rows, seed: sklearn.ensemble.IsolationForest(random_state=seed).fit(rows),
    ),
    "neighbours": (
        "LocalOutlierFactor",
        lambda rows, seed: sklearn.neighbors.LocalOutlierFactor(novelty=True).fit(rows),
    ),
    "mixture": ("GaussianMixture", _mixture),
    "density": ("KernelDensity", _density),
}

# How well higher scores tell anomalies.
METRICS = {"auroc": sklearn.metrics.roc_auc_score, "average_precision": sklearn.metrics.average_precision_score}


def takes_nan(detector):
    """Whether a detector of scikit-learn takes missing values."""
    return sklearn.utils.get_tags(detector).input_tags.allow_nan


def of_model(rows, x, rates, objective, seed=0, epochs=None, num_samples=1000):
    """Scores of a model that was trained on the rows, once for each share of missing cells.

    Args:
      rows: float32 array [N, C].
      x: float32 array [T, C].
      rates: list of R floats, shares of cells that are missing, 0 for none.
      objective: `Objective`.
      seed: int, of training.
      epochs: int; None for the preset's.
      num_samples: int, particles for each row.

    Returns:
      dict of "log_prob" and "elbo", minus the log p of what is observed and minus its ELBO: [R, T], nats.
    """
    # So that the encoder has met rows with as many holes.
    model = holes.fit(np.concatenate([_seen(rows, rate) for rate in rates]), objective, seed, epochs)
    answers = [likelihood.estimate_log_prob(model, _seen(x, rate), num_samples) for rate in rates]
    return {name: np.stack([-getattr(answer, name) for answer in answers]) for name in ("log_prob", "elbo")}


def of_peer(rows, x, rates, name, seed=0):
    """Scores [R, T] of a peer that was fitted to the rows; one that takes no NaN gets the rows' mean instead."""
    _, fit = PEERS[name]
    detector = fit(rows, seed)
    # In these units, a mean is 0.
    seen = [_seen(x, rate) if takes_nan(detector) else np.nan_to_num(_seen(x, rate)) for rate in rates]
    return np.stack([-detector.score_samples(x) for x in seen])


def bootstrapped(scores, anomalous, resamples):
    """How well scores tell anomalies, on the rows and on resamples of them.

    Args:
      scores: float array [S, T] of S seeds, higher for anomalies.
      anomalous: bool array [T].
      resamples: int, how many; of the anomalies and of the others apart, the same ones for all scores.

    Returns:
      dict from a name of `METRICS` to an array [1 + resamples], the mean over the seeds: first on the rows as they are.
    """
    rng = np.random.RandomState(0)
    parts = [np.flatnonzero(anomalous), np.flatnonzero(~anomalous)]
    draws = [np.concatenate([rng.choice(part, len(part)) for part in parts]) for _ in range(resamples)]
    return {
        name: np.array(
            [
                np.mean([metric(anomalous[rows], of_seed[rows]) for of_seed in scores])
                for rows in [np.arange(len(anomalous)), *draws]
            ]
        )
        for name, metric in METRICS.items()
    }


def differences(values, reference):
    """By how much each of several methods is better than one, on the same resamples.

    Args:
      values: dict from a method to what `bootstrapped` returns for a metric.
      reference: one of the methods.

    Returns:
      dict from each other method to (difference, low, high) with the ends of its 95 % interval.
    """
    return {name: interval(of - values[reference]) for name, of in values.items() if name != reference}


def interval(values):
    """What was found on the rows, and the ends of the 95 % interval from the resamples."""
    return float(values[0]), *(float(end) for end in np.quantile(values[1:], [0.025, 0.975]))
