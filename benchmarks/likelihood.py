"""Time and memory of log p(x) against the arithmetic it cannot avoid.

    python benchmarks/likelihood.py

Time: `estimate_log_prob` and the bare matrix products of the decoder (50-200-200-784) take turns in one process.
Memory: processes of their own, one for each number of samples, report their peak.
"""

import pathlib
import resource
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from absl import app, flags

from iwae_zoo_console import quiet

with quiet():
    import tensorflow as tf

    from benchmarks import report, workload
    from iwae_zoo import figures, likelihood

_NUM_SAMPLES = flags.DEFINE_integer("num_samples", 5000, "Particles per example, for the time.", lower_bound=1)
_EXAMPLES = flags.DEFINE_integer("examples", 20, "Examples of one call.", lower_bound=1)
_REPEATS = flags.DEFINE_integer("repeats", 15, "Turns; the medians over them are printed.", lower_bound=1)
_CHUNK_SIZE = flags.DEFINE_integer("chunk_size", None, "Particles decoded at once. Default: the library's choice.")
_MEMORY = flags.DEFINE_list("memory", ["1000", "100000"], "Numbers of samples whose peak memory is compared; or none.")
_CHILD = flags.DEFINE_integer("child", 0, "For the program's own use: report the peak memory at this many samples.")
flags.adopt_module_key_flags(report)


def bare_products(rows, times):
    """The decoder's matrix products for `rows` particles, over and over."""
    random = tf.random.Generator.from_seed(0)
    pairs = [(random.normal([rows, a]), random.normal([a, b])) for a, b in ((50, 200), (200, 200), (200, 784))]
    products = workload.finished(tf.function(lambda: [tf.matmul(value, weight)[0, 0] for value, weight in pairs]))
    return lambda: [products() for _ in range(times)]


def peak_memory(num_samples):
    """Peak resident memory in MiB of a process that estimates log p(x) of four examples."""
    output = subprocess.run(
        [sys.executable, __file__, f"--child={num_samples}"], check=True, stdout=subprocess.PIPE, text=True
    )
    return float(output.stdout.split()[-1])


def main(_):
    """Prints the ratios."""
    model = workload.build("iwae")
    if _CHILD.value:
        likelihood.estimate_log_prob(model, workload.images(4).numpy(), _CHILD.value)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    count, examples = _NUM_SAMPLES.value, _EXAMPLES.value
    x = workload.images(examples).numpy()
    variants = {
        "bare matrix products": bare_products(count, examples),
        "estimate_log_prob": lambda: likelihood.estimate_log_prob(model, x, count, chunk_size=_CHUNK_SIZE.value),
    }
    turns = report.take_turns(variants, _REPEATS.value)
    per_example = {name: turns.milliseconds(name) / examples for name in variants}
    ratios = {name: turns.ratio(name, "bare matrix products") for name in variants}
    print(f"{count} samples, milliseconds per example, {turns}")
    for name in variants:
        print(f"{name:22}{per_example[name]:8.2f}    {ratios[name]:.2f} of the bare products")
    memory = {int(number): peak_memory(int(number)) for number in _MEMORY.value}
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
    report.write(results, figure)


if __name__ == "__main__":
    app.run(main)
