"""Random numbers by row: the distribution, against scipy, and that rows have parts of the stream of their own."""

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from iwae_zoo import networks, noise, particles

SIZES = pytest.mark.parametrize("size", [1, 2, 5, 30, 256, 300])
DTYPES = pytest.mark.parametrize("dtype", [tf.float32, tf.float64])


@DTYPES
@SIZES
def test_a_part_draws_what_the_whole_draws(size, dtype):
    whole = noise.uniform(9, size, (1, 2), dtype=dtype).numpy()
    np.testing.assert_array_equal(noise.uniform(4, size, (1, 2), 5, dtype), whole[5:])
    normal = noise.normal(9, size, (1, 2), dtype=dtype).numpy()
    np.testing.assert_array_equal(noise.normal(4, size, (1, 2), 5, dtype), normal[5:])
    np.testing.assert_array_equal(noise.normal(1, 600, (1, 2), dtype=dtype)[0, :size], normal[0])
    seeds = tf.constant([[1, 2], [3, 4]])
    normal = noise.normal(2, size, seeds, dtype=dtype)
    np.testing.assert_array_equal(noise.normal(2, 600, seeds, dtype=dtype)[:, :size], normal)


@pytest.mark.parametrize("jit_compile", [False, True])
@SIZES
def test_rows_do_not_share_numbers(size, jit_compile):
    @tf.function(autograph=False, jit_compile=jit_compile)
    def draw(first_row):
        return noise.uniform(20, size, tf.constant([1, 2]), first_row, tf.float64)

    whole = draw(tf.constant(0)).numpy()
    assert len(np.unique(whole)) == whole.size
    np.testing.assert_array_equal(draw(tf.constant(7))[:13], whole[7:])


@DTYPES
def test_distribution(dtype, seed):
    uniform = noise.uniform(100, 999, (seed, 0), dtype=dtype).numpy()
    assert uniform.min() >= 0 and uniform.max() < 1
    assert scipy.stats.kstest(uniform.ravel(), "uniform").pvalue > 1e-6
    normal = noise.normal(100, 999, (seed, 0), dtype=dtype).numpy()
    assert np.isfinite(normal).all()
    assert scipy.stats.kstest(normal.ravel(), "norm").pvalue > 1e-6
    # The two halves of a strip come from the same pairs of uniform numbers, and are independent all the same.
    strips = normal[:, :768].reshape(100, -1, 2, 128)
    first, second = strips[:, :, 0].ravel(), strips[:, :, 1].ravel()
    for transform in (np.abs, np.square, np.sign, lambda value: value):
        correlation = np.corrcoef(transform(first), transform(second))[0, 1]
        assert abs(correlation) < 5 / np.sqrt(first.size)
    neighbours = np.corrcoef(normal[:-1].ravel(), normal[1:].ravel())[0, 1]
    assert abs(neighbours) < 5 / np.sqrt(normal.size)


def test_seeds_differ(seed):
    draws = [noise.normal(2, 50, pair).numpy().ravel() for pair in ((seed, 0), (seed, 1), (seed + 1, 0))]
    assert len(np.unique(np.concatenate(draws))) == 300


def test_posteriors_draw_by_row():
    rng = np.random.default_rng(0)
    loc, scale = rng.normal(size=(6, 3)).astype("float32"), rng.uniform(0.5, 2, (6, 3)).astype("float32")
    whole = particles.draw(networks.DiagonalNormal(loc, scale), 2, 4, (3, 4))
    part = particles.draw(networks.DiagonalNormal(loc[4:], scale[4:]), 2, 4, (3, 4), first_row=4)
    np.testing.assert_allclose(part, whole[:, :, 4:], rtol=1e-5, atol=1e-6)
    other = particles.draw(networks.DiagonalNormal(loc[4:], scale[4:]), 2, 4, (3, 4), first_row=3)
    assert not np.isclose(other, whole[:, :, 4:]).any()
    assert particles.draw(networks.DiagonalNormal(loc[6:], scale[6:]), 2, 4, (3, 4), first_row=6).shape == (2, 4, 0, 3)
