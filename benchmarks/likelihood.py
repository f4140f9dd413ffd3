"""Time and memory of log p(x) against the arithmetic it cannot avoid.

    python benchmarks/likelihood.py

Time: `estimate_log_prob` and the bare matrix products of the decoder (50-200-200-784) take turns in one process.
Memory: processes of their own, one for each number of samples, report their peak.
"""

import json
import os
import resource
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from absl import app, flags

from iwae_zoo import likelihood, presets

_NUM_SAMPLES = flags.DEFINE_integer("num_samples", 5000, "Particles per example, for the time.")
_EXAMPLES = flags.DEFINE_integer("examples", 20, "Examples of one call.")
_REPEATS = flags.DEFINE_integer("repeats", 15, "Turns; the medians over them are printed.")
_CHUNK_SIZE = flags.DEFINE_integer("chunk_size", None, "Particles decoded at once. Default: the library's choice.")
_MEMORY = flags.DEFINE_list("memory", ["1000", "100000"], "Numbers of samples whose peak memory is compared.")
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write the results to.")
_CHILD = flags.DEFINE_integer("child", 0, "For the program's own use: report the peak memory at this many samples.")


def model_and_data(examples):
    """The network of the benchmark and binary x."""
    x = tf.cast(tf.random.stateless_uniform([examples, 28, 28, 1], seed=[0, 1]) < 0.2, tf.float32).numpy()
    return presets.build("rainforth", data_shape=(28, 28, 1)), x


def bare_products(rows):
    """The decoder's matrix products for `rows` particles."""
    random = tf.random.Generator.from_seed(0)
    pairs = [(random.normal([rows, a]), random.normal([a, b])) for a, b in ((50, 200), (200, 200), (200, 784))]
    return tf.function(lambda: [tf.matmul(value, weight)[0, 0] for value, weight in pairs])


def peak_memory(num_samples):
    """Peak resident memory in MiB of a process that estimates log p(x) of four examples."""
    output = subprocess.run(
        [sys.executable, __file__, f"--child={num_samples}"], check=True, capture_output=True, text=True
    )
    return float(output.stdout.split()[-1])


def main(_):
    """Prints the ratios."""
    if _CHILD.value:
        model, x = model_and_data(4)
        likelihood.estimate_log_prob(model, x, _CHILD.value)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    model, x = model_and_data(_EXAMPLES.value)
    products = bare_products(_NUM_SAMPLES.value)
    seconds: dict[str, list[float]] = {"bare": [], "estimate": []}
    for turn in range(_REPEATS.value + 2):
        start = time.perf_counter()
        for _ in range(_EXAMPLES.value):
            tf.nest.map_structure(lambda value: value.numpy(), products())
        middle = time.perf_counter()
        likelihood.estimate_log_prob(model, x, _NUM_SAMPLES.value, chunk_size=_CHUNK_SIZE.value)
        end = time.perf_counter()
        if turn >= 2:  # The first turns trace and warm up.
            seconds["bare"].append(middle - start)
            seconds["estimate"].append(end - middle)
    per_example = {name: 1e3 * float(np.median(times)) / _EXAMPLES.value for name, times in seconds.items()}
    ratio = float(np.median(np.divide(seconds["estimate"], seconds["bare"])))
    print(f"{_NUM_SAMPLES.value} samples, milliseconds per example, median of {_REPEATS.value} turns")
    print(f"bare matrix products {per_example['bare']:8.2f}")
    print(f"estimate_log_prob    {per_example['estimate']:8.2f}    {ratio:.2f} of the bare products")
    memory = {int(count): peak_memory(int(count)) for count in _MEMORY.value}
    least = memory[min(memory)]
    for count, mebibytes in memory.items():
        print(f"peak memory at {count:>8} samples {mebibytes:8.0f} MiB    {mebibytes / least:.3f}")
    if _OUTPUT.value:
        with open(_OUTPUT.value, "w") as file:
            json.dump({"milliseconds": per_example, "ratio": ratio, "peak_mebibytes": memory}, file, indent=2)


if __name__ == "__main__":
    app.run(main)
