"""The network that the benchmarks measure, 784-200-200-50, and the arithmetic it cannot avoid."""

import itertools

import tensorflow as tf

from iwae_zoo import presets

__all__ = ["bare_products", "build", "finished", "images", "train_step"]


def images(count):
    """Binary x: float32 tensor [count, 28, 28, 1]."""
    return tf.cast(tf.random.stateless_uniform([count, 28, 28, 1], seed=[0, 1]) < 0.2, tf.float32)


def build(objective, mixed_precision=None, **options):
    """The network, with an `Objective`, and compiled with `options`."""
    model = presets.build("rainforth", data_shape=(28, 28, 1), objective=objective, mixed_precision=mixed_precision)
    model.compile(**options)
    return model


def finished(function):
    """A function of tensors, made to return when its results are in the caller's hands."""
    return lambda: tf.nest.map_structure(lambda value: value.numpy(), function())


def train_step(model, x):
    """A whole train step: gradients, both optimizers, metrics."""
    return finished(tf.function(lambda: model.train_step(x)))


def bare_products(batch_size, particles, dtype=tf.float32, outputs=784):
    """The matrix products that any train step needs, alone.

    Forward, by the weights and by the inputs, of every layer, without the gradient by x.

    Args:
      batch_size: int, rows of the encoder.
      particles: int, particles of each: their product is the rows of the decoder.
      dtype: of the matrices.
      outputs: int, numbers that the decoder gives for each particle.
    """
    rows = {"encoder": batch_size, "decoder": particles * batch_size}
    layers = {"encoder": (784, 200, 200, 100), "decoder": (50, 200, 200, outputs)}
    random = tf.random.Generator.from_seed(0)

    def matrix(*shape):
        return tf.cast(random.normal(shape), dtype)

    values = {side: [matrix(rows[side], size) for size in layers[side]] for side in layers}
    weights = {side: [matrix(a, b) for a, b in itertools.pairwise(sizes)] for side, sizes in layers.items()}

    @tf.function
    def products():
        results = []
        for side in layers:
            for i, weight in enumerate(weights[side]):
                before, after = values[side][i], values[side][i + 1]
                results.append(tf.matmul(before, weight))
                results.append(tf.matmul(before, after, transpose_a=True))
                if side == "decoder" or i > 0:
                    results.append(tf.matmul(after, weight, transpose_b=True))
        return [result[0, 0] for result in results]

    return finished(products)
