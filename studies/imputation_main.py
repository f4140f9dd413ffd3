r"""How well are missing cells filled, and do the intervals hold what they promise?

    python studies/imputation_main.py
    python studies/imputation_main.py --tables=breast_cancer --rates=50 --mechanisms=mcar --seeds=5
    python studies/imputation_main.py --tables=breast_cancer,wine,diabetes,digits --rates=10,30,50,70 \
        --mechanisms=mcar,mar,mnar --seeds=5 --workdir=runs/imputation_all

Cells of tables from scikit-learn are taken away completely at random (mcar), at random given another column that is
always observed (mar), or by their own value (mnar), which no method here accounts for. Models of several objectives and
scikit-learn's imputers then fill them. What is finished is not run again. At the end there are table.md, results.json
and imputation.png.
"""

import functools
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import numpy as np
from absl import flags

import iwae_zoo_console as console

with console.quiet():
    from iwae_zoo import figures, presets, training
    from iwae_zoo._checks import look_up
    from iwae_zoo._files import write_text
    from studies import cells, comparison, holes, imputation

_FLAGS = console.flag_values()
_WORKDIR = flags.DEFINE_string("workdir", "runs/imputation", "Folder of the study.", flag_values=_FLAGS)
_TABLES = flags.DEFINE_list("tables", ["breast_cancer", "wine"], f"Of {', '.join(holes.TABLES)}.", flag_values=_FLAGS)
flags.register_validator(_TABLES, bool, "at least one is needed", flag_values=_FLAGS)
_RATES = flags.DEFINE_list("rates", ["30", "50"], "Percent of the cells that are missing.", flag_values=_FLAGS)
flags.register_validator(_RATES, bool, "at least one is needed", flag_values=_FLAGS)
_MECHANISMS = flags.DEFINE_list(
    "mechanisms", list(holes.MECHANISMS), "How cells are lost: of mcar, mar, mnar.", flag_values=_FLAGS
)
flags.register_validator(_MECHANISMS, bool, "at least one is needed", flag_values=_FLAGS)
_OBJECTIVES = flags.DEFINE_list(
    "objectives", ["vae", "iwae", "miwae", "piwae", "dreg"], "As in studies/comparison.py.", flag_values=_FLAGS
)
_PEERS = flags.DEFINE_list("peers", list(imputation.PEERS), "scikit-learn's imputers; of these.", flag_values=_FLAGS)
_SEEDS = flags.DEFINE_integer("seeds", 1, "Seeds of training of each objective.", lower_bound=1, flag_values=_FLAGS)
_EPOCHS = flags.DEFINE_integer(
    "epochs", None, "Passes over the rows. Default: the preset's.", lower_bound=1, flag_values=_FLAGS
)
_M = flags.DEFINE_integer(
    "m", 4, "Groups of particles; M K are drawn for every objective.", lower_bound=1, flag_values=_FLAGS
)
_K = flags.DEFINE_integer("k", 5, "Particles in a group.", lower_bound=1, flag_values=_FLAGS)
_NUM_SAMPLES = flags.DEFINE_integer(
    "num_samples", 1000, "Particles that fill a row.", lower_bound=100, flag_values=_FLAGS
)


def grid(tables, mechanisms, rates, methods, seeds):
    """The cells of the study: (table, mechanism, rate, method, seed), a peer with the first seed only.

    Seed by seed, so that an interrupted study has every method.

    Raises:
      ValueError: on an unknown name, or a rate that is not a whole number from 1 to 99.
    """
    for known, names, what in ((holes.TABLES, tables, "table"), (holes.MECHANISMS, mechanisms, "mechanism")):
        for name in names:
            look_up(known, name, what)
    for rate in rates:
        if not (rate.isdigit() and 0 < int(rate) < 100):
            raise ValueError(f"A rate must be a whole number from 1 to 99, in percent: received {rate!r}.")
    return [
        (table, mechanism, int(rate), method, seed)
        for seed in range(seeds)
        for table in tables
        for mechanism in mechanisms
        for rate in rates
        for method in methods
        if seed == 0 or method not in imputation.PEERS
    ]


