"""Grids of cells, in this process and in workers: what is kept, what is run again, and how they end."""

import contextlib
import io
import multiprocessing
import os
import pathlib
import re
import shutil
import signal
import threading
import time

import numpy as np
import pytest
import warm

from iwae_zoo import training
from studies import cells

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOREVER = 100_000


def config(tiny, **changes):
    settings = {"objective": "iwae", "m": 1, "k": 2, "preset": "small", "hidden_sizes": "8", "epochs": 2}
    # As many samples as particles, so that bound and log p(x) share what is traced.
    settings |= {"eval_samples": 2, "eval_method": "importance"}
    return training.Config(dataset=tiny, **{**settings, **changes})


def seeds(tiny, count=3):
    return {f"seed {seed}": config(tiny, seed=seed) for seed in range(count)}


@pytest.fixture(scope="module", autouse=True)
def warm_workers():
    """Of grids in this process; the programs' are started as everywhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells, "_CONTEXT", warm.context())
        yield


@pytest.fixture(scope="module")
def study(tiny, tmp_path_factory):
    """Three cells, run by two workers: the folder, the results, and what was printed."""
    root = tmp_path_factory.mktemp("study")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        results = cells.run_grid(seeds(tiny), root, workers=2)
    return root, results, printed.getvalue()


@pytest.fixture
def no_processes(monkeypatch):
    def start(process):
        raise AssertionError("a process was started")

    monkeypatch.setattr(cells._CONTEXT.Process, "start", start)


def contents(root):
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in root.rglob("*") if path.is_file()}


def flat(part):
    """The numbers."""
    rows = part if isinstance(part, list) else [part]
    return [[row[name] for name in sorted(row) if not isinstance(row[name], str)] for row in rows]


def wait_until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@pytest.mark.slow
def test_workers_run_every_cell(study, tiny):
    _, results, printed = study
    configs = seeds(tiny)
    assert list(results) == list(configs)
    assert len({str(result["evaluation"]) for result in results.values()}) == 3
    assert all([row["epoch"] for row in result["history"]] == [1, 2] for result in results.values())
    line = re.compile(r"cell (\d) of 3: (.*), \d+ s so far, about (\d+) s to go")
    numbers, titles, left = zip(*line.findall(printed), strict=True)
    assert numbers == ("1", "2", "3")
    assert set(titles) == {config.title for config in configs.values()}
    assert int(left[0]) > 0 and int(left[2]) == 0
    assert not multiprocessing.active_children()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_finished_grid_is_only_read(workers, study, tiny, no_processes, monkeypatch, capfd):
    root, results, _ = study
    before = contents(root)
    monkeypatch.setattr(training.run.data, "load", lambda *_: pytest.fail("the data were loaded"))
    assert cells.run_grid(seeds(tiny), root, workers) == results
    assert contents(root) == before
    assert capfd.readouterr().out == "3 of 3 cells were finished before.\n"


@pytest.mark.slow
def test_a_finished_grid_is_of_its_data_and_its_looks(study, tiny, tmp_path):
    """A file that was written again is read again; diagnostics are not of other epochs than they say."""
    np.save(tmp_path / "tiny.npy", np.load(tiny))
    cell = config(str(tmp_path / "tiny.npy"), epochs=1, eval_samples=2)
    first = cells.run_grid({0: cell}, tmp_path / "study")
    np.save(tmp_path / "tiny.npy", np.load(tiny))
    assert cells.run_grid({0: cell}, tmp_path / "study") == first
    np.save(tmp_path / "other.npy", 1.0 - np.load(tiny))
    os.utime(tmp_path / "other.npy", (1000.0, 1000.0))  # One that is older, and put in its place.
    shutil.move(tmp_path / "other.npy", tmp_path / "tiny.npy")
    with pytest.raises(ValueError, match="was on other data"):
        cells.run_grid({0: cell}, tmp_path / "study")
    shutil.copytree(study[0], tmp_path / "looked")
    ((tmp_path / "looked" / "cells" / config(tiny).title) / "evaluation.json").unlink()  # As if it were not finished.
    for _ in range(2):  # Whether or not its settings are those that are asked for by now.
        with pytest.raises(ValueError, match=r"diagnostics are of epochs \[\], not of every 2"):
            cells.run_grid({0: config(tiny, diagnostics_every=2)}, tmp_path / "looked")


@pytest.mark.slow
def test_another_accuracy_or_configuration_is_not_finished(study, tiny, tmp_path, monkeypatch):
    root = tmp_path / "study"
    shutil.copytree(study[0], root)
    evaluated = []
    monkeypatch.setattr(training.Run, "train", lambda run, verbose: "model")
    monkeypatch.setattr(training.Run, "evaluate", lambda run, *_, **__: evaluated.append(run.config.eval_samples))
    cells.run_grid({0: config(tiny)}, root)
    assert evaluated == []
    cells.run_grid({0: config(tiny, eval_samples=30)}, root)
    assert evaluated == [30]
    cells.run_grid({0: config(tiny, eval_method="auto")}, root)
    assert evaluated == [30, 2]
    evaluated.pop()
    folder, other = (root / "cells" / config(tiny, seed=seed).title for seed in (0, 1))
    (folder / "evaluation.json").write_text('{"num_samples": 30}')
    cells.run_grid({0: config(tiny)}, root)
    assert evaluated == [30, 2]
    for name in ("config.json", "evaluation.json"):
        shutil.copy(other / name, folder)
    with pytest.raises(ValueError, match="another configuration: seed=1 there and 0 here"):
        cells.run_grid({0: config(tiny)}, root)
    assert evaluated == [30, 2]


@pytest.mark.slow
def test_after_a_worker_was_killed_the_same_call_goes_on(study, tiny, tmp_path):
    root = tmp_path / "study"
    shutil.copytree(study[0], root)
    configs = seeds(tiny)
    title = configs["seed 1"].title
    folder = root / "cells" / title
    shutil.rmtree(folder)
    before = contents(root)

    def kill():
        wait_until((folder / "config.json").exists)
        (worker,) = multiprocessing.active_children()
        worker.kill()

    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(RuntimeError, match=f"ran {title} was ended by SIGKILL.*the same command goes on"):
        cells.run_grid(configs, root, workers=2)
    thread.join()
    results = cells.run_grid(configs, root)
    assert list(results) == list(configs)
    after = contents(root)
    assert {path: after[path] for path in before} == before
    # What a worker left and what this process does agree, bit for bit where this was written; but TensorFlow's number
    # of threads may change the rounding.
    for part in ("evaluation", "history"):
        alone, worker = (np.array(flat(cell["seed 1"][part])) for cell in (results, study[1]))
        np.testing.assert_allclose(alone, worker, rtol=1e-3, atol=1e-6)


@pytest.mark.slow
def test_an_error_in_a_cell_arrives_as_itself(tiny, tmp_path):
    configs = {
        "long": config(tiny, epochs=FOREVER),
        "diverges": config(tiny, learning_rate=1e30),
        "never": config(tiny, seed=1),
    }
    with pytest.raises(training.Diverged, match="Lower the learning rate") as info:
        cells.run_grid(configs, tmp_path, workers=2)
    assert "in run_cell" in info.value.__notes__[0]
    assert not multiprocessing.active_children()
    folders = {path.name for path in (tmp_path / "cells").iterdir()}
    assert configs["diverges"].title in folders
    assert configs["never"].title not in folders


@pytest.mark.slow
def test_ctrl_c_ends_workers_that_import(tiny, tmp_path):
    flags = [f"--dataset={tiny}", "--preset=small", "--objectives=vae,iwae", "--workdir=study", "--workers=2"]
    files = {"stdout": tmp_path / "stdout", "stderr": tmp_path / "stderr"}
    name = ROOT / "studies" / "tighter_bounds_main.py"
    program = warm.start(name, *flags, f"--epochs={FOREVER}", cwd=tmp_path, **files)

    def children():
        assert program.is_alive(), files["stderr"].read_text()
        listed = pathlib.Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text()
        return [int(child) for child in listed.split()]

    try:
        wait_until(lambda: len(children()) == 2)
        workers = children()
        for worker in workers:  # It leaves them cold: they begin to import TensorFlow.
            os.kill(worker, signal.SIGINT)
        maps = [pathlib.Path(f"/proc/{worker}/maps") for worker in workers]
        wait_until(lambda: children() == workers and all("tensorflow" in each.read_text() for each in maps))
        for process in (*workers, program.pid):  # As a terminal does.
            os.kill(process, signal.SIGINT)
        program.join(timeout=30)
        wait_until(lambda: not any(each.exists() for each in maps), seconds=30)
    finally:
        program.kill()  # Its workers do not outlive it.
    assert "Traceback" not in files["stderr"].read_text()
    assert program.exitcode == 130
    assert files["stdout"].read_text().endswith("tighter_bounds_main: interrupted. The same command goes on.\n")


def is_alive(group):
    """Whether a process of a group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def one_worker(config, root):
    """A program of its own group whose one worker runs a cell."""
    os.setsid()
    cells._CONTEXT = multiprocessing.get_context("fork")  # It has not used TensorFlow.
    cells.run_grid({0: config}, root, workers=2)


