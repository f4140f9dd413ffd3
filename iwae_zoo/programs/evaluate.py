"""Evaluates a trained model: log p(x) with its errors, and, to check it, annealed importance sampling.

python evaluate_main.py --preset=digits_miwae
python evaluate_main.py --model=runs/digits-miwae-m8-k8-seed0/model.keras --num_samples=5000 --ais=20
"""

import dataclasses
import functools
from typing import Any

from absl import flags

import iwae_zoo_console as console
from iwae_zoo import data, training
from iwae_zoo.distributions import likelihoods
from iwae_zoo.estimation import annealing, evaluation, likelihood, paths
from iwae_zoo.programs import chunks, trained
from iwae_zoo.training import strategies

_FLAGS = console.flag_values()
_MODEL, _PRESET = trained.define(_FLAGS)
_DATASET = flags.DEFINE_string(
    "dataset", None, "As in train_main.py. Default: the preset's, and of other models digits.", flag_values=_FLAGS
)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "As in train_main.py.", flag_values=_FLAGS)
_KIND = flags.DEFINE_string("kind", None, "As in train_main.py. Default: as the model was trained.", flag_values=_FLAGS)
_BINARIZE = flags.DEFINE_string("binarize", None, "The same.", flag_values=_FLAGS)
_MISSING = flags.DEFINE_float("missing", None, "The same.", flag_values=_FLAGS)
_SPLIT = flags.DEFINE_enum(
    "split", "test", ["train", "validation", "test"], "Which part of the data set.", flag_values=_FLAGS
)
_EXAMPLES = flags.DEFINE_integer(
    "examples", None, "Only the first so many examples. Default: all.", lower_bound=1, flag_values=_FLAGS
)
_NUM_SAMPLES = flags.DEFINE_integer("num_samples", 5000, "Most importance samples per example.", flag_values=_FLAGS)
_METHOD = flags.DEFINE_enum(
    "method",
    "auto",
    list(likelihood.METHODS),
    "How log p(x) is estimated. auto: importance samples, and annealing of the examples where these cannot be trusted.",
    flag_values=_FLAGS,
)
_TOLERANCE = flags.DEFINE_float(
    "tolerance",
    None,
    "Nats: an example's importance samples stop once their standard error is at most this. Default: none stops early.",
    flag_values=_FLAGS,
)
_PROPOSAL = flags.DEFINE_enum(
    "proposal", "encoder", ["encoder", "prior"], "What particles are drawn from.", flag_values=_FLAGS
)
_PARTICLE_CHUNK = chunks.define(_FLAGS, "at most 2500")
_TILE_ROWS = chunks.define_tile_rows(_FLAGS, None)
_AIS = flags.DEFINE_integer(
    "ais", 0, "Check the first so many examples by annealed importance sampling.", lower_bound=0, flag_values=_FLAGS
)
_SANDWICH = flags.DEFINE_integer(
    "sandwich",
    0,
    "Bound log p(x) from both sides on so many examples that the model draws itself.",
    lower_bound=0,
    flag_values=_FLAGS,
)
_INITIAL = flags.DEFINE_enum(
    "initial", "laplace", list(paths.INITIAL), "What the chains of --ais and --sandwich start from.", flag_values=_FLAGS
)
_TEMPERATURES = flags.DEFINE_integer(
    "num_temperatures", None, "Length of their path. Default: what suits --initial.", flag_values=_FLAGS
)
_CHAINS = flags.DEFINE_integer(
    "num_chains", None, "Chains for each example. Default: what suits --initial.", flag_values=_FLAGS
)
_SEED = flags.DEFINE_integer("seed", 0, "The same seed gives the same numbers.", lower_bound=0, flag_values=_FLAGS)
_STRATEGY = flags.DEFINE_string(
    "strategy", "auto", "As in train_main.py; the numbers are the same.", flag_values=_FLAGS
)
_DEVICES = flags.DEFINE_string("devices", None, "As in train_main.py.", flag_values=_FLAGS)
_OUTPUT = flags.DEFINE_string(
    "output", None, "JSON file for the results. Default: they are only printed.", flag_values=_FLAGS
)


