"""How close a train step is to the arithmetic it cannot avoid.

    python benchmarks/train_step.py

All variants take turns in one process, so that the ratios hold on a machine whose speed drifts. Compared are train
steps of one objective (iwae) and of two (piwae), two objectives the naive way (two losses, two backward passes), and
the bare matrix products that any of them needs: forward, by the weights and by the inputs, of every layer of
784-200-200-50, without the gradient by x.
"""

import itertools
import json
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from absl import app, flags

from iwae_zoo import objectives, particles, presets

_BATCH_SIZE = flags.DEFINE_integer("batch_size", 100, "Examples in a batch.")
_M = flags.DEFINE_integer("m", 8, "Groups of particles.")
_K = flags.DEFINE_integer("k", 8, "Particles in a group.")
_REPEATS = flags.DEFINE_integer("repeats", 40, "Turns; the medians over them are printed.")
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write the medians and ratios to.")


def train_step(name, x):
    """A whole train step: gradients, both optimizers, metrics."""
    objective = objectives.get(name, m=_M.value, k=_K.value)
    model = presets.build("rainforth", data_shape=(28, 28, 1), objective=objective)
    model.compile()
    return tf.function(lambda: model.train_step(x))


def naive_step(x):
    """PIWAE as two losses with a backward pass through the decoder for each."""
    m, k = _M.value, _K.value
    objective = objectives.get("piwae", m=m, k=k)
    model = presets.build("rainforth", data_shape=(28, 28, 1), objective=objective)
    model.compile()

    @tf.function
    def step():
        seed = particles.derive_seed(0, model.encoder_optimizer.iterations)
        with tf.GradientTape(persistent=True) as tape:
            posterior = model.encoder.posterior(x)
            z = particles.draw(posterior, m, k, seed)
            log_weights = particles.log_joint(model.decoder, model.prior, x, z) - posterior.log_prob(z)
            decoder_loss = -tf.reduce_mean(objective.decoder_bound.value(log_weights))
            encoder_loss = -tf.reduce_mean(objective.encoder_bound.value(log_weights))
        encoder = tape.gradient(encoder_loss, [v.value for v in model.encoder_variables])
        decoder = tape.gradient(decoder_loss, [v.value for v in model.decoder_variables])
        model.encoder_optimizer.apply(encoder, model.encoder_variables)
        model.decoder_optimizer.apply(decoder, model.decoder_variables)
        return decoder_loss, encoder_loss

    return step


def bare_products(x):
    """The matrix products alone."""
    rows = {"encoder": len(x), "decoder": _M.value * _K.value * len(x)}
    layers = {"encoder": (784, 200, 200, 100), "decoder": (50, 200, 200, 784)}
    random = tf.random.Generator.from_seed(0)
    values = {side: [random.normal([rows[side], size]) for size in layers[side]] for side in layers}
    weights = {side: [random.normal([a, b]) for a, b in itertools.pairwise(sizes)] for side, sizes in layers.items()}

    @tf.function
    def products():
        results = []
        for side in layers:
            for i, weight in enumerate(weights[side]):
                before, after = values[side][i], values[side][i + 1]
                results.append(tf.matmul(before, weight))
                results.append(tf.matmul(before, after, transpose_a=True))
                if side == "decoder" or i > 0:
                    results.append(tf.matmul(after, weight, transpose_b=True))
        return [result[0, 0] for result in results]

    return products


def main(_):
    """Prints medians and ratios."""
    x = tf.cast(tf.random.stateless_uniform([_BATCH_SIZE.value, 28, 28, 1], seed=[0, 1]) < 0.2, tf.float32)
    steps = {
        "bare matrix products": bare_products(x),
        "iwae (one objective)": train_step("iwae", x),
        "piwae (two objectives)": train_step("piwae", x),
        "piwae, two naive tapes": naive_step(x),
    }
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(_REPEATS.value + 3):
        for name, step in steps.items():
            start = time.perf_counter()
            tf.nest.map_structure(lambda value: value.numpy(), step())
            if turn >= 3:  # The first turns trace and warm up.
                seconds[name].append(time.perf_counter() - start)
    bare, one = seconds["bare matrix products"], seconds["iwae (one objective)"]
    rows = {}
    print(f"batch {_BATCH_SIZE.value}, M = {_M.value}, K = {_K.value}, median of {_REPEATS.value} turns")
    print(f"{'':26}{'ms':>8}{'/ bare':>8}{'/ iwae':>8}")
    for name, times in seconds.items():
        rows[name] = {
            "milliseconds": 1e3 * float(np.median(times)),
            "over_bare": float(np.median(np.divide(times, bare))),
            "over_one_objective": float(np.median(np.divide(times, one))),
        }
        print(f"{name:26}" + "".join(f"{value:8.2f}" for value in rows[name].values()))
    if _OUTPUT.value:
        with open(_OUTPUT.value, "w") as file:
            json.dump(rows, file, indent=2)


if __name__ == "__main__":
    app.run(main)