@pytest.mark.slow
def test_no_worker_outlives_a_program_that_is_killed(tiny, tmp_path):
    program = warm.context().Process(target=one_worker, args=(config(tiny, epochs=FOREVER), tmp_path))
    program.start()
    try:
        wait_until(lambda: list(tmp_path.rglob("config.json")))
        program.kill()
        program.join()
        wait_until(lambda: not is_alive(program.pid), seconds=30)
    finally:
        if is_alive(program.pid):
            os.killpg(program.pid, signal.SIGKILL)


@pytest.mark.parametrize("workers", [0, -1, 1.0, "2", None, True])
def test_bad_workers(workers, tiny, tmp_path):
    with pytest.raises(ValueError, match=f"workers must be an integer of at least 1: received {workers!r}"):
        cells.run_grid(seeds(tiny), tmp_path, workers)
    assert not os.listdir(tmp_path)


def test_two_cells_that_differ_do_not_share_a_folder(tiny, tmp_path):
    with pytest.raises(ValueError, match="of their own: received twice tiny-iwae"):
        cells.run_grid({0: config(tiny), 1: config(tiny, eval_samples=30)}, tmp_path)
    assert not os.listdir(tmp_path)


@pytest.mark.slow
def test_the_same_under_two_names_is_one_cell(study, tiny, no_processes):
    results = cells.run_grid({0: config(tiny), "again": config(tiny), 1: config(tiny, seed=1)}, study[0])
    assert results[0] == results["again"] == study[1]["seed 0"] and results[1] == study[1]["seed 1"]


def test_what_is_kept(tmp_path):
    """Of other settings it stays; a file of before, that has one, is read."""
    path = tmp_path / "kept.json"
    assert cells.kept(path, {"k": 1}) == {}
    training.write_json(path, {"settings": {"k": 1}, "found": {"n": 3}})
    cells.keep(path, {"k": 2}, {"n": 4})
    cells.keep(path, {"k": 2}, {"n": 5})
    assert [cells.kept(path, {"k": k}) for k in (1, 2, 3)] == [{"n": 3}, {"n": 5}, {}]
    for text in ("{", "[]", '{"kept": 3}', '{"kept": [{}]}'):
        path.write_text(text)
        assert cells.kept(path, {"k": 1}) == {}
    cells.keep(path, {"k": 1}, {"n": 6})
    assert cells.kept(path, {"k": 1}) == {"n": 6}


def test_mean_and_error():
    mean, error = cells.mean_and_error([[1.0, 2.0], [3.0, 2.0], [5.0, 2.0]])
    np.testing.assert_allclose(mean, [3.0, 2.0])
    np.testing.assert_allclose(error, [2.0 / np.sqrt(3.0), 0.0])
    assert np.isnan(cells.mean_and_error([4.0])[1])
