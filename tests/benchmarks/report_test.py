"""Benchmarks as programs: what is wrong with a command line is said in one line, before anything is measured."""

import sys
from types import SimpleNamespace

import pytest
from absl import app
from absl.testing import flagsaver

from benchmarks import devices, report


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--onyl=cpu"], "devices.py: Unknown command line flag 'onyl'"),
        (["--only=cpu,gpus2"], "devices.py: --only: ['gpus2'] are no stages. Known: float64, cpu"),
        (["cpu"], "devices.py: unexpected arguments ['cpu']; flags are written --name=value."),
        (["--minutes=0"], "devices.py: flag --minutes=0: 0.0 is not number >= 0.1"),
        (["--output=/proc/nowhere/x.json"], "devices.py: [Errno 2] No such file or directory: '/proc/nowhere'"),
    ],
)
def test_a_wrong_flag(wrong, said, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmarks/devices.py", f"--output={tmp_path / 'x.json'}", *wrong])
    monkeypatch.setattr(app, "run", lambda main, flags_parser: main(flags_parser(sys.argv)))  # It sets up logging.
    with flagsaver.flagsaver(), pytest.raises(SystemExit) as ended:
        report.run(devices.main)
    assert ended.value.code.startswith(said) and "\n" not in ended.value.code
    assert capsys.readouterr() == ("", "") and not list(tmp_path.iterdir())


def test_whole_numbers():
    assert report.whole_numbers(SimpleNamespace(name="k", value=["4", "16"])) == [4, 16]
    for wrong in ("0", "-1", "2.5", "a", ""):
        with pytest.raises(ValueError, match=f"--k lists whole numbers from 1 on: received 4,{wrong}.$"):
            report.whole_numbers(SimpleNamespace(name="k", value=["4", wrong]))
