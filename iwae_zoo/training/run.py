"""A training run: from a configuration to a work directory that holds everything about it.

    config.json        what was run; the same configuration gives the same weights
    metrics.jsonl      one line for each epoch
    tensorboard/       the same for TensorBoard
    model.keras        the model and both optimizers after the last whole epoch; what --resume goes on from
    evaluation.json    the test set's numbers
    *.png              bounds over epochs, samples, reconstructions

Files appear whole or not at all.
"""

import dataclasses
import json
import pathlib
from importlib import metadata

import keras
import numpy as np
import tensorflow as tf

from iwae_zoo import data, figures, objectives, presets
from iwae_zoo._files import whole
from iwae_zoo.estimation import diagnostics, evaluation, likelihood
from iwae_zoo.model.autoencoder import NOT_FINITE, check_training
from iwae_zoo.training import strategies

__all__ = ["Config", "Diverged", "Run"]

_MODEL = "model.keras"
# Fields that the trained weights do not depend on, but for rounding.
_IRRELEVANT = ("data_dir", "diagnostics_every", "eval_samples", "particle_chunk", "steps_per_execution")
# Validation examples that the diagnostics look at.
_DIAGNOSED = 100


class Diverged(RuntimeError):
    """Training met log weights that are not finite; the work directory keeps the last whole epoch."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that a run depends on; None takes the preset's or the objective's own.

    Attributes:
      objective: name of an objective; `m`, `k`, `beta`, `alpha`, `estimator`, `decoder_bound` and `encoder_bound` are
        those of `objectives.get`.
      dataset: name or path of a data set.
      data_dir: folder of prepared TensorFlow Datasets.
      preset: name of an architecture; "small" for digits and "rainforth" otherwise by default.
      epochs: int, passes over the training set.
      batch_size: int.
      learning_rate: float, of Adam for both networks.
      seed: int, of the initial weights, the order of the data and all noise.
      eval_samples: int, particles per example for the closing log p(x).
      diagnostics_every: int, epochs between two looks at gradient SNR, active units and KL terms; None for none.
      mixed_precision: "bfloat16" for networks that compute in it; weights and log weights are float32 in any case.
      backward_particles: int, as in `ImportanceWeightedAutoencoder.compile`.
      particle_chunk: int, the same.
      steps_per_execution: int, train steps for each return to Python; on one device.
    """

    objective: str = "iwae"
    m: int = 8
    k: int = 8
    beta: float | None = None
    alpha: float | None = None
    estimator: str | None = None
    decoder_bound: str | None = None
    encoder_bound: str | None = None
    dataset: str = "digits"
    data_dir: str | None = None
    preset: str | None = None
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    seed: int = 0
    eval_samples: int = 5000
    diagnostics_every: int | None = None
    mixed_precision: str | None = None
    backward_particles: int | None = None
    particle_chunk: int | None = None
    steps_per_execution: int = 1

    def resolved(self):
        """The same with every default filled in.

        Raises:
          ValueError: on an unknown name or a number out of range.
        """
        name = self.preset or ("small" if self.dataset == "digits" else "rainforth")
        preset = presets.get(name)
        filled = {
            field: getattr(preset, field) if getattr(self, field) is None else getattr(self, field)
            for field in ("epochs", "batch_size", "learning_rate")
        }
        config = dataclasses.replace(self, preset=name, **filled)
        counts = ("epochs", "batch_size", "eval_samples", "diagnostics_every", "backward_particles", "particle_chunk")
        for field in (*counts, "steps_per_execution"):
            value = getattr(config, field)
            if value is not None and value < 1:
                raise ValueError(f"{field} must be at least 1: received {value!r}.")
        if config.learning_rate is None or not config.learning_rate > 0:
            raise ValueError(f"learning_rate must be positive: received {config.learning_rate!r}.")
        presets.dtype_policy(config.mixed_precision)
        if config.seed < 0:
            raise ValueError(f"seed must not be negative: received {config.seed!r}.")
        return config

    def build_objective(self):
        """The `Objective`.

        Raises:
          ValueError: as `objectives.get`.
        """
        parts = ("m", "k", "beta", "alpha", "estimator", "decoder_bound", "encoder_bound")
        return objectives.get(self.objective, **{name: getattr(self, name) for name in parts})

    @property
    def title(self):
        """str, a short name for people and folders: the objective, and whatever was chosen besides."""
        named = {"objective", "m", "k", "dataset", "seed", *_IRRELEVANT}
        chosen = [
            (field.name, getattr(self, field.name)) for field in dataclasses.fields(self) if field.name not in named
        ]
        parts = [pathlib.Path(self.dataset).stem, self.objective, f"m{self.m}", f"k{self.k}"]
        parts += [f"{name}_{value}" for name, value in chosen if value is not None]
        return "-".join([*parts, f"seed{self.seed}"])


