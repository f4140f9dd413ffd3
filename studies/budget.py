"""Equal time for unequal steps: how many epochs of a cell fit into so many minutes."""

import pathlib
import tempfile
import time

from iwae_zoo import training
from studies import cells

__all__ = ["epochs_within"]

# Steps that are timed, after as many that warm up.
_STEPS = 100


def epochs_within(config, minutes, path):
    """How many epochs of a configuration take so many minutes, by the time of a few steps.

    The time is that of processors, not of clocks: what else runs on the machine hardly changes it, and a cell on one
    core takes so many minutes. Validation and diagnostics come on top.

    Args:
      config: `training.Config`.
      minutes: float.
      path: of a JSON file that keeps the time of a step, so that a study that goes on has the same epochs.

    Returns:
      int, at least 1.
    """
    settings = {"title": config.title, "steps": _STEPS}
    found = cells.kept(path, settings)
    if not found:
        with tempfile.TemporaryDirectory() as folder:
            run = training.Run(config, pathlib.Path(folder) / "run")
            batch_size = run.config.batch_size
            found = {
                "seconds_per_step": _seconds_per_step(run, batch_size),
                "steps_per_epoch": run.dataset.steps_per_epoch(batch_size),
            }
        pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
        cells.keep(path, settings, found)
    return max(1, round(60.0 * minutes / (found["seconds_per_step"] * found["steps_per_epoch"])))


def _seconds_per_step(run, batch_size):
    model = run.build()
    batches = run.dataset.training_batches(batch_size, seed=0)
    for _ in range(2):  # The first call traces.
        start = time.process_time()
        model.fit(batches, steps_per_epoch=_STEPS, epochs=1, verbose=0)
        elapsed = time.process_time() - start
    return elapsed / _STEPS
