"""The study of log p(x): its numbers against direct calls, what is kept, and what is said of the orders."""

import csv
import json
import math
import re

import keras
import matplotlib.image
import numpy as np
import pytest
import tensorflow as tf
from inprocess import call

from iwae_zoo import data, likelihood, presets, training
from studies import cells, estimate_cost, true_likelihood, true_likelihood_main

FLAGS = ["--preset=small", "--workdir=study", "--seeds=1", "--objectives=vae,piwae", "--m=2", "--k=2", "--examples=3"]
FLAGS += ["--num_samples=4", "--cost_examples=2"]  # As many as particles of the bound.


def save_models(configs, root, _):
    """In place of training: models of other weights each."""
    for number, config in enumerate(configs.values()):
        model = presets.build(config.preset, data=data.load(config.dataset), seed=number)
        folder = cells.folder(config, root)
        folder.mkdir(parents=True, exist_ok=True)
        training.Run(config, folder, resume=True)._describe()
        model.save(folder / "model.keras")


@pytest.fixture(scope="module")
def study(tiny, tmp_path_factory):
    """The folder of a small study, what the program printed, and the models that it loaded."""
    folder, models = tmp_path_factory.mktemp("study"), []
    load = true_likelihood_main.load_model

    def loaded(path):
        models.append(load(path))
        return models[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells, "run_grid", save_models)
        patch.setattr(true_likelihood_main, "load_model", loaded)
        patch.setattr(estimate_cost, "PLAN", {"samples": ("importance", (7,)), "chains": ("prior", ((3, 2),))})
        ended = call(true_likelihood_main, f"--dataset={tiny}", *FLAGS, cwd=folder)
    assert ended.returncode == 0, ended.stderr
    return folder / "study", ended.stdout, models


@pytest.mark.slow
def test_numbers_are_those_of_a_direct_call(study, tiny):
    root, _, models = study
    x = data.load(tiny).evaluation_array("test")[:3]
    (folder,) = root.glob("cells/*piwae*")  # The second: the weights are its own.
    model = models[0]  # What the program has traced.
    model.set_weights(keras.saving.load_model(folder / "model.keras").get_weights())
    (kept,) = json.loads((folder / "true_likelihood.json").read_text())["kept"]
    found = kept["found"]
    bound = likelihood.estimate_log_prob(model, x, 4, seed=1)
    sampled = likelihood.estimate_log_prob(model, x, 4)
    annealed = likelihood.estimate_log_prob(model, x, 4, method="annealed")
    assert found["bound"] == pytest.approx(bound.log_prob, abs=1e-4)
    for name, answer in (("sampled", sampled), ("annealed", annealed)):
        assert found[name] == pytest.approx(answer.log_prob, abs=1e-4)
        assert found[f"{name}_error"] == pytest.approx(answer.standard_error, abs=1e-4)
        assert found[f"{name}_ess"] == pytest.approx(answer.ess, rel=1e-3)
        assert found[f"{name}_trusted"] == answer.trusted.tolist()
    row = json.loads((root / "results.json").read_text())["objectives"]["piwae"]
    gap = annealed.log_prob - sampled.log_prob
    assert row["gap"] == pytest.approx([np.mean(gap), np.std(gap, ddof=1) / math.sqrt(3)], abs=1e-4)
    assert row["sampled_untrusted"][0] == pytest.approx(100 * np.mean(~sampled.trusted))


@pytest.mark.slow
def test_tables_and_figure(study):
    root, printed, _ = study
    text = (root / "table.md").read_text()
    assert text in printed
    table, orders = text.split("\n\n", 1)
    assert "IWAE-4 | log p(x), 4 samples | log p(x), annealed" in table
    assert "ESS of 32 chains" in table
    assert len(table.splitlines()) == 2 + 2
    assert re.search(r"\(PIWAE\) > VAE \| 1.75 \(0.20\), holds \| .*(holds|reversed|undecided) \|", orders)
    published, disputed = orders.split("Pairs that the two estimates judge differently")
    assert len(published.strip().splitlines()) == 2 + 2 + 1
    assert disputed.startswith(", differences of log p(x) in nats of these models, one run each:")
    head, *rows = csv.reader((root / "table.csv").read_text().splitlines())
    assert head[:4] == ["objective", "bound", "bound_error", "sampled"]
    assert [len(row) for row in rows] == [1 + 2 * len(true_likelihood.COLUMNS)] * 2
    assert matplotlib.image.imread(root / "cost.png").std() > 0.01
    points = json.loads((root / "cost.json").read_text())["kept"][0]["found"]
    assert points["samples, 7"]["cost"] == 7
    # 2 chains and 8 of a pilot run begin; of 10 leapfrog steps each, one transition and a pilot run of 58.
    assert points["chains, (3, 2)"]["cost"] == 2 * (2 * (1 + 10) + 8 * (1 + 10 * 58))


