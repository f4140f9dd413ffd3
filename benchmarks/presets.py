"""How long it takes from the import to the first log p(x) of a preset with trained weights.

    python benchmarks/presets.py
    python benchmarks/presets.py --presets=digits_miwae,mnist_piwae --repeats=5

Each measurement is a process of its own, which has traced nothing: `from_preset`, then log p(x) of a few rows by
importance samples, which is the default, and by annealing, which "auto" asks for where those cannot be trusted; a
model of discrete latents cannot be annealed.
"""

import pathlib
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from absl import flags

from iwae_zoo_console import quiet

START = time.perf_counter()
with quiet():
    import numpy as np

    import iwae_zoo
    from benchmarks import report
    from iwae_zoo import annealing, figures, presets
IMPORTED = time.perf_counter() - START

_PRESETS = flags.DEFINE_list("presets", None, "Which. Default: all that have weights.")
_REPEATS = flags.DEFINE_integer("repeats", 3, "Processes for each; medians are printed.", lower_bound=1)
_EXAMPLES = flags.DEFINE_integer("examples", 10, "Rows that are asked about.", lower_bound=1)
_LIMIT = flags.DEFINE_float("limit", 5.0, "Seconds to the first answer; more is an error.")
_CHILD = flags.DEFINE_string("child", None, "For the program's own use: measure this preset.")
flags.adopt_module_key_flags(report)

# What is timed, each from the end of the import.
_UNTIL = ("from_preset", "first answer", "annealed answer")


def measure(name):
    """Prints the seconds of the import and of `_UNTIL`, the last only of what can be annealed."""
    start = time.perf_counter()
    model = iwae_zoo.ImportanceWeightedAutoencoder.from_preset(name)
    loaded = time.perf_counter() - start
    x = iwae_zoo.sampling.sample(model, _EXAMPLES.value).x
    # The rows are no part of it.
    start = time.perf_counter() - loaded
    iwae_zoo.likelihood.estimate_log_prob(model, x)
    answered = time.perf_counter() - start
    print(IMPORTED, loaded, answered)
    if annealing.is_possible(model):
        start = time.perf_counter() - answered
        iwae_zoo.likelihood.estimate_log_prob(model, x, method="annealed")
        print(time.perf_counter() - start)


def main(_):
    """Prints the medians; the exit status is not 0 if a first answer takes too long."""
    if _CHILD.value:
        measure(_CHILD.value)
        return
    names = _PRESETS.value or [name for name in presets.trained.names() if presets.trained.is_made(name)]
    for name in names:
        presets.card(name)  # Before the first of them is measured.
    seconds = {}
    for name in names:
        command = [sys.executable, __file__, f"--child={name}", f"--examples={_EXAMPLES.value}"]
        printed = [
            subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
            for _ in range(_REPEATS.value)
        ]
        imported, *after = np.median(np.array(printed, float), axis=0).tolist()
        seconds[name] = {"import": imported, **dict(zip(_UNTIL, after, strict=False))}
        said = ", ".join(f"{until} {value:.1f} s" for until, value in zip(_UNTIL, after, strict=False))
        print(f"{name}: after an import of {imported:.1f} s, {said}", flush=True)
    firsts = {name: of["first answer"] for name, of in seconds.items()}
    figure = figures.ratio_bars(
        {name: value / _LIMIT.value for name, value in firsts.items()},
        f"from_preset and log p(x) of {_EXAMPLES.value} rows",
        f"time / {_LIMIT.value:g} seconds",
    )
    report.write({"seconds": seconds}, figure)
    slow = [name for name, value in firsts.items() if value > _LIMIT.value]
    if slow:
        sys.exit(f"More than {_LIMIT.value:g} seconds to the first answer: {', '.join(slow)}.")


if __name__ == "__main__":
    report.run(main)
