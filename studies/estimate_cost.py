"""Estimates of one model's log p(x) beside their cost, for several methods and budgets of each."""

import contextlib

import numpy as np
import tensorflow as tf

from iwae_zoo import annealing, likelihood
from studies import cells

__all__ = ["PLAN", "counted", "curves"]

_IMPORTANCE = "importance"
# By method: where it starts, and numbers of samples, or of temperatures and chains.
PLAN = {
    "importance sampling from the encoder": (_IMPORTANCE, (50, 500, 5000, 50000)),
    "annealing from the Laplace approximation": ("laplace", ((10, 8), (20, 16), (40, 32), (120, 32), (400, 64))),
    "annealing from the encoder": ("encoder", ((10, 32), (30, 32), (100, 32), (300, 32))),
    "annealing from the prior": ("prior", ((100, 16), (300, 16), (1000, 16))),
}


def curves(model, x, path, title, seed=0):
    """Mean log p(x) against the cost of every entry of `PLAN`, kept in a file with which a later call goes on.

    Args:
      model: `ImportanceWeightedAutoencoder` that has not been asked yet.
      x: array [N, ...].
      path: of the JSON file; what it holds of another title, seed or N stays there.
      title: str, what the model is called.
      seed: int.

    Returns:
      dict from a method to a dict of lists: "cost", decoder passes for each example; "log_prob", mean in nats; and
      "error", its standard error for these very examples by the method's own account.
    """
    settings = {"title": title, "examples": len(x), "seed": seed}
    found = cells.kept(path, settings)
    names = {(method, size): f"{method}, {size}" for method, (_, sizes) in PLAN.items() for size in sizes}
    missing = [entry for entry, name in names.items() if name not in found]
    countdown = cells.Countdown("estimate", len(names), len(names) - len(missing))
    with counted(model.decoder) as count:
        for method, size in missing:
            found[names[method, size]] = _point(model, x, PLAN[method][0], size, seed, count)
            cells.keep(path, settings, found)
            countdown.step(names[method, size])
    return {
        method: {
            field: [found[names[method, size]][field] for size in sizes] for field in ("cost", "log_prob", "error")
        }
        for method, (_, sizes) in PLAN.items()
    }


@contextlib.contextmanager
def counted(decoder):
    """Inside, a decoder counts the points z that it is evaluated at, in the int64 variable that this yields.

    What has been traced before is not counted.
    """
    count, evaluate = tf.Variable(0, dtype=tf.int64, trainable=False), decoder.likelihood

    def counting(z):
        count.assign_add(tf.size(z, tf.int64) // z.shape[-1])
        return evaluate(z)

    decoder.likelihood = counting
    try:
        yield count
    finally:
        del decoder.likelihood


def _point(model, x, start, size, seed, count):
    count.assign(0)
    if start == _IMPORTANCE:
        passes, answer = 1, likelihood.estimate_log_prob(model, x, size, seed)
    else:  # For a gradient the decoder is passed backwards too.
        passes, (temperatures, chains) = 2, size
        answer = annealing.estimate_log_prob(model, x, temperatures, chains, seed=seed, initial=start, verbose=0)
    return {
        "cost": passes * int(count) / len(x),
        "log_prob": float(np.mean(answer.log_prob)),
        "error": float(np.sqrt(np.sum(answer.standard_error**2)) / len(x)),
    }
