"""Random numbers of many seeds at once are TensorFlow's for each seed, bit for bit."""

import numpy as np
import pytest
import tensorflow as tf

from iwae_zoo import noise, particles
from iwae_zoo.distributions import fusion, philox

# XLA has to draw the same.
pytestmark = pytest.mark.usefixtures("optimized")
SEEDS = np.array([[0, 0], [3, 5], [-1, 7], [2**31 - 1, -(2**31)]], np.int32)


@pytest.mark.parametrize(("dtype", "size"), [(tf.float32, 1), (tf.float32, 1001), (tf.float64, 7)])
def test_uniform_numbers(dtype, size):
    drawn = philox.uniform(SEEDS, size, dtype).numpy()
    expected = [tf.random.stateless_uniform([size], seed, dtype=dtype, alg="philox") for seed in SEEDS]
    np.testing.assert_array_equal(drawn, expected)


def test_integers_and_folded_seeds():
    expected = [tf.random.stateless_uniform([5], seed, None, None, tf.int32, alg="philox") for seed in SEEDS]
    np.testing.assert_array_equal(philox.integers(SEEDS, 5), expected)
    labels = np.array([0, 9, -2, 2**31 - 1], np.int32)
    for given in (labels, np.full(4, 6, np.int32)):
        expected = [tf.random.experimental.stateless_fold_in(*pair) for pair in zip(SEEDS, given, strict=True)]
        label = given if given is labels else given[0]
        np.testing.assert_array_equal(philox.fold_in(SEEDS, label), expected)


def test_without_xla():
    """As exported models have it."""
    for dtype, size in ((tf.float32, 1001), (tf.float64, 7)):
        fused = philox.uniform(SEEDS, size, dtype)
        with fusion.portable():
            np.testing.assert_array_equal(philox.uniform(SEEDS, size, dtype), fused)


@pytest.mark.parametrize(
    ("draw", "dtype"), [(noise.normal, tf.float32), (noise.inner_uniform, tf.float32), (noise.uniform, tf.float64)]
)
def test_noise_of_a_tile(draw, dtype):
    """A row with a seed of its own draws what it draws alone."""
    for row in (0, 7, tf.constant(2**27 + 3)):  # Of the last the stream's count is beyond 32 bits.
        together = draw(4, 300, SEEDS, row, dtype=dtype).numpy()
        np.testing.assert_array_equal(together, [draw(1, 300, seed, row, dtype=dtype)[0] for seed in SEEDS])
        streams = philox.streams(tf.constant(SEEDS))
        np.testing.assert_array_equal(draw(4, 300, streams, row, dtype=dtype), together)


def test_noise_of_a_tile_by_row():
    batch, seeds = tf.constant([2, 4]), tf.constant(SEEDS)
    together = noise.by_row(noise.normal, 3, batch, 5, seeds).numpy()  # [3, 2, 4, 5]
    for row, seed in enumerate(SEEDS):
        alone = noise.by_row(noise.normal, 3, tf.constant([2, 1]), 5, seed)
        np.testing.assert_array_equal(together[:, :, row], alone[:, :, 0])


def test_seeds_of_a_tile():
    split = noise.split_seed(tf.constant(SEEDS), 3)
    derived = particles.derive_seed(SEEDS, 4, tf.constant([1, 2, 3, 4]))
    for row, seed in enumerate(SEEDS):
        np.testing.assert_array_equal([part[row] for part in split], noise.split_seed(seed, 3))
        np.testing.assert_array_equal(derived[row], particles.derive_seed(seed, 4, row + 1))
