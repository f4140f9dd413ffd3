"""What Rainforth et al. and Burda et al. publish for MNIST, and the runs that are to come to the same or further."""

import warnings
from typing import Any, NamedTuple

import numpy as np

from iwae_zoo import training
from iwae_zoo.estimation import annealing, diagnostics, likelihood
from studies import cells, comparison, true_likelihood

__all__ = ["BUDGETS", "MEASURES", "PAPERS", "SHOWN", "TABLES", "Row", "config", "looked_at", "measured", "table"]


class Row(NamedTuple):
    """A row of a table.

    Attributes:
      label: str.
      preset: name of the architecture.
      settings: fields of `training.Config`, the objective's at least; before those of a budget.
      published: dict from a measure to its published mean and standard error in nats; NaN where none is given.
    """

    label: str
    preset: str
    settings: dict[str, Any]
    published: dict[str, tuple[float, float]]


_NAN = float("nan")
# Measures of a model: the title in the table.
MEASURES = {
    "iwae_bound": "IWAE-64",
    "importance_log_prob": "log p(x), {:,} samples",
    "negative_kl": "-KL(Q, P)",
    "annealed_log_prob": "log p(x), annealed",
    "active_units": "active units",
}


def _rainforth():
    """Table 1 of Rainforth et al. 2018: mean and standard error of 4 runs, 64 particles for each."""
    published = {
        "vae": {"iwae_bound": (-86.69, 0.08), "negative_kl": (-0.47, 0.20)},
        "iwae": {"iwae_bound": (-86.11, 0.10), "negative_kl": (-1.59, 0.10)},
        "piwae": {"iwae_bound": (-85.74, 0.07), "negative_kl": (-1.28, 0.09)},
        "miwae": {"iwae_bound": (-85.69, 0.04), "negative_kl": (-0.72, 0.11)},
        "ciwae_05": {},
        "ciwae_5": {"iwae_bound": (-86.08, 0.08), "negative_kl": (-0.84, 0.11)},
    }
    objectives = comparison.objectives(8, 8)
    rows = {}
    for name, values in published.items():
        label, settings = objectives[name]
        log_prob = {"importance_log_prob": true_likelihood.PUBLISHED[name]}
        rows[name] = Row(label, "rainforth", settings, log_prob | values)
    return rows


def _burda():
    """The MNIST part of Table 1 of Burda et al. 2016: one run each."""
    published = {
        ("burda_1", "vae"): (-86.76, -86.47, -86.35),
        ("burda_1", "iwae"): (-86.76, -85.54, -84.78),
        ("burda_2", "vae"): (-85.33, -85.01, -84.78),
        ("burda_2", "iwae"): (-85.33, -83.89, -82.90),
    }
    rows = {}
    for (preset, name), values in published.items():
        for k, value in zip((1, 5, 50), values, strict=True):
            if (name, k) == ("iwae", 1):  # The same as a VAE with one particle.
                continue
            settings = {"vae": {"objective": "elbo", "m": k, "k": 1}, "iwae": {"objective": "iwae", "m": 1, "k": k}}
            label = f"{preset[-1]} layer{'s' if preset == 'burda_2' else ''}, {name.upper()}, k = {k}"
            rows[f"{preset}_{name}_{k}"] = Row(label, preset, settings[name], {"importance_log_prob": (value, _NAN)})
    return rows


def _half_hour():
    """What could get furthest on MNIST in the same time: one thing changed in each row, the networks in the last."""
    dreg, constant = {"objective": "dreg", "m": 1, "k": 8}, {"learning_rate": 1e-3, "schedule": "constant"}
    piwae, iwae = {"objective": "piwae", "m": 8, "k": 8}, {"objective": "iwae", "m": 1, "k": 8}
    runs = {
        "constant_piwae": ("PIWAE(8, 8), constant 1e-3", {**piwae, **constant}),
        "constant_iwae_5": ("IWAE, k = 5, constant 1e-3", {**iwae, "k": 5, **constant}),
        "piwae_8": ("PIWAE(8, 8)", piwae),
        "piwae_growing": ("PIWAE, 8 particles, then 32, then 64", {**piwae, "particle_schedule": "2x4:0.6,4x8:0.2"}),
        "piwae_backward": ("PIWAE(8, 8), 8 of the 64 go back", {**piwae, "backward_particles": 8}),
        "iwae_8": ("IWAE, k = 8", iwae),
        "stl_8": ("IWAE with the STL estimator, k = 8", {**iwae, "estimator": "sticking_the_landing"}),
        "dreg_8": ("DReG, k = 8", dreg),
        "dreg_growing": ("DReG, k = 8, then 64", {**dreg, "k": 64, "particle_schedule": "1x8:0.8"}),
        "dreg_slow": ("DReG, k = 8, from 1e-3", {**dreg, "learning_rate": 1e-3}),
        "dreg_fast": ("DReG, k = 8, from 4e-3", {**dreg, "learning_rate": 4e-3}),
        "dreg_batch_50": ("DReG, k = 8, batches of 50", {**dreg, "batch_size": 50}),
        "dreg_batch_200": ("DReG, k = 8, batches of 200", {**dreg, "batch_size": 200}),
        "dreg_elu": ("DReG, k = 8, elu", {**dreg, "activation": "elu"}),
        "dreg_residual": ("DReG, k = 8, residual", {**dreg, "network": "perceptron,residual=True"}),
        "dreg_bfloat16": ("DReG, k = 8, bfloat16", {**dreg, "mixed_precision": "bfloat16"}),
    }
    rows = {name: Row(label, "rainforth", settings, {}) for name, (label, settings) in runs.items()}
    # The same with other networks: `modern` is chosen from those with two stochastic layers.
    for name in ("dreg_8", "dreg_elu"):
        label, settings = runs[name]
        rows[f"two_layers_{name}"] = Row(f"2 layers, {label}", "burda_2", settings, {})
    rows["convolutions_dreg_8"] = Row("convolutions, DReG, k = 8, elu", "conv_28", dreg, {})
    return rows


