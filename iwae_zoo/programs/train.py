"""Trains an importance-weighted autoencoder and leaves everything about the run in a work directory.

python train_main.py --objective=miwae --k=8 --m=8
"""

import dataclasses
import functools
import os
import sys
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

_FLAGS = console.flag_values()
_OBJECTIVE = flags.DEFINE_string(
    "objective",
    None,
    f"What is maximised: one of {', '.join(objectives.names())}. README has the table. Default: the preset's, for most "
    "iwae.",
    flag_values=_FLAGS,
)
_M = flags.DEFINE_integer(
    "m",
    None,
    "Number of groups of particles (importance samples) for each example. Default: the preset's, for most 8.",
    flag_values=_FLAGS,
)
_K = flags.DEFINE_integer(
    "k",
    None,
    "Number of particles in a group: more make the bound tighter. Default: the preset's, for most 8.",
    flag_values=_FLAGS,
)
_BETA = flags.DEFINE_float(
    "beta", None, "Share of the ELBO in a combination bound (ciwae), 0 to 1. Default 0.5.", flag_values=_FLAGS
)
_ALPHA = flags.DEFINE_float(
    "alpha",
    None,
    "Order of a vr_iwae bound, 0 (IWAE) up to, but not including, 1 (ELBO). Default 0.5.",
    flag_values=_FLAGS,
)
_POINTS = flags.DEFINE_integer(
    "points",
    None,
    "Number of betas of a thermodynamic bound (tvo), 0 and 1 among them, 2 to 50. Default 6.",
    flag_values=_FLAGS,
)
_SPACING = flags.DEFINE_string(
    "spacing",
    None,
    f"Where the betas of a thermodynamic bound lie: {', '.join(thermodynamic.SPACINGS)}. Default log_uniform.",
    flag_values=_FLAGS,
)
_BETA_1 = flags.DEFINE_float(
    "beta_1",
    None,
    "First beta above 0 of a thermodynamic bound, log_uniform spacing, between 0 and 1. Default 0.1.",
    flag_values=_FLAGS,
)
_ESTIMATOR = flags.DEFINE_string(
    "estimator",
    None,
    f"Gradient estimator of the encoder, instead of the objective's: {', '.join(estimators.names())}; with "
    "settings as in ovis,gamma=1 or ovis,auxiliary=5.",
    flag_values=_FLAGS,
)
_DECODER_BOUND = flags.DEFINE_string(
    "decoder_bound",
    None,
    "Bound that the decoder follows, instead of the objective's: "
    f"{', '.join(name for name, row in bounds.TABLE.items() if row.kind.for_decoder)}.",
    flag_values=_FLAGS,
)
_ENCODER_BOUND = flags.DEFINE_string(
    "encoder_bound",
    None,
    f"Bound that the encoder follows, instead of the objective's: {', '.join(bounds.names())}.",
    flag_values=_FLAGS,
)
_SLEEP = flags.DEFINE_float(
    "sleep",
    None,
    "Share of the sleep update in the encoder's gradient, 0 to 1: it learns the latents of what the model draws. "
    "Default 0.",
    flag_values=_FLAGS,
)
_PARTICLE_SCHEDULE = flags.DEFINE_string(
    "particle_schedule",
    None,
    "Particles that grow over the run: MxK:SHARE with commas between them, as in 1x5:0.5 for M = 1 and K = 5 in the "
    "first half of the epochs. The rest has --m and --k. Default: these throughout.",
    flag_values=_FLAGS,
)
_DATASET = flags.DEFINE_string(
    "dataset",
    "digits",
    f"One of {', '.join(data.names())}, tfds:NAME for images that TensorFlow Datasets has prepared, or the path of a "
    ".npy, .npz, .csv or .parquet file. NaN and empty cells are missing values.",
    flag_values=_FLAGS,
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir",
    None,
    "Folder of prepared TensorFlow Datasets, for mnist, binarized_mnist and tfds:.",
    flag_values=_FLAGS,
)
_KIND = flags.DEFINE_string(
    "kind", None, f"Kind of data: {', '.join(data.kinds.names())}. Default: as its numbers have it.", flag_values=_FLAGS
)
_BINARIZE = flags.DEFINE_string(
    "binarize",
    None,
    f"What becomes of intensities: {', '.join(data.BINARIZE)}. dynamic, the default: a fresh binary draw for each "
    "batch; fixed: one draw for good.",
    flag_values=_FLAGS,
)
_COLUMNS = flags.DEFINE_string(
    "columns",
    None,
    "What columns of a table hold, where they do not look like it: NAME:KIND with commas between them, of the kinds "
    f"{', '.join(columns.KINDS)}.",
    flag_values=_FLAGS,
)
_MISSING = flags.DEFINE_float(
    "missing", None, "Share of all values to take away at random, for studies. Default: none.", flag_values=_FLAGS
)
_LIKELIHOOD = flags.DEFINE_string(
    "likelihood",
    None,
    f"What p(x given z) is: {', '.join(likelihoods.names())}; with settings as in normal,spread=column. Default: by "
    "the kind of data.",
    flag_values=_FLAGS,
)
_PRESET = flags.DEFINE_string(
    "preset",
    None,
    f"Architecture and training settings: {', '.join(presets.names())}. Default: by the data set.",
    flag_values=_FLAGS,
)
_FROM_PRESET = flags.DEFINE_string(
    "from_preset",
    None,
    "Begin with the trained weights of a preset, its networks and its likelihood: "
    f"{', '.join(presets.trained.names())}.",
    flag_values=_FLAGS,
)
_NETWORK = flags.DEFINE_string(
    "network",
    None,
    f"Body of encoder and decoder instead of the preset's: {', '.join(bodies.names())}; with settings as in "
    "perceptron,residual=True; or module:attribute, a networks.bodies.Body of your own.",
    flag_values=_FLAGS,
)
_POSTERIOR = flags.DEFINE_string(
    "posterior",
    None,
    f"Instead of the preset's: {', '.join(posteriors.names())}; with settings as in categorical,classes=10; of stacked "
    "stochastic layers one for all, or one for each from x upwards: normal+categorical.",
    flag_values=_FLAGS,
)
_PRIOR = flags.DEFINE_string(
    "prior",
    None,
    f"Of the topmost layer, instead of the preset's: {', '.join(priors.names())}; with settings as in "
    "bernoulli,learned=False. Default: what fits the posterior.",
    flag_values=_FLAGS,
)
_LATENT_SIZE = flags.DEFINE_string(
    "latent_size",
    None,
    "Size of the latent instead of the preset's: 50, or 100,50 for stacked stochastic layers from x upwards.",
    flag_values=_FLAGS,
)
_HIDDEN_SIZES = flags.DEFINE_string(
    "hidden_sizes",
    None,
    "Hidden layers instead of the preset's, as the encoder has them: 200,200, or 200,200+100,100 for stacked "
    "stochastic layers that differ; empty for none. Of a convolution the channels of each scale: 16,32.",
    flag_values=_FLAGS,
)
_ACTIVATION = flags.DEFINE_string(
    "activation", None, "Of the hidden layers, by its name in Keras, instead of the preset's.", flag_values=_FLAGS
)
_EPOCHS = flags.DEFINE_integer(
    "epochs", None, "Passes over the training set. Default: the preset's.", flag_values=_FLAGS
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", None, "Examples in a training batch. Default: the preset's.", flag_values=_FLAGS
)
_LEARNING_RATE = flags.DEFINE_float(
    "learning_rate", None, "Of Adam, for both networks. Default: the preset's.", flag_values=_FLAGS
)
_SCHEDULE = flags.DEFINE_string(
    "schedule",
    None,
    f"How the learning rate changes: {', '.join(schedules.names())}. burda: 3^i epochs at 10^(-i/7) of it, i = 0..7, "
    "scaled to --epochs. Default: the preset's.",
    flag_values=_FLAGS,
)
_EARLY_STOPPING = flags.DEFINE_integer(
    "early_stopping",
    None,
    "Stop after so many epochs without a better validation bound, and keep the best. Default: the last is kept.",
    flag_values=_FLAGS,
)
_SEED = flags.DEFINE_integer("seed", 0, "The same seed gives the same weights.", flag_values=_FLAGS)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Where the run is kept. Default: runs/ and a name made of the flags.", flag_values=_FLAGS
)
_EVAL_SAMPLES = flags.DEFINE_integer(
    "eval_samples", 5000, "Importance samples per test example for the closing log p(x).", flag_values=_FLAGS
)
_EVAL_METHOD = flags.DEFINE_string(
    "eval_method",
    "auto",
    f"How the closing log p(x) is estimated: {', '.join(likelihood.METHODS)}. auto: importance samples, and annealing "
    "of the test examples where these cannot be trusted.",
    flag_values=_FLAGS,
)
_DIAGNOSTICS_EVERY = flags.DEFINE_integer(
    "diagnostics_every",
    None,
    "Epochs between two looks at gradient SNR, active units and KL terms. Default: none.",
    flag_values=_FLAGS,
)
_CHECKPOINT_EVERY = flags.DEFINE_integer(
    "checkpoint_every",
    None,
    "Steps between two checkpoints within an epoch, for long ones; --resume goes on from the last. Default: one after "
    "each epoch.",
    flag_values=_FLAGS,
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
_MIXED_PRECISION = flags.DEFINE_string(
    "mixed_precision",
    None,
    "bfloat16: networks compute in it; log weights stay float32. Default: float32.",
    flag_values=_FLAGS,
)
_TENSOR_FLOAT_32 = flags.DEFINE_bool(
    "tensor_float_32",
    False,
    "Let GPUs train in TensorFloat-32: faster float32 products, of ten bits of mantissa. log p(x) is never answered in "
    "it.",
    flag_values=_FLAGS,
)
_BACKWARD_PARTICLES = flags.DEFINE_integer(
    "backward_particles",
    None,
    "Back-propagate through so many particles, resampled by weight. Default: all.",
    flag_values=_FLAGS,
)
_PARTICLE_CHUNK = chunks.define(_FLAGS)
_STEPS_PER_EXECUTION = flags.DEFINE_integer(
    "steps_per_execution", 1, "Train steps for each return to Python; on one device.", flag_values=_FLAGS
)
_STREAM_ABOVE = flags.DEFINE_float(
    "stream_above",
    data.DEFAULT_STREAM_ABOVE,
    "GiB above which the training examples stay on disk and are read batch by batch, to the same weights; 0: always.",
    flag_values=_FLAGS,
)
_DATA_ON = flags.DEFINE_string(
    "data_on",
    "auto",
    "Where batches are gathered and binarised, to the same bits: host, device (one, that has room for all rows), or "
    "auto: a GPU that has.",
    flag_values=_FLAGS,
)
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
    except (ValueError, OSError, RuntimeError) as error:
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
