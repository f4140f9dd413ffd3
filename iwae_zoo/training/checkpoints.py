"""Checkpoints within an epoch, and the rest of an epoch that was interrupted."""

import keras

from iwae_zoo.model import replicas

__all__ = ["WithinEpoch"]


class WithinEpoch(keras.callbacks.Callback):
    """Saves the model every so many steps of an epoch, and ends a `fit` that does the rest of one.

    Args:
      workdir: `WorkDirectory`.
      steps: int, steps of an epoch.
      every: int, steps between two checkpoints, or None.
      first_step: int, the step of its epoch that the first `fit` begins with; from 1 it does the rest of this epoch
        alone.
      sums: what the metrics have summed up in the steps before, as `replicas.read` has it, or None.
      writes: whether this process is the one that writes.
    """

    def __init__(self, workdir, steps, every=None, first_step=0, sums=None, writes=True):
        super().__init__()
        self._workdir = workdir
        self._steps = steps
        self._every = every
        self._first_step = first_step
        self._sums = sums
        self._writes = writes

    def on_epoch_begin(self, epoch, logs=None):
        if self._sums is not None and self._first_step:  # Keras has just set them to zero.
            replicas.write(self.model.distribute_strategy, self.model.metrics_variables, self._sums)

    def on_train_batch_end(self, batch, logs=None):
        step = self._first_step + batch + 1
        if self._every and step % self._every == 0 and step < self._steps:
            self.model.check_steps()
            sums = replicas.read(self.model.distribute_strategy, self.model.metrics_variables)  # By all workers.
            if self._writes:
                self._workdir.save_within_epoch(self.model, sums)

    def on_epoch_end(self, epoch, logs=None):
        if self._first_step:
            self._first_step = 0
            self.model.stop_training = True
