"""The programs on a preset with weights in place of a run."""

import csv
import json

import numpy as np
import pytest
import sklearn.datasets
from inprocess import call

from iwae_zoo import data, imputation, likelihood, presets, saved_model
from iwae_zoo.programs import evaluate, export, impute

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:log p")]


@pytest.fixture(scope="module")
def table():
    return presets.load("breast_cancer_table")


@pytest.fixture(autouse=True)
def _loaded_once(table, monkeypatch):
    """The library answers from what the program has traced."""
    load = presets.load
    monkeypatch.setattr(presets, "load", lambda name: table if name == "breast_cancer_table" else load(name))


def test_evaluate_has_the_presets_data(table, tmp_path):
    flags = ["--preset=breast_cancer_table", "--num_samples=50", "--method=importance", "--output=scores.json"]
    ended = call(evaluate, *flags, "--examples=20", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    found = json.loads((tmp_path / "scores.json").read_text())
    x = data.load("breast_cancer", missing=0.2).evaluation_array("test")[:20]
    assert np.isnan(x).mean() == pytest.approx(0.2, abs=0.05)
    expected = likelihood.evaluate_log_prob(table, x, 50, method="importance", verbose=0)
    assert found["log_prob"] == pytest.approx(expected.log_prob, rel=1e-6)
    ended = call(evaluate, "--preset=breast_cancer_table", "--dataset=digits", cwd=tmp_path)
    assert "received the 30 columns of a model, and digits has none" in ended.stderr


def test_impute_names_the_row_of_a_long_array(tmp_path):
    x = np.zeros([600, 30], np.float32)
    x[399, 2] = np.inf
    np.save(tmp_path / "x.npy", x)
    ended = call(impute, "--preset=breast_cancer_table", "--input=x.npy", "--output=filled.npz", cwd=tmp_path)
    assert "x holds infinity in 1 of 600 examples, the first at row 399" in ended.stderr


def test_impute_fills_a_users_table(table, tmp_path):
    loaded = sklearn.datasets.load_breast_cancer()
    x = loaded.data[:6].astype(np.float32)
    x[np.arange(6), 4 * np.arange(6)] = np.nan
    with open(tmp_path / "holes.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(loaded.feature_names)
        writer.writerows(["" if np.isnan(cell) else repr(float(cell)) for cell in row] for row in x)
    flags = ["--preset=breast_cancer_table", "--input=holes.csv", "--output=filled.csv", "--num_samples=50"]
    ended = call(impute, *flags, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    with open(tmp_path / "filled.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    expected = imputation.impute(table, x, 50, num_imputations=1)
    for i, row in zip(range(6), rows, strict=True):
        name = loaded.feature_names[4 * i]
        assert float(row[name]) == pytest.approx(expected.point[i, 4 * i], rel=1e-4)
        assert float(row["log_prob"]) == pytest.approx(expected.log_prob[i], rel=1e-4)


def test_export_says_what_the_card_says(table, tmp_path, monkeypatch):
    """What is served of a model, and how, the contract's tests look at."""
    received = {}

    def exported(model, directory, *numbers, card, **options):
        received.update(model=model, directory=directory, numbers=numbers, card=card, options=options)
        return "models/1"

    monkeypatch.setattr(saved_model, "export", exported)
    flags = ["--preset=breast_cancer_table", "--export_dir=models", "--num_samples=7", "--seed=3"]
    ended = call(export, *flags, cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (0, "Exported to models/1.\n"), ended.stderr
    assert received["model"] is table
    assert (received["directory"], received["numbers"], received["options"]["seed"]) == ("models", (7, 10_000), 3)
    card = presets.card("breast_cancer_table")
    assert received["card"] == {key: value for key, value in card.items() if key not in ("model", "data_shape")}
    # As of a run, whose data a client loads as they were.
    assert received["card"]["config"]["dataset"] == "breast_cancer"
    json.dumps(received["card"])


def test_a_preset_is_exported_as_it_answers(no_annealing, tmp_path):
    flags = ["--preset=digits_miwae", "--export_dir=models", "--num_samples=20"]
    ended = call(export, *flags, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    x = data.load("digits").evaluation_array("test")[:3]
    expected = likelihood.estimate_log_prob(presets.load("digits_miwae"), x, 20, seed=5)
    answer = saved_model.Exported(tmp_path / "models").estimate_log_prob(x, 20, seed=5)
    np.testing.assert_allclose(answer.log_prob, expected.log_prob, rtol=1e-5)