class Run:
    """One configuration in one work directory.

    Args:
      config: `Config`.
      workdir: path of the work directory; it need not exist.
      resume: whether to go on with the run that is in it, if there is one.
      strategy: `tf.distribute.Strategy` to train and evaluate under, as from `strategies.get`. Of several workers, each
        has to see the same work directory, and only the chief writes to it.

    Raises:
      ValueError: on a configuration that cannot be run, or a work directory that holds something else; then nothing
        has been written.
      FileNotFoundError: if the data file is not there.
      RuntimeError: if the data set can neither be read nor downloaded.
    """

    def __init__(self, config, workdir, resume=False, strategy=None):
        self.strategy = strategy or tf.distribute.get_strategy()
        self.is_chief = strategies.is_chief(self.strategy)
        self.title = config.title
        self.config = config.resolved()
        self.objective = self.config.build_objective()
        counts = (self.config.backward_particles, self.config.particle_chunk, self.config.steps_per_execution)
        check_training(self.objective, self.strategy, *counts)
        self.workdir = pathlib.Path(workdir)
        self._check_workdir(resume)
        self.dataset = data.load(self.config.dataset, self.config.data_dir)
        self.test_set = self.dataset.evaluation_array("test")

    def train(self, verbose=1):
        """Trains up to the configured number of epochs, from the last whole epoch in the work directory.

        Returns:
          The trained `ImportanceWeightedAutoencoder`.

        Raises:
          Diverged: if the log weights of a batch are not finite.
          strategies.WorkerLost: if another worker of the cluster is gone.
        """
        config = self.config
        verbose = verbose if self.is_chief else 0
        if self.is_chief:
            self._describe()
        steps = self.dataset.steps_per_epoch(config.batch_size)
        with self.strategy.scope():
            model = self._restore() or self._build()
        first_epoch = _iterations(model) // steps
        history = self._history(first_epoch)
        if verbose and first_epoch:
            print(f"Going on from epoch {first_epoch} of {config.epochs} in {self.workdir}.")
        validation = self.dataset.evaluation_array("validation")
        callbacks = []
        if config.diagnostics_every:  # First, so that the others log what it finds.
            callbacks.append(diagnostics.Diagnostics(validation[:_DIAGNOSED], config.diagnostics_every))
        if self.is_chief:
            callbacks.append(keras.callbacks.TensorBoard(self.workdir / "tensorboard", write_graph=False))
            callbacks.append(_EpochEnd(self.workdir, history))
        try:
            with strategies.watching(self.strategy):
                model.fit(
                    self.dataset.training_batches(config.batch_size, config.seed, first_epoch),
                    steps_per_epoch=steps,
                    initial_epoch=first_epoch,
                    epochs=config.epochs,
                    validation_data=tf.data.Dataset.from_tensor_slices(validation).batch(config.batch_size),
                    shuffle=False,  # The data set does that itself.
                    callbacks=callbacks,
                    verbose=verbose,
                )
        except tf.errors.InvalidArgumentError as error:
            if NOT_FINITE not in error.message:
                raise
            raise Diverged(
                f"Training diverged in epoch {_iterations(model) // steps + 1}: the log weights of a batch are not "
                "finite. "
                f"Lower the learning rate (now {config.learning_rate:g}). {self.workdir} keeps the last whole epoch."
            ) from error
        return model

    def evaluate(self, model, verbose=1):
        """Evaluates on the test set, prints a table, and writes evaluation.json and the figures.

        Returns:
          dict, what is in evaluation.json.

        Raises:
          strategies.WorkerLost: if another worker of the cluster is gone.
        """
        config = self.config
        x = self.test_set
        verbose = verbose if self.is_chief else 0
        if verbose:
            print(f"Evaluating {len(x)} test examples with {config.eval_samples} samples each.")
        with strategies.watching(self.strategy):
            trained = evaluation.evaluate(model, x, config.eval_samples, verbose=verbose)
            with self.strategy.scope():
                beginner = self._build()
            untrained = likelihood.estimate_dataset(beginner, x, config.m * config.k, verbose=0)
        baselines = {
            "the same, untrained model": float(untrained.log_prob.mean()),
            "independent pixels (Bernoulli)": evaluation.bernoulli_baseline(self.dataset.train_mean, x),
        }
        untrained_bound, pixels = baselines.values()
        result = {**dataclasses.asdict(trained), "untrained_iwae_bound": untrained_bound, "bernoulli_baseline": pixels}
        if self.is_chief:
            self._write_figures(model, x)
            # Last: a run that has it is finished.
            write_json(self.workdir / "evaluation.json", result)
        if verbose:
            print(evaluation.table(trained, baselines))
            print(f"Everything about this run is in {self.workdir}.")
        return result

    def _describe(self):
        self.workdir.mkdir(parents=True, exist_ok=True)
        versions = {name: metadata.version(name) for name in ("tensorflow", "keras", "tensorflow-probability", "numpy")}
        write_json(self.workdir / "config.json", {"config": dataclasses.asdict(self.config), "versions": versions})

    def _build(self):
        config = self.config
        model = presets.build(
            config.preset,
            data_shape=self.dataset.data_shape,
            objective=self.objective,
            seed=config.seed,
            data_mean=self.dataset.train_mean,
            mixed_precision=config.mixed_precision,
        )
        model.compile(
            keras.optimizers.Adam(config.learning_rate),
            keras.optimizers.Adam(config.learning_rate),
            backward_particles=config.backward_particles,
            particle_chunk=config.particle_chunk,
            steps_per_execution=config.steps_per_execution,
        )
        return model

    def _restore(self):
        path = self.workdir / _MODEL
        return keras.saving.load_model(path) if path.exists() else None

    def _history(self, epochs):
        """The metrics of the epochs that the checkpoint has seen; one that was cut off is run, and written, again."""
        path = self.workdir / "metrics.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return rows[:epochs]

    def _check_workdir(self, resume):
        path = self.workdir / "config.json"
        if self.workdir.exists() and not self.workdir.is_dir():
            raise ValueError(f"The work directory {self.workdir} is a file. Choose another with --workdir.")
        if not path.exists():
            if self.workdir.exists() and any(not path.name.startswith(".partial-") for path in self.workdir.iterdir()):
                raise ValueError(
                    f"The work directory {self.workdir} is not empty and holds no run. Choose another with --workdir."
                )
            return
        try:
            there = json.loads(path.read_text())["config"]
        except (ValueError, KeyError) as error:
            raise ValueError(f"{path} is not the configuration of a run. Choose another --workdir.") from error
        here = dataclasses.asdict(self.config)
        different = [name for name in here if name not in _IRRELEVANT and there.get(name) != here[name]]
        if different:
            changes = ", ".join(f"{name}={there.get(name)!r} there and {here[name]!r} here" for name in different)
            raise ValueError(
                f"The work directory {self.workdir} holds a run of another configuration: {changes}. Choose another "
                "with --workdir."
            )
        if self.is_chief and not resume:  # Another worker may find what the chief has just written.
            raise ValueError(
                f"The work directory {self.workdir} holds this run already. Pass --resume to go on with it, or choose "
                "another with --workdir."
            )

    def _write_figures(self, model, x):
        rows, columns = 5, 10
        means = sample_images(model, rows * columns, seed=self.config.seed)
        shown = x[:columns]
        reconstructions = model(tf.constant(shown)).numpy()
        history = self._history(self.config.epochs)
        grid = (rows, columns, *x.shape[1:])
        for name, figure in (
            ("bounds", figures.training_curves(history, f"Bounds, {self.title}")),
            ("samples", figures.image_grid(means.reshape(grid), f"Means of samples, {self.title}")),
            (
                "reconstructions",
                figures.image_grid(np.stack([shown, reconstructions]), f"Reconstructions, {self.title}", ["x", "mean"]),
            ),
        ):
            figures.write(figure, self.workdir / f"{name}.png")


def _iterations(model):
    return int(keras.ops.convert_to_numpy(model.encoder_optimizer.iterations))


def sample_images(model, count, seed=0):
    """Means of p(x | z) for draws of z from the prior.

    Returns:
      Float array [count, ...].
    """
    return model.decoder.likelihood(model.prior.distribution().sample(count, seed=(seed, 0))).mean().numpy()


def write_json(path, value):
    """Writes a JSON file that appears whole or not at all."""
    with whole(path) as partial:
        partial.write_text(json.dumps(value, indent=2) + "\n")


class _EpochEnd(keras.callbacks.Callback):
    """After each epoch, writes its metrics and then the model that --resume goes on from."""

    def __init__(self, workdir, history):
        super().__init__()
        self._workdir = workdir
        self._history = history

    def on_epoch_end(self, epoch, logs=None):
        self._history.append({"epoch": epoch + 1, **{name: float(value) for name, value in logs.items()}})
        with whole(self._workdir / "metrics.jsonl") as partial:
            partial.write_text("".join(json.dumps(row) + "\n" for row in self._history))
        with whole(self._workdir / _MODEL) as partial:
            self.model.save(partial)
