"""Learning rates by name, against the formulas."""

import keras
import numpy as np
import pytest

from iwae_zoo.training import schedules


def rates(name, steps, learning_rate=1e-3):
    rate = schedules.get(name, learning_rate, steps)
    return np.array([float(rate(step) if callable(rate) else rate) for step in range(steps)])


def test_burda_is_the_papers():
    """3^i epochs at 1e-3 10^(-i / 7): one step an epoch, 3280 epochs."""
    expected = np.repeat(1e-3 * 10.0 ** (-np.arange(8) / 7), 3 ** np.arange(8))
    boundaries = np.cumsum(3 ** np.arange(8))
    rate = schedules.get("burda", 1e-3, 3280)
    # Around each change, and inside each part.
    for step in sorted({0, 3279, *boundaries[:-1], *(boundaries - 1), *(boundaries - 3 ** np.arange(8) // 2 - 1)}):
        assert float(rate(step)) == pytest.approx(expected[step], rel=1e-6), step


def test_burda_scales_with_the_run():
    """A tenth of the steps: the same share of the run at each rate, but for parts that fall between two steps."""
    values, counts = np.unique(rates("burda", 328), return_counts=True)
    np.testing.assert_allclose(values[::-1][-6:], 1e-3 * 10.0 ** (-np.arange(2, 8) / 7), rtol=1e-6)
    ends = np.ceil(np.array([1, 4, 13, 40, 121, 364, 1093, 3280]) / 10)
    assert counts[::-1][-6:].tolist() == np.diff(ends)[-6:].tolist()
    assert counts.sum() == 328


def test_cosine_falls_to_zero():
    np.testing.assert_allclose(rates("cosine", 50), 1e-3 * 0.5 * (1 + np.cos(np.pi * np.arange(50) / 50)), rtol=1e-5)


def test_constant():
    assert (rates("constant", 4) == 1e-3).all()


@pytest.mark.parametrize("name", schedules.names())
def test_every_schedule_is_saved_with_its_optimizer(name):
    optimizer = keras.optimizers.Adam(schedules.get(name, 1e-3, 20))
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(optimizer))
    for step in (0, 7, 19):
        for each in (optimizer, again):
            each.iterations.assign(step)
        assert float(again.learning_rate) == float(optimizer.learning_rate)


def test_unknown():
    with pytest.raises(ValueError, match="Unknown schedule: received 'cosin'. Did you mean 'cosine'"):
        schedules.get("cosin", 1e-3, 10)
