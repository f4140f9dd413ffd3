r"""Ways to train a model whose latents are bits: learning signals, wake and sleep, and a relaxation.

    python studies/discrete_latents_main.py --seeds=4 --minutes=2
    python studies/discrete_latents_main.py --dataset=mnist --minutes=30 --examples=1000 --workdir=runs/discrete_mnist

Each cell (method, seed) trains a sigmoid belief network for the same time of one core. Then log p(x) of the same test
examples is estimated by importance samples. What is finished is not run again. At the end there are table.md and
table.csv, with standard errors over the seeds or, of a single seed, over the examples; results.json; and snr.png, the
signal-to-noise ratio of both networks' gradients over training.
"""

import functools
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from absl import flags

import iwae_zoo_console as console

with console.quiet():
    from iwae_zoo import figures, likelihood, training
    from iwae_zoo._checks import look_up
    from studies import cells, comparison, discrete_latents

_FLAGS = console.flag_values()
_WORKDIR = flags.DEFINE_string("workdir", "runs/discrete_latents", "Folder of the study.", flag_values=_FLAGS)
_DATASET = flags.DEFINE_string("dataset", "digits", "As in train_main.py.", flag_values=_FLAGS)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "As in train_main.py.", flag_values=_FLAGS)
_PRESET = flags.DEFINE_string(
    "preset", None, "One of bits. Default: sbn_8 for the digits, otherwise sbn.", flag_values=_FLAGS
)
_METHODS = flags.DEFINE_list(
    "methods", list(discrete_latents.METHODS), "Which to compare, by the names in the code.", flag_values=_FLAGS
)
flags.register_validator(_METHODS, bool, "at least one is needed", flag_values=_FLAGS)
_SEEDS = flags.DEFINE_integer("seeds", 1, "Number of seeds of each method.", lower_bound=1, flag_values=_FLAGS)
_MINUTES = flags.DEFINE_float(
    "minutes",
    2.0,
    "Time of one core that each cell trains for.",
    lower_bound=0.001,
    upper_bound=1e6,
    flag_values=_FLAGS,
)
_M = flags.DEFINE_integer("m", 1, "Groups of particles.", lower_bound=1, flag_values=_FLAGS)
_K = flags.DEFINE_integer("k", 8, "Particles in a group.", lower_bound=2, flag_values=_FLAGS)
_LOOKS = flags.DEFINE_integer("looks", 10, "Points of a curve of the figure.", lower_bound=1, flag_values=_FLAGS)
_EXAMPLES = flags.DEFINE_integer(
    "examples", None, "Test examples, the first ones. Default: all.", lower_bound=1, flag_values=_FLAGS
)
_NUM_SAMPLES = flags.DEFINE_integer(
    "num_samples", 5000, "Importance samples for each example.", lower_bound=1, flag_values=_FLAGS
)
_WORKERS = flags.DEFINE_integer(
    "workers", 1, "Cells trained at once, each in a process of its own.", lower_bound=1, flag_values=_FLAGS
)


def _configs(workdir):
    """The cells that the flags name.

    Raises:
      ValueError: on an unknown method, or settings that do not fit together.
    """
    for method in _METHODS.value:
        look_up(discrete_latents.METHODS, method, "method")
    shared = {
        "dataset": _DATASET.value,
        "data_dir": _DATA_DIR.value,
        "preset": _PRESET.value or ("sbn_8" if _DATASET.value == "digits" else "sbn"),
        "m": _M.value,
        "k": _K.value,
        "schedule": "cosine",
        "eval_samples": _M.value * _K.value,  # A cell's own evaluation is not used, and as cheap as it can be.
        "eval_method": likelihood.IMPORTANCE,
    }
    return discrete_latents.configs(_METHODS.value, _SEEDS.value, _MINUTES.value, workdir, looks=_LOOKS.value, **shared)


def main(name):
    """Runs the cells, asks every model, then writes the tables and the figure."""
    workdir = pathlib.Path(_WORKDIR.value)
    with cells.errors_in_one_line(name):
        configs = _configs(workdir)
        results = cells.run_grid(configs, workdir, _WORKERS.value)
        x = cells.test_set(next(iter(configs.values())), workdir)[: _EXAMPLES.value]
        countdown, of_cells = cells.Countdown("model", len(configs)), {}
        for key, config in configs.items():
            of_cells[key] = discrete_latents.measure(config, x, workdir, _NUM_SAMPLES.value)
            countdown.step(config.title)
        rows = discrete_latents.rows(of_cells, configs)
        training.write_json(workdir / "results.json", rows)
        counts = {"particles": _M.value * _K.value, "num_samples": _NUM_SAMPLES.value}
        titles = {column: title.format(**counts) for column, title in discrete_latents.TITLES.items()}
        comparison.write_tables(rows, titles, workdir)
        panels = [
            {
                "title": side,
                "xlabel": "minutes of one core",
                "ylabel": "median SNR of the gradient",
                "reference": None,
                "curves": discrete_latents.snr_curves(results, _MINUTES.value, side),
            }
            for side in ("encoder", "decoder")
        ]
        title = f"A sigmoid belief network on {_DATASET.value}"
        if _SEEDS.value > 1:
            title += f"; bars of one standard error over {_SEEDS.value} seeds"
        figures.write(figures.curves([panels], title), workdir / "snr.png")


run = functools.partial(console.run, main, _FLAGS, __doc__)

if __name__ == "__main__":
    run("discrete_latents_main", sys.argv[1:])
