"""How many epochs fit into a time."""

import dataclasses
import itertools

import numpy as np
import pytest

from iwae_zoo import training
from studies import budget


@pytest.mark.slow
def test_epochs_fill_the_time_and_are_measured_once(tmp_path, monkeypatch):
    np.save(tmp_path / "tiny.npy", np.random.default_rng(0).integers(0, 2, size=(100, 4)).astype("float32"))
    config = training.Config(dataset=str(tmp_path / "tiny.npy"), preset="plane", hidden_sizes="8", m=1, k=1)
    seconds = itertools.count()  # Of a clock that strikes once for each step.
    epochs = budget.epochs_within(config, 10.0, tmp_path / "epochs.json", lambda: float(next(seconds)))
    assert epochs == 200  # Of three steps each.
    monkeypatch.setattr(budget, "_seconds_per_epoch", lambda config, clock: 120.0)
    assert budget.epochs_within(dataclasses.replace(config, seed=1), 10.0, tmp_path / "epochs.json") == epochs
    assert budget.epochs_within(config, 6.0, tmp_path / "epochs.json") == 3
    assert budget.epochs_within(config, 1.0, tmp_path / "epochs.json") == 1
    # Other minutes or settings in between or not.
    assert budget.epochs_within(dataclasses.replace(config, k=2), 10.0, tmp_path / "epochs.json") == 5
    assert budget.epochs_within(config, 10.0, tmp_path / "epochs.json") == epochs


def test_growing_particles_count_by_their_share(tmp_path, monkeypatch):
    monkeypatch.setattr(budget, "_timed", lambda config, clock: float(config.m * config.k))
    config = training.Config(dataset="digits", m=8, k=8, particle_schedule="2x4:0.5,4x8:0.25")
    # Seconds of an epoch on average: 8 / 2 + 32 / 4 + 64 / 4.
    assert budget.epochs_within(config, 28.0, tmp_path / "epochs.json") == 60
