"""What is counted on paper against what TensorFlow counts in the graph."""

import pytest
import tensorflow as tf

from benchmarks import roofline, workload
from benchmarks.roofline import H200, RAINFORTH
from iwae_zoo import objectives, presets

SMALL = roofline.Network((9, 64, 64, 32), (16, 64, 64, 9))


@pytest.fixture(scope="module")
def model():
    """The network of `SMALL`, 2 x 3 particles."""
    return presets.build("small", data_shape=(3, 3, 1), objective=objectives.get("piwae", m=2, k=3))


def counted(function):
    """Floating-point operations of the products in a function's graph, by TensorFlow's profiler."""
    profiler = tf.compat.v1.profiler
    options = profiler.ProfileOptionBuilder(profiler.ProfileOptionBuilder.float_operation()).with_empty_output().build()
    options["account_type_regexes"] = ["MatMul"]
    return profiler.profile(
        tf.function(function, autograph=False).get_concrete_function().graph, options=options
    ).total_float_ops


@pytest.mark.slow
def test_arithmetic_is_tensorflows(model):
    x = tf.zeros([5, 3, 3, 1])
    works = roofline.step(SMALL, batch_size=5, particles=6)
    assert sum(w.flops for w in works) == counted(lambda: model.compute_gradients(x, tf.constant([0, 1]))[:2])
    # By hand: the decoder's 30 rows three times, the encoder's 5 too but for its gradient by x; biases by ones.
    decoder, encoder = 30 * (16 * 64 + 64 * 64 + 64 * 9), 5 * (9 * 64 + 64 * 64 + 64 * 32)
    biases = 30 * (64 + 64 + 9) + 5 * (64 + 64 + 32)
    assert sum(w.flops for w in works) == 2 * (3 * decoder + 3 * encoder - 5 * 9 * 64 + biases)


def test_decoders_products_of_log_prob(model):
    z = tf.zeros([7, 1, 16])
    forward = counted(lambda: model.decoder.likelihood(z).parameters)
    assert sum(w.flops for w in roofline.log_prob(SMALL, 7)) == forward == 2 * 7 * (16 * 64 + 64 * 64 + 64 * 9)


def test_parameters(model):
    assert SMALL.parameters == model.count_params()
    trained = workload.build("iwae")
    assert (RAINFORTH.parameters, RAINFORTH.variables) == (trained.count_params(), len(trained.trainable_variables))


def test_time_is_that_of_the_slower(model):
    product = roofline.Work("product", flops=670e9, bytes=4.8e9)
    assert roofline.seconds([product], H200, "float32") == pytest.approx(10e-3)
    assert roofline.seconds([product], H200, "bfloat16") == pytest.approx(1e-3)  # Memory's.
    other = roofline.Work("element-wise", 0.0, 9.6e9)
    assert roofline.seconds([product, other], H200, "float32") == pytest.approx(12e-3)
    assert roofline.seconds([product, other], H200, "float32", {"product"}) == pytest.approx(10e-3)


def test_bytes_of_a_step():
    """One layer each way, counted by hand: x [2, 3] to [2, 4], 5 particles, z [10, 2] to [10, 3]."""
    works = roofline.step(roofline.Network((3, 4), (2, 3)), 2, 5)
    moved = {kind: sum(w.bytes for w in works if w.kind == kind) / 4 for kind in ("product", "bias", "element-wise")}
    assert moved["product"] == 2 * (2 * 3 + 3 * 4 + 2 * 4) + 3 * (10 * 2 + 2 * 3 + 10 * 3)
    assert moved["bias"] == 2 * 4 + 10 * 3
    assert moved["element-wise"] == 3 * 10 * 3 + 12 * 10 * 2


def test_exchange():
    assert roofline.exchange(RAINFORTH, 1, H200) == (0.0, 0.0)
    sent, lasts = roofline.exchange(RAINFORTH, 8, H200)
    assert sent == pytest.approx(2 * 7 / 8 * 4 * RAINFORTH.parameters)
    assert lasts == pytest.approx(sent / 450e9 + 4 * 30e-6)
    assert roofline.exchange(RAINFORTH, 16, H200)[1] > lasts


def test_launches():
    """Of a step that XLA compiles TensorFlow starts nothing but that."""
    assert roofline.launches(workload.build("piwae", jit_compile=True), workload.images(2)) == 1
