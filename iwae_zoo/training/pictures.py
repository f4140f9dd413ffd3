"""Which figures show a model, by the shape of its data. The table at the end is the only list."""

import numpy as np
import tensorflow as tf

from iwae_zoo import figures

__all__ = ["TABLE", "draw", "noun", "sample_means"]

_ROWS, _COLUMNS = 5, 10


def sample_means(model, count, seed=0):
    """Means of p(x | z) for draws of z from the prior.

    Returns:
      Float array [count, ...].
    """
    return model.decoder.likelihood(model.prior.distribution().sample(count, seed=(seed, 0))).mean().numpy()


def _samples(model, x, seed, title):
    means = sample_means(model, _ROWS * _COLUMNS, seed)
    return figures.image_grid(means.reshape(_ROWS, _COLUMNS, *x.shape[1:]), f"Means of samples, {title}")


def _reconstructions(model, x, seed, title):
    del seed
    shown = x[:_COLUMNS]
    means = model(tf.constant(shown)).numpy()
    return figures.image_grid(np.stack([shown, means]), f"Reconstructions, {title}", ["x", "mean"])


# What one value of x is called, and the figures by file name: functions (model, x [N, ...], seed, title) -> figure.
# Vectors are drawn as strips of grey.
_DRAWN = {"samples": _samples, "reconstructions": _reconstructions}
TABLE = {"image": ("pixels", _DRAWN), "vector": ("columns", _DRAWN)}


def noun(data_shape):
    """What the values of one x are called."""
    return TABLE[_form(data_shape)][0]


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
    return {name: figure(model, x, seed, title) for name, figure in TABLE[_form(x.shape[1:])][1].items()}


def _form(data_shape):
    return "vector" if len(data_shape) == 1 else "image"
