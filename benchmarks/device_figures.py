"""How fast a card is at what the library asks of it, against the bare products on the same card: for `devices.py`."""

import functools
import pathlib
import statistics
import tempfile
import time
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from benchmarks import device_profile, report, workload
from benchmarks.server import served
from iwae_zoo import data, likelihood, objectives, saved_model
from iwae_zoo._precision import tensor_float_32
from iwae_zoo.estimation import tiles

__all__ = ["FULL", "TINY", "Figure", "Load", "queries", "speed"]


class Figure(NamedTuple):
    """Something measured.

    Attributes:
      name: str.
      value: float.
      unit: str.
      aim: float, None for none.
      at_least: bool, whether the aim is a least value; else it is a largest one.
    """

    name: str
    value: float
    unit: str
    aim: float | None = None
    at_least: bool = False

    @property
    def reached(self):
        """Whether the aim is; None without one."""
        return None if self.aim is None else (self.value >= self.aim if self.at_least else self.value <= self.aim)

    @property
    def bound(self):
        """The aim in words; of one without, nothing."""
        return "" if self.aim is None else f"aim: at {'least' if self.at_least else 'most'} {self.aim:g}"

    def __str__(self):
        of_aim = {None: "", True: ", reached", False: ", missed"}[self.reached]
        return f"     {self.name:64}{self.value:10.4g} {self.unit:24}{self.bound}{of_aim}"


class Load(NamedTuple):
    """How much is timed.

    Attributes:
      batches: dict from a batch size to the aim of a step over its bare products.
      particles: pair M, K.
      in_a_row: int, steps of which only the last one's results are read.
      repeats: int, turns.
      samples: int, of log p(x).
      rows: int, examples of log p(x).
      queries: tuple of int, rows of a request.
      large: int, rows and columns of matrices that fill a card.
      precisions: names, of `_PRECISIONS`.
    """

    batches: dict[int, float]
    particles: tuple[int, int]
    in_a_row: int
    repeats: int
    samples: int
    rows: int
    queries: tuple[int, ...]
    large: int
    precisions: tuple[str, ...]


# The aims are for a card.
FULL = Load({100: 2.5, 1000: 1.5}, (8, 8), 10, 10, 5000, 96, (1, 32), 8192, ("float32", "TensorFloat-32", "bfloat16"))
TINY = Load({2: 2.5}, (1, 2), 2, 1, 20, 2, (1,), 64, ("float32", "bfloat16"))

# Whether TensorFloat-32 is allowed; the networks' mixed precision; the type of the bare products.
_PRECISIONS: dict[str, tuple[bool, str | None, tf.DType | None]] = {
    "float32": (False, None, None),
    "TensorFloat-32": (True, None, None),
    "bfloat16": (False, "bfloat16", tf.bfloat16),
}


def speed(load):
    """Yields figures of the card, a step, log p(x) and the input pipeline."""
    yield from _ceilings(load)
    objective = objectives.get("piwae", m=load.particles[0], k=load.particles[1])
    for batch_size, aim in load.batches.items():
        x = workload.images(batch_size)
        for name in load.precisions:
            allowed, mixed_precision, dtype = _PRECISIONS[name]
            with tensor_float_32(allowed):  # XLA looks when it compiles, products look when they run.
                yield from _step(objective, x, f"{name}, batch {batch_size}", mixed_precision, dtype, load, aim)
        with tensor_float_32(False):
            yield from _in_fit(objective, batch_size, load)
    yield from _log_prob(load)
    yield from _pipeline(load)


def _ceilings(load):
    """What the card does at most, in place of its data sheet: one large product, and one large copy."""
    square = tf.random.Generator.from_seed(0).normal([load.large, load.large])
    for name in load.precisions:
        allowed, _, dtype = _PRECISIONS[name]
        numbers = tf.cast(square, dtype or tf.float32)
        multiply = tf.function(lambda numbers=numbers: tf.matmul(numbers, numbers)[0, :1], autograph=False)
        with tensor_float_32(allowed):
            turns = report.take_turns({name: workload.finished(multiply, load.in_a_row)}, 3, warm_up=1)
        each = turns.milliseconds(name) / load.in_a_row
        yield Figure(f"large product, {name}", 2 * load.large**3 / each / 1e9, "TFLOP/s")
    # One pass that reads and writes.
    values = tf.Variable(tf.ones([4, load.large, load.large]))
    move = tf.function(lambda: values.assign(-values)[0, 0, :1], autograph=False)
    turns = report.take_turns({"copy": workload.finished(move, load.in_a_row)}, 3, warm_up=1)
    each = turns.milliseconds("copy") / load.in_a_row
    yield Figure("large pass through memory", 2 * 4 * 4 * load.large**2 / each / 1e9, "TB/s, read and written")


