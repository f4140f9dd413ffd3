"""What going back through a few of the particles costs and saves: `--backward_particles` of train_main.py.

    python benchmarks/backward_particles.py

Variance: a small model is trained briefly on the digits. There, on one fixed batch, gradients are computed again and
again with other noise; their variances are added up over the parameters, for each number R of particles that the
backward pass goes through. Time: train steps of 784-200-200-50 take turns. Both are relative to going through all.

The expectation of the gradient does not depend on R, which is checked: the same noise gives the same particles for
every R, so that the means differ only by which of them were chosen. Their distance, over the size that the variance of
that difference lets expect, is about 1.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import numpy as np
from absl import flags

from iwae_zoo_console import quiet

with quiet():
    import keras
    import tensorflow as tf

    from benchmarks import report, workload
    from iwae_zoo import data, figures, objectives, presets

_OBJECTIVE = flags.DEFINE_string("objective", "iwae", "As in train_main.py.")
_M = flags.DEFINE_integer("m", 8, "Groups of particles.", lower_bound=1)
_K = flags.DEFINE_integer("k", 8, "Particles in a group.", lower_bound=1)
_COUNTS = flags.DEFINE_list("backward_particles", ["1", "2", "4", "8", "16", "32"], "Numbers R, below M K.")
flags.register_validator(_COUNTS, bool, "at least one is needed")
_EPOCHS = flags.DEFINE_integer("epochs", 15, "Passes over the training set before the variances.", lower_bound=0)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 100, "Examples in a batch.", lower_bound=1)
_GRADIENTS = flags.DEFINE_integer("gradients", 300, "Gradients for each variance.", lower_bound=2)
_REPEATS = flags.DEFINE_integer("repeats", 30, "Turns of the train steps.", lower_bound=1)
flags.adopt_module_key_flags(report)

_SIDES = ("encoder", "decoder")


def trained(objective):
    """A model early in its training, and a batch."""
    digits, preset = data.load("digits"), presets.get("small")
    model = presets.build("small", data_shape=digits.data_shape, objective=objective, data_mean=digits.train_mean)
    model.compile(*(keras.optimizers.Adam(preset.learning_rate) for _ in _SIDES))
    batches = digits.training_batches(preset.batch_size, seed=0)
    model.fit(
        batches,
        epochs=_EPOCHS.value,
        steps_per_epoch=digits.steps_per_epoch(preset.batch_size),
        shuffle=False,
        verbose=0,
    )
    return model, tf.constant(digits.evaluation_array("train")[: _BATCH_SIZE.value])


def gradients(model, x, count):
    """Repeated gradients of each network, float array [gradients, parameters]; those of every `count` share noise."""
    model.compile(backward_particles=count)
    compute = tf.function(model.compute_gradients, autograph=False)
    drawn: dict[str, list] = {side: [] for side in _SIDES}
    for repeat in range(_GRADIENTS.value):
        computed = compute(x, tf.constant([repeat, 0]))
        for side in _SIDES:
            drawn[side].append(np.concatenate([g.numpy().ravel() for g in getattr(computed, side)]))
    return {side: np.array(values, np.float64) for side, values in drawn.items()}


def variance(values):
    """Variance over the first axis, added up over the second."""
    return float(np.var(values, axis=0, ddof=1).sum())


def compare(few, every):
    """Relative variance of one network's gradients, and the distance of the means beside the size to be expected."""
    size = np.linalg.norm(every.mean(axis=0))
    difference = few - every
    return {
        "variance": variance(few) / variance(every),
        "distance": float(np.linalg.norm(difference.mean(axis=0)) / size),
        "expected_distance": float(np.sqrt(variance(difference) / len(difference)) / size),
    }


def main(_):
    """Prints relative time and variances."""
    objective = objectives.get(_OBJECTIVE.value, m=_M.value, k=_K.value)
    particles = objective.m * objective.k
    counts = sorted(set(report.whole_numbers(_COUNTS)))
    if counts[-1] >= particles:
        raise ValueError(f"--backward_particles must be from 1 to M K - 1 = {particles - 1}: received {counts}.")
    model, x = trained(objective)
    every = gradients(model, x, None)
    rows = {}
    for count in counts:
        few = gradients(model, x, count)
        rows[count] = {side: compare(few[side], every[side]) for side in _SIDES}
    images = workload.images(_BATCH_SIZE.value)
    steps = {
        count: workload.train_step(workload.build(objective, backward_particles=count), images)
        for count in (*counts, None)
    }
    turns = report.take_turns(steps, _REPEATS.value)
    title = f"{objective.name}, M = {objective.m}, K = {objective.k}, batch {_BATCH_SIZE.value}"
    print(
        f"{title}; variances of {_GRADIENTS.value} gradients; time: {turns}, {turns.milliseconds(None):.1f} ms for all"
    )
    print(f"{'':3}{'relative':>10}{'relative variance':>22}{'  distance of the means (over the expected)':>32}")
    print(f"{'R':>3}{'time':>10}{'encoder':>11}{'decoder':>11}{'encoder':>22}{'decoder':>22}")
    for count, row in rows.items():
        row["time"] = turns.ratio(count, None)
        text = f"{count:3}{row['time']:10.2f}" + "".join(f"{row[side]['variance']:11.2f}" for side in _SIDES)
        for side in _SIDES:
            distance, expected = row[side]["distance"], row[side]["expected_distance"]
            text += f"{distance:13.4f} ({distance / expected:6.2f})"
        print(text)
    panels = [
        {
            "title": "Train step of 784-200-200-50",
            "xlabel": "particles in the backward pass, R",
            "ylabel": f"time, % of that with all {particles}",
            "curves": {"train step": [*((count, 100 * row["time"]) for count, row in rows.items()), (particles, 100)]},
        },
        {
            "title": f"Gradients on the digits after {_EPOCHS.value} epochs",
            "xlabel": "particles in the backward pass, R",
            "ylabel": f"variance, % of that with all {particles}",
            "curves": {
                side: [*((count, 100 * row[side]["variance"]) for count, row in rows.items()), (particles, 100)]
                for side in _SIDES
            },
        },
    ]
    report.write(
        {"load": turns.load, "milliseconds_of_all": turns.milliseconds(None), "rows": rows}, figures.scaling(panels)
    )


if __name__ == "__main__":
    report.run(main)