@pytest.mark.slow
def test_what_is_there_is_only_read(study, tiny, monkeypatch):
    root, printed, _ = study
    before = {path: path.read_bytes() for path in root.rglob("true_likelihood.json")}
    assert len(before) == 2
    monkeypatch.setattr(cells, "run_grid", lambda *_: None)
    monkeypatch.setattr(keras.saving, "load_model", lambda _: pytest.fail("a model was loaded"))
    again = call(true_likelihood_main, f"--dataset={tiny}", *FLAGS, "--cost_model=", cwd=root.parent)
    assert again.returncode == 0, again.stderr
    assert again.stdout.split("\n|", 1)[1] in printed
    assert before == {path: path.read_bytes() for path in before}


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--objectives=vae,piwea", "unknown objectives ['piwea']. Known: vae, iwae, piwae,"),
        ("--cost_model=dreg", "--cost_model=dreg is none of the objectives vae, piwae."),
        ("--num_samples=0", "flag --num_samples=0"),
        ("--batch_size=0", "batch_size must be an integer of at least 1: received 0."),
    ],
)
def test_a_wrong_flag_is_one_line(flag, message, tiny, tmp_path):
    ended = call(true_likelihood_main, f"--dataset={tiny}", *FLAGS, flag, cwd=tmp_path)
    assert ended.returncode != 0
    assert ended.stderr.startswith("the_program: ") and ended.stderr.count("\n") == 1
    assert message in ended.stderr
    assert not list(tmp_path.iterdir())


def test_rows_are_added_and_other_settings_start_anew(tmp_path, monkeypatch):
    path = tmp_path / "kept.json"
    asked = []

    def rows(model, x, first_row, *_):
        asked.append(first_row)
        return {"bound": first_row + np.arange(len(x), dtype=float)}

    def never():
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(true_likelihood, "_measured", rows)
    monkeypatch.setattr(true_likelihood, "_ROWS", 4)
    x = np.zeros([10, 1])
    measure = true_likelihood.measure
    assert measure(lambda: None, x[:6], path, 4, 20)["bound"].tolist() == list(range(6))
    assert measure(never, x[:5], path, 4, 20)["bound"].tolist() == list(range(5))
    assert measure(lambda: None, x, path, 4, 20)["bound"].tolist() == list(range(10))
    assert asked == [0, 4, 6]
    measure(lambda: None, x, path, 4, 21)
    assert asked == [0, 4, 6, 0, 4, 8]
    path.write_text("{")
    measure(lambda: None, x[:1], path, 4, 21)
    assert asked[6:] == [0]


def test_errors_are_over_seeds_or_examples(seed):
    values = np.random.default_rng(seed).normal(size=(3, 7))
    mean, error = true_likelihood.over(values)
    of_seeds = values.mean(axis=1)
    assert mean == pytest.approx(values.mean())
    assert error == pytest.approx(np.std(of_seeds, ddof=1) / math.sqrt(3))
    mean, error = true_likelihood.over(values[:1])
    assert error == pytest.approx(np.std(values[0], ddof=1) / math.sqrt(7))


def test_orders_are_paired(seed):
    """Objectives differ by far less than examples do."""
    rng = np.random.default_rng(seed)
    base = rng.normal(scale=100.0, size=(1, 200))
    worth = {"vae": 0.0, "ciwae_5": 0.2, "iwae": 0.2, "piwae": 0.1, "dreg": 9.0}

    def values(mean):  # Their noise has a mean of zero, so that equals are always undecided.
        return base + mean + rng.permutation([0.1, -0.1] * 100)

    found = {name: {"annealed": values(mean), "sampled": values(mean // 1)} for name, mean in worth.items()}
    orders = true_likelihood.orders(found)
    rows = orders["published"]
    # In the published order, and nothing that was not published.
    pairs = [("piwae", "iwae"), ("iwae", "ciwae_5"), ("ciwae_5", "vae")]
    assert [(row["better"], row["worse"]) for row in rows] == pairs
    for row in rows:
        difference = (found[row["better"]]["annealed"] - found[row["worse"]]["annealed"])[0]
        mean, error, _ = row["annealed"]
        assert mean == pytest.approx(np.mean(difference))
        assert error == pytest.approx(np.std(difference, ddof=1) / math.sqrt(200))
    assert [row["annealed"][2] for row in rows] == ["reversed", "undecided", "holds"]
    assert [row["sampled"][2] for row in rows] == ["undecided"] * 3
    assert rows[0]["published"] == (pytest.approx(0.06), pytest.approx(math.hypot(0.06, 0.02)), "undecided")
    assert [row["published"][2] for row in rows[1:]] == ["holds", "holds"]
    disputed = {(pair["better"], pair["worse"]): pair for pair in orders["disputed"]}
    assert {("iwae", "piwae"), ("piwae", "vae")} <= set(disputed) and ("dreg", "vae") not in disputed
    assert all(pair["sampled"][2] == "undecided" and pair["annealed"][2] == "holds" for pair in disputed.values())
    assert "published" in disputed["piwae", "vae"]


def test_one_seed_and_one_example_decide_nothing():
    found = {name: {way: np.ones([1, 1]) for way in ("sampled", "annealed")} for name in ("piwae", "vae")}
    found["vae"]["annealed"] -= 5.0
    (row,) = true_likelihood.orders(found)["published"]
    assert row["annealed"][0] == 5.0 and math.isnan(row["annealed"][1]) and row["annealed"][2] == "undecided"


def test_decoder_passes_are_counted(linear_gaussian):
    """In graphs and loops, at every point."""
    model = linear_gaussian.model()
    with estimate_cost.counted(model.decoder) as count:

        @tf.function
        def evaluate(z, times):
            for _ in tf.range(times):
                model.decoder.likelihood(z)

        evaluate(tf.zeros([3, 1, 2]), 4)
        assert int(count) == 12
    model.decoder.likelihood(tf.zeros([3, 1, 2]))
    assert int(count) == 12
