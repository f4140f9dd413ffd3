r"""The papers' MNIST tables made again: published figures and ours, side by side; and what gets furthest in equal time.

    python studies/reproduce_main.py --data_dir=DIR --minutes=30
    python studies/reproduce_main.py --tables=rainforth --rows=iwae,piwae --seeds=4 --budget=paper
    python studies/reproduce_main.py --tables=half_hour --data_dir=DIR

Cells are a row (an objective and its networks) and a seed. With --budget=minutes each trains for about --minutes on
this machine, with settings that are good for that: how many epochs these are is measured once for each row, and kept,
so that its seeds train for the same. With --budget=paper each trains 3280 epochs with the papers' schedule. What is
finished is not run again, and an interrupted cell goes on; seeds come one after the other, so that there is a table of
whatever was run. At the end there are table.md and results.json.
"""

import functools
import pathlib
import sys
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from absl import flags

import iwae_zoo_console as console

with console.quiet():
    from iwae_zoo import training
    from iwae_zoo._checks import look_up
    from iwae_zoo._files import load_model, write_text
    from studies import budget, cells, reproduce

_FLAGS = console.flag_values()
_WORKDIR = flags.DEFINE_string("workdir", "runs/reproduce", "Folder of the study.", flag_values=_FLAGS)
_TABLES = flags.DEFINE_list("tables", list(reproduce.PAPERS), f"Of {', '.join(reproduce.TABLES)}.", flag_values=_FLAGS)
flags.register_validator(_TABLES, bool, "at least one is needed", flag_values=_FLAGS)
_ROWS = flags.DEFINE_list(
    "rows",
    None,
    f"Which rows. Default: all of {', '.join(row for rows in reproduce.TABLES.values() for row in rows)}.",
    flag_values=_FLAGS,
)
_SEEDS = flags.DEFINE_integer("seeds", 1, "Number of seeds of each row.", lower_bound=1, flag_values=_FLAGS)
_BUDGET = flags.DEFINE_enum(
    "budget",
    "minutes",
    list(reproduce.BUDGETS),
    "How long a cell trains: --minutes, or as in the papers.",
    flag_values=_FLAGS,
)
_MINUTES = flags.DEFINE_float(
    "minutes", 30.0, "Of a cell that has the whole machine, with --budget=minutes.", 0.001, 1e6, flag_values=_FLAGS
)
_EPOCHS = flags.DEFINE_integer(
    "epochs", None, "Passes over the training set, instead of what the budget has.", lower_bound=1, flag_values=_FLAGS
)
_DATASET = flags.DEFINE_string("dataset", "mnist", "As in train_main.py.", flag_values=_FLAGS)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "As in train_main.py.", flag_values=_FLAGS)
_EVAL_SAMPLES = flags.DEFINE_integer(
    "eval_samples", 5000, "Importance samples for each test example.", lower_bound=2, flag_values=_FLAGS
)
_ANNEALED = flags.DEFINE_integer(
    "annealed_examples", 500, "Test examples that are annealed too.", lower_bound=1, flag_values=_FLAGS
)
_WORKERS = flags.DEFINE_integer(
    "workers", 1, "Cells trained at once, each in a process of its own.", lower_bound=1, flag_values=_FLAGS
)


def chosen():
    """The rows to run: dict from a table's name to a dict from a row's name to its `reproduce.Row`.

    Raises:
      ValueError: on an unknown table or row.
    """
    tables = {name: look_up(reproduce.TABLES, name, "table") for name in _TABLES.value}
    for name in _ROWS.value or ():
        look_up([row for rows in tables.values() for row in rows], name, "row")
    return {
        table: {name: row for name, row in rows.items() if name in (_ROWS.value or rows)}
        for table, rows in tables.items()
    }


def config(row, seed):
    """A cell's `training.Config`, with the epochs that its row trains."""
    settings: dict[str, Any] = {"dataset": _DATASET.value, "data_dir": _DATA_DIR.value}
    settings |= {"eval_samples": _EVAL_SAMPLES.value, **reproduce.BUDGETS[_BUDGET.value]}
    if _EPOCHS.value:
        settings["epochs"] = _EPOCHS.value
    if "epochs" in settings:
        return reproduce.config(row, seed, **settings)
    path = pathlib.Path(_WORKDIR.value) / "epochs.json"
    epochs = budget.epochs_within(reproduce.config(row, seed, **settings), _MINUTES.value, path)
    return reproduce.config(row, seed, **settings, epochs=epochs)


def looked_at(cell):
    """What `reproduce.looked_at` says of a finished cell; read if it is there."""
    workdir = cells.folder(cell, _WORKDIR.value)
    settings = {"annealed_examples": _ANNEALED.value, "num_samples": _EVAL_SAMPLES.value}

    def compute():
        model = load_model(workdir / "model.keras")
        return reproduce.looked_at(model, training.Run(cell, workdir, resume=True).test_set, **settings)

    return cells.once(workdir / "looked_at.json", settings, compute)


def main(name):
    """Runs the cells and writes the tables."""
    workdir = pathlib.Path(_WORKDIR.value)
    with cells.errors_in_one_line(name):
        tables = chosen()
        rows = {key: row for of_table in tables.values() for key, row in of_table.items()}
        configs = {(key, seed): config(row, seed) for seed in range(_SEEDS.value) for key, row in rows.items()}
        results = cells.run_grid(configs, workdir, _WORKERS.value)
        looks = {key: [looked_at(configs[key, seed]) for seed in range(_SEEDS.value)] for key in rows}
        ours, budgets = {}, {}
        for key in rows:
            ours[key] = reproduce.measured([results[key, seed] for seed in range(_SEEDS.value)], looks[key])
            seeds = f", {_SEEDS.value} seeds" if _SEEDS.value > 1 else ""
            budgets[key] = f"{configs[key, 0].epochs} epochs{seeds}"
        text = ""
        for table in tables:
            text += f"{table}:\n\n{reproduce.table(table, ours, looks, budgets, _EVAL_SAMPLES.value)}\n"
        print(text)
        write_text(workdir / "table.md", text)
        training.write_json(workdir / "results.json", {"ours": ours, "looks": looks, "trained_for": budgets})


run = functools.partial(console.run, main, _FLAGS, __doc__)

if __name__ == "__main__":
    run("reproduce_main", sys.argv[1:])
