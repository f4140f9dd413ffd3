r"""Trains the presets that come with weights, and writes the weights and their cards into the package.

    python studies/train_presets_main.py
    python studies/train_presets_main.py --preset=mnist_dreg --data_dir=DIR
    python studies/train_presets_main.py --preset=mnist_dreg --data_dir=DIR --evaluate

Without --preset it trains those that have no weights yet, one after the other, in the order of their table. Interrupted
in any way, the same command goes on from the last whole epoch. Each is a run in the work directory; then the test set
is evaluated, and the files appear whole. With --evaluate the weights stay, and only the card is made again.
"""

import functools
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from absl import flags

import iwae_zoo_console as console

with console.quiet():
    from iwae_zoo import presets
    from studies import cells, trained_presets

_FLAGS = console.flag_values()
_PRESET = flags.DEFINE_string(
    "preset",
    None,
    f"Which, again or for the first time: {', '.join(presets.trained.names())}. Default: all without weights.",
    flag_values=_FLAGS,
)
_WORKDIR = flags.DEFINE_string("workdir", "runs/presets", "Folder of the runs.", flag_values=_FLAGS)
_OUTPUT = flags.DEFINE_string(
    "output", None, "Folder of the weights and cards. Default: that of the package.", flag_values=_FLAGS
)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "As in train_main.py.", flag_values=_FLAGS)
_EXAMPLES = flags.DEFINE_integer(
    "examples", None, "Test examples of the cards, the first ones. Default: all.", lower_bound=2, flag_values=_FLAGS
)
_EVALUATE = flags.DEFINE_boolean(
    "evaluate",
    False,
    "Trains nothing: what the card of --preset says of the test set, from the weights in the package.",
    flag_values=_FLAGS,
)


def main(name):
    """Trains, evaluates and writes."""
    with cells.errors_in_one_line(name):
        cards = []
        output = pathlib.Path(_OUTPUT.value or presets.trained.FOLDER)
        if _EVALUATE.value and (_PRESET.value is None or _OUTPUT.value is not None):
            received = f"--preset={_PRESET.value} and --output={_OUTPUT.value}"
            raise ValueError(f"--evaluate takes --preset and writes its card in the package: received {received}.")
        if output.exists() and not output.is_dir():
            raise NotADirectoryError(f"--output is a folder: received {output}, which is none.")
        chosen = trained_presets.chosen(_PRESET.value, output)
        output.mkdir(parents=True, exist_ok=True)
        for preset in chosen:
            console.check_writable(output / f"{preset}.json")  # Before hours of training.
            print(f"{preset}:", flush=True)
            start = time.monotonic()
            if _EVALUATE.value:
                card = trained_presets.evaluate_again(preset, _DATA_DIR.value, _EXAMPLES.value)
            else:
                workdir = pathlib.Path(_WORKDIR.value) / preset
                card = trained_presets.make(preset, workdir, output, _DATA_DIR.value, _EXAMPLES.value)
            scores = card["evaluation"]
            print(
                f"{preset}: log p(x) {scores['log_prob']:.2f} ({scores['log_prob_error']:.2f}), "
                f"{card['epochs']} epochs in {card['hours']:.2f} hours; this time {time.monotonic() - start:.0f} s",
                flush=True,
            )
            cards.append(card)
        print(trained_presets.table(cards))
        print(f"{len(cards)} presets written to {output}.")


run = functools.partial(console.run, main, _FLAGS, __doc__)

if __name__ == "__main__":
    run("train_presets_main", sys.argv[1:])
