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


def fit(model, batches, **options):
    model.fit(tf.data.Dataset.from_tensor_slices(np.stack(batches)), shuffle=False, verbose=0, **options)


def variables(model):
    """All that a step changes."""
    return [*model.weights, *model.optimizer.variables]


def state(model):
    return [variable.numpy() for variable in variables(model)]


def assert_same(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)


def restart(model, begin):
    for variable, value in zip(variables(model), begin, strict=True):
        variable.assign(value)


@pytest.fixture(scope="module")
def compiled():
    """One for all, since XLA takes seconds; with how it begins."""
    model = presets.build("plane", data_shape=(3, 3), hidden_sizes=(4,), seed=1)
    model.compile(keras.optimizers.Adam(0.1, use_ema=True, ema_overwrite_frequency=2), jit_compile=True)
    return model, state(model)


@pytest.fixture
def model(compiled):
    """As it begins."""
    restart(*compiled)
    return compiled[0]


def test_weights_stay_where_they_were(model):
    """Whatever comes after; then training goes on from there."""
    begin = state(model)
    with pytest.raises(tf.errors.InvalidArgumentError, match=NOT_FINITE):
        fit(model, [GOOD, GOOD, BAD, GOOD, GOOD])
    model.train_on_batch(GOOD)
    assert model.optimizer.iterations == 3
    found = state(model)
    restart(model, begin)
    for _ in range(3):
        model.train_on_batch(GOOD)
    assert_same(state(model), found)


def test_a_fit_that_was_left_blames_no_later_batch(model):
    class Leaves(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(model, [BAD, GOOD], callbacks=Leaves())
    model.train_on_batch(GOOD)
    assert model.optimizer.iterations == 1


def test_eager_steps_are_not_compiled(monkeypatch):
    built, calls = presets.build("plane", data_shape=(3, 3), hidden_sizes=(4,)), []
    built.compile("adam", jit_compile=True, run_eagerly=True)
    posterior = type(built.encoder).posterior
    monkeypatch.setattr(type(built.encoder), "posterior", lambda self, x: calls.append(x) or posterior(self, x))
    fit(built, [GOOD, GOOD])
    assert len(calls) == 2


def test_it_is_said_before_callbacks_keep_anything(model, tmp_path):
    path = tmp_path / "model.keras"
    with pytest.raises(tf.errors.InvalidArgumentError, match="lower the learning rate"):
        fit(model, [GOOD, BAD], callbacks=keras.callbacks.ModelCheckpoint(path))
    assert not path.exists()
    fit(model, [GOOD, GOOD], callbacks=keras.callbacks.ModelCheckpoint(path))
    assert path.exists()


def test_a_checkpoint_within_an_epoch_is_not_written(model):
    class Files:
        def save_within_epoch(self, model, sums):
            raise AssertionError

    with pytest.raises(tf.errors.InvalidArgumentError, match=NOT_FINITE):
        fit(model, [GOOD, BAD, GOOD, GOOD], callbacks=WithinEpoch(Files(), steps=4, every=2))
    assert model.optimizer.iterations == 1


def test_the_host_looks_now_and_then(model, monkeypatch):
    monkeypatch.setattr(divergence, "LOOK_EVERY", 3)
    model.make_train_function(force=True)  # Which begins to count.
    ended = []
    callback = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: ended.append(batch))
    with pytest.raises(tf.errors.InvalidArgumentError, match=NOT_FINITE):
        fit(model, [GOOD, BAD, *[GOOD] * 8], callbacks=callback)
    assert ended == [0, 1]  # The third step has ended with the error.


def test_a_batch_by_itself_is_told_at_once(model):
    before = state(model)
    with pytest.raises(tf.errors.InvalidArgumentError, match=NOT_FINITE):
        model.train_on_batch(BAD)
    assert_same(state(model), before)
    assert np.isfinite(model.train_on_batch(GOOD, return_dict=True)["loss"])


@pytest.mark.slow
def test_with_terminate_on_nan_other_steps_are_taken(compiled):
    """A callback ends training where the loss is NaN; until then there is no latch."""
    model, _ = compiled
    model.compile("adam", jit_compile=True, steps_per_execution=4)
    fit(model, [GOOD, BAD, GOOD, BAD], callbacks=[keras.callbacks.TerminateOnNaN()])
    assert model.optimizer.iterations == 2
    with pytest.raises(tf.errors.InvalidArgumentError, match=NOT_FINITE):
        fit(model, [GOOD, BAD, GOOD, BAD])
    assert model.optimizer.iterations == 3
