"""Trains an importance-weighted autoencoder and leaves everything about the run in a work directory.

python train_main.py --objective=miwae --k=8 --m=8
"""

import dataclasses
import functools
import os
import sys
import typing
from typing import Any

from absl import flags

import iwae_zoo_console as console
from iwae_zoo import columns, data, objectives, presets, saved_model, training
from iwae_zoo.distributions import likelihoods, posteriors
from iwae_zoo.estimation import likelihood
from iwae_zoo.networks import bodies
from iwae_zoo.networks import prior as priors
from iwae_zoo.objectives import bounds, estimators, thermodynamic
from iwae_zoo.programs import chunks
from iwae_zoo.training import schedules, strategies

# What --help says of the fields of a configuration, which are flags of the same names, types and defaults.
_HELP = {
    "objective": (
        f"What is maximised: one of {', '.join(objectives.names())}. README has the table. Default: the preset's, for "
        "most iwae."
    ),
    "m": "Number of groups of particles (importance samples) for each example. Default: the preset's, for most 8.",
    "k": "Number of particles in a group: more make the bound tighter. Default: the preset's, for most 8.",
    "beta": "Share of the ELBO in a combination bound (ciwae), 0 to 1. Default 0.5.",
    "alpha": "Order of a vr_iwae bound, 0 (IWAE) up to, but not including, 1 (ELBO). Default 0.5.",
    "points": "Number of betas of a thermodynamic bound (tvo), 0 and 1 among them, 2 to 50. Default 6.",
    "spacing": (
        f"Where the betas of a thermodynamic bound lie: {', '.join(thermodynamic.SPACINGS)}. Default log_uniform."
    ),
    "beta_1": "First beta above 0 of a thermodynamic bound, log_uniform spacing, between 0 and 1. Default 0.1.",
    "estimator": (
        f"Gradient estimator of the encoder, instead of the objective's: {', '.join(estimators.names())}; with "
        "settings as in ovis,gamma=1 or ovis,auxiliary=5."
    ),
    "decoder_bound": (
        "Bound that the decoder follows, instead of the objective's: "
        f"{', '.join(name for name, row in bounds.TABLE.items() if row.kind.for_decoder)}."
    ),
    "encoder_bound": f"Bound that the encoder follows, instead of the objective's: {', '.join(bounds.names())}.",
    "sleep": (
        "Share of the sleep update in the encoder's gradient, 0 to 1: it learns the latents of what the model draws. "
        "Default 0."
    ),
    "particle_schedule": (
        "Particles that grow over the run: MxK:SHARE with commas between them, as in 1x5:0.5 for M = 1 and K = 5 in "
        "the first half of the epochs. The rest has --m and --k. Default: these throughout."
    ),
    "dataset": (
        f"One of {', '.join(data.names())}, tfds:NAME for images that TensorFlow Datasets has prepared, or the path of "
        "a .npy, .npz, .csv or .parquet file. NaN and empty cells are missing values."
    ),
    "data_dir": "Folder of prepared TensorFlow Datasets, for mnist, binarized_mnist and tfds:.",
    "kind": f"Kind of data: {', '.join(data.kinds.names())}. Default: as its numbers have it.",
    "binarize": (
        f"What becomes of intensities: {', '.join(data.BINARIZE)}. dynamic, the default: a fresh binary draw for each "
        "batch; fixed: one draw for good."
    ),
    "columns": (
        "What columns of a table hold, where they do not look like it: NAME:KIND with commas between them, of the "
        f"kinds {', '.join(columns.KINDS)}."
    ),
    "missing": "Share of all values to take away at random, for studies. Default: none.",
    "likelihood": (
        f"What p(x given z) is: {', '.join(likelihoods.names())}; with settings as in normal,spread=column. Default: "
        "by the kind of data."
    ),
    "preset": f"Architecture and training settings: {', '.join(presets.names())}. Default: by the data set.",
    "from_preset": (
        "Begin with the trained weights of a preset, its networks and its likelihood: "
        f"{', '.join(presets.trained.names())}."
    ),
    "network": (
        f"Body of encoder and decoder instead of the preset's: {', '.join(bodies.names())}; with settings as in "
        "perceptron,residual=True; or module:attribute, a networks.bodies.Body of your own."
    ),
    "posterior": (
        f"Instead of the preset's: {', '.join(posteriors.names())}; with settings as in categorical,classes=10; of "
        "stacked stochastic layers one for all, or one for each from x upwards: normal+categorical."
    ),
    "prior": (
        f"Of the topmost layer, instead of the preset's: {', '.join(priors.names())}; with settings as in "
        "bernoulli,learned=False. Default: what fits the posterior."
    ),
    "latent_size": (
        "Size of the latent instead of the preset's: 50, or 100,50 for stacked stochastic layers from x upwards."
    ),
    "hidden_sizes": (
        "Hidden layers instead of the preset's, as the encoder has them: 200,200, or 200,200+100,100 for stacked "
        "stochastic layers that differ; empty for none. Of a convolution the channels of each scale: 16,32."
    ),
    "activation": "Of the hidden layers, by its name in Keras, instead of the preset's.",
    "epochs": "Passes over the training set. Default: the preset's.",
    "batch_size": "Examples in a training batch. Default: the preset's.",
    "learning_rate": "Of Adam, for both networks. Default: the preset's.",
    "schedule": (
        f"How the learning rate changes: {', '.join(schedules.names())}. burda: 3^i epochs at 10^(-i/7) of it, i = "
        "0..7, scaled to --epochs. Default: the preset's."
    ),
    "early_stopping": (
        "Stop after so many epochs without a better validation bound, and keep the best. Default: the last is kept."
    ),
    "seed": "The same seed gives the same weights.",
    "eval_samples": "Importance samples per test example for the closing log p(x).",
    "eval_method": (
        f"How the closing log p(x) is estimated: {', '.join(likelihood.METHODS)}. auto: importance samples, and "
        "annealing of the test examples where these cannot be trusted."
    ),
    "diagnostics_every": "Epochs between two looks at gradient SNR, active units and KL terms. Default: none.",
    "checkpoint_every": (
        "Steps between two checkpoints within an epoch, for long ones; --resume goes on from the last. Default: one "
        "after each epoch."
    ),
    "mixed_precision": "bfloat16: networks compute in it; log weights stay float32. Default: float32.",
    "tensor_float_32": (
        "Let GPUs train in TensorFloat-32: faster float32 products, of ten bits of mantissa. log p(x) is never "
        "answered in it."
    ),
    "backward_particles": "Back-propagate through so many particles, resampled by weight. Default: all.",
    "steps_per_execution": "Train steps for each return to Python; on one device.",
    "stream_above": (
        "GiB above which the training examples stay on disk and are read batch by batch, to the same weights; 0: "
        "always."
    ),
    "data_on": (
        "Where batches are gathered and binarised, to the same bits: host, device (one, that has room for all rows), "
        "or auto: a GPU that has."
    ),
}
_DEFINE: dict[Any, Any] = {
    str: flags.DEFINE_string,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    bool: flags.DEFINE_bool,
}

