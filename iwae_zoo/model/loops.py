"""Keras' own loops, for a model of x alone: what they are given is looked at first."""

import contextlib
import inspect
import itertools
from typing import Any

import keras
import tensorflow as tf

from iwae_zoo._deferred import Deferred, check_strategy
from iwae_zoo._precision import tensor_float_32
from iwae_zoo.distributions import likelihoods
from iwae_zoo.model import divergence, examples, memory, particles, replicas

__all__ = ["CheckedLoops"]


class CheckedLoops(keras.Model):
    """`fit`, `evaluate` and their like, `save` and `export` too, of an `ImportanceWeightedAutoencoder`."""

    train_function: Any  # Keras'.
    _goes_on_to_callbacks = False
    _latch: Any = None  # A `divergence.Latch` where XLA compiles the steps.
    _make_x: Any = None  # Of a `Deferred`.

    def fit(self, x=None, *args, **kwargs):
        """Keras' own `fit`; an array is looked at first, and a data set's batches may be made on the device.

        y, such as labels, is ignored: here, in Keras' other loops, and in batches that are tuples.

        Log weights that are not finite end training before they change a weight: with an error, or, where
        `keras.callbacks.TerminateOnNaN` is among the callbacks, by that; on several devices the optimizers' momentum
        still moves the weights then. Where XLA compiles the steps, the error may come later, at the end of the epoch at
        the latest; no step in between changes anything.

        Raises:
          ValueError: if the model is not compiled; on x of another shape than it is built for; if an array holds NaN or
            infinity, or values outside the support of the likelihood, with the row. NaN is a missing value where the
            networks take that. On `SwapEMAWeights`: averages of the weights are put in place when training ends. If
            batches are to be made on the device, and there are several; on a `validation_split` with several machines.
          tf.errors.InvalidArgumentError: if log weights are not finite.
          MemoryError: if a device is out of memory and the rows of a batch are known, with the `particle_chunk` that
            would fit.

        Warns:
          UserWarning: if columns of a table are far from the scale that networks start from.
        """
        kwargs = _arguments(super().fit, x, *args, **kwargs)
        x = kwargs.pop("x")
        examples.check_unweighted(**kwargs)
        missing = particles.takes_missing(self.decoder)
        examples.check(x, missing=missing)
        validation = kwargs.get("validation_data")
        if isinstance(validation, (tuple, list)):
            validation, *labels_and_weights = validation
            examples.check_unweighted(*labels_and_weights[1:2])
        examples.check(validation, "validation_data", missing)
        examples.check_shape(self, x)
        inputs = getattr(self.encoder, "inputs", None)
        examples.warn_of_scale(x, inputs if isinstance(inputs, likelihoods.Likelihood) else None)  # Or Keras' own.
        callbacks = kwargs.get("callbacks") or []
        callbacks = callbacks.callbacks if isinstance(callbacks, keras.callbacks.CallbackList) else callbacks
        kwargs["callbacks"] = callbacks = tf.nest.flatten(callbacks)
        if any(isinstance(callback, keras.callbacks.SwapEMAWeights) for callback in callbacks):
            raise ValueError(
                "SwapEMAWeights knows one optimizer, and there are two: leave it out. With use_ema=True the averaged "
                "weights are put in place when training ends."
            )
        goes_on = any(isinstance(callback, keras.callbacks.TerminateOnNaN) for callback in callbacks)
        self._go_on_to_callbacks(goes_on)
        shape = examples.data_shape(x)
        if shape is not None:  # Callbacks look at the model before its first step.
            with self.distribute_strategy.scope():
                self.build((None, *shape))
        if validation is not None:
            examples.check_shape(self, validation, "validation_data")
        examples.check_support(self.decoder, x)
        examples.check_support(self.decoder, validation, "validation_data")
        if isinstance(x, Deferred):
            check_strategy(self.distribute_strategy)
            if x.make is not self._make_x:
                self._make_x, self.train_function = x.make, None  # Traced anew.
            x = x.plans
        rows = examples.batch_rows(x, kwargs.get("batch_size"), kwargs.get("steps_per_epoch"))
        if isinstance(self.distribute_strategy, tf.distribute.MultiWorkerMirroredStrategy):
            x, kwargs = replicas.in_one_order(x, kwargs, self.seed, rows)
        averages = bool(self.compiled and self.optimizer.averages)  # Keras says what it is to be compiled for.
        kwargs["callbacks"] = [*[_Looks()] * bool(self._latch), *[_Averages()] * averages, *callbacks]
        most = self.objective.m * self.objective.k + self.objective.auxiliary
        try:
            with memory.enough_to_train(self, rows, most) if rows else contextlib.nullcontext():
                return super().fit(x, **kwargs)
        except BaseException:
            if self._latch:
                self._latch.lift()  # Nobody looks any more, and the next batch is not to answer for these.
            raise

    @tensor_float_32(False)
    def evaluate(self, x=None, *args, **kwargs):
        """Keras' own `evaluate`, without TensorFloat-32; so `fit` validates, too.

        Raises:
          ValueError: on x of another shape than the model is built for, or rows with weights.
        """
        examples.check_unweighted(**_arguments(super().evaluate, x, *args, **kwargs))
        examples.check_shape(self, x)
        return super().evaluate(x, *args, **kwargs)

    def predict(self, x, *args, **kwargs):
        """Keras' own `predict`: reconstructions; raises ValueError on x of another shape."""
        examples.check_shape(self, x)
        return super().predict(x, *args, **kwargs)

    def _go_on_to_callbacks(self, goes_on):
        """Whether log weights that are not finite are no error, since a callback ends training."""
        if goes_on != self._goes_on_to_callbacks:
            self._goes_on_to_callbacks, self.train_function = goes_on, None  # Traced anew.
            if self.compiled:
                self._renew_step()

    def make_train_function(self, force=False):
        """Keras' own, which looks now and then whether the steps are still taken."""
        if self.train_function is not None and not force:
            return
        super().make_train_function(force)
        function, calls = self.train_function, itertools.count(1)

        def looked_at(iterator):
            logs = function(iterator)
            if next(calls) % divergence.LOOK_EVERY == 0:
                self.check_steps()
            return logs

        self.train_function = looked_at

    def check_steps(self):
        """Raises tf.errors.InvalidArgumentError if a step was not taken since its log weights were not finite.

        `fit` and `train_on_batch` do so; it is for who calls `train_step`, or keeps the weights of a step of `fit`.
        """
        if self._latch:
            self._latch.look(self.decoder)

    def train_on_batch(self, x, *args, **kwargs):
        """Keras' own `train_on_batch`; raises ValueError on rows with weights.

        On several devices each has the whole batch, with noise of its own; `fit` shares batches out.
        """
        self._go_on_to_callbacks(False)  # There are none.
        examples.check_unweighted(**_arguments(super().train_on_batch, x, *args, **kwargs))
        logs = super().train_on_batch(x, *args, **kwargs)
        self.check_steps()
        return logs

    def test_on_batch(self, x, *args, **kwargs):
        """Keras' own `test_on_batch`; raises ValueError on rows with weights."""
        examples.check_unweighted(**_arguments(super().test_on_batch, x, *args, **kwargs))
        return super().test_on_batch(x, *args, **kwargs)

    def save(self, filepath, *args, **kwargs):
        """Keras' own `save`, of .keras files; raises ValueError on its former format, which keeps no two optimizers."""
        if str(filepath).endswith((".h5", ".hdf5")):
            raise ValueError(f"A model is saved as .keras, or its weights alone as .weights.h5: received {filepath}.")
        return super().save(filepath, *args, **kwargs)

    def export(self, *args, **kwargs):
        """Keras' own `export`, of reconstructions; `saved_model.export` is that of log p(x)."""
        if self.built:
            self(tf.zeros([1, *self.data_shape]))  # Keras exports what has been called, which training does not.
        return super().export(*args, **kwargs)


class _Looks(keras.callbacks.Callback):
    """Whether all steps of an epoch were taken, before other callbacks keep what they led to."""

    def on_epoch_end(self, epoch, logs=None):
        del epoch, logs
        self.model.check_steps()


class _Averages(keras.callbacks.Callback):
    """Ends training on averaged weights, before other callbacks look at them or put better ones back."""

    def on_train_end(self, logs=None):
        del logs
        self.model.optimizer.finalize()


def _arguments(function, *args, **kwargs):
    """By their names: dict."""
    return dict(inspect.signature(function).bind(*args, **kwargs).arguments)
