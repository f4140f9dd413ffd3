"""The papers' tables, with tiny cells."""

import dataclasses
import json

import numpy as np
import pytest
from inprocess import call

from iwae_zoo import likelihood
from studies import budget, reproduce, reproduce_main


def test_published_figures_are_of_one_piece():
    """-KL(Q, P) is the bound minus log p(x), to the rounding of the three; particles are as the papers have them."""
    whole = [row for row in reproduce.TABLES["rainforth"].values() if len(row.published) == 3]
    assert len(whole) == 5
    for row in whole:
        bound, log_prob, kl = (row.published[name][0] for name in ("iwae_bound", "importance_log_prob", "negative_kl"))
        assert bound - log_prob == pytest.approx(kl, abs=0.0151)
    for row in reproduce.TABLES["rainforth"].values():
        objective = reproduce.config(row, seed=0).build_objective()
        assert objective.m * objective.k == 64
    for row in reproduce.TABLES["burda"].values():
        objective = reproduce.config(row, seed=0).build_objective()
        assert f"k = {objective.m * objective.k}" in row.label
    assert len({(row.preset, str(row.settings)) for row in reproduce.TABLES["burda"].values()}) == 10


def test_half_hour_changes_one_thing_a_row():
    """Each row is a run of its own, with the budget's settings where it has none; so is its objective."""
    settings = {**reproduce.BUDGETS["minutes"], "epochs": 10}
    configs = {name: reproduce.config(row, 0, **settings) for name, row in reproduce.TABLES["half_hour"].items()}
    assert len({str(config) for config in configs.values()}) == len(configs)
    # The last rows have other networks.
    for other, name in (("two_layers_", "dreg_8"), ("two_layers_", "dreg_elu"), ("convolutions_", "dreg_8")):
        networks = configs.pop(other + name)
        assert dataclasses.replace(networks, preset="rainforth") == configs[name] != networks
    assert {config.preset for config in configs.values()} == {"rainforth"}
    assert configs["dreg_fast"].learning_rate == 4e-3 and configs["dreg_fast"].schedule == "cosine"
    assert configs["dreg_batch_50"].batch_size == 50 and configs["dreg_8"].batch_size == 100
    for config in configs.values():
        config.build_objective()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:log p")
def test_cells_become_a_table(tiny, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(budget, "epochs_within", lambda config, minutes, _: asked.append((config, minutes)) or 2)

    def half_a_nat_above(model, x, verbose):
        sampled = likelihood.estimate_dataset(model, x, 20, method="importance", verbose=verbose)
        return sampled._replace(log_prob=sampled.log_prob + 0.5)

    monkeypatch.setattr(reproduce.annealing, "estimate_log_prob", half_a_nat_above)
    flags = [f"--dataset={tiny}", "--rows=vae,burda_2_iwae_5", "--minutes=2", "--eval_samples=20", "--workdir=study"]
    ended = call(reproduce_main, *flags, "--annealed_examples=4", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert [minutes for _, minutes in asked] == [2.0, 2.0]
    table = (tmp_path / "study" / "table.md").read_text()
    found = json.loads((tmp_path / "study" / "results.json").read_text())
    ours = found["ours"]["vae"]
    cell = next((tmp_path / "study" / "cells").glob("*elbo*"))
    there = json.loads((cell / "evaluation.json").read_text())
    assert json.loads((cell / "config.json").read_text())["config"]["schedule"] == "cosine"
    assert ours["iwae_bound"] == [there["iwae_bound"], there["iwae_bound_error"]]
    assert ours["annealed_log_prob"][0] == pytest.approx(there["importance_log_prob"] + 0.5, abs=1e-5)
    assert ours["negative_kl"][0] == pytest.approx(there["iwae_bound"] - there["importance_log_prob"])
    (line,) = (line for line in table.splitlines() if line.startswith("| VAE "))
    assert "-86.69 (0.08)" in line and f"{there['iwae_bound']:.2f} ({there['iwae_bound_error']:.2f})" in line
    assert "2 epochs" in line
    assert "| log p(x), 5,000 samples: published | log p(x), 20 samples: ours |" in table
    (line,) = (line for line in table.splitlines() if line.startswith("| 2 layers, IWAE, k = 5 "))
    first, second = found["looks"]["burda_2_iwae_5"][0]["active_units"]
    assert "| -83.89 |" in line and f"| {first}+{second} |" in line
    assert table.count("not run") == 14
    # Nothing is measured or trained again.
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "study").rglob("*.keras")}
    again = call(reproduce_main, *flags, "--annealed_examples=4", cwd=tmp_path)
    assert again.stdout.startswith("2 of 2 cells were finished before.\n"), again.stderr
    assert len(before) == 2
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert (tmp_path / "study" / "table.md").read_text() == table


def test_errors_are_over_seeds_where_there_are_some():
    results = [
        {"evaluation": {"iwae_bound": bound, "importance_log_prob": bound + 1.0, "log_prob_error": 9.0}}
        for bound in (-3.0, -1.0)
    ]
    looks = [
        {"gap": 0.5, "gap_error": 9.0, "active_units": [3, 1]},
        {"gap": 1.5, "gap_error": 9.0, "active_units": [5, 2]},
    ]
    found = reproduce.measured(results, looks)
    assert found["iwae_bound"] == pytest.approx((-2.0, 1.0))
    assert found["negative_kl"] == pytest.approx((-1.0, 0.0))
    assert found["annealed_log_prob"] == pytest.approx((0.0, 1.5))
    assert found["active_units"] == pytest.approx((5.5, 1.5))
    assert reproduce._ours("active_units", found, looks) == "4+1.5"
    assert np.isnan(reproduce.TABLES["burda"]["burda_1_vae_1"].published["importance_log_prob"][1])
