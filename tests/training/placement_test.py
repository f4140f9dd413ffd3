"""Batches that are made on the device: the same bits as the host's."""

import numpy as np
import pytest
import tensorflow as tf
from card_kernels import kernel
from replicated import mirrored

from iwae_zoo import data, presets, training
from iwae_zoo.model import memory
from iwae_zoo.training import placement

RNG = np.random.default_rng(0)
DATA = {
    "intensity": RNG.random((50, 2, 3), "float32"),
    "byte": np.arange(300, dtype="uint8").reshape(50, 2, 3),
    "binary": RNG.integers(0, 2, (50, 2, 3)).astype("float32"),
    "real": RNG.normal(size=(50, 2, 3)).astype("float32"),
}
DATA["drawn bytes"] = DATA["byte"]


def source(name):
    values = DATA[name]
    return data.Dataset("toy", values[:30], values[30:40], values[40:], "intensity" if " " in name else name)


def by_hand(name, seed, epoch, step, batch_size=8):
    """A batch as the first version made it; bytes divided by numpy."""
    epoch, at = tf.constant([epoch, step], tf.int64)
    epoch_seed = tf.random.experimental.stateless_fold_in(tf.constant([0, seed], tf.int64), epoch)
    order = tf.random.experimental.stateless_shuffle(tf.range(30), seed=epoch_seed).numpy()
    x = DATA[name][order[step * batch_size : (step + 1) * batch_size]].astype("float32")
    if name not in ("intensity", "drawn bytes"):
        return x
    x = x / np.float32(255) if name == "drawn bytes" else x
    step_seed = tf.random.experimental.stateless_fold_in(epoch_seed, at)
    return (tf.random.stateless_uniform(x.shape, step_seed).numpy() < x).astype("float32")


@pytest.mark.parametrize("name", ["intensity", "drawn bytes", "byte", "real"])
def test_both_places_make_the_same_batches(name):
    """Those of two epochs from the second batch of epoch 3 on, with a smaller last batch."""
    places = [source(name).training_batches(8, 5, 3, 1, on_device=on_device) for on_device in (False, True)]
    make = tf.function(places[1].make, input_signature=[places[1].plans.element_spec], autograph=False)
    for i, (host, plan) in enumerate(zip(places[0].take(7), places[1].plans.take(7), strict=True)):
        epoch, step = divmod(i + 1, 4)
        device = make(plan)
        np.testing.assert_array_equal(host, by_hand(name, 5, 3 + epoch, step))
        np.testing.assert_array_equal(device, host)
        assert device.dtype == host.dtype == np.float32


def test_every_byte_is_its_quotient():
    every = np.arange(256, dtype="uint8").reshape(256, 1)
    x = data.Dataset("toy", every, every, every, "binary").evaluation_array("test")
    np.testing.assert_array_equal(x, every.astype("float32") / np.float32(255))


@pytest.mark.parametrize("name", ["byte", "drawn bytes", "intensity"])
def test_a_gpu_has_what_makes_them(name):
    """A kernel for every operation; without one TensorFlow would go to the host in silence."""
    if not tf.test.is_built_with_cuda():
        pytest.skip("TensorFlow was built without GPUs.")
    deferred = source(name).training_batches(8, 0, on_device=True)
    graph = tf.function(deferred.make, autograph=False).get_concrete_function(deferred.plans.element_spec).graph
    operations = [op for op in graph.get_operations() if op.type not in ("Const", "Placeholder", "NoOp")]
    assert any(op.type == "GatherV2" for op in operations)
    for op in operations:
        assert kernel(op.type, op.get_attr, ("GPU",)), op


def weights(model):
    return [variable.numpy() for variable in (*model.variables, *model.optimizer.variables)]


@pytest.mark.slow
def test_a_model_trains_on_either_to_the_same_weights():
    """With data that are not drawn; and what a step was traced with is not what the next data set is trained with."""
    first, second = source("binary"), source("intensity")

    def trained(*places):
        model = presets.build("plane", data=first, objective="iwae", hidden_sizes=(8,), seed=1)
        model.compile()
        for of, on_device in zip((first, second, first), places, strict=True):
            batches = of.training_batches(8, 2, on_device=on_device)
            history = model.fit(batches, steps_per_epoch=4, shuffle=False, verbose=0).history
        return weights(model), history["loss"]

    (expected, loss), (found, other_loss) = trained(False, False, False), trained(True, True, False)
    assert other_loss == loss
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_where_batches_are_made(tiny, monkeypatch):
    dataset, alone = source("intensity"), tf.distribute.get_strategy()
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind=None: [])
    assert not placement.is_on_device("auto", dataset, alone)
    assert placement.is_on_device("device", dataset, alone)
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind=None: ["a card"])
    for name, share in (("intensity", 4), ("drawn bytes", 8)):
        size = share * source(name).train.nbytes
        for there, fits in ((size, True), (size - 1, False)):
            monkeypatch.setattr(memory, "of_device", lambda there=there: there)
            assert placement.is_on_device("auto", source(name), alone) == fits
            assert not placement.is_on_device("host", source(name), alone)
    monkeypatch.setattr(memory, "of_device", lambda: 2**40)
    assert not placement.is_on_device("auto", dataset, mirrored(2))
    assert not placement.is_on_device("auto", data.load(tiny, stream_above=0.0), alone)


def test_where_they_cannot_be(tiny, tmp_path):
    config = training.Config(dataset=tiny, preset="plane", k=2, data_on="device")
    several = r"data_on=device is for one device: .* Leave it out, or pass --strategy=none\."
    with pytest.raises(ValueError, match=several):
        training.Run(config, tmp_path / "run", strategy=mirrored(2))
    with pytest.raises(ValueError, match="data_on=device is for training examples in memory: .* raise --stream_above"):
        training.Run(training.Config(**{**vars(config), "stream_above": 0.0}), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with mirrored(2).scope():
        model = presets.build("plane", data=source("intensity"), seed=0)
        model.compile()
    with pytest.raises(ValueError, match=several):
        model.fit(source("intensity").training_batches(8, 0, on_device=True), steps_per_epoch=1, verbose=0)
    with pytest.raises(ValueError, match="data_on=device is for training examples in memory"):
        data.load(tiny, stream_above=0.0).training_batches(8, 0, on_device=True)