def _step(objective, x, name, mixed_precision, dtype, load, aim):
    model = workload.build(objective, mixed_precision)
    step = tf.function(lambda: model.train_step(x), autograph=False)
    ways = {
        "step": workload.finished(step, load.in_a_row),
        "bare": workload.bare_products(model, x, dtype, load.in_a_row),
    }
    turns = report.take_turns(ways, load.repeats, warm_up=2)
    yield Figure(f"step, {name}", turns.milliseconds("step") / load.in_a_row, "ms")
    yield Figure(f"bare products, {name}", turns.milliseconds("bare") / load.in_a_row, "ms")
    yield Figure(f"step over bare products, {name}", turns.ratio("step", "bare"), "ratio", aim)
    activity = device_profile.profiled(step)
    if activity:
        yield Figure(f"kernels of a step, {name}", activity.kernels, "launches")
        yield Figure(f"share in which the card waits for launches, {name}", activity.idle, "of the step")
        for kernel, seconds in sorted(activity.seconds.items(), key=lambda item: -item[1])[:5]:
            yield Figure(f"kernel {kernel[:50]}, {name}", 1e3 * seconds, "ms of a step")


def _in_fit(objective, batch_size, load):
    """What Keras' loop makes of a step, with the steps of its last return to Python alone and together."""
    steps = 4 * load.in_a_row
    batches = tf.data.Dataset.from_tensors(workload.images(batch_size)).repeat()
    for at_once in (1, load.in_a_row):
        model = workload.build(objective, steps_per_execution=at_once)
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            model.fit(batches, steps_per_epoch=steps, shuffle=False, verbose=0)
            seconds.append(time.perf_counter() - start)
        name = f"step within fit, {at_once} for each return to Python, float32, batch {batch_size}"
        yield Figure(name, 1e3 * min(seconds[1:]) / steps, "ms")


def _log_prob(load):
    model, x = workload.build("iwae"), workload.images(load.rows).numpy()
    # As many rows at once as log p(x) takes.
    tile = min(tiles.choose(None, model, likelihood.default_chunk(load.samples)), load.rows)
    ways = {
        "log p(x)": functools.partial(likelihood.estimate_log_prob, model, x, load.samples),
        "bare": workload.decoder_products(load.samples * tile, -(-load.rows // tile)),
    }
    with tensor_float_32(False):  # As the library has it; the products too.
        turns = report.take_turns(ways, load.repeats, warm_up=2)
    yield Figure(f"log p(x), {load.samples} samples", turns.milliseconds("log p(x)") / load.rows, "ms an example")
    yield Figure("bare products of log p(x)", turns.milliseconds("bare") / load.rows, "ms an example")
    yield Figure("rate of log p(x) over bare products", 1 / turns.ratio("log p(x)", "bare"), "ratio", 0.5, True)


def _pipeline(load):
    """Batches alone, binarised afresh, as training takes them."""
    images = np.random.default_rng(0).random((10 * max(load.batches), 28, 28)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "images.npy"
        np.save(path, images)
        dataset = data.load(str(path))
        for batch_size in load.batches:
            batches = iter(dataset.training_batches(batch_size, seed=0))
            next(batches)
            start = time.perf_counter()
            for _ in range(5 * load.in_a_row):
                next(batches)
            elapsed = time.perf_counter() - start
            yield Figure(f"input pipeline alone, batch {batch_size}", 1e3 * elapsed / (5 * load.in_a_row), "ms a batch")


def queries(load):
    """Yields the time of a query of the local server, over gRPC.

    Raises:
      ModuleNotFoundError: where what the server needs is not installed.
    """
    from iwae_zoo_serving import client

    with tempfile.TemporaryDirectory() as directory:
        count = min(load.samples, 1000)
        saved_model.export(workload.build("iwae"), directory, num_samples=count, max_num_samples=count)
        with served(directory) as (_, port, _):
            grpc = client.GrpcClient(f"127.0.0.1:{port}", "model")
            for rows in load.queries:
                x = workload.images(rows).numpy()
                seconds = []
                for _ in range(load.repeats + 2):
                    start = time.perf_counter()
                    grpc.predict("serving_default", {"x": x})
                    seconds.append(time.perf_counter() - start)
                yield Figure(f"query of {rows} rows, {count} samples, gRPC", 1e3 * statistics.median(seconds[2:]), "ms")
