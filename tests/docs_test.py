"""The documentation's code, run as it stands, but for a shorter training where it is not asked what was learnt."""

import pathlib
import re

import keras
import pytest
from sklearn import model_selection

from iwae_zoo import ImportanceWeightedAutoencoder, presets
from iwae_zoo.data import kinds
from iwae_zoo.distributions import likelihoods
from iwae_zoo.networks import bodies
from iwae_zoo.objectives import bounds
from iwae_zoo.presets import table
from iwae_zoo.sklearn import Imputer
from studies import trained_presets

ROOT = pathlib.Path(__file__).resolve().parents[1]


def run_blocks(page):
    """Runs a page's Python blocks one after the other, and returns what they define."""
    names: dict = {"__name__": page}
    for block in re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL):
        exec(compile(block, page, "exec"), names)
    return names


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:log p")
def test_every_room_takes_a_new_piece(monkeypatch, tmp_path):
    for module in (bounds, kinds, likelihoods, bodies, table):
        monkeypatch.setattr(module, "TABLE", dict(module.TABLE))
    keras.utils.set_random_seed(0)  # The page's own layers draw their weights from it.
    names = run_blocks("docs/extending.md")
    assert names["far"] > names["near"] + 5
    assert names["bound"] > names["baseline"] + 0.5
    # What is in the tables is saved and served like anything else.
    from iwae_zoo import likelihood, saved_model

    model, x = names["model"], names["turns"].test[:3]
    model.save(tmp_path / "model.keras")
    loaded = names["keras"].saving.load_model(tmp_path / "model.keras")
    assert loaded.objective == names["objective"]
    expected = likelihood.estimate_log_prob(model, x, 100).log_prob.tolist()
    assert likelihood.estimate_log_prob(loaded, x, 100).log_prob.tolist() == expected
    exported = saved_model.Exported(saved_model.export(model, tmp_path / "served", num_samples=100))
    assert exported.estimate_log_prob(x, 100).log_prob == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:log p")
def test_readme(short_annealing, monkeypatch):
    fit = ImportanceWeightedAutoencoder.fit
    monkeypatch.setattr(
        ImportanceWeightedAutoencoder, "fit", lambda *args, **options: fit(*args, **{**options, "epochs": 1})
    )
    names = run_blocks("README.md")
    assert names["estimate"].log_prob.shape == (10,)
    ten, three = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert len([line for line in ten.splitlines() if line and "import" not in line]) <= 10
    assert len(three.splitlines()) == 3
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.slow
def test_tables(monkeypatch):
    # Of scikit-learn's pipelines it is only asked that they run: two epochs, and one fold.
    fit, score = Imputer.fit, model_selection.cross_val_score
    monkeypatch.setattr(Imputer, "fit", lambda imputer, *args: fit(imputer.set_params(epochs=2), *args))
    monkeypatch.setattr(
        model_selection,
        "cross_val_score",
        lambda pipeline, X, y, cv: score(pipeline, X, y, cv=[next(model_selection.KFold(cv).split(X))]),
    )
    names = run_blocks("docs/tables.md")
    gone, x = names["np"].isnan(names["holes"][:50]), names["x"][:50]
    error = (names["filled"].mean - x)[gone]
    assert (error**2).mean() < 0.5 * x[gone].var()
    assert ((names["low"] <= x) & (x <= names["high"]))[gone].mean() > 0.7


@pytest.mark.slow
def test_own_networks():
    names = run_blocks("docs/networks.md")
    digits = names["digits"]
    for model in (names["model"], names["stacked"]):
        model.compile()
        model.fit(digits.training_batches(32, seed=0), steps_per_epoch=2, shuffle=False, verbose=0)


@pytest.mark.slow
def test_one_answer():
    answer = run_blocks("docs/log_likelihood.md")["answer"]
    assert answer.trusted.all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:log p")
def test_trained_models(short_annealing):
    answer = run_blocks("docs/presets.md")["answer"]
    assert answer.log_prob.shape == (10,)
    cards = [presets.card(name) for name in presets.trained.names() if presets.trained.is_made(name)]
    assert trained_presets.table(cards) in (ROOT / "docs" / "presets.md").read_text()


@pytest.mark.slow
def test_keras_habits():
    names = run_blocks("docs/training.md")
    assert names["stop"].best is not None


def test_every_page_and_picture_is_there():
    pages = [ROOT / "README.md", ROOT / "BUILD.md", *(ROOT / "docs").glob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} names {target}"
    # Blocks of the other pages need several machines or a server.
    with_code = {page.name for page in pages if "```python" in page.read_text()}
    assert with_code == {
        "README.md",
        "extending.md",
        "log_likelihood.md",
        "networks.md",
        "presets.md",
        "tables.md",
        "training.md",
        "machines.md",
    }
