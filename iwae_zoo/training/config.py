"""Everything that a run depends on, as one frozen value."""

import dataclasses
import pathlib
from typing import Any

import keras
import numpy as np

from iwae_zoo import data, objectives, presets
from iwae_zoo._checks import checked_seed, integer, look_up, positive
from iwae_zoo.estimation import likelihood
from iwae_zoo.estimation.streaming import checked_counts
from iwae_zoo.networks import bodies
from iwae_zoo.training import placement, schedules, stages

__all__ = ["FROM_PRESET", "IN_STEP", "IRRELEVANT", "Config"]

# Fields that trained weights leave no choice of.
FROM_PRESET = (
    "activation",
    "columns",
    "hidden_sizes",
    "latent_size",
    "likelihood",
    "mixed_precision",
    "network",
    "posterior",
    "prior",
)

# Fields that the trained weights do not depend on, but for rounding.
IRRELEVANT = (
    "checkpoint_every",
    "data_dir",
    "data_on",
    "diagnostics_every",
    "eval_method",
    "eval_samples",
    "particle_chunk",
    "steps_per_execution",
    "stream_above",
)
# Of these, those that say when the workers of a cluster exchange something.
IN_STEP = ("checkpoint_every", "diagnostics_every", "eval_method", "eval_samples")


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that a run depends on; None takes the preset's or the objective's own.

    Attributes:
      objective: name of an objective, by default the preset's, as `m` and `k` are; `beta`, `alpha`, `points`,
        `spacing`, `beta_1`, `estimator`, `decoder_bound`, `encoder_bound` and `sleep` are those of `objectives.get`.
      particle_schedule: str, M and K of the epochs before those that `m` and `k` are for, as `stages.of_epochs`.
      dataset: name or path of a data set.
      data_dir: folder of prepared TensorFlow Datasets.
      kind: name of the kind of data, `binarize` what becomes of intensities, `columns` what a table's columns hold, and
        `missing` the share of values that is taken away; as `data.load`.
      likelihood: name of a likelihood, with settings where it has some, as `likelihoods.get`.
      from_preset: name of a preset whose trained weights the run begins with, and whose networks and likelihood it has;
        `FROM_PRESET` names what it brings.
      preset: name of an architecture; by default that of the data set. The next six are instead of its own.
      network: name of a body, with settings where it has some, as `bodies.get`.
      posterior: name of a posterior, with settings where it has some, or one for each stochastic layer from x upwards
        with + between them.
      prior: name of a prior of the topmost layer, with settings where it has some.
      latent_size: str, "50", or "100,50" for stacked stochastic layers from x upwards.
      hidden_sizes: str, "200,200", "" for none, or "200,200+100,100" with those of each stochastic layer.
      activation: name of a Keras activation, of the hidden layers.
      epochs: int, passes over the training set.
      batch_size: int.
      learning_rate: float, of Adam for both networks; the highest where it changes.
      schedule: how the learning rate changes over the run; a name of `schedules`.
      early_stopping: int, stop after so many epochs without a better validation bound, and keep the best epoch; None
        to train to the end and keep the last.
      seed: int, of the initial weights, the order of the data and all noise.
      eval_samples: int, importance samples per example for the closing log p(x).
      eval_method: how it is estimated: a name of `likelihood.METHODS`.
      diagnostics_every: int, epochs between two looks at gradient SNR, active units and KL terms; None for none.
      checkpoint_every: int, steps of an epoch between two checkpoints within it, a multiple of `steps_per_execution`;
        None for one after each epoch alone.
      mixed_precision: "bfloat16" for networks that compute in it; weights and log weights are float32 in any case.
      tensor_float_32: bool, whether GPUs may train in TensorFloat-32, ten bits of mantissa for a float32 product; what
        answers log p(x), and validation, never does.
      backward_particles: int, as in `ImportanceWeightedAutoencoder.compile`.
      particle_chunk: int, the same.
      steps_per_execution: int, train steps for each return to Python; on one device.
      stream_above: float, GiB above which a data set stays on disk, as `data.load`.
      data_on: where batches are gathered and binarised, to the same bits: a name of `placement`.
    """

    objective: str | None = None
    m: int | None = None
    k: int | None = None
    beta: float | None = None
    alpha: float | None = None
    points: int | None = None
    spacing: str | None = None
    beta_1: float | None = None
    estimator: str | None = None
    decoder_bound: str | None = None
    encoder_bound: str | None = None
    sleep: float | None = None
    particle_schedule: str | None = None
    dataset: str = "digits"
    data_dir: str | None = None
    kind: str | None = None
    binarize: str | None = None
    columns: str | None = None
    missing: float | None = None
    likelihood: str | None = None
    from_preset: str | None = None
    preset: str | None = None
    network: str | None = None
    posterior: str | None = None
    prior: str | None = None
    latent_size: str | None = None
    hidden_sizes: str | None = None
    activation: str | None = None
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    schedule: str | None = None
    early_stopping: int | None = None
    seed: int = 0
    eval_samples: int = 5000
    eval_method: str = "auto"
    diagnostics_every: int | None = None
    checkpoint_every: int | None = None
    mixed_precision: str | None = None
    tensor_float_32: bool = False
    backward_particles: int | None = None
    particle_chunk: int | None = None
    steps_per_execution: int = 1
    stream_above: float = data.DEFAULT_STREAM_ABOVE
    data_on: str = "auto"

    def resolved(self):
        """The same with every default filled in.

        Raises:
          ValueError: on an unknown name, a number out of range, or a field that `from_preset` brings.
        """
        if self.from_preset is not None:
            self._check_from_preset()
        name = self._preset
        preset = presets.get(name, **self.architecture)
        bodies.get(preset.network)
        _check_activation(preset.activation)
        filled = ("objective", "m", "k", "epochs", "batch_size", "learning_rate", "schedule")
        config = dataclasses.replace(
            self, preset=name, **self._data_again, **{field: self._chosen(field) for field in filled}
        )
        presets.check_latent(name, config.build_objective(), **self.architecture)
        checked_counts(None, eval_samples=config.eval_samples)
        counts = ("epochs", "batch_size", "early_stopping", "diagnostics_every", "backward_particles")
        for field in (*counts, "checkpoint_every", "particle_chunk", "steps_per_execution"):
            if (value := getattr(config, field)) is not None:
                integer(field, value)
        if config.checkpoint_every and config.checkpoint_every % config.steps_per_execution:
            raise ValueError(
                f"checkpoint_every must be a multiple of steps_per_execution={config.steps_per_execution}: received "
                f"{config.checkpoint_every}."
            )
        schedules.get(config.schedule, positive("learning_rate", config.learning_rate), steps=1)
        presets.dtype_policy(config.mixed_precision)
        look_up(likelihood.METHODS, config.eval_method, "method of estimating log p(x)")
        if config.particle_schedule and config.early_stopping:
            raise ValueError(
                "early_stopping watches a bound that particle_schedule changes: received both. Leave out one of them."
            )
        stages.of_epochs(config.particle_schedule, config.epochs, config.m, config.k)
        look_up(placement.NAMES, config.data_on, "place for the data")
        if not config.stream_above >= 0.0:
            raise ValueError(f"stream_above must be at least 0 GiB: received {config.stream_above!r}.")
        checked_seed(config.seed)
        return config

    def _check_from_preset(self):
        presets.card(self.from_preset)
        chosen = [name for name in FROM_PRESET if getattr(self, name) is not None]
        if chosen or self.preset not in (None, self.from_preset):
            received = {name: getattr(self, name) for name in ("preset", *chosen) if getattr(self, name) is not None}
            raise ValueError(
                f"from_preset={self.from_preset!r} brings networks and a likelihood of its own: leave out "
                f"{', '.join(f'{name}={value!r}' for name, value in received.items())}."
            )

    @property
    def architecture(self):
        """dict, the fields of the preset that were chosen, as `presets.get` and `presets.build` take them.

        Raises:
          ValueError: on sizes that are not integers.

        #### Examples
        >>> Config(latent_size="8,2", hidden_sizes="20").architecture
        {'latent_size': (8, 2), 'hidden_sizes': (20,)}
        """
        chosen: dict[str, Any] = {
            field: getattr(self, field) for field in ("network", "posterior", "prior", "activation")
        }
        if self.latent_size is not None:
            chosen["latent_size"] = _integers("latent_size", self.latent_size)
        if self.hidden_sizes is not None:
            of_layers = tuple(_integers("hidden_sizes", part) for part in self.hidden_sizes.split("+"))
            chosen["hidden_sizes"] = of_layers if len(of_layers) > 1 else of_layers[0]
        return {field: value for field, value in chosen.items() if value is not None}

    def build_objective(self, **particles):
        """The `Objective`.

        Args:
          **particles: `m` and `k` in place of its own.

        Raises:
          ValueError: as `objectives.get`.
        """
        settings = ("beta", "alpha", "points", "spacing", "beta_1")
        parts = ("estimator", "decoder_bound", "encoder_bound", "sleep")
        given = {name: getattr(self, name) for name in (*settings, *parts)}
        particles = {name: self._chosen(name) for name in ("m", "k")} | particles
        return objectives.get(self._chosen("objective"), **given | particles)

    def build_stages(self):
        """The objectives of a resolved configuration's run: list of pairs (first epoch, `Objective`).

        Raises:
          ValueError: as `objectives.get` and `stages.of_epochs`.
        """
        of_run = stages.of_epochs(self.particle_schedule, self.epochs, self.m, self.k)
        return [(stage.first_epoch, self.build_objective(m=stage.m, k=stage.k)) for stage in of_run]

    @property
    def _data_again(self):
        """`kind` and `binarize` of what `from_preset` was trained on, where the run is on the same data set."""
        there = presets.card(self.from_preset)["config"] if self.from_preset else {}
        again = there.get("dataset") == self.dataset
        return {name: there[name] for name in ("kind", "binarize") if again and getattr(self, name) is None}

    @property
    def _preset(self):
        return self.preset or self.from_preset or presets.default(self.dataset)

    def _chosen(self, field):
        """A field that presets have too: its own, or else the preset's."""
        own = getattr(self, field)
        return getattr(presets.TABLE.get(self._preset, presets.Preset), field) if own is None else own

    @property
    def title(self):
        """str, a short name for people and folders: the objective, and whatever was chosen besides."""
        named = {"objective", "m", "k", "dataset", "columns", "seed", *IRRELEVANT}
        chosen = [
            (field.name, getattr(self, field.name))
            for field in dataclasses.fields(self)
            if field.name not in named and getattr(self, field.name) != field.default
        ]
        particles = f"m{self._chosen('m')}", f"k{self._chosen('k')}"
        parts = [pathlib.Path(self.dataset).stem.replace(":", "_"), self._chosen("objective"), *particles]
        parts += [f"{name}_{value}" for name, value in chosen]
        return "-".join([*parts, f"seed{self.seed}"])


def _check_activation(name):
    """Raises ValueError unless a name is that of a Keras activation of one tensor, which keeps its shape."""
    activation, x = keras.activations.get(name), np.zeros([1, 4], np.float32)
    try:
        shape = tuple(activation(x).shape)
    except TypeError as error:
        raise ValueError(f"The activation {name!r} takes more than a tensor: {error}.") from error
    if shape != x.shape:
        raise ValueError(f"The activation {name!r} changes the number of units: received {shape} for {x.shape}.")


def _integers(name, text):
    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise ValueError(
            f"{name} must be integers with commas between them, such as 100,50: received {text!r}."
        ) from None
