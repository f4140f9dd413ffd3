"""What studies that compare objectives share: the objectives, the flags of their grid, and the table at the end."""

import csv
import math
from typing import Any

from absl import flags

from iwae_zoo import training
from iwae_zoo._files import whole, write_text

__all__ = ["chosen", "configs", "define_flags", "markdown", "number", "objectives", "write_tables"]


def objectives(m, k):
    """Label and settings of the compared objectives by name; each draws m k particles."""
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


def define_flags(values, workdir, names=None):
    """Defines the flags of a grid of objectives and seeds.

    Args:
      values: `absl.flags.FlagValues` of the program.
      workdir: str, the default of --workdir.
      names: the default of --objectives; None for all.
    """
    flags.DEFINE_string("workdir", workdir, "Folder of the study.", flag_values=values)
    flags.DEFINE_string("dataset", "digits", "As in train_main.py.", flag_values=values)
    flags.DEFINE_string("data_dir", None, "As in train_main.py.", flag_values=values)
    flags.DEFINE_string("preset", None, "As in train_main.py.", flag_values=values)
    which = "Which to compare, by the names in the code." + ("" if names else " Default: all.")
    flags.DEFINE_list("objectives", names, which, flag_values=values)
    flags.DEFINE_integer("seeds", 4, "Number of seeds of each objective.", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("epochs", None, "Passes over the training set. Default: the preset's.", flag_values=values)
    flags.DEFINE_integer("batch_size", None, "As in train_main.py.", flag_values=values)
    particles = "Groups of particles; M K particles are drawn for every objective."
    flags.DEFINE_integer("m", 8, particles, lower_bound=1, flag_values=values)
    flags.DEFINE_integer("k", 8, "Particles in a group.", lower_bound=1, flag_values=values)
    flags.DEFINE_integer(
        "workers", 1, "Cells trained at once, each in a process of its own.", lower_bound=1, flag_values=values
    )


def chosen(values):
    """What `objectives` has of those that the flags name.

    Raises:
      ValueError: on an unknown name.
    """
    known = objectives(values.m, values.k)
    if unknown := set(values.objectives or ()) - set(known):
        raise ValueError(f"unknown objectives {sorted(unknown)}. Known: {', '.join(known)}.")
    return {name: known[name] for name in values.objectives or known}


def configs(values, **settings):
    """The cells of the grid that the flags describe: dict from (objective's name, seed) to `training.Config`."""
    names = ("dataset", "data_dir", "preset", "epochs", "batch_size")
    shared: dict[str, Any] = {name: values[name].value for name in names}
    # Seed by seed, so that an interrupted study has every objective.
    return {
        (name, seed): training.Config(**parts, **shared, **settings, seed=seed)
        for seed in range(values.seeds)
        for name, (_, parts) in chosen(values).items()
    }


def number(mean, error):
    """A mean and its standard error as text, or the mean alone where one value has no error."""
    text = f"{round(mean, 2) + 0.0:.2f}"  # Never -0.00.
    return text if math.isnan(error) else f"{text} ({error:.2f})"


def markdown(titles, rows):
    """A table as text: titles, and rows of as many strings."""
    head, *body = ["| " + " | ".join(row) + " |\n" for row in (titles, *rows)]
    return "".join([head, "|---" * len(titles) + "|\n", *body])


def write_tables(rows, titles, workdir, below=""):
    """Writes table.md and table.csv, and prints the former.

    Args:
      rows: dict from an objective's label to a dict from a column's name to a mean and its standard error.
      titles: dict from a column's name to its title.
      workdir: `pathlib.Path`.
      below: str, what else is in table.md.
    """
    body = [[label, *(number(*row[name]) for name in titles)] for label, row in rows.items()]
    text = markdown(["objective", *titles.values()], body) + below
    write_text(workdir / "table.md", text)
    with whole(workdir / "table.csv") as partial, open(partial, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["objective", *(f"{name}{suffix}" for name in titles for suffix in ("", "_error"))])
        writer.writerows([label, *(v for name in titles for v in row[name])] for label, row in rows.items())
    print(text)
