"""Steps that XLA compiles: none that is not finite changes anything, and the host is told, if later."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from iwae_zoo import presets
from iwae_zoo.model import divergence
from iwae_zoo.model.divergence import NOT_FINITE
from iwae_zoo.training.checkpoints import WithinEpoch

GOOD, BAD = np.zeros((4, 3, 3), "float32"), np.full((4, 3, 3), np.nan, "float32")


def built(**options):
    model = presets.build("plane", data_shape=(3, 3), seed=1)
    model.compile(keras.optimizers.Adam(0.1, use_ema=True, ema_overwrite_frequency=2), jit_compile=True, **options)
    return model


def fitted(model, batches, **options):
    model.fit(tf.data.Dataset.from_tensor_slices(np.stack(batches)), shuffle=False, verbose=0, **options)


def state(model):
    """All that a step changes."""
    return [v.numpy() for v in (*model.weights, *model.optimizer.variables)]


def assert_same(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture(scope="module")
def expected():
    """The states after two and three good batches."""
    model = built()
    states = []
    for _ in range(3):
        model.train_on_batch(GOOD)
        states.append(state(model))
    return states[1:]


@pytest.mark.parametrize("options", [{}, {"steps_per_execution": 5}])
def test_weights_stay_where_they_were(options, expected):
    """Whatever comes after; the next `fit` goes on from there."""
    model = built(**options)
    with pytest.raises(tf.errors.InvalidArgumentError, match=NOT_FINITE):
        fitted(model, [GOOD, GOOD, BAD, GOOD, GOOD])
    assert_same(state(model), expected[0])
    model.train_on_batch(GOOD)
    assert_same(state(model), expected[1])


def test_it_is_said_before_callbacks_keep_anything(tmp_path):
    path = tmp_path / "model.keras"
    with pytest.raises(tf.errors.InvalidArgumentError, match="lower the learning rate"):
        fitted(built(), [GOOD, BAD], callbacks=keras.callbacks.ModelCheckpoint(path))
    assert not path.exists()


def test_a_checkpoint_within_an_epoch_is_not_written():
    class Files:
        def save_within_epoch(self, model, sums):
            raise AssertionError

    model = built()
    within = WithinEpoch(Files(), steps=4, every=2)
    within.set_model(model)
    tf.function(model.train_step)(tf.constant(BAD))
    with pytest.raises(tf.errors.InvalidArgumentError, match=NOT_FINITE):
        within.on_train_batch_end(1)
    within.on_train_batch_end(0)  # Between two.


def test_the_host_looks_now_and_then(monkeypatch):
    monkeypatch.setattr(divergence, "LOOK_EVERY", 3)
    ended = []
    callback = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: ended.append(batch))
    with pytest.raises(tf.errors.InvalidArgumentError, match=NOT_FINITE):
        fitted(built(), [GOOD, BAD, *[GOOD] * 8], callbacks=callback)
    assert ended == [0, 1]  # The third step has ended with the error.


def test_a_batch_by_itself_is_told_at_once():
    model = built()
    before = state(model)
    with pytest.raises(tf.errors.InvalidArgumentError, match=NOT_FINITE):
        model.train_on_batch(BAD)
    assert_same(state(model), before)
    assert np.isfinite(model.train_on_batch(GOOD, return_dict=True)["loss"])


def test_with_terminate_on_nan_other_steps_are_taken(expected):
    """A callback ends training where the loss is NaN; until then there is no latch."""
    model = built(steps_per_execution=4)
    fitted(model, [GOOD, BAD, GOOD, BAD], callbacks=[keras.callbacks.TerminateOnNaN()])
    assert model.optimizer.iterations == 2
    with pytest.raises(tf.errors.InvalidArgumentError, match=NOT_FINITE):
        fitted(model, [GOOD, BAD, GOOD, BAD])
    assert model.optimizer.iterations == 3
