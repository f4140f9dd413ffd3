"""The network that most benchmarks measure, 784-200-200-50, and the arithmetic that a network cannot avoid."""

import functools
from collections.abc import Callable, Sequence

import tensorflow as tf
from tensorflow.python.framework import op_callbacks  # TensorFlow has no public way to hear of its operations.

from iwae_zoo import presets
from iwae_zoo.distributions import fusion

__all__ = ["bare_products", "build", "decoder_products", "finished", "images", "train_step"]


def images(count):
    """Binary x: float32 tensor [count, 28, 28, 1]."""
    return tf.cast(tf.random.stateless_uniform([count, 28, 28, 1], seed=[0, 1]) < 0.2, tf.float32)


def build(objective, mixed_precision=None, **options):
    """The network, with an `Objective`, and compiled with `options`."""
    model = presets.build("rainforth", data_shape=(28, 28, 1), objective=objective, mixed_precision=mixed_precision)
    model.compile(**options)
    return model


def finished(function, times=1):
    """A function of tensors, made to return when its results are in the caller's hands.

    Args:
      function: of no arguments.
      times: int, calls in a row, of which the last one's results are read: a card goes on meanwhile.
    """

    def run():
        for _ in range(times):
            results = function()
        return tf.nest.map_structure(lambda value: value.numpy(), results)

    return run


def train_step(model, x):
    """A whole train step: gradients, both optimizers, metrics."""
    return finished(tf.function(lambda: model.train_step(x), autograph=False))


def decoder_products(rows, times):
    """The decoder's matrix products for `rows` particles, over and over."""
    random = tf.random.Generator.from_seed(0)
    pairs = [(random.normal([rows, a]), random.normal([a, b])) for a, b in ((50, 200), (200, 200), (200, 784))]
    return finished(
        tf.function(lambda: [tf.matmul(value, weight)[0, 0] for value, weight in pairs], autograph=False), times
    )


def bare_products(model, x, dtype=None, times=1):
    """The matrix products and convolutions that a train step of a model cannot do without, alone.

    Those of its networks: forward, by the weights and by the inputs, but for the gradient by x.

    Args:
      model: `ImportanceWeightedAutoencoder`.
      x: tensor [B, ...].
      dtype: of the numbers; None for the model's own.
      times: as in `finished`.
    """
    operations = _products(model, x)
    random = tf.random.Generator.from_seed(0)

    def numbers(like):
        return tf.cast(random.normal(like.shape), dtype or like.dtype)

    arguments = [(*map(numbers, inputs), numbers(output)) for _, inputs, output in operations]

    @tf.function(autograph=False)
    def products():
        results = []
        for i, ((operation, _, _), (left, right, upstream)) in enumerate(zip(operations, arguments, strict=True)):
            sources = [right] if i == 0 else [left, right]
            with tf.GradientTape() as tape:
                tape.watch(sources)
                result = operation(left, right)
            results += [result, *tape.gradient(result, sources, output_gradients=upstream)]
        return [tf.reshape(result, [-1])[0] for result in results]

    return finished(products, times)


def _products(model, x):
    """(function of two tensors, the two, the result) for each weight in a forward pass, the encoder's first."""
    found: dict[bytes, tuple[Callable, Sequence[tf.Tensor], tf.Tensor]] = {}

    def record(op_type, inputs, attributes, outputs, op_name, graph=None):
        del op_name
        if graph is not None:  # Traced, not computed.
            return
        op_type = tf.compat.as_str(op_type)
        settings = dict(zip(attributes[::2], attributes[1::2], strict=True)) if attributes else {}
        output = outputs[0]
        if op_type == "MatMul":
            operation, pair = tf.matmul, inputs[:2]
        elif op_type == "Conv2D":
            operation, pair = functools.partial(tf.nn.conv2d, strides=settings["strides"], padding="SAME"), inputs[:2]
        elif op_type == "Conv2DBackpropInput":
            transposed = functools.partial(tf.nn.conv2d_transpose, strides=settings["strides"])
            operation, pair = functools.partial(transposed, output_shape=output.shape), inputs[:0:-1]
        else:
            return
        # A weight that meets the same particles twice need not have: once for a draw and once for its density, say.
        key = pair[1].numpy().tobytes()
        if key not in found or found[key][1][0].shape[0] < pair[0].shape[0]:
            found[key] = (operation, pair, output)

    op_callbacks.add_op_callback(record)
    try:
        with fusion.portable():  # As plain operations, which are heard of one by one.
            model.log_weights(x, model.objective.m, model.objective.k, seed=(0, 1))
    finally:
        op_callbacks.remove_op_callback(record)
    return list(found.values())
