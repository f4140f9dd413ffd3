"""A study is a grid of training runs. A finished cell is never run again, and an interrupted one goes on."""

import json
import pathlib
import time

import numpy as np

from iwae_zoo import training

__all__ = ["mean_and_error", "run_cell", "run_grid"]


def run_cell(config, root, verbose=0):
    """Trains and evaluates one configuration in a folder of its own, or reads what an earlier call left there.

    Args:
      config: `training.Config`.
      root: path of the study's folder.
      verbose: 0 for silence.

    Returns:
      dict with "evaluation" (what is in evaluation.json) and "history" (list of dicts, one for each epoch).

    Raises:
      ValueError: if the folder holds another configuration.
    """
    workdir = pathlib.Path(root) / "cells" / config.title
    run = training.Run(config, workdir, resume=True)
    path = workdir / "evaluation.json"
    evaluation = json.loads(path.read_text()) if path.exists() else {}
    if evaluation.get("num_samples") != config.eval_samples:  # There is none, or one of another accuracy.
        evaluation = run.evaluate(run.train(verbose=verbose), verbose=verbose)
    history = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {"evaluation": evaluation, "history": history}


def run_grid(configs, root):
    """Runs many cells, and says how far it is.

    Args:
      configs: dict from any key to `training.Config`.
      root: path of the study's folder.

    Returns:
      dict from the keys to the results of `run_cell`.
    """
    results = {}
    start = time.monotonic()
    for number, (key, config) in enumerate(configs.items(), 1):
        results[key] = run_cell(config, root)
        elapsed = time.monotonic() - start
        left = elapsed / number * (len(configs) - number)
        print(
            f"cell {number} of {len(configs)}: {config.title}, {elapsed:.0f} s so far, about {left:.0f} s to go",
            flush=True,
        )
    return results


def mean_and_error(values):
    """Mean and standard error over the first axis; the error of a single value is NaN."""
    values = np.asarray(values, float)
    error = (
        np.std(values, axis=0, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.full(values.shape[1:], np.nan)
    )
    return np.mean(values, axis=0), error
