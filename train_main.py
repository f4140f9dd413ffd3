"""Trains an importance-weighted autoencoder and leaves everything about the run in a work directory.

python train_main.py --objective=miwae --k=8 --m=8
"""

import dataclasses
import os
import sys
import warnings
from typing import Any

# TensorFlow reports on its libraries at each start; what matters comes as an exception.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf
from absl import app, flags

from iwae_zoo import bounds, data, estimators, objectives, presets, saved_model, strategies, training

_OBJECTIVE = flags.DEFINE_string(
    "objective", "iwae", f"What is maximised: one of {', '.join(objectives.names())}. README has the table."
)
_M = flags.DEFINE_integer("m", 8, "Number of groups of particles (importance samples) for each example.")
_K = flags.DEFINE_integer("k", 8, "Number of particles in a group: more make the bound tighter.")
_BETA = flags.DEFINE_float("beta", None, "Share of the ELBO in a combination bound (ciwae), 0 to 1. Default 0.5.")
_ALPHA = flags.DEFINE_float(
    "alpha", None, "Order of a vr_iwae bound, 0 (IWAE) up to, but not including, 1 (ELBO). Default 0.5."
)
_ESTIMATOR = flags.DEFINE_string(
    "estimator",
    None,
    f"Gradient estimator of the encoder, instead of the objective's: {', '.join(estimators.names())}.",
)
_DECODER_BOUND = flags.DEFINE_string(
    "decoder_bound", None, f"Bound that the decoder follows, instead of the objective's: {', '.join(bounds.names())}."
)
_ENCODER_BOUND = flags.DEFINE_string(
    "encoder_bound", None, f"Bound that the encoder follows, instead of the objective's: {', '.join(bounds.names())}."
)
_DATASET = flags.DEFINE_string(
    "dataset", "digits", f"One of {', '.join(data.names())}, or the path of a .npy or .npz file with values in [0, 1]."
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Folder of prepared TensorFlow Datasets, for mnist and binarized_mnist."
)
_PRESET = flags.DEFINE_string(
    "preset",
    None,
    f"Architecture and training settings: {', '.join(presets.names())}. Default: small for digits, else rainforth.",
)
_EPOCHS = flags.DEFINE_integer("epochs", None, "Passes over the training set. Default: the preset's.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", None, "Examples in a training batch. Default: the preset's.")
_LEARNING_RATE = flags.DEFINE_float("learning_rate", None, "Of Adam, for both networks. Default: the preset's.")
_SEED = flags.DEFINE_integer("seed", 0, "The same seed gives the same weights.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Where the run is kept. Default: runs/ and a name made of the flags.")
_EVAL_SAMPLES = flags.DEFINE_integer("eval_samples", 5000, "Particles per test example for the closing log p(x).")
_DIAGNOSTICS_EVERY = flags.DEFINE_integer(
    "diagnostics_every", None, "Epochs between two looks at gradient SNR, active units and KL terms. Default: none."
)
_STRATEGY = flags.DEFINE_string(
    "strategy",
    "auto",
    f"Where to train: {', '.join(strategies.names())}. auto: all workers of TF_CONFIG, else all GPUs, else one device.",
)
_DEVICES = flags.DEFINE_string(
    "devices",
    None,
    "Kind and number of this machine's devices, such as gpu:2, or cpu:4 for logical ones. Default: all.",
)
_MIXED_PRECISION = flags.DEFINE_string(
    "mixed_precision", None, "bfloat16: networks compute in it; log weights stay float32. Default: float32."
)
_BACKWARD_PARTICLES = flags.DEFINE_integer(
    "backward_particles", None, "Back-propagate through so many particles, resampled by weight. Default: all."
)
_PARTICLE_CHUNK = flags.DEFINE_integer(
    "particle_chunk", None, "Most particles decoded at once: bounds memory, costs time. Default: all."
)
_STEPS_PER_EXECUTION = flags.DEFINE_integer(
    "steps_per_execution", 1, "Train steps for each return to Python; on one device."
)
_EXPORT_DIR = flags.DEFINE_string("export_dir", None, "Folder of a served model; gets a new version at the end.")
_RESUME = flags.DEFINE_bool("resume", False, "Go on with an interrupted run from its last whole epoch.")


def main(argv):
    """Trains and evaluates; the exit status is not 0 if it could not."""
    if len(argv) > 1:
        sys.exit(f"train_main: unexpected arguments {argv[1:]}; flags are written --name=value.")
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
    tf.get_logger().setLevel("WARNING")
    settings: dict[str, Any] = {f.name: flags.FLAGS[f.name].value for f in dataclasses.fields(training.Config)}
    config = training.Config(**settings)
    workdir = _WORKDIR.value or f"runs/{config.title}"
    try:
        if _STRATEGY.value in ("auto", "multi_worker") and strategies.cluster_size() > 1:
            print(f"Waiting for the {strategies.cluster_size()} workers of TF_CONFIG.", flush=True)
        strategy = strategies.get(_STRATEGY.value, _DEVICES.value)
        run = training.Run(config, workdir, resume=_RESUME.value, strategy=strategy)
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(f"train_main: {error}")
    try:
        run.evaluate(run.train())
        if _EXPORT_DIR.value and run.is_chief:
            print(f"Exported to {saved_model.export_run(workdir, _EXPORT_DIR.value)}.")
    except strategies.WorkerLost as error:
        print(f"train_main: {error} This one does so now, with --resume, and waits for the others.", flush=True)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:], "--resume"])
    except (training.Diverged, OSError) as error:
        sys.exit(f"train_main: {error}")
    except KeyboardInterrupt:
        print(
            f"\ntrain_main: interrupted. The same command with --resume goes on from the last whole epoch in {workdir}."
        )
        sys.exit(130)


if __name__ == "__main__":
    app.run(main)
