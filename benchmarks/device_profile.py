"""What a train step does on a device besides its arithmetic: retracing, copies to the host, launches."""

import collections
import itertools
import pathlib
import tempfile
import time
from typing import NamedTuple

import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

__all__ = ["Activity", "of_card", "planes", "profiled", "retraced"]

# A copy to the host, as CUPTI names it in the trace.
_TO_HOST = ("MemcpyD2H", "MemcpyDtoH")


class Activity(NamedTuple):
    """What a card did in one step, on average.

    Attributes:
      wall: float, seconds.
      busy: float, seconds in which at least one kernel or copy ran.
      kernels: float, how many ran.
      copies: float, copies to the host: each is one that the host may have waited for.
      seconds: dict, of each kernel by its name.
    """

    wall: float
    busy: float
    kernels: float
    copies: float
    seconds: dict[str, float]

    @property
    def idle(self):
        """Share of the time in which the card waited for the next launch, or the host."""
        return 1.0 - self.busy / self.wall


def planes(folder):
    """The planes of the profiles in a folder."""
    for path in pathlib.Path(folder).rglob("*.xplane.pb"):
        yield from xplane_pb2.XSpace.FromString(path.read_bytes()).planes


def of_card(found, wall, steps):
    """`Activity` of a card in so many steps, or None where the profile has none of a card.

    Args:
      found: planes of a profile.
      wall: float, seconds of all steps.
      steps: int.
    """
    spans, copies, kernels = [], 0, 0
    seconds: collections.Counter = collections.Counter()
    for plane in found:
        if "GPU:" not in plane.name:
            continue
        for line in plane.lines:
            if not line.name.startswith("Stream"):  # The other lines say the same by other names.
                continue
            start = 1000 * line.timestamp_ns
            for event in line.events:
                name = plane.event_metadata[event.metadata_id].name
                spans.append((start + event.offset_ps, start + event.offset_ps + event.duration_ps))
                seconds[name] += 1e-12 * event.duration_ps / steps
                copies += any(copy in name for copy in _TO_HOST)
                kernels += not name.startswith("Mem")
    if not spans:
        return None
    busy, last = 0, 0
    for begin, end in sorted(spans):
        busy += max(0, end - max(begin, last))
        last = max(last, end)
    return Activity(wall / steps, 1e-12 * busy / steps, kernels / steps, copies / steps, dict(seconds))


def profiled(step, steps=20):
    """`Activity` of a function that returns tensors, which nobody reads before the last step; None without a card."""
    step()
    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        try:
            start = time.perf_counter()
            for _ in range(steps):
                last = step()
            # One small number, so that the work is done; it is no step's.
            float(tf.nest.flatten(last)[0])
            wall = time.perf_counter() - start
        finally:
            tf.profiler.experimental.stop()
        activity = of_card(planes(folder), wall, steps)
    return activity and activity._replace(copies=max(0.0, activity.copies - 1 / steps))


def retraced(model, x, batch_size):
    """How often the networks were traced after the first epoch: 0 if every step runs what was traced.

    Args:
      model: compiled `ImportanceWeightedAutoencoder`.
      x: array [B, ...].
      batch_size: int. It need not divide B.
    """
    traced, posterior = itertools.count(), model.encoder.posterior
    batches = tf.data.Dataset.from_tensor_slices(x).batch(batch_size)
    model.fit(batches, epochs=1, shuffle=False, verbose=0)
    try:
        model.encoder.posterior = lambda *arguments: (next(traced), posterior(*arguments))[1]
        model.fit(batches, epochs=3, initial_epoch=1, shuffle=False, verbose=0)
    finally:
        del model.encoder.posterior
    return next(traced)
