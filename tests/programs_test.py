"""The programs and studies, as a user would run them, at small size."""

import dataclasses
import json
import re

import keras
import matplotlib.image
import numpy as np
import pytest
from inprocess import call
from toy_data import examples

from iwae_zoo import data, evaluation, objectives
from iwae_zoo.programs import evaluate, train
from studies import posterior_main, snr_slopes_main, tighter_bounds_main

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:log p")]


def is_a_picture(path):
    pixels = matplotlib.image.imread(path)
    return pixels.shape[0] > 200 and pixels.shape[1] > 200 and pixels.std() > 0.01


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A work directory of the default data, briefly trained, with diagnostics."""
    # Here and below as many samples as particles, where their number does not matter: bound and log p(x) share a trace.
    folder = tmp_path_factory.mktemp("trained")
    flags = ["--objective=piwae", "--m=2", "--k=3", "--epochs=2", "--eval_samples=6", "--diagnostics_every=2"]
    flags += ["--hidden_sizes=8", "--eval_method=importance"]
    result = call(train, *flags, "--workdir=run", cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder / "run"


def test_diagnostics_are_logged(trained):
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert "diagnostics_encoder_snr" not in rows[0]
    assert rows[1]["diagnostics_encoder_snr"] > 0
    assert is_a_picture(trained / "bounds.png")
    assert is_a_picture(trained / "samples.png")
    assert is_a_picture(trained / "reconstructions.png")


def test_evaluate_main(trained, tmp_path, monkeypatch):
    flags = [f"--model={trained / 'model.keras'}", "--num_samples=300", "--examples=30", "--tolerance=0.2"]
    flags += ["--ais=4", "--sandwich=4", "--num_temperatures=20", "--num_chains=32", "--output=result.json"]
    flags += ["--particle_chunk=auto", "--tile_rows=1"]
    # The library answers from what the program has traced.
    model = keras.saving.load_model(trained / "model.keras")
    monkeypatch.setattr(keras.saving, "load_model", lambda _, compile: model)
    result = call(evaluate, *flags, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "log p(x)" in result.stdout and "annealed importance sampling" in result.stdout
    written = json.loads((tmp_path / "result.json").read_text())
    assert written["num_examples"] == 30
    # What is written is what the library answers.
    x = data.load("digits").evaluation_array("test")[:30]
    expected = evaluation.evaluate(model, x, 300, tolerance=0.2, verbose=0)
    for name, value in dataclasses.asdict(expected).items():
        assert written[name] == pytest.approx(value, rel=1e-6)
    assert written["num_samples"] <= 300
    assert (written["particle_chunk"], written["tile_rows"]) == (300, 1)  # There is memory for all.
    assert abs(written["annealed"]["difference"]) < 5
    assert written["sandwich"]["gap"] == pytest.approx(written["sandwich"]["upper"] - written["sandwich"]["lower"])
    (tmp_path / "cut.keras").write_bytes((trained / "model.keras").read_bytes()[:1000])
    for flags, message in (
        (["--model=nowhere.keras"], "There is no model file"),
        (["--model=cut.keras"], "cut.keras is damaged"),
        ([f"--model={trained / 'model.keras'}", "--num_samples=0"], "num_samples must be an integer of at least 1"),
    ):
        result = call(evaluate, *flags, cwd=tmp_path)
        assert result.returncode != 0
        assert message in result.stderr


@pytest.mark.parametrize(
    ("kind", "shape", "flags", "pictures", "method"),
    [
        ("byte", (8, 8, 3), [], {"samples", "reconstructions"}, "importance"),
        ("count", (6,), ["--likelihood=negative_binomial,offset=True"], {"pairs", "dispersion"}, "importance"),
        ("real", (5,), ["--likelihood=student_t,spread=column"], {"pairs"}, "auto"),
    ],
)
def test_every_kind_of_data_from_the_command_line(kind, shape, flags, pictures, method, tmp_path, short_annealing):
    np.save(tmp_path / "own.npy", examples(kind, 100, shape).astype({"byte": "uint8", "count": int}.get(kind, float)))
    flags = ["--dataset=own.npy", "--preset=plane", "--m=2", "--k=2", "--epochs=1", "--eval_samples=4", *flags]
    flags += ["--hidden_sizes=8", f"--eval_method={method}"]
    result = call(train, *flags, "--workdir=run", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert f"kind {kind} (" in result.stdout.splitlines()[0]
    written = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert written["iwae_bound"] > written["baseline"] - 20
    assert {path.stem for path in (tmp_path / "run").glob("*.png")} == {"bounds", *pictures}
    assert all(is_a_picture(tmp_path / "run" / f"{name}.png") for name in pictures)
    # Evaluated again, the data are loaded as they were.
    arguments = ["--model=run/model.keras", "--dataset=own.npy", "--num_samples=4", "--output=again.json"]
    arguments += [f"--method={method}"]
    result = call(evaluate, *arguments, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    again = json.loads((tmp_path / "again.json").read_text())
    for name in ("log_prob", "baseline"):
        assert again[name] == pytest.approx(written[name], rel=1e-6)
    assert f"{written['baseline']:.2f}" in result.stdout
    if kind == "byte":
        assert "bits per dimension" in result.stdout
        bits = -written["log_prob"] / (8 * 8 * 3 * np.log(2))
        assert again["bits_per_dimension"] == pytest.approx(bits) == written["bits_per_dimension"]
    result = call(evaluate, "--model=run/model.keras", "--examples=2", cwd=tmp_path)
    assert result.returncode != 0
    assert f"is for data of kind {kind}: received data of kind binary" in result.stderr


def test_tighter_bounds(tiny, tmp_path):
    flags = [
        f"--dataset={tiny}",
        "--preset=small",
        "--workdir=study",
        "--epochs=2",
        "--seeds=1",
        "--objectives=vae,piwae",
        "--m=2",
        "--k=2",
    ]
    flags += ["--diagnostics_every=2", "--eval_samples=4", "--eval_method=importance"]
    result = call(tighter_bounds_main, *flags, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "cell 2 of 2: tiny-" in result.stdout
    table = (tmp_path / "study" / "table.md").read_text().splitlines()
    assert len(table) == 2 + 2
    assert is_a_picture(tmp_path / "study" / "snr.png")
    # A finished cell is not run again.
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "study").rglob("model.keras")}
    assert len(before) == 2
    again = call(tighter_bounds_main, *flags, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert again.stdout.startswith("2 of 2 cells were finished before.\n")
    assert (tmp_path / "study" / "table.md").read_text().splitlines() == table
    assert before == {path: path.stat().st_mtime_ns for path in before}
    result = call(tighter_bounds_main, *flags, "--diagnostics_every=3", cwd=tmp_path)
    assert result.returncode != 0
    assert "diagnostics_every must be at most epochs: received 3 and 2" in result.stderr


def test_posterior(tiny, tmp_path, no_annealing, no_evaluation):
    flags = [
        f"--dataset={tiny}",
        "--workdir=study",
        "--epochs=2",
        "--examples=2",
        "--particles=10",
        "--draws=20",
        "--grid=20",
    ]
    result = call(posterior_main, *flags, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert is_a_picture(tmp_path / "study" / "posterior.png")
    result = call(posterior_main, *flags, "--preset=small", "--workdir=other", cwd=tmp_path)
    assert result.returncode != 0
    assert "has 16 dimensions, not 2" in result.stderr


def test_snr_slopes(tmp_path, monkeypatch):
    # Of the curves without a theory one, of what is measured for another.
    curves = [curve for curve in snr_slopes_main._CURVES if curve[-1] is not None]
    curves.append((*curves[-1][:1], "decoder, OVIS", *curves[-1][2:4], "decoder", None))
    for _, _, (name, estimator), *_ in snr_slopes_main._CURVES:
        objectives.get(name, estimator=estimator)
    monkeypatch.setattr(snr_slopes_main, "_CURVES", curves)
    flags = ["--workdir=study", "--repeats=100", "--max_particles=16"]
    result = call(snr_slopes_main, *flags, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    slopes = re.findall(r"slope ([+-][\d.]+) \+- ([\d.]+) \(theory ([+-][\d.]+)\)", result.stdout)
    *slopes, ovis = np.array(slopes, float)
    assert len(slopes) == 5
    for slope, error, theory in slopes:
        assert abs(slope - theory) < 5 * error + 0.05
    slope, error, theory = ovis
    assert slope > theory - 5 * error  # At few particles it rises faster than in the limit.
    assert is_a_picture(tmp_path / "study" / "slopes.png")