def _dataset(model):
    """The data, loaded as they were for the model's run."""
    there = trained.config(_MODEL, _PRESET)
    name = _DATASET.value or (there["dataset"] if _PRESET.value else "digits")
    given = {"kind": _KIND.value, "binarize": _BINARIZE.value, "missing": _MISSING.value}
    # The names of a category are numbered as they were.
    settings = training.data_settings(there, name, **given, columns=likelihoods.columns(model.decoder) or None)
    dataset = data.load(name, _DATA_DIR.value, **settings)
    if head := likelihoods.of(model.decoder):
        likelihoods.checked(head, dataset.kind_of_x, dataset.kind)
    return dataset


def main(name):
    """Evaluates and prints; the exit status is not 0 if it could not."""
    try:
        trained.check(_MODEL, _PRESET)
        if _OUTPUT.value:
            console.check_writable(_OUTPUT.value)
        strategy = strategies.get(_STRATEGY.value, _DEVICES.value)
        is_chief = strategies.is_chief(strategy)
        with strategies.watching(strategy), strategy.scope():
            model = trained.load(_MODEL, _PRESET)
        walked = {"initial": _INITIAL.value, "num_temperatures": _TEMPERATURES.value, "num_chains": _CHAINS.value}
        if _AIS.value or _SANDWICH.value:  # Not after an evaluation of hours.
            annealing.check_possible(model, **walked)
        if _SANDWICH.value:
            annealing.check_drawn(model)
        head = likelihoods.of(model.decoder)
        dataset = _dataset(model)
        x = dataset.evaluation_array(_SPLIT.value)[: _EXAMPLES.value]
        options: dict[str, Any] = {"method": _METHOD.value, "tolerance": _TOLERANCE.value, "proposal": _PROPOSAL.value}
        asked = (_PARTICLE_CHUNK.value, _TILE_ROWS.value)
        particle_chunk, tile_rows = chunks.chosen(*asked, model, _NUM_SAMPLES.value, _PROPOSAL.value)
        options |= {"chunk_size": particle_chunk, "tile_rows": tile_rows}
        shown: dict[str, Any] = {"seed": _SEED.value, "verbose": int(is_chief and console.is_interactive())}
        with strategies.watching(strategy):
            result = evaluation.evaluate(model, x, _NUM_SAMPLES.value, **shown, **options)
            results = dataclasses.asdict(result) | {"particle_chunk": particle_chunk, "tile_rows": tile_rows}
            context: dict[str, Any] = {}
            if head is not None:
                label, results["baseline"] = evaluation.labelled_baseline(head, dataset.training_values, x)
                measures = head.measures(result.log_prob, x)
                context = {"baselines": {label: results["baseline"]}, "units": head.units, "measures": measures}
                results |= measures
            _show(evaluation.table(result, **context), results, is_chief)
            if _AIS.value:
                sampling = {name: options[name] for name in ("proposal", "chunk_size", "tile_rows")}
                check = evaluation.check(model, x[: _AIS.value], _NUM_SAMPLES.value, **walked, **shown, **sampling)
                results["annealed"] = dataclasses.asdict(check)
                _show(evaluation.check_table(check), results, is_chief)
            if _SANDWICH.value:
                bounds = annealing.sandwich(model, _SANDWICH.value, tile_rows=tile_rows, **walked, **shown)
                results["sandwich"] = evaluation.sandwich_summary(bounds)
                _show(evaluation.sandwich_table(bounds), results, is_chief)
    except BrokenPipeError:  # Nobody reads what is shown any more, and all of it is written.
        raise
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        console.fail(name, error)


def _show(table, results, is_chief):
    """Writes all results so far and prints a table: what follows takes long, and may fail."""
    if is_chief:
        if _OUTPUT.value:
            training.write_json(_OUTPUT.value, results)
        print(table, flush=True)


run = functools.partial(console.run, main, _FLAGS, __doc__)
