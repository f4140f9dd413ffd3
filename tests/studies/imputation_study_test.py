"""The study of imputation: its measures against closed forms, tables of made-up cells, and a run from end to end."""

import json
import math

import matplotlib.image
import numpy as np
import pytest
import scipy.stats
from inprocess import call

from studies import holes, imputation, imputation_main


def test_measures_of_the_truth_itself(seed):
    """Intervals from draws of the distribution that x is from cover as they say, and have its width."""
    rng = np.random.default_rng(seed)
    x = rng.normal(scale=2.0, size=(400, 10))
    missing = rng.random(x.shape) < 0.5
    found = imputation.measures(x, missing, np.zeros_like(x), rng.normal(scale=2.0, size=(99, *x.shape)))
    assert found["squared_error"] == pytest.approx(np.mean(x[missing] ** 2))
    for level in (50, 90):
        share = level / 100
        error = 100 * np.sqrt(share * (1 - share) / missing.sum())
        assert found[f"cover_{level}"] == pytest.approx(level, abs=4 * error)
        width = 4.0 * scipy.stats.norm.ppf(0.5 + share / 2)
        assert found[f"width_{level}"] == pytest.approx(width, rel=0.03)


def test_measures_look_at_missing_cells_alone():
    x, missing = np.zeros([2, 2]), np.array([[True, False], [False, False]])
    found = imputation.measures(x, missing, np.array([[0.5, 9.0], [9.0, 9.0]]))
    assert found == {"squared_error": 0.25}


@pytest.mark.slow
@pytest.mark.parametrize("name", imputation.PEERS)
def test_peers_fill_what_follows_from_the_rest(name, seed):
    """Of a table with a single factor, far better than the mean does; and they learn from no row that is held out."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(120, 1)) + 0.1 * rng.normal(size=(120, 4))
    missing = rng.random(x.shape) < 0.2
    held_out = np.arange(120) < 20
    found = imputation.of_peer(x, missing, held_out, name)
    means = np.nanmean(np.where(missing, np.nan, x)[~held_out], axis=0)
    of_mean = np.mean((x - means)[missing] ** 2)
    assert found["squared_error"] == pytest.approx(of_mean) if name == "mean" else found["squared_error"] < of_mean / 4
    assert ("cover_90" in found) == (name == "ridge")


@pytest.mark.parametrize("name", imputation.PEERS)
def test_peers_fill_columns_of_which_nothing_is_known(name, seed):
    x = np.random.default_rng(seed).normal(size=(20, 3))
    missing = np.zeros(x.shape, bool)
    missing[:5, 0] = missing[:, 1] = True
    found = imputation.of_peer(x, missing, np.arange(20) < 10, name)
    assert all(np.isfinite(value) for value in found.values())


def test_rows_held_out():
    x, missing, held_out = imputation.problem("wine", "mar", 0.3)
    assert held_out.sum() == math.ceil(0.2 * len(x)) and (missing == holes.remove(x, "mar", 0.3)).all()
    assert not imputation.problem("breast_cancer", "mcar", 0.5)[2].any()
    assert imputation.problem("breast_cancer", "mcar", 0.3)[2].any()


def test_grid():
    grid = imputation_main.grid(["wine"], ["mcar"], ["30", "50"], ["mean", "iwae"], 2)
    first = [("wine", "mcar", rate, method, 0) for rate in (30, 50) for method in ("mean", "iwae")]
    assert grid == [*first, ("wine", "mcar", 30, "iwae", 1), ("wine", "mcar", 50, "iwae", 1)]


def test_tables_and_figure_of_made_up_cells():
    errors = {("mean", 0): 1.0, ("iwae", 0): 0.25, ("iwae", 1): 0.35}
    of_cells = {
        ("wine", "mcar", rate, *method): {"squared_error": error, "seconds": 1.0} | extra
        for rate in (30, 50)
        for method, error in errors.items()
        for extra in [{} if method[0] == "mean" else {"cover_90": 90.0 + 4 * method[1]}]
    }
    results = imputation_main.gathered(of_cells)
    assert results["wine", "mcar", 50]["iwae"]["squared_error"] == (pytest.approx(0.3), pytest.approx(0.05))
    text = imputation_main.tables(results, {"mean": "mean of the column", "iwae": "IWAE"})
    assert text.startswith("wine, 30 % missing, mcar:\n\n| method | squared error |")
    assert "| mean of the column | 1.000 |  |  |  |  |  |  |\n" in text
    assert "| IWAE | 0.300 (0.050) |  |  | 92.0 (2.0) |  |  |  |\n" in text
    figure = imputation_main.draw(results, {"mean": "mean of the column", "iwae": "IWAE"})
    above, below = figure.axes
    assert above.get_ylabel() == "squared error, mcar" and below.get_ylabel().startswith("90 % intervals cover")
    lines = [container[0].get_xydata().tolist() for container in above.containers]
    assert lines == [[[30, 1.0], [50, 1.0]], [[30, pytest.approx(0.3)], [50, pytest.approx(0.3)]]]


FLAGS = ["--workdir=study", "--tables=wine", "--rates=30", "--mechanisms=mnar", "--objectives=piwae", "--peers=mean"]


@pytest.mark.slow
def test_from_end_to_end(tmp_path, monkeypatch):
    flags = [*FLAGS, "--epochs=1", "--num_samples=100"]
    ended = call(imputation_main, *flags, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    root = tmp_path / "study"
    assert (root / "table.md").read_text() in ended.stdout
    assert matplotlib.image.imread(root / "imputation.png").std() > 0.01
    found = json.loads((root / "results.json").read_text())["wine mnar 30"]
    assert set(found["piwae"]) == {*imputation.COLUMNS, "seconds"}
    assert 0.0 <= found["piwae"]["untrusted"][0] <= 100.0 and np.isfinite(found["piwae"]["log_prob"][0])
    monkeypatch.setattr(imputation, "of_model", lambda *_, **__: pytest.fail("a finished cell was run again"))
    again = call(imputation_main, *flags, cwd=tmp_path)
    assert again.returncode == 0 and (root / "table.md").read_text() in again.stdout
