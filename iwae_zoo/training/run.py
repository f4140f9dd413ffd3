"""A training run: from a configuration to a work directory that holds everything about it."""

import contextlib
import dataclasses
import math
import sys
from importlib import metadata

import keras
import tensorflow as tf

from iwae_zoo import data, figures, presets
from iwae_zoo._files import load_model
from iwae_zoo._precision import tensor_float_32
from iwae_zoo.distributions import likelihoods
from iwae_zoo.estimation import annealing, diagnostics, evaluation, likelihood
from iwae_zoo.model import memory
from iwae_zoo.model.autoencoder import check_training
from iwae_zoo.model.divergence import NOT_FINITE
from iwae_zoo.training import checkpoints, pictures, placement, schedules, stages, strategies
from iwae_zoo.training.workdir import (
    MONITOR,
    EpochEnd,
    EpochLine,
    WorkDirectory,
    best_epoch,
    data_settings,
    read_config,
    write_json,
)

__all__ = ["Diverged", "Run"]

# Validation examples that the diagnostics look at.
_DIAGNOSED = 100


class Diverged(RuntimeError):
    """Training met log weights that are not finite; the work directory keeps the last checkpoint."""


class Run:
    """One configuration in one work directory.

    Args:
      config: `Config`.
      workdir: path of the work directory; it need not exist.
      resume: whether to go on with the run that is in it, if there is one.
      strategy: `tf.distribute.Strategy` to train and evaluate under, as from `strategies.get`. Of several workers, each
        has to see the same work directory, and only the chief writes to it.
      fits_memory: whether `particle_chunk` is as much as there is free memory for, instead of what `config` has. The
        configuration has the number from then on; a run that is there already keeps what it began with.

    Raises:
      ValueError: on a configuration that cannot be run, or a work directory that holds something else; then nothing
        has been written.
      FileNotFoundError: if the data file is not there.
      RuntimeError: if the data set can neither be read nor downloaded.
    """

    def __init__(self, config, workdir, resume=False, strategy=None, fits_memory=False):
        self.strategy = strategy or tf.distribute.get_strategy()
        self.is_chief = strategies.is_chief(self.strategy)
        self.title = config.title
        self.config = config.resolved()
        self.objective = self.config.build_objective()
        counts = (self.config.backward_particles, self.config.particle_chunk, self.config.steps_per_execution)
        self.stages = self.config.build_stages()
        for _, objective in self.stages:
            check_training(objective, self.strategy, *counts)
        self.files = WorkDirectory(workdir, self.config)
        self.workdir = self.files.path
        # Another worker may find what the chief has just written.
        self._may_be_there = resume or not self.is_chief
        self.files.check(self._may_be_there)
        start = config.from_preset and presets.load(config.from_preset)
        # The names of a category are numbered as they were.
        known = likelihoods.columns(start.decoder) or None if start else None
        settings = data_settings(dataclasses.asdict(self.config), config.dataset, columns=known)
        self.dataset = data.load(config.dataset, config.data_dir, stream_above=config.stream_above, **settings)
        self.fingerprint = self.dataset.fingerprint
        self.files.check_data(self.fingerprint)
        self.on_device = placement.is_on_device(config.data_on, self.dataset, self.strategy)
        self.steps, at_once = self.dataset.steps_per_epoch(self.config.batch_size), self.config.steps_per_execution
        if self.steps % at_once:  # Keras would go on into the next epoch.
            raise ValueError(f"steps_per_execution must divide the {self.steps} steps of an epoch: received {at_once}.")
        if start:
            self.likelihood = start.decoder.head
            self._check_start(start)
        else:
            self.likelihood = presets.choose_likelihood(self.config.preset, config.likelihood, self.dataset)
            presets.check_shape(self.config.preset, self.dataset.data_shape, **self.config.architecture)
        if self.config.eval_method == likelihood.ANNEALED:  # Not after hours of training.
            annealing.check_possible(start or self.build())
        self.test_set = self.dataset.evaluation_array("test")
        if fits_memory:
            self.config = dataclasses.replace(self.config, particle_chunk=self._fitting_chunk())

    @property
    def _particles(self):
        """Most particles of an example in a step."""
        return max(objective.m * objective.k + objective.auxiliary for _, objective in self.stages)

    @property
    def _rows(self):
        """Examples of a step on each device."""
        return -(-self.config.batch_size // self.strategy.num_replicas_in_sync)

    def _fitting_chunk(self):
        """The `particle_chunk` that there is memory for, or that of the run which is there."""
        there = self.files.path / "config.json"
        if there.exists():
            return read_config(there)["particle_chunk"]
        return memory.fitting_chunk(self._rows, memory.bytes_per_particle(self.build(), backward=True), self._particles)

    def train(self, verbose=1):
        """Trains up to the configured number of epochs, from the last checkpoint in the work directory.

        Args:
          verbose: 0 for silence; otherwise Keras' progress bar, or a line for each epoch where output is no terminal.

        Returns:
          The trained `ImportanceWeightedAutoencoder`; with early stopping, that of the best epoch.

        Raises:
          Diverged: if the log weights of a batch are not finite.
          OSError: if examples that are streamed can no longer be read.
          MemoryError: if a device is out of memory, with the `particle_chunk` that would fit.
          ValueError: if another process trains in the work directory.
          strategies.WorkerLost: if another worker of the cluster is gone.
        """
        with self.files.alone() if self.is_chief else contextlib.nullcontext():
            # Once more: another process may have been here while the data were read.
            self.files.check(self._may_be_there)
            self.files.check_data(self.fingerprint)
            self._may_be_there = True
            return self._train(verbose if self.is_chief else 0)

    def _train(self, verbose):
        config = self.config
        if verbose:
            print(f"{self.dataset.description}; likelihood {self.likelihood.name}.")
            if self.config.particle_chunk:
                print(f"At most {self.config.particle_chunk} of {self._particles} particles are decoded at once.")
            if self.on_device:
                print("All training examples lie on the device.")
        with strategies.watching(self.strategy), self.strategy.scope():
            model = self._restored(self.files.checkpoint) or self.build()
            model.decode_at_most(config.particle_chunk)  # A checkpoint has that of before.
            if self.is_chief:  # Nothing is there if there is no model.
                self._describe()
            strategies.wait_for_all(self.strategy)
        if not self.is_chief:  # What the chief has just written.
            self.files.check_chief(self.fingerprint)
        first_epoch, first_step = divmod(_iterations(model), self.steps)
        history = self.files.history(first_epoch)
        if verbose and _iterations(model):
            within = f" and step {first_step} of {self.steps}" if first_step else ""
            print(f"Going on from epoch {first_epoch} of {config.epochs}{within} in {self.workdir}.")
        if self.files.is_finished(history):
            return self._best(model, history, verbose)
        validation = self.dataset.evaluation_array("validation")
        callbacks = self._callbacks(validation, history, first_step)
        bar = verbose if sys.stdout.isatty() else 0
        if verbose and not bar:
            callbacks.append(EpochLine())
        # Keras' epochs are of one length: the rest of an interrupted one is a `fit` of its own.
        starts = [(first_epoch, first_step), (first_epoch + 1, 0)] if first_step else [(first_epoch, 0)]
        enough = memory.enough_to_train(model, config.batch_size, self._particles)
        with (
            self._explained(model),
            enough,
            strategies.watching(self.strategy),
            tensor_float_32(config.tensor_float_32),
        ):
            for epoch, step in starts:
                if self.files.is_finished(history):
                    break
                # A checkpoint may be of a run with another number of steps for each return to Python.
                at_once = math.gcd(config.steps_per_execution, self.steps - step)
                if model.steps_per_execution != at_once:
                    model.steps_per_execution = at_once
                    model.train_function = model.test_function = None  # Traced anew.
                model.fit(
                    self.dataset.training_batches(
                        config.batch_size, config.seed, epoch, step, on_device=self.on_device
                    ),
                    steps_per_epoch=self.steps - step,
                    initial_epoch=epoch,
                    epochs=config.epochs,
                    validation_data=tf.data.Dataset.from_tensor_slices(validation).batch(config.batch_size),
                    shuffle=False,  # The data set does that itself.
                    callbacks=callbacks,
                    verbose=bar,
                )
            strategies.wait_for_all(self.strategy)  # What the chief has written is read below.
        return self._best(model, history, verbose)

    def _callbacks(self, validation, history, first_step):
        """Those of `fit`, in the order that they need."""
        config = self.config
        callbacks: list[keras.callbacks.Callback] = [stages.Stages(self.stages)]
        if config.diagnostics_every:  # Early, so that the others log what it finds.
            callbacks.append(diagnostics.Diagnostics(validation[:_DIAGNOSED], config.diagnostics_every))
        if self.is_chief:
            callbacks.append(keras.callbacks.TensorBoard(self.workdir / "tensorboard", write_graph=False))
        callbacks.append(EpochEnd(self.files, history, writes=self.is_chief))
        sums = self.files.sums() if first_step else None
        within = (self.steps, config.checkpoint_every, first_step, sums)
        return [*callbacks, checkpoints.WithinEpoch(self.files, *within, writes=self.is_chief)]

    @contextlib.contextmanager
    def _explained(self, model):
        """Inside, examples that cannot be read and log weights that are not finite are told as such."""
        try:
            yield
        except (tf.errors.OpError, strategies.WorkerLost) as error:
            unread = getattr(self.dataset.train, "error", None)
            if unread is not None:
                raise unread from error
            if not isinstance(error, tf.errors.InvalidArgumentError) or NOT_FINITE not in error.message:
                raise
            raise Diverged(
                f"Training diverged in epoch {_iterations(model) // self.steps + 1}: the log weights of a batch are "
                f"not finite. Lower the learning rate (now {self.config.learning_rate:g}). {self.workdir} keeps the "
                "last checkpoint."
            ) from error

    @tensor_float_32(False)
    def evaluate(self, model, verbose=1):
        """Evaluates on the test set, prints a table, and writes evaluation.json and the figures.

        Returns:
          dict, what is in evaluation.json.

        Raises:
          ValueError: if log weights of test examples are NaN.
          MemoryError: if a device has no memory for the particles of an example; the model can be asked by
            evaluate_main.py then.
          strategies.WorkerLost: if another worker of the cluster is gone.
        """
        try:
            return self._evaluate(model, verbose if self.is_chief else 0)
        except MemoryError as error:  # Of training, these are other numbers.
            raise MemoryError(
                f"{error} The trained model is in {self.files.model}: evaluate_main.py takes --particle_chunk, "
                "--tile_rows and --method."
            ) from None

    def _evaluate(self, model, verbose):
        config, x = self.config, self.test_set
        if verbose:
            climbs = config.eval_method != likelihood.IMPORTANCE and annealing.is_possible(model)
            annealed = ", annealing those that need it" if climbs else ""
            print(f"Evaluating {len(x)} test examples with {config.eval_samples} samples each{annealed}.", flush=True)
        with strategies.watching(self.strategy):
            bar = verbose if sys.stdout.isatty() else 0
            trained = evaluation.evaluate(model, x, config.eval_samples, method=config.eval_method, verbose=bar)
            untrained = self._untrained(model, x)
        before = f"{config.from_preset}, before" if config.from_preset else "the same, untrained model"
        baselines = {before: float(untrained.log_prob.mean())}
        result = dataclasses.asdict(trained)
        result |= {"method": config.eval_method, "untrained_iwae_bound": baselines[before]}
        head, measures = likelihoods.of(model.decoder), {}
        if head is not None:
            label, result["baseline"] = evaluation.labelled_baseline(head, self.dataset.training_values, x)
            baselines[label] = result["baseline"]
            measures = head.measures(result["log_prob"], x)
            result |= measures
        if self.is_chief:
            self._write_figures(model, x)
            # Last: a run that has it is finished.
            write_json(self.workdir / "evaluation.json", result)
        if verbose:
            print(evaluation.table(trained, baselines, head.units if head else "nats per example", measures))
            print(f"Everything about this run is in {self.workdir}.")
        return result

    def _untrained(self, model, x):
        """The `Estimate` of M K particles with the weights that training begins with, as `evaluation` asks for it."""
        with self.strategy.scope():
            weights = self.build().get_weights()
        learned = model.get_weights()
        model.set_weights(weights)  # What is traced for the trained model answers for this one, too.
        try:
            count = self.config.m * self.config.k
            return likelihood.estimate_dataset(model, x, count, method=likelihood.IMPORTANCE, verbose=0)
        finally:
            model.set_weights(learned)

    def _describe(self):
        versions = {name: metadata.version(name) for name in ("tensorflow", "keras", "tensorflow-probability", "numpy")}
        self.files.describe(config=dataclasses.asdict(self.config), versions=versions, fingerprint=self.fingerprint)

    def _check_start(self, start):
        """Raises ValueError if the weights that training begins with are for other data."""
        if tuple(self.dataset.data_shape) != tuple(start.data_shape):
            raise ValueError(
                f"The preset {self.config.from_preset!r} is for x of shape {tuple(start.data_shape)}: received data of "
                f"shape {tuple(self.dataset.data_shape)}."
            )
        likelihoods.checked(self.likelihood, self.dataset.kind_of_x, self.dataset.kind)
        if self.dataset.has_missing and not self.likelihood.missing:
            raise ValueError(
                f"The preset {self.config.from_preset!r} takes no missing values, and {self.dataset.name} has some."
            )

    def build(self):
        """The model that training begins with, compiled."""
        config = self.config
        if config.from_preset:
            model = presets.load(config.from_preset, self.objective, config.seed)
        else:
            model = presets.build(
                config.preset,
                data=self.dataset,
                objective=self.objective,
                seed=config.seed,
                mixed_precision=config.mixed_precision,
                likelihood=self.likelihood,
                **config.architecture,
            )
        rate = schedules.get(config.schedule, config.learning_rate, config.epochs * self.steps)
        model.compile(
            keras.optimizers.Adam(rate),
            backward_particles=config.backward_particles,
            particle_chunk=config.particle_chunk,
            steps_per_execution=config.steps_per_execution,
        )
        return model

    def _restored(self, path):
        return load_model(path) if path.exists() else None

    def _best(self, model, history, verbose):
        """The model to keep: the last, or, with early stopping, the best one that was saved."""
        if not self.config.early_stopping or not history:
            return model
        best = best_epoch(history)
        if verbose:
            bound = history[best - 1][MONITOR]
            print(f"Epoch {best} of {len(history)} has the best {MONITOR}, {bound:.2f}, and is kept.", flush=True)
        if not self.files.model.exists():
            raise ValueError(f"{self.files.model}, the model of the best epoch, is gone: put it back, or train anew.")
        with strategies.watching(self.strategy), self.strategy.scope():
            return load_model(self.files.model)

    def _write_figures(self, model, x):
        history = self.files.history()
        drawn = {"bounds": figures.training_curves(history, f"Bounds, {self.title}")}
        drawn |= pictures.draw(model, x, self.config.seed, self.title)
        for name, figure in drawn.items():
            figures.write(figure, self.workdir / f"{name}.png")


def _iterations(model):
    return int(keras.ops.convert_to_numpy(model.optimizer.iterations))
