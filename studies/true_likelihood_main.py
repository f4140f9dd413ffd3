r"""Which objective has the better log p(x), and which only the better estimate: 5,000 samples against annealing.

    python studies/true_likelihood_main.py --epochs=80 --seeds=4
    python studies/true_likelihood_main.py --dataset=mnist --preset=rainforth --epochs=20 --batch_size=100 --seeds=1 \
        --examples=1000 --workdir=runs/true_likelihood_mnist

Every cell of the grid (objective, seed) is a training run of its own in the work directory. Then each model is asked
for log p(x) of the same test examples by importance samples from its encoder, as papers do, and by annealing, which
owes the encoder nothing. What is finished is not run again. At the end there are table.md and table.csv, with standard
errors over the seeds or, of a single seed, over the examples; results.json; and cost.png, the estimates of one model
against their cost.
"""

import functools
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import numpy as np
from absl import flags

import iwae_zoo_console as console

with console.quiet():
    import keras

    from iwae_zoo import figures, likelihood, training, walks
    from iwae_zoo._files import load_model
    from studies import cells, comparison, estimate_cost, true_likelihood

_FLAGS = console.flag_values()
_NAMES = ["vae", "iwae", "miwae", "piwae", "piwae_1", "ciwae_5", "dreg"]
comparison.define_flags(_FLAGS, "runs/true_likelihood", _NAMES)
_EXAMPLES = flags.DEFINE_integer(
    "examples", None, "Test examples, the first ones. Default: all.", lower_bound=1, flag_values=_FLAGS
)
_NUM_SAMPLES = flags.DEFINE_integer(
    "num_samples", 5000, "Importance samples for each example.", lower_bound=1, flag_values=_FLAGS
)
_COST_MODEL = flags.DEFINE_string(
    "cost_model", "piwae", "Objective whose first model the figure is of; empty for no figure.", flag_values=_FLAGS
)
_COST_EXAMPLES = flags.DEFINE_integer(
    "cost_examples", 50, "Test examples of the figure, the first ones.", lower_bound=1, flag_values=_FLAGS
)


def measured(configs, x, workdir):
    """What was found about each cell's model, by the cell's key."""
    models: list[keras.Model] = []

    def load(config):
        model = load_model(cells.folder(config, workdir) / "model.keras")
        if models:  # All have the same networks: what was traced for the first serves the others.
            models[0].set_weights(model.get_weights())
        else:
            models.append(model)
        return models[0]

    countdown = cells.Countdown("model", len(configs))
    found = {}
    for key, config in configs.items():
        path = cells.folder(config, workdir) / "true_likelihood.json"
        load_once = functools.cache(functools.partial(load, config))
        found[key] = true_likelihood.measure(load_once, x, path, _FLAGS.m * _FLAGS.k, _NUM_SAMPLES.value)
        countdown.step(config.title)
    return found


def orders_tables(orders, labels):
    """What `true_likelihood.orders` returns, as sections of table.md."""
    ways = {"published": "published", "sampled": f"{_NUM_SAMPLES.value} samples", "annealed": "annealed"}
    titles = {
        "published": "Neighbours in the published order (Rainforth et al. 2018, Table 1)",
        "disputed": "Pairs that the two estimates judge differently",
    }
    text = ""
    for order, pairs in orders.items():
        rows = []
        for pair in pairs:
            judged = {way: f"{comparison.number(*pair[way][:2])}, {pair[way][2]}" for way in ways if way in pair}
            rows.append([f"{labels[pair['better']]} > {labels[pair['worse']]}", *(judged.get(way, "") for way in ways)])
        of = "" if _FLAGS.seeds > 1 else " of these models, one run each"
        text += f"\n{titles[order]}, differences of log p(x) in nats{of}:\n\n"
        text += comparison.markdown(["order", *ways.values()], rows or [["none", "", "", ""]])
    return text


def draw_cost(config, x, workdir):
    """Writes cost.png."""
    model = load_model(cells.folder(config, workdir) / "model.keras")
    curves = estimate_cost.curves(model, x, workdir / "cost.json", config.title)
    title = f"{config.title}, {len(x)} test examples"
    figures.write(figures.estimates_over_cost(curves, title), workdir / "cost.png")


def main(name):
    """Runs the grid, asks every model, then writes the tables and the figure."""
    workdir = pathlib.Path(_FLAGS.workdir)
    particles = _FLAGS.m * _FLAGS.k
    with cells.errors_in_one_line(name):
        labels = {objective: label for objective, (label, _) in comparison.chosen(_FLAGS).items()}
        if _COST_MODEL.value and _COST_MODEL.value not in labels:
            raise ValueError(
                f"--cost_model={_COST_MODEL.value} is none of the objectives {', '.join(labels)}. Choose one of them, "
                "or --cost_model= for no figure."
            )
        # A cell's own evaluation is not used, and as cheap as it can be.
        configs = comparison.configs(_FLAGS, eval_samples=particles, eval_method=likelihood.IMPORTANCE)
        cells.run_grid(configs, workdir, _FLAGS.workers)
        x = cells.test_set(next(iter(configs.values())), workdir)
        of_cells = measured(configs, x[: _EXAMPLES.value], workdir)
        found = {}
        for objective in labels:
            of_seeds = [of_cells[objective, seed] for seed in range(_FLAGS.seeds)]
            found[objective] = {field: np.stack([seed[field] for seed in of_seeds]) for field in of_seeds[0]}
        rows = {objective: true_likelihood.summary(values) for objective, values in found.items()}
        orders = true_likelihood.orders(found)
        training.write_json(workdir / "results.json", {"objectives": rows, "orders": orders})
        counts = {
            "particles": particles,
            "num_samples": _NUM_SAMPLES.value,
            "num_chains": walks.Budget.of().num_chains,
        }
        titles = {column: title.format(**counts) for column, (title, _) in true_likelihood.COLUMNS.items()}
        labelled = {labels[objective]: row for objective, row in rows.items()}
        comparison.write_tables(labelled, titles, workdir, below=orders_tables(orders, labels))
        if _COST_MODEL.value:
            draw_cost(configs[_COST_MODEL.value, 0], x[: _COST_EXAMPLES.value], workdir)


run = functools.partial(console.run, main, _FLAGS, __doc__)

if __name__ == "__main__":
    run("true_likelihood_main", sys.argv[1:])
