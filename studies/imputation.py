"""How well missing cells are filled: this project's models and scikit-learn's imputers, by the same measures."""

import functools
import time
import warnings

import numpy as np
import sklearn.ensemble
import sklearn.exceptions
import sklearn.experimental.enable_iterative_imputer
import sklearn.impute
import sklearn.linear_model

from iwae_zoo import imputation
from studies import holes

__all__ = ["COLUMNS", "PEERS", "measures", "of_model", "of_peer", "problem"]

# Draws of a missing cell; of a peer, whose draws are slow, the fewest that a 90 % interval takes.
_DRAWS = 99
_PEERS_DRAWS = 19

# Columns of the table, by their keys in what `of_model` and `of_peer` return.
COLUMNS = {
    "squared_error": "squared error",
    "cover_50": "50 % intervals cover, %",
    "width_50": "width",
    "cover_90": "90 % intervals cover, %",
    "width_90": "width",
    "log_prob": "held-out log p(x_obs)",
    "untrusted": "rows not trusted, %",
}


# Columns of which nothing is known are filled, too.
_ALL = {"keep_empty_features": True}


def _ridge(seed, **settings):
    ridge = sklearn.linear_model.BayesianRidge()
    return sklearn.impute.IterativeImputer(ridge, random_state=seed, **_ALL, **settings)


def _trees(seed):
    trees = sklearn.ensemble.ExtraTreesRegressor(20, random_state=seed)
    return sklearn.impute.IterativeImputer(trees, random_state=seed, **_ALL)


# Label and function of a seed. A new peer is a row.
PEERS = {
    "mean": ("mean of the column", lambda seed: sklearn.impute.SimpleImputer(**_ALL)),
    "neighbours": ("10 nearest neighbours", lambda seed: sklearn.impute.KNNImputer(n_neighbors=10, **_ALL)),
    "ridge": ("IterativeImputer, BayesianRidge", _ridge),
    "trees": ("IterativeImputer, 20 extra trees", _trees),
}
_DRAW = {"ridge": functools.partial(_ridge, sample_posterior=True)}


def problem(table, mechanism, rate):
    """What is to be filled.

    Args:
      table: a name of `holes.TABLES`.
      mechanism: a name of `holes.MECHANISMS`.
      rate: float, share of the cells that are missing.

    Returns:
      (x float32 [N, C], in units of the columns; missing bool [N, C]; held_out bool [N], rows that nothing is fitted
      to). On the entries of Mattei & Frellsen's notebook, breast_cancer with half completely at random, all rows are
      fitted to, as there.
    """
    x = holes.load(table)
    missing = holes.remove(x, mechanism, rate)
    share = 0.0 if (table, mechanism, rate) == ("breast_cancer", "mcar", 0.5) else 0.2
    return x, missing, np.random.RandomState(0).permutation(len(x)) < share * len(x)


def of_model(x, missing, held_out, objective, seed=0, epochs=None, num_samples=1000):
    """Fits a model and measures it.

    Args:
      x: float32 array [N, C], the truth, in units of the columns.
      missing: bool array [N, C].
      held_out: bool array [N], rows that nothing is fitted to.
      objective: `Objective`.
      seed: int, of training.
      epochs: int; None for the preset's.
      num_samples: int, particles that fill a row.

    Returns:
      dict by the keys of `COLUMNS`, and "seconds", those of training.
    """
    seen = np.where(missing, np.float32(np.nan), x)
    start = time.monotonic()
    model = holes.fit(seen[~held_out], objective, seed, epochs)
    seconds = time.monotonic() - start
    filled = imputation.impute(model, seen, num_samples, _DRAWS)
    found = measures(x, missing, filled.mean, filled.draws)
    if held_out.any():
        found["log_prob"] = float(filled.log_prob[held_out].mean())
    return found | {"untrusted": 100.0 * float(np.mean(~filled.trusted)), "seconds": seconds}


def of_peer(x, missing, held_out, name, seed=0):
    """Fits a peer and measures it: by its intervals too, where it draws."""
    seen = np.where(missing, np.nan, np.float64(x))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sklearn.exceptions.ConvergenceWarning)
        _, imputer = PEERS[name]
        mean, draws = imputer(seed).fit(seen[~held_out]).transform(seen), None
        if name in _DRAW:  # Fitted once; each transformation is another draw.
            fitted = _DRAW[name](seed).fit(seen[~held_out])
            draws = np.stack([fitted.transform(seen) for _ in range(_PEERS_DRAWS)])
    return measures(x, missing, mean, draws)


def measures(x, missing, mean, draws=None):
    """Errors of the missing cells.

    Args:
      x: float array [N, C], the truth.
      missing: bool array [N, C].
      mean: float array [N, C].
      draws: float array [R, N, C], or None.

    Returns:
      dict of "squared_error", its mean; and with draws, of the central intervals with 50 and 90 %, "cover_50" and
      "cover_90", how many hold the truth in percent, and "width_50" and "width_90", their mean width.
    """
    found = {"squared_error": float(np.mean(np.square(mean - x)[missing], dtype=np.float64))}
    if draws is not None:
        for level in (50, 90):
            low, high = imputation.central_interval(draws[:, missing], level / 100)
            inside = (low <= x[missing]) & (x[missing] <= high)
            found |= {f"cover_{level}": 100.0 * float(inside.mean()), f"width_{level}": float(np.mean(high - low))}
    return found
