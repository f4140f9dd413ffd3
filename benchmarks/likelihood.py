"""Time, memory and error of log p(x) against the arithmetic it cannot avoid.

    python benchmarks/likelihood.py
    python benchmarks/likelihood.py --model=runs/mnist/model.keras --dataset=mnist

Time: `estimate_log_prob`, by importance samples and by annealing, and the bare matrix products of the decoder
(50-200-200-784) take turns in one process. Memory: processes of their own, one for each number of samples, report
their peak. With a trained model of that size, the time is its own, and errors are measured against a long annealed run.
"""

import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from absl import flags

from iwae_zoo_console import quiet

with quiet():
    import numpy as np

    from benchmarks import report, workload
    from iwae_zoo import annealing, data, figures, likelihood
    from iwae_zoo._files import load_model

_NUM_SAMPLES = flags.DEFINE_integer("num_samples", 5000, "Particles per example, for the time.", lower_bound=1)
_EXAMPLES = flags.DEFINE_integer("examples", 20, "Examples of one call.", lower_bound=1)
_REPEATS = flags.DEFINE_integer("repeats", 15, "Turns; the medians over them are printed.", lower_bound=1)
_CHUNK_SIZE = flags.DEFINE_integer("chunk_size", None, "Particles decoded at once. Default: the library's choice.")
_MEMORY = flags.DEFINE_list("memory", ["1000", "100000"], "Numbers of samples whose peak memory is compared; or none.")
_MODEL = flags.DEFINE_string("model", None, "A trained model.keras of 784-200-200-50. Default: an untrained one.")
_DATASET = flags.DEFINE_string("dataset", "mnist", "With --model: as in train_main.py.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "With --model: as in train_main.py.")
_LONG_EXAMPLES = flags.DEFINE_integer("long_examples", 50, "With --model: examples of the long run.", lower_bound=1)
_LONG_TEMPERATURES = flags.DEFINE_integer("long_temperatures", 1000, "Temperatures of the long run.", lower_bound=2)
_LONG_CHAINS = flags.DEFINE_integer("long_chains", 64, "Chains of the long run.", lower_bound=1)
_CHILD = flags.DEFINE_integer("child", 0, "For the program's own use: report the peak memory at this many samples.")
flags.adopt_module_key_flags(report)


def peak_memory(num_samples):
    """Peak resident memory in MiB of a process that estimates log p(x) of four examples."""
    command = [sys.executable, __file__, f"--child={num_samples}"]
    command += [f"--chunk_size={_CHUNK_SIZE.value}"] if _CHUNK_SIZE.value else []
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return float(output.stdout.split()[-1])


def errors(model, x):
    """Each method's mean error in nats on examples x against a long annealed run, its standard error, and its ESS."""
    settings = {"num_temperatures": _LONG_TEMPERATURES.value, "num_chains": _LONG_CHAINS.value}
    long = annealing.estimate_log_prob(model, x, **settings, seed=1)
    answers = {
        "importance samples": likelihood.estimate_log_prob(model, x, _NUM_SAMPLES.value),
        "annealing": annealing.estimate_log_prob(model, x, verbose=0),
    }
    results = {}
    for name, answer in answers.items():
        error = answer.log_prob - long.log_prob
        results[name] = {
            "mean_error": float(np.mean(error)),
            "standard_error": float(np.std(error, ddof=1) / np.sqrt(len(x))),
            "median_ess": float(np.median(answer.ess)),
        }
        print(
            f"{name:22}{results[name]['mean_error']:8.3f} +- {results[name]['standard_error']:.3f} nats off the long "
            f"run, median ESS {results[name]['median_ess']:.1f}"
        )
    return results


def main(_):
    """Prints the ratios."""
    numbers = report.whole_numbers(_MEMORY)
    model = untrained = workload.build("iwae")
    if _MODEL.value:
        model = load_model(_MODEL.value)
        received, expected = ([w.shape for w in each.decoder.get_weights()] for each in (model, untrained))
        if received != expected:
            raise ValueError(
                f"--model={_MODEL.value} has a decoder of weights {received}, and the bare products are those of "
                f"{expected}, as --preset=rainforth trains them."
            )
    if _CHILD.value:
        likelihood.estimate_log_prob(model, workload.images(4).numpy(), _CHILD.value, chunk_size=_CHUNK_SIZE.value)
        print(report.peak_mebibytes())
        return
    count, examples = _NUM_SAMPLES.value, _EXAMPLES.value
    test = data.load(_DATASET.value, _DATA_DIR.value).evaluation_array("test") if _MODEL.value else None
    x = workload.images(examples).numpy() if test is None else test[:examples]
    variants = {
        "bare matrix products": workload.decoder_products(count, examples),
        "importance samples": lambda: likelihood.estimate_log_prob(model, x, count, chunk_size=_CHUNK_SIZE.value),
        "annealing": lambda: annealing.estimate_log_prob(model, x, verbose=0),
    }
    turns = report.take_turns(variants, _REPEATS.value)
    per_example = {name: turns.milliseconds(name) / examples for name in variants}
    ratios = {name: turns.ratio(name, "bare matrix products") for name in variants}
    of_importance = turns.ratio("annealing", "importance samples")
    print(f"{count} samples, milliseconds per example, {turns}")
    for name in variants:
        print(f"{name:22}{per_example[name]:8.2f}    {ratios[name]:.2f} of the bare products")
    print(f"annealing takes {of_importance:.2f} times as long as {count} importance samples")
    accuracy = errors(model, test[: _LONG_EXAMPLES.value]) if test is not None else {}
    memory = {number: peak_memory(number) for number in numbers}
    for number, mebibytes in memory.items():
        ratio = mebibytes / memory[min(memory)]
        print(f"peak memory at {number:>8} samples {mebibytes:8.0f} MiB    {ratio:.3f}")
        ratios[f"peak memory at {number} samples"] = ratio
    figure = figures.ratio_bars(
        ratios,
        f"log p(x), {count} samples",
        "time / time of the bare matrix products; memory / memory at the fewest samples",
    )
    results = {"load": turns.load, "milliseconds_per_example": per_example, "ratios": ratios, "peak_mebibytes": memory}
    results |= {"annealing_over_importance": of_importance, "errors": accuracy}
    report.write(results, figure)


if __name__ == "__main__":
    report.run(main)
