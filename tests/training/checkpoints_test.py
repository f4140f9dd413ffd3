"""Runs that are interrupted within an epoch come to the same, to the bit."""

import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from replicated import mirrored

from iwae_zoo import training
from iwae_zoo.model import replicas


def config(tiny, **changes):
    settings = {"objective": "dreg", "m": 1, "k": 2, "preset": "plane", "epochs": 3, "batch_size": 16}
    settings |= {"hidden_sizes": "8"}
    return training.Config(dataset=tiny, **{**settings, **changes})


def trained(run, copy, saves):
    """The trained model; a copy of the folder is what a kill leaves after so many checkpoints within epochs."""
    save, left = run.files.save_within_epoch, [saves]

    def copied(model, sums):
        save(model, sums)
        left[0] -= 1
        if not left[0]:
            shutil.copytree(run.workdir, copy)

    run.files.save_within_epoch = copied
    return run.train(verbose=0)


def check_same(folders, models):
    """The same weights and optimizers, and the same history."""
    for ours, theirs in zip(*([*model.variables, *model.optimizer.variables] for model in models), strict=True):
        np.testing.assert_array_equal(ours, theirs, ours.path)
    histories = [(folder / "metrics.jsonl").read_text() for folder in folders]
    assert histories[0] == histories[1]


SETTINGS = {"batch_size": 8, "particle_schedule": "1x1:0.3", "schedule": "cosine"}


@pytest.fixture(scope="module")
def undisturbed(tiny, tmp_path_factory):
    """The trained model, its folder, and the one that a kill leaves in the second epoch."""
    folder = tmp_path_factory.mktemp("undisturbed")
    run = training.Run(config(tiny, **SETTINGS, checkpoint_every=1), folder / "run")
    return trained(run, folder / "left", saves=10), folder / "run", folder / "left"


@pytest.mark.slow
@pytest.mark.parametrize("elsewhere", [{"stream_above": 0.0}, {"data_on": "device"}])
def test_a_run_goes_on_within_an_epoch_to_the_bit(elsewhere, undisturbed, tiny, tmp_path, capsys):
    """Of 10 steps, with 9 left in the second; also where it goes on with two steps for each return to Python, and with
    data that are streamed, or that lie on the device. There are two batches to validate on.
    """
    model, folder, left = undisturbed
    folders = shutil.copytree(left, tmp_path / "run"), folder
    other = config(tiny, **SETTINGS, steps_per_execution=2, checkpoint_every=2, **elsewhere)
    resumed = training.Run(other, folders[0], resume=True).train(verbose=1)
    said = capsys.readouterr().out
    assert "Going on from epoch 1 of 3 and step 1 of 10" in said
    assert ("All training examples lie on the device." in said) == ("data_on" in elsewhere)
    check_same(folders, (resumed, model))
    kept = [sorted(path.name for path in folder.iterdir()) for folder in folders]
    assert kept[0] == kept[1] == ["config.json", "metrics.jsonl", "model.keras", "tensorboard"]


@pytest.mark.slow
def test_several_devices_go_on_with_sums_of_their_own(tiny, tmp_path):
    """A last batch of 5 is not shared out evenly; also where it goes on with data that are streamed."""

    def run(name, **changes):
        settings = config(tiny, batch_size=25, epochs=2, early_stopping=2, checkpoint_every=1, **changes)
        return training.Run(settings, tmp_path / name, resume=True, strategy=mirrored(2))

    folders = tmp_path / "run", tmp_path / "undisturbed"
    undisturbed = trained(run("undisturbed"), folders[0], saves=5)
    assert int(keras.saving.load_model(folders[0] / "latest.keras").optimizer.iterations) == 6  # Of 8 steps.
    resumed = run("run", stream_above=0.0).train(verbose=0)
    check_same(folders, (resumed, undisturbed))
    check_same(folders, [keras.saving.load_model(folder / "latest.keras") for folder in folders])


def test_sums_of_several_replicas():
    strategy = mirrored(3)
    with strategy.scope():
        mean = keras.metrics.Mean()
    sums = np.array([[0.1, 1.0], [1e-30, 2.0], [3e30, 0.0]], np.float32)
    replicas.write(strategy, mean.variables, sums)
    np.testing.assert_array_equal(replicas.read(strategy, mean.variables), sums)
    # One device more or less: the same sums.
    replicas.write(strategy, mean.variables, sums[:2])
    np.testing.assert_array_equal(replicas.read(strategy, mean.variables), [[sums[0, 0], 3.0], [0.0, 0.0], [0.0, 0.0]])
    alone = keras.metrics.Mean()
    replicas.write(tf.distribute.get_strategy(), alone.variables, sums[:2])
    assert float(alone.result()) == pytest.approx(0.1 / 3)


@pytest.mark.slow
def test_streamed_data_that_change_end_training_with_what_to_do(tiny, tmp_path):
    path = shutil.copy(tiny, str(tmp_path / "own.npy"))
    run = training.Run(config(path, stream_above=0.0), tmp_path / "run")
    build = run.build

    def built():
        model = build()
        with open(path, "ab") as file:
            file.write(b"0")
        return model

    run.build = built
    with pytest.raises(OSError, match=r"own\.npy changed while it is read: .* put the file back, and pass --resume"):
        run.train(verbose=0)
