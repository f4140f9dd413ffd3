"""The figure of samples: what a panel shows of each kind of data, and the program on work directories."""

import json
import shutil

import numpy as np
import pytest
from inprocess import call

from iwae_zoo import data, presets
from iwae_zoo.training import pictures
from studies import samples_main

SMALL = {"latent_size": 2, "hidden_sizes": (4,)}
RNG = np.random.default_rng(0)
ARRAYS = {
    "colour": RNG.integers(0, 256, (20, 4, 4, 3)).astype("uint8"),
    "table": RNG.normal(size=(20, 3)).astype("float32") * np.float32([1, 9, 3]),
    "counts": RNG.poisson(3.0, (20, 3)),
    "bits": RNG.integers(0, 2, (20, 6)),
}


@pytest.fixture(scope="module")
def workdirs(tmp_path_factory):
    """Work directories of untrained models, with what `train_main.py` leaves of a run."""
    root = tmp_path_factory.mktemp("runs")
    for name, array in ARRAYS.items():
        (root / name).mkdir()
        np.savez(root / f"{name}.npz", array)
        dataset = data.load(str(root / f"{name}.npz"))
        presets.build("small", data=dataset, **SMALL).save(root / name / "model.keras")
        config = {"dataset": str(root / f"{name}.npz"), "preset": "small"}
        (root / name / "config.json").write_text(json.dumps({"config": config}))
    return root


@pytest.mark.slow
def test_panels(workdirs):
    shapes = {}
    for name in ARRAYS:
        x = data.load(str(workdirs / f"{name}.npz")).evaluation_array("train")
        panel = pictures.panel(samples_main.load(workdirs / name)[0], x)
        (form,) = panel.keys() & {"images", "pairs", "moments"}
        shapes[name] = form, {label: np.shape(values) for label, values in panel[form].items()}
        if name == "colour":  # From 0 to 1, the first and the last example among them.
            np.testing.assert_allclose(panel["images"]["data"][[0, -1]], x[[0, -1]] / 255, rtol=1e-6)
        if name == "table":
            assert panel["names"] == ["column 1", "column 2"]
            np.testing.assert_array_equal(panel["pairs"]["data"], x[:, 1:])
    rows = len(x)
    assert shapes == {
        "colour": ("images", dict.fromkeys(["data", "means", "draws"], (10, 4, 4, 3))),
        "table": ("pairs", dict.fromkeys(["data", "samples"], (rows, 2))),
        "counts": ("moments", dict.fromkeys(["data", "samples"], (2, 3))),
        "bits": ("images", dict.fromkeys(["data", "means", "draws"], (10, 1, 6, 1))),
    }


def test_columns_are_the_models(tmp_path):
    """Those of a run from a preset are in the preset's order, not in the file's."""
    values = ARRAYS["table"]
    for name, order in (("there", [0, 1, 2]), ("here", [2, 0, 1])):
        rows = [",".join(map(str, row)) for row in values[:, order]]
        (tmp_path / f"{name}.csv").write_text("\n".join([",".join(f"c{i}" for i in order), *rows]) + "\n")
    model = presets.build("small", data=data.load(str(tmp_path / "there.csv")), **SMALL)
    model.save(tmp_path / "model.keras")
    config = {"dataset": str(tmp_path / "here.csv"), "preset": "small"}
    (tmp_path / "config.json").write_text(json.dumps({"config": config}))
    model, dataset, _ = samples_main.load(tmp_path)
    assert [column.name for column in dataset.columns] == ["c0", "c1", "c2"]
    assert dataset.columns == model.decoder.head.columns


@pytest.mark.slow
def test_the_figure(workdirs, monkeypatch):
    shutil.copytree(workdirs / "counts", workdirs / "again")
    shutil.copytree(workdirs / "counts", workdirs / "other" / "again")
    names, shown = ["colour", "table", "counts", "again", "other/again"], []
    draw = samples_main.figures.side_by_side
    monkeypatch.setattr(samples_main.figures, "side_by_side", lambda *a: shown.append(list(a[0])) or draw(*a))
    ended = call(samples_main, f"--workdirs={','.join(names)}", "--output=samples.png", cwd=workdirs)
    assert ended.returncode == 0, ended.stderr
    assert (workdirs / "samples.png").read_bytes()[1:4] == b"PNG"
    of_counts = [f"counts, small{run}" for run in ("", ", again", ", other/again")]
    assert shown == [["colour, small", "table, small", *of_counts]]
    ended = call(samples_main, "--workdirs=nowhere", "--output=samples.png", cwd=workdirs)
    assert ended.returncode != 0
    assert "nowhere" in ended.stderr


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("nowhere/x.png", "There is no folder for nowhere/x.png"),
        ("x.xyz", "flag --output=x.xyz: must end as a picture does"),
    ],
)
def test_where_the_figure_goes_is_looked_at_first(output, message, tmp_path):
    ended = call(samples_main, "--workdirs=missing", f"--output={output}", cwd=tmp_path)
    assert ended.returncode != 0
    assert message in ended.stderr and ended.stderr.count("\n") == 1