# By its name a table's rows, by their names. All published figures are importance samples' from the own encoder.
PAPERS = {"rainforth": _rainforth(), "burda": _burda()}
TABLES = {**PAPERS, "half_hour": _half_hour()}
# The measures that a table shows. Bounds have the particles of their row: they compare only in the first.
SHOWN = {
    "rainforth": ("iwae_bound", "importance_log_prob", "negative_kl", "annealed_log_prob", "active_units"),
    "burda": ("importance_log_prob", "annealed_log_prob", "active_units"),
    "half_hour": ("annealed_log_prob", "importance_log_prob", "active_units"),
}
# Settings of training: the papers', and what is better in half an hour, whose epochs follow from the time.
BUDGETS: dict[str, dict[str, Any]] = {
    "paper": {"epochs": 3280, "batch_size": 20, "learning_rate": 1e-3, "schedule": "burda"},
    "minutes": {"batch_size": 100, "learning_rate": 2e-3, "schedule": "cosine"},
}


def config(row, seed, **settings):
    """The `training.Config` of a row, evaluated as published: by importance samples."""
    settings = {**settings, **row.settings}
    return training.Config(preset=row.preset, seed=seed, eval_method=likelihood.IMPORTANCE, **settings)


def looked_at(model, x, annealed_examples, num_samples):
    """What a run's own evaluation does not say.

    Args:
      model: `ImportanceWeightedAutoencoder`.
      x: array [N, ...], the test set.
      annealed_examples: int, how many of the first are annealed.
      num_samples: int, of the importance samples that annealing is held against.

    Returns:
      dict: "gap", mean over those examples of annealed minus importance-sampled log p(x) in nats, and "gap_error", its
      standard error, example by example; "active_units", a list with those of each stochastic layer, of the first 1,000
      examples.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"log p\(x\)")
        some = x[:annealed_examples]
        annealed = annealing.estimate_log_prob(model, some, verbose=0)
        sampled = likelihood.estimate_dataset(model, some, num_samples, method=likelihood.IMPORTANCE, verbose=0)
    gaps = annealed.log_prob - sampled.log_prob
    active = diagnostics.latent_use(model, x[:1000]).active_by_layer
    return {
        "gap": float(np.mean(gaps)),
        "gap_error": float(np.std(gaps, ddof=1) / np.sqrt(len(gaps))) if len(gaps) > 1 else _NAN,
        "active_units": [int(count) for count in active],
    }


def measured(results, looks):
    """Ours: what the cells of a row say, over its seeds.

    -KL(Q, P) is as published the bound minus the figure of the 5,000 samples, not the annealed one. The annealed
    log p(x) of all test examples is that figure plus the gap of those that were annealed.

    Args:
      results: list of what `cells.run_cell` returns, one for each seed.
      looks: list of what `looked_at` returns.

    Returns:
      dict from a measure to its mean and standard error; of one seed, the error over the test examples.
    """
    evaluations = [result["evaluation"] for result in results]
    values = {
        "iwae_bound": [of["iwae_bound"] for of in evaluations],
        "importance_log_prob": [of["importance_log_prob"] for of in evaluations],
        "negative_kl": [of["iwae_bound"] - of["importance_log_prob"] for of in evaluations],
        "annealed_log_prob": [
            of["importance_log_prob"] + look["gap"] for of, look in zip(evaluations, looks, strict=True)
        ],
        "active_units": [sum(look["active_units"]) for look in looks],
    }
    found = {name: tuple(map(float, cells.mean_and_error(of))) for name, of in values.items()}
    if len(results) == 1:
        (of,), (look,) = evaluations, looks
        errors = {
            "iwae_bound": of["iwae_bound_error"],
            "importance_log_prob": of["log_prob_error"],
            "negative_kl": of["negative_kl_error"],
            "annealed_log_prob": float(np.hypot(of["log_prob_error"], look["gap_error"])),
        }
        found |= {name: (found[name][0], error) for name, error in errors.items()}
    return found


def table(name, ours, looks, budgets, num_samples=5000):
    """A table as markdown: a paper's figures, if it is a paper's, and ours beside each other.

    Args:
      name: of the table.
      ours: dict from the names of the rows that were run to what `measured` returns.
      looks: dict from the same to lists of what `looked_at` returns.
      budgets: dict from the same to a str, what each was trained for.
      num_samples: int, importance samples of ours; published figures are of 5,000.
    """
    rows, shown, titles = TABLES[name], SHOWN[name], ["what is trained"]
    published = {measure: f"{MEASURES[measure].format(5000)}: published" for measure in shown}
    for measure in shown:
        titles += [published[measure]] if any(measure in row.published for row in rows.values()) else []
        titles += [MEASURES[measure].format(num_samples) + (": ours" if name in PAPERS else "")]
    body = []
    for key, row in rows.items():
        line = [row.label]
        for measure in shown:
            if published[measure] in titles:
                line.append(comparison.number(*row.published[measure]) if measure in row.published else "")
            line.append(_ours(measure, ours[key], looks[key]) if key in ours else "")
        body.append([*line, budgets.get(key, "not run")])
    return comparison.markdown([*titles, "trained for"], body)


def _ours(name, ours, looks):
    if name != "active_units":
        return comparison.number(*ours[name])
    return "+".join(f"{count:.3g}" for count in np.mean([look["active_units"] for look in looks], axis=0))
