"""Presets with weights: what lies in the package, what their cards say, and going on from them."""

import dataclasses
import functools
import json
import os
import re
import shutil

import h5py
import keras
import numpy as np
import pytest
from inprocess import call

from iwae_zoo import ImportanceWeightedAutoencoder, data, diagnostics, likelihood, objectives, presets, training
from iwae_zoo.presets import table, trained
from studies import train_presets_main, trained_presets

MADE = [name for name in trained.names() if trained.is_made(name)]
MEBIBYTE = 2**20


def test_files_are_small_and_whole():
    files = list(trained.FOLDER.iterdir())
    assert {path.name for path in files} == {f"{name}.{end}" for name in MADE for end in ("json", "weights.h5")}
    assert {"digits_miwae", "digits_bytes", "breast_cancer_table"} <= set(MADE)
    sizes = [path.stat().st_size for path in files]
    assert max(sizes) <= 2.5 * MEBIBYTE
    assert sum(sizes) <= 12 * MEBIBYTE


@pytest.fixture(scope="module")
def models():
    """Function from a name to the preset's model, loaded once."""
    return functools.cache(ImportanceWeightedAutoencoder.from_preset)


@pytest.mark.parametrize("name", MADE)
def test_a_card_is_its_presets(name, models):
    """What was run is what the table has, and the file holds the model's weights and nothing else."""
    card, model = presets.card(name), models(name)
    recipe = dataclasses.asdict(trained_presets.configured(name).resolved())
    # What an older version did not know is as it had it.
    assert training.read_config(trained.FOLDER / f"{name}.json") == recipe
    assert model.objective == trained_presets.configured(name).build_objective()
    assert 0 < card["epochs"] <= recipe["epochs"] and card["hours"] > 0
    assert card["evaluation"]["particles"] == trained_presets.PARTICLES
    assert card["evaluation"]["untrusted"] == card["evaluation"]["num_untrusted"] / card["evaluation"]["num_examples"]
    found = []
    with h5py.File(trained.FOLDER / card["weights"]["file"]) as file:
        file.visititems(lambda _, item: found.append(item) if hasattr(item, "shape") else None)
        assert {item.dtype for item in found} == {np.dtype(np.float32)}
        assert sum(int(np.prod(item.shape)) for item in found) == card["weights"]["count"] == model.count_params()
    assert f"log p(x) {card['evaluation']['log_prob']:.2f}" in presets.describe(name)
    # Where none is chosen, a run from the weights goes on with the objective that they have.
    assert training.Config(from_preset=name).resolved().objective == card["config"]["objective"]


@pytest.mark.slow
@pytest.mark.parametrize("name", MADE)
def test_what_a_card_says_is_found_again(name, models):
    """Of the first examples, by other noise, the bound at 64 particles and the ELBO; of all, active units."""
    card, model = presets.card(name), models(name)
    config = card["config"]
    if config["dataset"] == "mnist" and not is_prepared("mnist"):
        pytest.skip("MNIST is not prepared: its folder is named by TFDS_DATA_DIR.")
    dataset = data.load(config["dataset"], **training.data_settings(config, config["dataset"]))
    assert dataset.description == card["data"]
    scores, first = card["evaluation"], card["first"]
    x = dataset.evaluation_array("test")[: scores["num_examples"]]  # A card may be about the first ones.
    assert len(x) == scores["num_examples"]
    some = x[: trained_presets.FIRST_EXAMPLES]
    assert len(some) == first["num_examples"]
    particles, options = trained_presets.PARTICLES, {"method": "importance", "verbose": 0}
    one, other = (likelihood.estimate_dataset(model, some, particles, seed=seed, **options) for seed in (7, 8))
    for ours, again, said in ((one.log_prob, other.log_prob, "iwae_bound"), (one.elbo, other.elbo, "elbo")):
        # Two answers to the same rows differ by noise alone, and so does the card's.
        error = np.std(ours - again, ddof=1) / np.sqrt(len(some))
        assert abs(np.mean(ours) - first[said]) < 3 * error
        assert abs(np.mean(ours) - scores[said]) < 3 * np.std(ours, ddof=1) / np.sqrt(len(some))
    if len(some) == scores["num_examples"]:  # No more than the card's count is of.
        assert diagnostics.latent_use(model, some).active_units == scores["active_units"]


def is_prepared(name):
    from iwae_zoo.data import prepared

    return os.path.isdir(prepared._builder(name, None).data_dir)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A copy of the package's folder, in its place."""
    copy = tmp_path / "weights"
    shutil.copytree(trained.FOLDER, copy)
    monkeypatch.setattr(trained, "FOLDER", copy)
    return copy


