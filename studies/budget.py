"""Equal time for unequal steps: how many epochs of a cell fit into so many minutes."""

import dataclasses
import pathlib
import tempfile
import time

import keras
import numpy as np

from iwae_zoo import training
from iwae_zoo.training import stages
from studies import cells

__all__ = ["epochs_within"]

# Train steps that are timed, after the first, which traces.
_STEPS = 50
# Epochs of the run whose stages are looked at.
_PLANNED = 1000


def epochs_within(config, minutes, path, clock=time.perf_counter):
    """Whole epochs that a run of a configuration trains in a time on this machine; measured, not exact.

    Validation and diagnostics come on top.

    Args:
      config: `training.Config` without epochs.
      minutes: float.
      path: of a JSON file that keeps the numbers of all configurations, so that a study that goes on has the same
        epochs.
      clock: function that returns seconds. `time.process_time` for minutes of one core, whatever else runs beside.

    Returns:
      int, at least 1.
    """
    settings = {"title": dataclasses.replace(config, seed=0).title, "minutes": minutes}

    def measured():
        epochs = max(1, int(60.0 * minutes / _seconds_per_epoch(config, clock)))
        print(f"{config.title}: {epochs} epochs in {minutes:g} minutes.", flush=True)
        return {"epochs": epochs}

    return cells.once(path, settings, measured)["epochs"]


def _seconds_per_epoch(config, clock):
    """Of a run whose particles grow, each stage's by its share of the epochs."""
    config = config.resolved()
    planned = stages.of_epochs(config.particle_schedule, _PLANNED, config.m, config.k)
    lengths = np.diff([stage.first_epoch for stage in planned] + [_PLANNED])
    of_stages = [dataclasses.replace(config, particle_schedule=None, m=stage.m, k=stage.k) for stage in planned]
    return np.dot(lengths, [_timed(of_stage, clock) for of_stage in of_stages]) / _PLANNED


def _timed(config, clock):
    """Seconds of an epoch."""
    with tempfile.TemporaryDirectory() as folder:
        run = training.Run(config, pathlib.Path(folder) / "run")
        model, batches = run.build(), run.dataset.training_batches(run.config.batch_size, seed=0)
        watch = _Watch(clock)
        model.fit(batches, steps_per_epoch=_STEPS + 1, shuffle=False, verbose=0, callbacks=[watch])
    return np.median(watch.seconds[1:]) * run.dataset.steps_per_epoch(run.config.batch_size)


class _Watch(keras.callbacks.Callback):
    """Seconds from the end of each train step to that of the next."""

    def __init__(self, clock):
        super().__init__()
        self.seconds = []
        self._clock, self._last = clock, clock()

    def on_train_batch_end(self, batch, logs=None):
        now = self._clock()
        self.seconds.append(now - self._last)
        self._last = now
