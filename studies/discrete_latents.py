"""A sigmoid belief network by each way to train an encoder that cannot be reparameterised: cells and columns."""

import dataclasses
import math
import time
from typing import Any

import numpy as np

from iwae_zoo import likelihood, relaxation, training
from iwae_zoo._files import load_model
from studies import budget, cells, true_likelihood

__all__ = ["METHODS", "TITLES", "configs", "load", "measure", "rows", "snr_curves"]

# A label, and the settings of `training.Config`; each draws M K particles.
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "reinforce": ("REINFORCE", {"objective": "iwae", "estimator": "reinforce"}),
    "vimco": ("VIMCO", {"objective": "vimco"}),
    "ovis": ("OVIS", {"objective": "ovis"}),
    "ovis_gamma": ("OVIS, gamma 1", {"objective": "ovis", "estimator": "ovis,gamma=1"}),
    "rws": ("RWS", {"objective": "rws"}),
    "rws_sleep": ("RWS, half of it sleep", {"objective": "rws", "sleep": 0.5}),
    "wake_sleep": ("wake-sleep", {"objective": "rws", "decoder_bound": "elbo", "sleep": 1.0}),
    "gumbel": ("Gumbel-softmax", {"objective": "iwae", "posterior": "relaxed_bernoulli"}),
}

# Titles of the table's columns.
TITLES = {
    "epochs": "epochs",
    "bound": "IWAE-{particles}",
    "log_prob": "log p(x), {num_samples} samples",
    "ess": "ESS of {num_samples}",
    "untrusted": "untrusted, %",
}


def configs(names, seeds, minutes, workdir, looks, **shared):
    """The cells of the study, seed by seed, all of the same time.

    Args:
      names: of `METHODS`.
      seeds: int.
      minutes: float, of one core, for each cell.
      workdir: `pathlib.Path` of the study, where the times of a step are kept.
      looks: int, how often diagnostics are taken.
      **shared: fields of `training.Config`.

    Returns:
      dict from (method, seed) to `training.Config`.
    """
    of_methods = {}
    for name in names:
        config = training.Config(**{**METHODS[name][1], **shared})
        epochs = budget.epochs_within(config, minutes, workdir / "epochs.json", time.process_time)
        of_methods[name] = dataclasses.replace(config, epochs=epochs, diagnostics_every=max(1, epochs // looks))
    return {
        (name, seed): dataclasses.replace(config, seed=seed)
        for seed in range(seeds)
        for name, config in of_methods.items()
    }


def load(config, workdir):
    """The trained model of a cell, with classes for latents where it was trained with relaxed ones."""
    model = load_model(cells.folder(config, workdir) / "model.keras")
    return relaxation.discrete(model) if config.posterior else model


def measure(config, x, workdir, num_samples):
    """Bound and log p(x) of each example, kept in the cell's folder.

    Args:
      config: `training.Config` of a finished cell.
      x: array [N, ...].
      workdir: path of the study.
      num_samples: int, importance samples.

    Returns:
      dict of arrays [N]: "bound" at M K particles, "log_prob", its "error", "ess" and "trusted".
    """
    path = cells.folder(config, workdir) / "discrete_latents.json"
    settings = {"num_samples": num_samples, "examples": len(x)}

    def compute():
        model = load(config, workdir)
        options: dict[str, Any] = {"method": likelihood.IMPORTANCE, "verbose": 0}
        bound = likelihood.estimate_dataset(model, x, config.m * config.k, seed=1, **options)
        estimate = likelihood.estimate_dataset(model, x, num_samples, seed=0, **options)
        values = {
            "bound": bound.log_prob,
            "log_prob": estimate.log_prob,
            "error": estimate.standard_error,
            "ess": estimate.ess,
            "trusted": estimate.trusted,
        }
        return {name: np.asarray(value).tolist() for name, value in values.items()}

    return {name: np.array(values) for name, values in cells.once(path, settings, compute).items()}


def rows(of_cells, configs):
    """The table: dict from a method's label to a dict from a column's name to (mean, standard error).

    The errors are those over the seeds; of a single seed, those over the examples.

    Args:
      of_cells: dict from (method, seed) to what `measure` found.
      configs: dict from the same to `training.Config`.
    """
    table = {}
    for name in dict.fromkeys(name for name, _ in of_cells):
        found = [values for (of_method, _), values in of_cells.items() if of_method == name]
        epochs = float(configs[name, 0].epochs)
        columns = {column: np.stack([seed[column] for seed in found]) for column in ("bound", "log_prob", "ess")}
        columns["untrusted"] = 100.0 * ~np.stack([seed["trusted"] for seed in found])
        summary = {column: true_likelihood.over(values) for column, values in columns.items()}
        table[METHODS[name][0]] = {"epochs": (epochs, math.nan)} | summary
    return table


def snr_curves(results, minutes, side="encoder"):
    """Median SNR of the gradient over the time of training, for `figures.curves`.

    Args:
      results: dict from (method, seed) to what `cells.run_cell` returns.
      minutes: float, of a cell.
      side: "encoder" or "decoder".

    Returns:
      dict from a method's label to rows (minutes, mean over the seeds, its standard error).
    """
    of_methods: dict[str, list] = {}
    for (name, _), result in results.items():
        history, key = result["history"], f"diagnostics_{side}_snr"
        points = [(epoch, row[key]) for epoch, row in enumerate(history, 1) if key in row]
        of_methods.setdefault(name, []).append(np.array(points) * [minutes / len(history), 1.0])
    curves = {}
    for name, seeds in of_methods.items():
        mean, error = cells.mean_and_error([points[:, 1] for points in seeds])
        curves[METHODS[name][0]] = np.column_stack([seeds[0][:, 0], mean, error])
    return curves