def measured(cell, methods):
    """What was found in a cell, read if it is finished."""
    table, mechanism, rate, method, seed = cell
    path = pathlib.Path(_WORKDIR.value) / "cells" / f"{table}-{mechanism}-{rate}-{method}-seed{seed}.json"
    of = {"epochs": _EPOCHS.value or presets.get("table").epochs, "num_samples": _NUM_SAMPLES.value}
    settings = {} if method in imputation.PEERS else methods[method] | of

    def compute():
        x, missing, held_out = imputation.problem(table, mechanism, rate / 100)
        if method in imputation.PEERS:
            return imputation.of_peer(x, missing, held_out, method, seed)
        objective = training.Config(**methods[method]).build_objective()
        return imputation.of_model(x, missing, held_out, objective, seed, **of)

    return cells.once(path, settings, compute)


def gathered(of_cells):
    """Means and standard errors over the seeds.

    Args:
      of_cells: dict from a cell of `grid` to what was found there.

    Returns:
      dict from (table, mechanism, rate) to dicts from a method to a dict from a measure to (mean, error).
    """
    values: dict[tuple, dict] = {}
    for (*place, method, _), found in of_cells.items():
        of_method = values.setdefault(tuple(place), {}).setdefault(method, {})
        for name, value in found.items():
            of_method.setdefault(name, []).append(value)
    return {
        place: {
            method: {name: cells.mean_and_error(seeds) for name, seeds in measures.items()}
            for method, measures in methods.items()
        }
        for place, methods in values.items()
    }


def tables(results, labels):
    """A table for each place of `gathered`, as text."""
    text = ""
    for (table, mechanism, rate), methods in results.items():
        rows = [
            [labels[method], *(_number(name, measures.get(name)) for name in imputation.COLUMNS)]
            for method, measures in methods.items()
        ]
        text += f"\n{table}, {rate} % missing, {mechanism}:\n\n"
        text += comparison.markdown(["method", *imputation.COLUMNS.values()], rows)
    return text.lstrip()


def draw(results, labels):
    """Squared error and coverage over the rate: panels of the tables side by side, two rows for each mechanism."""
    panels = []
    names = list(dict.fromkeys(table for table, _, _ in results))
    mechanisms = list(dict.fromkeys(mechanism for _, mechanism, _ in results))
    for mechanism in mechanisms:
        for measure, ylabel, level in (
            ("squared_error", f"squared error, {mechanism}", None),
            ("cover_90", f"90 % intervals cover, %, {mechanism}", 90.0),
        ):
            row = []
            for table in names:
                curves: dict[str, list] = {}
                for (of_table, of_mechanism, rate), methods in results.items():
                    for method, measures in methods.items():
                        if (of_table, of_mechanism) == (table, mechanism) and measure in measures:
                            curves.setdefault(labels[method], []).append((rate, *measures[measure]))
                row.append({"title": table, "xlabel": "missing cells, %", "ylabel": ylabel, "reference": level})
                row[-1]["curves"] = {label: sorted(points) for label, points in curves.items()}
            panels.append(row)
    return figures.curves(panels, "Missing cells filled; bars of one standard error over seeds of training")


def _number(name, value):
    if value is None:
        return ""
    mean, error = value
    digits = 3 if name in ("squared_error", "width_50", "width_90") else 2 if name == "log_prob" else 1
    return f"{mean:.{digits}f}" + ("" if np.isnan(error) else f" ({error:.{digits}f})")


def main(name):
    """Runs the cells, then writes the tables and the figure."""
    workdir = pathlib.Path(_WORKDIR.value)
    with cells.errors_in_one_line(name):
        known = comparison.objectives(_M.value, _K.value)
        labels = {objective: look_up(known, objective, "objective")[0] for objective in _OBJECTIVES.value}
        methods = {objective: known[objective][1] for objective in labels}
        for settings in methods.values():
            training.Config(**settings).build_objective()  # An error now, and not later.
        labels = {peer: look_up(imputation.PEERS, peer, "peer")[0] for peer in _PEERS.value} | labels
        if not labels:
            raise ValueError("At least one of --objectives and --peers is needed: received neither.")
        todo = grid(_TABLES.value, _MECHANISMS.value, _RATES.value, labels, _SEEDS.value)
        countdown = cells.Countdown("cell", len(todo))
        of_cells = {}
        for cell in todo:
            of_cells[cell] = measured(cell, methods)
            countdown.step(" ".join(map(str, cell)))
        results = gathered(of_cells)
        text = tables(results, labels)
        print(text)
        write_text(workdir / "table.md", text)
        training.write_json(workdir / "results.json", {" ".join(map(str, place)): v for place, v in results.items()})
        figures.write(draw(results, labels), workdir / "imputation.png")


run = functools.partial(console.run, main, _FLAGS, __doc__)

if __name__ == "__main__":
    run("imputation_main", sys.argv[1:])