def test_a_saved_preset_is_the_same_to_the_bit(folder, monkeypatch):
    monkeypatch.setitem(table.TABLE, "toy", dataclasses.replace(presets.get("plane"), training={}))
    model = presets.build("toy", data_shape=(3, 3, 1), objective="dreg", seed=3)
    model.compile("adam")
    model.set_weights([np.float32(w + 0.1) for w in model.get_weights()])
    x = np.ones([4, 3, 3, 1], np.float32)
    card = trained.save(model, "toy", {"hours": 0.0})
    loaded = ImportanceWeightedAutoencoder.from_preset("toy")
    assert card == presets.card("toy")
    assert (loaded.objective, loaded.seed) == (model.objective, 3)
    np.testing.assert_array_equal(loaded.log_weights(x, 2, 3, (0, 1)), model.log_weights(x, 2, 3, (0, 1)))
    other = ImportanceWeightedAutoencoder.from_preset("toy", objective="piwae", seed=5)
    assert (other.objective, other.seed) == (objectives.get("piwae"), 5)
    assert not list(folder.glob(".partial-*"))


def test_a_damaged_or_foreign_file_is_an_error(folder):
    weights, card = folder / "digits_miwae.weights.h5", folder / "digits_miwae.json"
    whole = weights.read_bytes()
    for damaged in (whole[:-1], whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:]):
        weights.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"digits_miwae.weights.h5 is damaged.*train_presets_main.py --preset=dig"):
            presets.load("digits_miwae")
    weights.unlink()
    with pytest.raises(ValueError, match="its SHA-256 is no file, and should be [0-9a-f]{64}"):
        presets.load("digits_miwae")
    # Those of another preset, whatever the checksums say.
    foreign, said = presets.card("digits_bytes")["weights"], card.read_text()
    shutil.copy(folder / foreign["file"], weights)
    written = {**presets.card("digits_miwae"), "weights": foreign}
    card.write_text(json.dumps(written | {"sha256": trained._checksum(written)}))
    with pytest.raises(ValueError, match="holds the weights of another model than the preset 'digits_miwae'"):
        presets.load("digits_miwae")
    # What was fitted to the data, a digit of it; and another preset's card.
    about, networks = said.split('"model"')
    changed = about + '"model"' + re.sub(r"\d\.\d", lambda found: f"{9 - int(found[0][0])}.0", networks, count=1)
    for text in (changed, (folder / "digits_bytes.json").read_text()):
        card.write_text(text)
        with pytest.raises(ValueError, match="digits_miwae.json is damaged, or the card of another preset"):
            presets.load("digits_miwae")
    for text in ("{", "[]", "{}"):
        card.write_text(text)
        with pytest.raises(ValueError, match="is not the card of a preset"):
            presets.load("digits_miwae")
    card.unlink()
    with pytest.raises(ValueError, match=r"have not been trained yet: python studies/train_presets_main.py --preset=d"):
        presets.load("digits_miwae")
    assert "weights: not trained yet" in presets.describe("digits_miwae")
    with pytest.raises(ValueError, match=r"presets.build\('small', ...\) builds an untrained .*Known: digits_miwae"):
        presets.load("small")
    with pytest.raises(ValueError, match="Did you mean 'digits_miwae'"):
        ImportanceWeightedAutoencoder.from_preset("digit_miwae")


def start(**changes):
    settings = {"from_preset": "digits_miwae", "objective": "dreg", "m": 1, "k": 2, "epochs": 2, "batch_size": 400}
    return training.Config(**{**settings, "eval_samples": 20, "eval_method": "importance", **changes})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:log p")
