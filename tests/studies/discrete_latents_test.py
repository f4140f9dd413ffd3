"""The study of discrete latents: its table and curves of made-up cells, and a run from end to end."""

import json
import math

import keras
import matplotlib.image
import numpy as np
import pytest
from inprocess import call

from iwae_zoo import likelihood, relaxation, training
from studies import discrete_latents, discrete_latents_main


def test_rows_are_over_seeds_or_over_examples():
    found = {"bound": np.array([-3.0, -5.0]), "log_prob": np.array([-2.0, -4.0])}
    found |= {"ess": np.array([1.0, 3.0]), "trusted": np.array([True, False])}
    other = {name: values + 1.0 if name != "trusted" else values for name, values in found.items()}
    config = training.Config(epochs=7)
    one = discrete_latents.rows({("rws", 0): found}, {("rws", 0): config})["RWS"]
    assert one["log_prob"] == (-3.0, 1.0) and one["untrusted"] == (50.0, 50.0)
    assert one["epochs"][0] == 7.0 and math.isnan(one["epochs"][1])
    both = discrete_latents.rows({("rws", 0): found, ("rws", 1): other}, {("rws", 0): config})["RWS"]
    assert both["bound"] == (-3.5, 0.5) and both["untrusted"] == (50.0, 0.0)


def test_curves_are_over_the_time_of_training():
    def history(*snr):
        return {"history": [{} if value is None else {"diagnostics_encoder_snr": value} for value in snr]}

    results = {("vimco", 0): history(None, 1.0, None, 3.0), ("vimco", 1): history(None, 2.0, None, 5.0)}
    curves = discrete_latents.snr_curves(results, minutes=8.0)
    np.testing.assert_allclose(curves["VIMCO"], [[4.0, 1.5, 0.5], [8.0, 4.0, 1.0]])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:log p")
def test_study(tmp_path, monkeypatch, no_evaluation):
    """Two cells: log p(x) is that of the trained models, the relaxed one's with bits for latents."""
    monkeypatch.setattr(discrete_latents.budget, "epochs_within", lambda config, minutes, path, clock: 2)
    x = np.float32(np.random.default_rng(0).random((60, 6)) < 0.3)
    np.savez(tmp_path / "bits.npz", train=x[:40], validation=x[40:50], test=x[50:])
    flags = [f"--dataset={tmp_path / 'bits.npz'}", "--preset=sbn_8", "--methods=vimco,gumbel", "--k=2", "--looks=1"]
    flags += ["--num_samples=30", "--examples=4", "--workdir=study"]
    ended = call(discrete_latents_main, *flags, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    found = json.loads((tmp_path / "study" / "results.json").read_text())
    assert list(found) == ["VIMCO", "Gumbel-softmax"]
    assert (tmp_path / "study" / "table.md").read_text() in ended.stdout
    for label, place, head in (("VIMCO", "*vimco*", "bernoulli"), ("Gumbel-softmax", "*relaxed*", "relaxed_bernoulli")):
        (cell,) = (tmp_path / "study" / "cells").glob(place)
        model = keras.saving.load_model(cell / "model.keras")
        assert model.encoder.first.head.name == head
        model = model if label == "VIMCO" else relaxation.discrete(model)
        estimate = likelihood.estimate_log_prob(model, x[50:54], 30)
        assert found[label]["log_prob"][0] == pytest.approx(estimate.log_prob.mean(), abs=1e-5)
    assert matplotlib.image.imread(tmp_path / "study" / "snr.png").ndim == 3
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "study" / "cells").rglob("*.json*")}
    again = call(discrete_latents_main, *flags, cwd=tmp_path)
    assert again.stdout.startswith("2 of 2 cells were finished before.\n"), again.stderr
    assert before == {path: path.stat().st_mtime_ns for path in before}
