"""Trains a little model on every worker of TF_CONFIG, and saves what came of it, if asked to; then is `train_main.py`.

python workers_toy.py [out.npz] [flags of train_main.py]
"""

import multiprocessing
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import numpy as np
import quick

import iwae_zoo_console

with iwae_zoo_console.quiet():
    import keras
    import tensorflow as tf

from iwae_zoo import likelihood, objectives, presets, strategies
from iwae_zoo.programs import train as train_main


def data():
    """Training data of 21 examples: of batches of 10, the last has one."""
    return (np.random.default_rng(0).random((21, 3, 3, 1)) < 0.4).astype("float32")


def train(strategy):
    """The trained model."""
    with strategy.scope():
        model = presets.build("small", data_shape=(3, 3, 1), objective=objectives.get("piwae", m=2, k=3))
        # Not Adam, whose steps do not get smaller where a gradient is little but rounding.
        model.compile(keras.optimizers.SGD(0.05), keras.optimizers.SGD(0.05))
    model.fit(tf.data.Dataset.from_tensor_slices(data()).batch(10), epochs=2, shuffle=False, verbose=0)
    return model


def results(model):
    """Weights and answers."""
    weights = np.concatenate([np.ravel(w) for w in model.get_weights()])
    # Weights that differ in their last digit send annealed chains elsewhere.
    log_prob = likelihood.estimate_dataset(model, data()[:5], 100, method="importance", verbose=0).log_prob
    return {"weights": weights, "log_prob": log_prob}


if __name__ == "__main__":
    if multiprocessing.parent_process() is None:  # A worker that is left alone starts itself anew, as a cold process.
        quick.settle()
    flags = sys.argv[1:]
    if not flags[0].startswith("-"):
        strategy = strategies.get("auto")
        np.savez(flags.pop(0), replicas=strategy.num_replicas_in_sync, **results(train(strategy)))
        strategies.get = lambda *_: strategy  # A process can join a cluster once.
    train_main.run("train_main.py", flags)
