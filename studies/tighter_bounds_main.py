"""Tighter bounds are not necessarily better: objectives compared over epochs and seeds, as in the article's plot.

    python studies/tighter_bounds_main.py --workdir=runs/tighter_bounds

Every cell of the grid (objective, seed) is a training run of its own in the work directory; a finished one is not run
again. At the end there are table.md, table.csv, snr.png and results.json.
"""

import csv
import functools
import pathlib
import sys
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from absl import flags

import iwae_zoo_console as console

with console.quiet():
    from iwae_zoo import figures, training
    from studies import cells

_FLAGS = console.flag_values()
_WORKDIR = flags.DEFINE_string("workdir", "runs/tighter_bounds", "Folder of the study.", flag_values=_FLAGS)
_DATASET = flags.DEFINE_string("dataset", "digits", "As in train_main.py.", flag_values=_FLAGS)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "As in train_main.py.", flag_values=_FLAGS)
_PRESET = flags.DEFINE_string("preset", None, "As in train_main.py.", flag_values=_FLAGS)
_OBJECTIVES = flags.DEFINE_list(
    "objectives", None, "Which to compare, by the names in the code. Default: all.", flag_values=_FLAGS
)
_SEEDS = flags.DEFINE_integer("seeds", 4, "Number of seeds of each objective.", lower_bound=1, flag_values=_FLAGS)
_EPOCHS = flags.DEFINE_integer(
    "epochs", None, "Passes over the training set. Default: the preset's.", flag_values=_FLAGS
)
_M = flags.DEFINE_integer(
    "m", 8, "Groups of particles; M K particles are drawn for every objective.", lower_bound=1, flag_values=_FLAGS
)
_K = flags.DEFINE_integer("k", 8, "Particles in a group.", lower_bound=1, flag_values=_FLAGS)
_EVERY = flags.DEFINE_integer(
    "diagnostics_every", 10, "Epochs between two looks at the gradients.", lower_bound=1, flag_values=_FLAGS
)
_EVAL_SAMPLES = flags.DEFINE_integer(
    "eval_samples", 5000, "Particles per test example for log p(x).", lower_bound=1, flag_values=_FLAGS
)
_WORKERS = flags.DEFINE_integer(
    "workers", 1, "Cells trained at once, each in a process of its own.", lower_bound=1, flag_values=_FLAGS
)

_COLUMNS = {
    "iwae_bound": "IWAE-{t}",
    "log_prob": "log p(x)",
    "negative_kl": "-KL(Q, P)",
    "importance_ess": "ESS of {t}",
    "encoder_snr": "encoder SNR",
    "decoder_snr": "decoder SNR",
}


def objectives(m, k):
    """Name, label and settings of the compared objectives; each draws m k particles."""
    t = m * k
    return {
        "vae": ("VAE", {"objective": "elbo", "m": t, "k": 1}),
        "iwae": (f"IWAE, L_{t}", {"objective": "iwae", "m": 1, "k": t}),
        "piwae": (f"decoder L_{t}, encoder L_{k} (PIWAE)", {"objective": "piwae", "m": m, "k": k}),
        "piwae_1": (f"decoder L_{t}, encoder L_1 (PIWAE)", {"objective": "piwae", "m": t, "k": 1}),
        "miwae": (f"MIWAE({m}, {k})", {"objective": "miwae", "m": m, "k": k}),
        "ciwae_05": ("CIWAE, beta 0.05", {"objective": "ciwae", "m": 1, "k": t, "beta": 0.05}),
        "ciwae_5": ("CIWAE, beta 0.5", {"objective": "ciwae", "m": 1, "k": t, "beta": 0.5}),
        "dreg": (f"DReG, L_{t}", {"objective": "dreg", "m": 1, "k": t}),
    }


