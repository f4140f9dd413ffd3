"""Which figures show a model, by the kind of its data: `TABLE`, and in one panel `panel`."""

import warnings
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from iwae_zoo import figures
from iwae_zoo.columns import used
from iwae_zoo.distributions import likelihoods
from iwae_zoo.estimation.sampling import sample

__all__ = ["TABLE", "Look", "draw", "panel"]

_ROWS, _COLUMNS = 5, 10
# Columns of a table whose pairs are shown, and rows.
_PAIRED, _POINTS = 4, 500


def _image_samples(model, x, seed, title):
    means = sample(model, _ROWS * _COLUMNS, seed).mean
    grid = _grey(model, x, means).reshape(_ROWS, _COLUMNS, *x.shape[1:])
    return figures.image_grid(grid, f"Means of samples, {title}")


def _image_reconstructions(model, x, seed, title):
    del seed
    shown = x[:_COLUMNS]
    means = model(tf.constant(shown)).numpy()
    return figures.image_grid(_grey(model, x, np.stack([shown, means])), f"Reconstructions, {title}", ["x", "mean"])


def _pairs(model, x, seed, title):
    """The columns that vary most for their size, data and samples side by side."""
    drawn = sample(model, min(len(x), _POINTS), seed).x
    columns = _varied(model, x, _PAIRED)
    shown = {"data": x[:_POINTS][:, columns], "samples": drawn[:, columns]}
    return figures.pairs(shown, [_names(model, x)[column] for column in columns], f"Pairs of columns, {title}")


def _columns(model):
    """The `Column`s of a table; none of other data."""
    return used(likelihoods.columns(model.decoder))


def _numbers(model, x):
    """Which columns hold numbers that can be large or small."""
    return np.array([not column.categories for column in _columns(model)] or [True] * x.shape[1])


def _names(model, x):
    return [column.name for column in _columns(model)] or [f"column {i}" for i in range(x.shape[1])]


def _varied(model, x, count):
    """The columns of numbers that vary most, in their order."""
    observed = ~np.isnan(x).all(axis=0)
    spread = np.where(_numbers(model, x) & observed, np.nanstd(np.where(observed, x, 0.0), axis=0), -1.0)
    return np.sort(np.argsort(-spread, kind="stable")[:count])


def _moments(model, x, seed):
    """Means and variances of the columns, of data and of as many samples."""
    rows = {"data": x, "samples": sample(model, len(x), seed).x}
    columns = {label: values.reshape(len(values), -1) for label, values in rows.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # Of a column that is missing in every row there are none.
        return {label: (np.nanmean(values, axis=0), np.nanvar(values, axis=0)) for label, values in columns.items()}


def _dispersion(model, x, seed, title):
    return figures.dispersion(_moments(model, x, seed), f"Counts, {title}")


def panel(model, x, seed=0):
    """What shows a model in one panel of `figures.side_by_side`, for examples x [N, ...]."""
    shown_by = _figures(model, x)
    if x.ndim == 2 and "dispersion" in shown_by:
        return {"moments": _moments(model, x, seed)}
    if "pairs" in shown_by and x.shape[1] > 1:
        columns = _varied(model, x, 2)
        shown = {"data": x[:_POINTS], "samples": sample(model, min(len(x), _POINTS), seed).x}
        return {
            "pairs": {label: rows[:, columns] for label, rows in shown.items()},
            "names": [_names(model, x)[column] for column in columns],
        }
    shown = {
        "data": x[np.linspace(0, len(x) - 1, _COLUMNS).astype(int)],
        "means": sample(model, _COLUMNS, seed).mean,
        "draws": sample(model, _COLUMNS, seed).x,
    }
    shape = x.shape[1:] if x.ndim == 4 else (1, -1, 1)  # What is no image is a strip.
    return {"images": {label: _grey(model, x, rows).reshape(_COLUMNS, *shape) for label, rows in shown.items()}}


# Figures by file name: functions (model, x [N, ...], seed, title) -> figure.
_DRAWN = {"samples": _image_samples, "reconstructions": _image_reconstructions}
_PAIRS = {"pairs": _pairs}
_DISPERSION = {"dispersion": _dispersion}


class Look(NamedTuple):
    """What shows a kind of data.

    Attributes:
      images: dict, the figures of images, as above.
      vectors: the same, of vectors and tables.
      limits: the numbers that are black and white in images; None for the least and the largest of the data.
    """

    images: Mapping[str, Callable] = _DRAWN
    vectors: Mapping[str, Callable] = _PAIRS
    limits: tuple[float, float] | None = None


# Of kinds that are shown otherwise than as real numbers are. None is that of a user's own decoder, which has no head.
TABLE = {
    "binary": Look(vectors=_DRAWN, limits=(0.0, 1.0)),
    "intensity": Look(vectors=_DRAWN, limits=(0.0, 1.0)),
    "byte": Look(limits=(0.0, 255.0)),
    "count": Look(images={**_DRAWN, **_DISPERSION}, vectors={**_PAIRS, **_DISPERSION}),
    None: Look(vectors=_DRAWN),
}


def draw(model, x, seed, title):
    """The figures of a model.

    Args:
      model: `ImportanceWeightedAutoencoder`.
      x: array [N, ...], examples.
      seed: int.
      title: str, the run's.

    Returns:
      dict from a file's name to a `matplotlib.figure.Figure`.
    """
    return {name: figure(model, x, seed, title) for name, figure in _figures(model, x).items()}


def _look(model):
    head = likelihoods.of(model.decoder)
    return TABLE.get(head.kinds[0] if head else None, Look())


def _figures(model, x):
    return _look(model).images if x.ndim > 2 else _look(model).vectors


def _grey(model, x, values):
    """Values of images, from 0 to 1."""
    there = x[~np.isnan(x)]
    low, high = _look(model).limits or ((float(there.min()), float(there.max())) if there.size else (0.0, 1.0))
    return np.where(np.isnan(values), 0.5, (values - low) / (high - low or 1.0))  # What is missing is grey.