def test_training_goes_on_from_a_preset_and_resumes_to_the_bit(tmp_path, models):
    run = training.Run(start(seed=1), tmp_path / "run")
    built = run.build()
    assert (built.objective, built.seed) == (run.objective, 1)
    for ours, theirs in zip(built.get_weights(), models("digits_miwae").get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    model = run.train(verbose=0)
    assert model.objective == run.objective != models("digits_miwae").objective
    config = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    assert config["from_preset"] == config["preset"] == "digits_miwae"
    part = training.Run(start(seed=1), tmp_path / "part")
    save = part.files.save

    def interrupted(model, history):
        save(model, history)
        raise KeyboardInterrupt

    part.files.save = interrupted
    with pytest.raises(KeyboardInterrupt):
        part.train(verbose=0)
    resumed = training.Run(training.Config(**config), tmp_path / "part", resume=True).train(verbose=0)
    for ours, theirs, before in zip(
        resumed.get_weights(), model.get_weights(), models("digits_miwae").get_weights(), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
        assert np.abs(ours - before).max() > 0
    result = run.evaluate(model, verbose=0)
    assert abs(result["untrained_iwae_bound"] - presets.card("digits_miwae")["evaluation"]["iwae_bound"]) < 2


def test_training_goes_on_from_bytes_on_the_same_data(tmp_path):
    """Whose kind, which is not the data set's own, is the preset's; another data set has its own."""
    run = training.Run(start(from_preset="digits_bytes"), tmp_path / "run")
    assert (run.dataset.kind, run.config.kind) == ("byte", "byte")
    assert start(from_preset="digits_bytes", dataset="mnist").resolved().kind is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"from_preset": "small"}, "builds an untrained model"),
        ({"from_preset": "digit_miwae"}, "Did you mean 'digits_miwae'"),
        ({"preset": "plane"}, "brings networks and a likelihood of its own: leave out preset='plane'"),
        ({"latent_size": "3", "prior": "coupling_flow"}, "leave out latent_size='3', prior='coupling_flow'"),
        ({"mixed_precision": "bfloat16"}, "leave out mixed_precision='bfloat16'"),
        ({"dataset": "TINY"}, r"is for x of shape \(8, 8, 1\): received data of shape \(3, 3\)"),
        ({"kind": "byte"}, "'bernoulli' is for data of kind binary: received data of kind byte"),
        ({"from_preset": "breast_cancer_table", "dataset": "digits"}, "the 30 columns of a model, and digits has none"),
    ],
)
def test_what_does_not_fit_is_an_error_before_anything_is_written(changes, message, tiny, tmp_path):
    if changes.get("dataset") == "TINY":
        changes = {**changes, "dataset": tiny}
    with pytest.raises(ValueError, match=message):
        training.Run(start(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:log p")
def test_the_study_makes_a_preset_and_goes_on_where_it_was(tiny, tmp_path, monkeypatch):
    recipe = {"dataset": tiny, "objective": "dreg", "m": 1, "k": 2}
    monkeypatch.setitem(table.TABLE, "toy", dataclasses.replace(presets.get("plane"), epochs=3, training=recipe))
    quick = functools.partial(trained_presets.evaluate, num_samples=trained_presets.PARTICLES, method="importance")
    monkeypatch.setattr(trained_presets, "evaluate", quick)
    run = training.Run(trained_presets.configured("toy"), tmp_path / "runs" / "toy")
    save = run.files.save

    def interrupted(model, history):
        save(model, history)
        if len(history) == 2:
            raise KeyboardInterrupt

    run.files.save = interrupted
    with pytest.raises(KeyboardInterrupt):
        run.train(verbose=0)
    config, checkpoint = tmp_path / "runs" / "toy" / "config.json", run.files.checkpoint
    os.utime(config, (1000.0, 1000.0))
    os.utime(checkpoint, (1000.0 + 7200, 1000.0 + 7200))  # Two hours before it was killed.
    flags = ["--preset=toy", f"--workdir={tmp_path / 'runs'}", f"--output={tmp_path / 'weights'}"]
    ended = call(train_presets_main, *flags, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "Going on from epoch 2 of 3" in ended.stdout and "3 epochs in 2.00 hours" in ended.stdout
    monkeypatch.setattr(trained, "FOLDER", tmp_path / "weights")
    card, model = presets.card("toy"), ImportanceWeightedAutoencoder.from_preset("toy")
    assert card["epochs"] == 3 and 2 < card["hours"] < 2.1
    x = data.load(tiny).evaluation_array("test")
    ran = keras.saving.load_model(checkpoint)
    np.testing.assert_array_equal(*(each.log_weights(x, 2, 3, (0, 1)) for each in (ran, model)))
    # Finished, it is evaluated again, and is as old as it was.
    before = (tmp_path / "weights" / "toy.weights.h5").read_bytes()
    ended = call(train_presets_main, *flags, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert presets.card("toy")["hours"] == card["hours"]
    assert presets.card("toy")["evaluation"] == card["evaluation"]
    assert len(before) == (tmp_path / "weights" / "toy.weights.h5").stat().st_size
    # The card alone is made again, of fewer examples; the weights stay.
    weights = (tmp_path / "weights" / "toy.weights.h5").read_bytes()
    again = ["--preset=toy", "--evaluate"]
    ended = call(train_presets_main, *again, "--examples=5", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    fewer = presets.card("toy")
    assert fewer["evaluation"]["num_examples"] == fewer["first"]["num_examples"] == 5
    assert (tmp_path / "weights" / "toy.weights.h5").read_bytes() == weights
    ended = call(train_presets_main, *again, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert presets.card("toy") == {**card, "weights": fewer["weights"], "sha256": presets.card("toy")["sha256"]}
    # Without a name: those that are missing.
    assert trained_presets.chosen(None, tmp_path / "weights") == [n for n in trained.names() if n != "toy"]