_FLAGS = console.flag_values()
for _field in dataclasses.fields(training.Config):
    if _field.name in _HELP:
        _type, *_ = typing.get_args(_field.type) or [_field.type]
        _DEFINE[_type](_field.name, _field.default, _HELP[_field.name], flag_values=_FLAGS)

_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Where the run is kept. Default: runs/ and a name made of the flags.", flag_values=_FLAGS
)
_STRATEGY = flags.DEFINE_string(
    "strategy",
    "auto",
    f"Where to train: {', '.join(strategies.names())}. auto: all workers of TF_CONFIG, else all GPUs, else one device.",
    flag_values=_FLAGS,
)
_DEVICES = flags.DEFINE_string(
    "devices",
    None,
    "Kind and number of this machine's devices, such as gpu:2; gpu:1x2 or cpu:4 for logical ones. Default: all.",
    flag_values=_FLAGS,
)
_PARTICLE_CHUNK = chunks.define(_FLAGS)
_EXPORT_DIR = flags.DEFINE_string(
    "export_dir", None, "Folder of a served model; gets a new version at the end.", flag_values=_FLAGS
)
_RESUME = flags.DEFINE_bool(
    "resume", False, "Go on with an interrupted run from its last checkpoint.", flag_values=_FLAGS
)
_LIST_PRESETS = flags.DEFINE_bool("list_presets", False, "Say what presets there are, and stop.", flag_values=_FLAGS)


def main(name):
    """Trains and evaluates; the exit status is not 0 if it could not."""
    if _LIST_PRESETS.value:
        print("\n\n".join(map(presets.describe, presets.names())))
        return
    settings: dict[str, Any] = {field.name: _FLAGS[field.name].value for field in dataclasses.fields(training.Config)}
    fits_memory = _PARTICLE_CHUNK.value == chunks.AUTO
    config = training.Config(**settings | {"particle_chunk": None if fits_memory else _PARTICLE_CHUNK.value})
    workdir = _WORKDIR.value or f"runs/{config.title}"
    try:
        if _EXPORT_DIR.value and os.path.exists(_EXPORT_DIR.value) and not os.path.isdir(_EXPORT_DIR.value):
            raise NotADirectoryError(f"--export_dir={_EXPORT_DIR.value} is a file: give it the name of a folder.")
        if _STRATEGY.value in ("auto", "multi_worker") and strategies.cluster_size() > 1:
            print(f"Waiting for the {strategies.cluster_size()} workers of TF_CONFIG.", flush=True)
        strategy = strategies.get(_STRATEGY.value, _DEVICES.value)
        training_run = training.Run(config, workdir, _RESUME.value, strategy, fits_memory)
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        console.fail(name, error)
    try:
        training_run.evaluate(training_run.train())
        if _EXPORT_DIR.value and training_run.is_chief:
            print(f"Exported to {saved_model.export_run(workdir, _EXPORT_DIR.value)}.")
    except strategies.WorkerLost as error:
        print(f"{name}: {error} This one does so now, with --resume, and waits for the others.", flush=True)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:], "--resume"])
    except (training.Diverged, ValueError, OSError, MemoryError) as error:
        console.fail(name, error)
    except KeyboardInterrupt:
        print(f"\n{name}: interrupted. The same command with --resume goes on from the last checkpoint in {workdir}.")
        sys.exit(130)


run = functools.partial(console.run, main, _FLAGS, __doc__)
