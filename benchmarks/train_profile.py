"""Where the time of a train step goes, by kind of operation.

    python benchmarks/train_profile.py

The step runs under TensorFlow's profiler. Each operation belongs to the kind that its type, or else the file of the
library that made it, says. What is printed is thread time: how long the threads of TensorFlow's pool were inside
operations of a kind, without what other operations did within. Operations run several at a time, so that the kinds add
up to the wall time multiplied by the number of threads, less what threads waited. A thread inside a matrix product, or
a long element-wise operation, has the help of a second pool of threads that is not in the trace: what two operations
that run at once take from each other is in the time of both.
"""

import collections
import pathlib
import re
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from absl import flags

from iwae_zoo_console import quiet

with quiet():
    import tensorflow as tf

    from benchmarks import device_profile, report, workload
    from iwae_zoo import figures, objectives

_OBJECTIVE = flags.DEFINE_string("objective", "iwae", "As in train_main.py.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 100, "Examples in a batch.", lower_bound=1)
_M = flags.DEFINE_integer("m", 8, "Groups of particles.", lower_bound=1)
_K = flags.DEFINE_integer("k", 8, "Particles in a group.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 30, "Steps to look at.", lower_bound=1)
flags.adopt_module_key_flags(report)

_BERNOULLI = "Bernoulli log-likelihood and its gradient (XLA)"
_GAUSSIAN = "Gaussian draws and log-densities, and their gradients"
_EXECUTOR = "TensorFlow's executor: scheduling, freeing memory"
_UNKNOWN = "operations that TensorFlow added"
_KIND_OF_FILE = {
    "bernoulli.py": _BERNOULLI,
    "fusion.py": _BERNOULLI,
    "noise.py": "random numbers",
    "gaussian.py": _GAUSSIAN,
    "gradients.py": "element-wise on particles: the signal at z",
    "dense.py": "bias gradients",
}
_OTHER_FILES = "bounds, weights, metrics, checks"


def kind_of_operation(operation):
    """The kind of an operation of the step's graph."""
    files = [pathlib.Path(frame[0]) for frame in operation.traceback]
    if any("optimizers" in path.parts for path in files):
        return "optimizers (Adam)"
    inner = next((path.name for path in reversed(files) if "iwae_zoo" in path.parts), "")
    if operation.type == "TanhGrad":
        return "tanh gradients"
    if operation.name.startswith("perceptron"):
        return "matrix products, forward, with bias and tanh"
    if operation.type == "MatMul" and operation.inputs[0].shape[0] != 1:  # Ones in a row make bias gradients.
        return "matrix products, backward"
    if "IndependentBernoulli/" in operation.name:
        return _BERNOULLI
    if "Normal/" in operation.name and inner != "noise.py":
        return _GAUSSIAN
    return _KIND_OF_FILE.get(inner, _OTHER_FILES)


def thread_time(folder, kinds):
    """Seconds by kind, and number of threads, from the profile in a folder."""
    seconds: collections.Counter = collections.Counter()
    threads = 0
    for plane in device_profile.planes(folder):
        for line in plane.lines:
            if "tf_Compute" not in line.name:
                continue
            threads += 1
            within: list[tuple[int, str]] = []  # The events around this one: end and kind.
            for event in sorted(line.events, key=lambda event: (event.offset_ps, -event.duration_ps)):
                while within and within[-1][0] <= event.offset_ps:
                    within.pop()
                kind = kind_of_event(plane.event_metadata[event.metadata_id].name, kinds)
                if kind is None:  # Part of the operation around it.
                    kind = within[-1][1] if within else _EXECUTOR
                if within:
                    seconds[within[-1][1]] -= 1e-12 * event.duration_ps
                seconds[kind] += 1e-12 * event.duration_ps
                within.append((event.offset_ps + event.duration_ps, kind))
    return seconds, threads


def kind_of_event(name, kinds):
    """The kind of an event of the trace; None for what belongs to the event around it."""
    if name.startswith("Executor"):
        return _EXECUTOR
    if name.startswith("CpuExecutable"):
        return _BERNOULLI  # Nothing else is compiled.
    operation = re.fullmatch(r"([^: ]+):\w+", name)  # Its name and its type.
    return kinds.get(operation[1], _UNKNOWN) if operation else None


def main(_):
    """Prints thread time by kind."""
    objective = objectives.get(_OBJECTIVE.value, m=_M.value, k=_K.value)
    model, x = workload.build(objective), workload.images(_BATCH_SIZE.value)
    step = tf.function(lambda: model.train_step(x), autograph=False)
    plain = report.take_turns({"step": workload.finished(step)}, _STEPS.value)
    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        start = time.perf_counter()
        for _ in range(_STEPS.value):
            workload.finished(step)()
        wall = 1e3 * (time.perf_counter() - start) / _STEPS.value
        tf.profiler.experimental.stop()
        graph = step.get_concrete_function().graph
        seconds, threads = thread_time(folder, {op.name: kind_of_operation(op) for op in graph.get_operations()})
    milliseconds = {kind: 1e3 * value / _STEPS.value for kind, value in seconds.most_common()}
    total = sum(milliseconds.values())
    title = f"{objective.name}, batch {_BATCH_SIZE.value}, M = {objective.m}, K = {objective.k}"
    print(f"{title}: {wall:.1f} ms a step under the profiler; {plain.milliseconds('step'):.1f} ms without, {plain}")
    print(f"{'thread time of a step':56}{'ms':>8}{'share':>8}")
    for kind, value in milliseconds.items():
        print(f"{kind:56}{value:8.2f}{value / total:8.1%}")
    print(f"{'together':56}{total:8.2f}{1:8.1%}")
    print(f"{f'wall time x {threads} threads':56}{wall * threads:8.2f}{wall * threads / total:8.1%}")
    figure = figures.ratio_bars(
        {kind: 100 * value / total for kind, value in milliseconds.items()},
        f"Train step, {title}: {plain.milliseconds('step'):.1f} ms",
        "% of the thread time",
        reference=None,
    )
    results = {"thread_milliseconds": milliseconds, "threads": threads, "wall_milliseconds_under_profiler": wall}
    report.write({**results, "wall_milliseconds": plain.milliseconds("step"), "load": plain.load}, figure)


if __name__ == "__main__":
    report.run(main)
