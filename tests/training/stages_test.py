"""Particles that grow over a run."""

import shutil

import keras
import numpy as np
import pytest
from oracles import gradients_in_step

from iwae_zoo import gradients, objectives, presets, training


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1x5", "must be MxK:SHARE with commas between them.*received '1x5'"),
        ("5:0.5", "must be MxK:SHARE"),
        ("1x0:0.5", "must be MxK:SHARE"),
        ("1x5:1", "must be MxK:SHARE"),
        ("1x5:0.6,2x5:0.4", "leaves no epoch of 10 for 8x8"),
        ("1x5:0.01", "leaves no epoch of 10 for 1x5"),
    ],
)
def test_stages_that_cannot_be(text, message):
    with pytest.raises(ValueError, match=message):
        training.Config(particle_schedule=text, epochs=10).resolved()


def test_stages_and_what_they_do_not_go_with(tiny, tmp_path):
    with pytest.raises(ValueError, match="early_stopping watches a bound that particle_schedule changes"):
        training.Config(particle_schedule="1x5:0.5", early_stopping=3).resolved()
    config = training.Config(dataset=tiny, preset="plane", particle_schedule="1x5:0.5", backward_particles=5)
    with pytest.raises(ValueError, match="backward_particles must be below M K = 5: received 5"):
        training.Run(config, tmp_path / "run")
    with pytest.raises(ValueError, match="beta must be in"):
        training.Config(objective="ciwae", beta=2.0, particle_schedule="1x5:0.5").resolved().build_stages()


def test_an_objective_that_a_model_cannot_follow():
    bits, real = (
        presets.build("plane", data_shape=(2,), hidden_sizes=(), posterior=posterior, objective="rws")
        for posterior in ("bernoulli", "normal")
    )
    with pytest.raises(
        ValueError, match="'dreg' needs reparameterised particles, and those of a posterior 'bernoulli'"
    ):
        bits.follow("dreg")
    with pytest.raises(ValueError, match=r"'tvo' has \['thermodynamic_upper'\] beside the bounds, and 'rws' has \[\]"):
        real.follow("tvo")
    assert bits.objective == real.objective == objectives.get("rws")


@pytest.mark.slow
def test_particles_grow_and_a_run_resumes_where_they_do(tiny, tmp_path, monkeypatch):
    """To the weights of runs by hand, one for each stage, whose model and optimizers are handed on."""
    settings = {"dataset": tiny, "preset": "plane", "objective": "dreg", "m": 2, "k": 3, "epochs": 4, "batch_size": 16}
    settings |= {"hidden_sizes": "8"}
    config = training.Config(**settings, particle_schedule="1x1:0.5", schedule="cosine")
    run = training.Run(config, tmp_path / "run")
    drawn = []
    compute = gradients.compute

    def counted(model, *arguments):
        drawn.append((model.objective.m, model.objective.k))
        return compute(model, *arguments)

    monkeypatch.setattr(gradients, "compute", counted)
    save = run.files.save

    # Undisturbed, but for a copy of what is there when the first stage ends.
    monkeypatch.setattr(run.files, "save", lambda *a: (save(*a), len(a[1]) == 2 and shutil.copytree(*folders)))
    folders = (tmp_path / "run", tmp_path / "cut")
    grown = run.train(verbose=0)
    assert list(dict.fromkeys(drawn)) == [(1, 1), (2, 3)]  # What is traced, in this order.
    assert grown.objective == run.objective
    gaps = [row["val_decoder_bound"] - row["val_elbo"] for row in run.files.history(4)]
    assert np.abs(gaps[:2]).max() < 1e-5 and min(gaps[2:]) > 0.01  # The bound at one particle is the ELBO.
    resumed = training.Run(config, tmp_path / "cut", resume=True).train(verbose=0)
    by_hand = run.build()
    steps = run.dataset.steps_per_epoch(16)
    for first, objective in ((0, config.build_objective(m=1, k=1)), (2, run.objective)):
        if first:  # A model of its own: nothing is left of what was traced.
            by_hand.save(tmp_path / "stage.keras")
            by_hand = keras.saving.load_model(tmp_path / "stage.keras")
        by_hand.objective = objective
        batches = run.dataset.training_batches(16, run.config.seed, first)
        by_hand.fit(batches, steps_per_epoch=steps, initial_epoch=first, epochs=first + 2, shuffle=False, verbose=0)
    for ours, resumeds, by_hands in zip(*(m.get_weights() for m in (grown, resumed, by_hand)), strict=True):
        np.testing.assert_array_equal(ours, resumeds)
        np.testing.assert_array_equal(ours, by_hands)
    histories = [(folder / "metrics.jsonl").read_text() for folder in folders]
    assert histories[0] == histories[1]


@pytest.mark.slow
def test_what_was_compiled_for_another_objective_is_left():
    model = presets.build("plane", data_shape=(2, 2), hidden_sizes=(3,), objective=objectives.get("iwae", m=1, k=2))
    model.compile("adam", jit_compile=True)
    x = np.zeros([3, 2, 2], np.float32)
    for m, k in ((1, 2), (2, 3)):
        model.follow(objectives.get("iwae", m=m, k=k))
        assert gradients_in_step(model, x, (0, 1)).log_weights.shape == (m, k, 3)
