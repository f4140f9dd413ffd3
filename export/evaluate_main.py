"""Evaluates log p(x) with an exported model, loaded by its path alone.

python export/evaluate_main.py --saved_model=models/digits --dataset=digits --output=log_prob.csv
"""

import functools
import pathlib
import sys

# A program that is run as a file has its own folder on the path, not the repository's.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from absl import flags

import iwae_zoo_console as console

with console.quiet():
    from iwae_zoo import columns, data, likelihood, saved_model, training
    from iwae_zoo_serving import client

_FLAGS = console.flag_values()
_SAVED_MODEL = flags.DEFINE_string(
    "saved_model", None, "Folder of a version, or of all versions.", required=True, flag_values=_FLAGS
)
_INPUT = flags.DEFINE_string(
    "input", None, "A .npy file with an array of rows, instead of a data set.", flag_values=_FLAGS
)
_DATASET = flags.DEFINE_string("dataset", "digits", "As in train_main.py.", flag_values=_FLAGS)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "As in train_main.py.", flag_values=_FLAGS)
_KIND = flags.DEFINE_string("kind", None, "As in train_main.py. Default: as the model was trained.", flag_values=_FLAGS)
_BINARIZE = flags.DEFINE_string("binarize", None, "The same.", flag_values=_FLAGS)
_SPLIT = flags.DEFINE_enum(
    "split", "test", ["train", "validation", "test"], "Which part of the data set.", flag_values=_FLAGS
)
_EXAMPLES = flags.DEFINE_integer(
    "examples", None, "Only the first so many examples. Default: all.", lower_bound=1, flag_values=_FLAGS
)
_NUM_SAMPLES = flags.DEFINE_integer(
    "num_samples", 1000, "Particles per example; the model has a limit.", 1, 2**31 - 1, flag_values=_FLAGS
)
_METHOD = flags.DEFINE_enum(
    "method",
    "auto",
    list(likelihood.METHODS),
    "How log p(x) is estimated. auto: importance samples, and annealing of the examples where these cannot be trusted.",
    flag_values=_FLAGS,
)
_SEED = flags.DEFINE_integer("seed", 0, "The same seed gives the same numbers.", 0, 2**31 - 1, flag_values=_FLAGS)
_OUTPUT = flags.DEFINE_string(
    "output", None, "A .csv or .npz file for every example's answer. Default: none.", flag_values=_FLAGS
)


def main(name):
    """Evaluates, prints a summary, writes; the exit status is not 0 if it could not."""
    if _OUTPUT.value and not _OUTPUT.value.endswith((".csv", ".npz")):
        console.fail(name, f"--output={_OUTPUT.value} must end in .csv or .npz.")
    try:
        if _OUTPUT.value:
            console.check_writable(_OUTPUT.value)
        exported = saved_model.Exported(_SAVED_MODEL.value)
        card = exported.card
        settings = training.data_settings(
            card.get("config", {}), _DATASET.value, kind=_KIND.value, binarize=_BINARIZE.value
        )
        if card.get("input", {}).get("columns"):  # The names of a category are numbered as they were in training.
            settings["columns"] = [columns.Column(**column) for column in card["input"]["columns"]]
        x = data.load_rows(_INPUT.value, _DATASET.value, _DATA_DIR.value, _SPLIT.value, **settings)[: _EXAMPLES.value]
        examples = likelihood.in_batches(
            lambda batch, row: exported.estimate_log_prob(batch, _NUM_SAMPLES.value, _SEED.value, row, _METHOD.value),
            x,
            verbose=int(console.is_interactive()),
        )
        result = likelihood.summarize(examples)
        if _OUTPUT.value:
            client.write(_OUTPUT.value, examples._asdict())
    except (ValueError, OSError, EOFError, RuntimeError, MemoryError) as error:
        console.fail(name, error)
    print(f"{len(x)} examples, at most {examples.num_samples.max()} samples each, version {exported.path.name}")
    print(f"log p(x)  {result.log_prob:.4f} +- {result.standard_error:.4f} nats per example")
    print(f"          of which {result.sampling_standard_error:.4f} from the samples")
    print(f"ELBO      {result.elbo:.4f}, effective samples {result.ess:.1f}")
    print(f"annealed  {result.num_annealed}, importance sampling alone {result.importance_log_prob:.4f}")
    print(f"untrusted {result.num_untrusted}, outside the support {result.num_outside_support}")


run = functools.partial(console.run, main, _FLAGS, __doc__)

if __name__ == "__main__":
    run("evaluate_main", sys.argv[1:])
