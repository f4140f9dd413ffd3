"""What is asked of exported models: one request of every signature."""

import numpy as np
import tensorflow as tf


def requests(x, latent_size, missing=False):
    """The inputs of every signature by its name, for the rows of x, with counts and seeds of their own.

    Of models that take missing values there is one more.
    """
    seed = 7 + 1000003 * np.arange(len(x), dtype=np.int64)
    count = 10 + np.arange(len(x), dtype=np.int32)
    z = np.random.default_rng(1).normal(size=(len(x), latent_size)).astype("float32")
    return {
        "serving_default": {"x": x},
        "log_prob": {"x": x, "num_samples": count, "seed": seed},
        "log_prob_annealed": {"x": x, "seed": seed},
        **({"impute": {"x": x, "num_samples": count, "seed": seed}} if missing else {}),
        "encode": {"x": x},
        "posterior_sample": {"x": x, "num_samples": count, "seed": seed},
        "posterior_sample_annealed": {"x": x, "seed": seed},
        "reconstruct": {"x": x},
        "decode": {"z": z},
        "sample": {"seed": seed},
    }


def ask(exported, name, rows=slice(None), **inputs):
    """A signature's answer to these rows of the inputs, as arrays."""
    answer = exported.signatures[name](**{key: tf.constant(value[rows]) for key, value in inputs.items()})
    return {key: value.numpy() for key, value in answer.items()}