def summary(results):
    """The last epoch's diagnostics and the evaluation of one cell, in one dict."""
    looks = [row for row in results["history"] if "diagnostics_encoder_snr" in row]
    if not looks:
        raise ValueError("A cell was trained without diagnostics in an earlier call. Choose another --workdir.")
    last = {name: looks[-1][f"diagnostics_{name}"] for name in ("encoder_snr", "decoder_snr")}
    return {**results["evaluation"], **last}


def write_tables(rows, workdir, particles):
    """Writes table.md and table.csv: mean and standard error over the seeds."""
    titles = [title.format(t=particles) for title in _COLUMNS.values()]
    lines = ["| objective | " + " | ".join(titles) + " |", "|---" * (len(titles) + 1) + "|"]
    for label, row in rows.items():
        lines.append(f"| {label} | " + " | ".join(f"{mean:.2f} ({error:.2f})" for mean, error in row.values()) + " |")
    (workdir / "table.md").write_text("\n".join(lines) + "\n")
    with open(workdir / "table.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["objective", *(f"{name}{suffix}" for name in _COLUMNS for suffix in ("", "_error"))])
        writer.writerows([label, *(value for pair in row.values() for value in pair)] for label, row in rows.items())
    print((workdir / "table.md").read_text())


def main(name):
    """Runs the grid, then writes the table and the figure."""
    known = objectives(_M.value, _K.value)
    unknown = set(_OBJECTIVES.value or ()) - set(known)
    if unknown:
        console.fail(name, f"unknown objectives {sorted(unknown)}. Known: {', '.join(known)}.")
    labels = dict(known[name] for name in _OBJECTIVES.value or known)
    shared: dict[str, Any] = {
        "dataset": _DATASET.value,
        "data_dir": _DATA_DIR.value,
        "preset": _PRESET.value,
        "epochs": _EPOCHS.value,
    }
    shared |= {"eval_samples": _EVAL_SAMPLES.value, "diagnostics_every": _EVERY.value}
    seeds = range(_SEEDS.value)
    # Seed by seed, so that an interrupted study has every objective.
    configs = {
        (label, seed): training.Config(**labels[label], **shared, seed=seed) for seed in seeds for label in labels
    }
    workdir = pathlib.Path(_WORKDIR.value)
    try:
        epochs = next(iter(configs.values())).resolved().epochs
        if epochs < _EVERY.value:
            raise ValueError(f"diagnostics_every must be at most epochs: received {_EVERY.value} and {epochs}.")
        results = cells.run_grid(configs, workdir, _WORKERS.value)
        summaries_of = {key: summary(result) for key, result in results.items()}
    except (ValueError, OSError, RuntimeError) as error:
        console.fail(name, error)
    except KeyboardInterrupt:
        print(f"\n{name}: interrupted. The same command goes on.")
        sys.exit(130)
    rows, curves = {}, {}
    for label in labels:
        of_label = [results[label, seed] for seed in seeds]
        summaries = [summaries_of[label, seed] for seed in seeds]
        rows[label] = {name: cells.mean_and_error([s[name] for s in summaries]) for name in _COLUMNS}
        looks = [row["epoch"] for row in of_label[0]["history"] if "diagnostics_encoder_snr" in row]
        curves[label] = {"epoch": looks}
        for side in ("encoder", "decoder"):
            name = f"diagnostics_{side}_snr"
            values = [[row[name] for row in result["history"] if name in row] for result in of_label]
            curves[label][side] = cells.mean_and_error(values)
    title = f"{pathlib.Path(_DATASET.value).stem}, {_SEEDS.value} seeds, M K = {_M.value * _K.value}"
    figures.write(figures.snr_over_epochs(curves, title), workdir / "snr.png")
    training.write_json(workdir / "results.json", rows)
    write_tables(rows, workdir, _M.value * _K.value)


run = functools.partial(console.run, main, _FLAGS, __doc__)

if __name__ == "__main__":
    run("tighter_bounds_main", sys.argv[1:])
