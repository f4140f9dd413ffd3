"""Tighter bounds are not necessarily better: objectives compared over epochs and seeds, as in the article's plot.

    python studies/tighter_bounds_main.py --workdir=runs/tighter_bounds

Every cell of the grid (objective, seed) is a training run of its own in the work directory; a finished one is not run
again. At the end there are table.md, table.csv, snr.png and results.json.
"""

import functools
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from absl import flags

import iwae_zoo_console as console

with console.quiet():
    from iwae_zoo import figures, likelihood, training
    from studies import cells, comparison

_FLAGS = console.flag_values()
comparison.define_flags(_FLAGS, "runs/tighter_bounds")
_EVERY = flags.DEFINE_integer(
    "diagnostics_every", 10, "Epochs between two looks at the gradients.", lower_bound=1, flag_values=_FLAGS
)
_EVAL_SAMPLES = flags.DEFINE_integer(
    "eval_samples", 5000, "Particles per test example for log p(x).", lower_bound=1, flag_values=_FLAGS
)
_EVAL_METHOD = flags.DEFINE_enum(
    "eval_method",
    "auto",
    list(likelihood.METHODS),
    "As in train_main.py; 'importance' where a test set is too large to be annealed.",
    flag_values=_FLAGS,
)

_COLUMNS = {
    "iwae_bound": "IWAE-{t}",
    "log_prob": "log p(x)",
    "negative_kl": "-KL(Q, P)",
    "importance_ess": "ESS of {t}",
    "encoder_snr": "encoder SNR",
    "decoder_snr": "decoder SNR",
}


def summary(results):
    """The last epoch's diagnostics and the evaluation of one cell, in one dict."""
    looks = [row for row in results["history"] if "diagnostics_encoder_snr" in row]
    if not looks:
        raise ValueError("A cell was trained without diagnostics in an earlier call. Choose another --workdir.")
    last = {name: looks[-1][f"diagnostics_{name}"] for name in ("encoder_snr", "decoder_snr")}
    return {**results["evaluation"], **last}


def main(name):
    """Runs the grid, then writes the table and the figure."""
    workdir = pathlib.Path(_FLAGS.workdir)
    seeds, particles = range(_FLAGS.seeds), _FLAGS.m * _FLAGS.k
    with cells.errors_in_one_line(name):
        objectives = comparison.chosen(_FLAGS)
        evaluated = {"eval_samples": _EVAL_SAMPLES.value, "eval_method": _EVAL_METHOD.value}
        configs = comparison.configs(_FLAGS, **evaluated, diagnostics_every=_EVERY.value)
        epochs = next(iter(configs.values())).resolved().epochs
        if epochs < _EVERY.value:
            raise ValueError(f"diagnostics_every must be at most epochs: received {_EVERY.value} and {epochs}.")
        results = cells.run_grid(configs, workdir, _FLAGS.workers)
        summaries_of = {key: summary(result) for key, result in results.items()}
        rows, curves = {}, {}
        for objective, (label, _) in objectives.items():
            of_objective = [results[objective, seed] for seed in seeds]
            summaries = [summaries_of[objective, seed] for seed in seeds]
            rows[label] = {name: cells.mean_and_error([s[name] for s in summaries]) for name in _COLUMNS}
            looks = [row["epoch"] for row in of_objective[0]["history"] if "diagnostics_encoder_snr" in row]
            curves[label] = {"epoch": looks}
            for side in ("encoder", "decoder"):
                name = f"diagnostics_{side}_snr"
                values = [[row[name] for row in result["history"] if name in row] for result in of_objective]
                curves[label][side] = cells.mean_and_error(values)
        shown = f"mean of {len(seeds)} seeds, band of one standard error" if len(seeds) > 1 else "one seed"
        title = f"{pathlib.Path(_FLAGS.dataset).stem}, M K = {particles}: {shown}"
        figures.write(figures.snr_over_epochs(curves, title), workdir / "snr.png")
        training.write_json(workdir / "results.json", rows)
        comparison.write_tables(rows, {name: title.format(t=particles) for name, title in _COLUMNS.items()}, workdir)


run = functools.partial(console.run, main, _FLAGS, __doc__)

if __name__ == "__main__":
    run("tighter_bounds_main", sys.argv[1:])
