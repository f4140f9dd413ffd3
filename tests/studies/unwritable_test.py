"""Studies where something cannot be written: one line, and where it can be known, before anything is computed."""

import pytest
from inprocess import call

from iwae_zoo import diagnostics
from studies import cells, kinds_main, reproduce_main, snr_slopes_main, tighter_bounds_main


@pytest.mark.parametrize("program", [kinds_main, snr_slopes_main], ids=lambda program: program.__name__)
def test_a_folder_that_takes_no_files(program, tmp_path, monkeypatch):
    monkeypatch.setattr(diagnostics, "gradient_snr", lambda *_: pytest.fail("measured first"))
    ended = call(program, "--workdir=/proc", cwd=tmp_path)
    assert ended.returncode != 0
    assert ended.stderr.startswith("the_program: ") and "/proc" in ended.stderr
    assert ended.stderr.count("\n") == 1


EVALUATION = dict.fromkeys(["iwae_bound", "log_prob", "importance_log_prob", "negative_kl", "importance_ess"], 1.0)
EVALUATION |= dict.fromkeys(["iwae_bound_error", "log_prob_error", "negative_kl_error"], 0.1)
LOOK = {"epoch": 1, "diagnostics_encoder_snr": 1.0, "diagnostics_decoder_snr": 2.0}


@pytest.mark.parametrize(
    ("program", "flags"),
    [
        (tighter_bounds_main, ["--objectives=vae", "--seeds=1", "--diagnostics_every=1"]),
        (reproduce_main, ["--rows=vae", "--epochs=1"]),
    ],
    ids=lambda of: getattr(of, "__name__", ""),
)
def test_a_table_that_cannot_be_written(program, flags, tmp_path, monkeypatch):
    found = {"evaluation": EVALUATION, "history": [LOOK]}
    monkeypatch.setattr(cells, "run_grid", lambda configs, *_: dict.fromkeys(configs, found))
    look = {"gap": 0.5, "gap_error": 0.1, "active_units": [3]}
    monkeypatch.setattr(reproduce_main, "looked_at", lambda _: look)
    (tmp_path / "study" / "table.md").mkdir(parents=True)
    ended = call(program, *flags, "--workdir=study", cwd=tmp_path)
    assert ended.returncode != 0
    assert ended.stderr.startswith("the_program: ") and "Is a directory: 'study/table.md'" in ended.stderr
    assert ended.stderr.count("\n") == 1
