"""The command line, in processes of its own where it has to be, and the work directory it leaves."""

import dataclasses
import functools
import json
import os
import pathlib
import signal
import time

import keras
import numpy as np
import pytest
import warm
from faults import exhausted

from iwae_zoo import data, figures, presets, saved_model, training
from iwae_zoo.columns import Column
from iwae_zoo.distributions.classes import Categorical
from iwae_zoo.estimation import evaluation
from iwae_zoo.model import memory
from iwae_zoo.training import workdir

ROOT = pathlib.Path(__file__).resolve().parents[2]


def config(tiny, **changes):
    settings = {"objective": "piwae", "m": 2, "k": 3, "preset": "small", "hidden_sizes": "8", "epochs": 3}
    settings |= {"eval_samples": 6, "eval_method": "importance"}
    return training.Config(dataset=tiny, **{**settings, **changes})


def train(config, workdir, resume=False):
    run = training.Run(config, workdir, resume=resume)
    model = run.train(verbose=0)
    return model, run.evaluate(model, verbose=0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:log p")
def test_work_directory(tiny, tmp_path):
    model, result = train(config(tiny), tmp_path / "run")
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert left == {
        "bounds.png",
        "config.json",
        "evaluation.json",
        "metrics.jsonl",
        "model.keras",
        "reconstructions.png",
        "samples.png",
        "tensorboard",
    }
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert {"decoder_bound", "val_decoder_bound", "encoder_bound", "elbo", "importance_ess"} <= set(rows[0])
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text()) == result
    assert list((tmp_path / "run" / "tensorboard").rglob("events*"))
    loaded = keras.saving.load_model(tmp_path / "run" / "model.keras")
    for ours, theirs in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    # Resumed when it is finished, it is only evaluated again.
    metrics = (tmp_path / "run" / "metrics.jsonl").read_text()
    _, result_resumed = train(config(tiny), tmp_path / "run", resume=True)
    assert result_resumed == result
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == metrics
    # config.json is enough to run it again, to the same weights.
    again = training.Config(**json.loads((tmp_path / "run" / "config.json").read_text())["config"])
    model_again, result_again = train(again, tmp_path / "again")
    for ours, theirs in zip(model.get_weights(), model_again.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert result == result_again


@pytest.mark.usefixtures("optimized")
@pytest.mark.slow
def test_killed_and_resumed_is_the_same_as_undisturbed(tiny, tmp_path):
    flags = [f"--dataset={tiny}", "--objective=dreg", "--m=2", "--k=2", "--preset=small", "--hidden_sizes=8"]
    flags += ["--eval_samples=4", "--eval_method=importance", "--epochs=30", "--batch_size=2", "--workdir=run"]
    files = {"stdout": tmp_path / "stdout", "stderr": tmp_path / "stderr"}
    start = functools.partial(warm.start, ROOT / "train_main.py", *flags, cwd=tmp_path, **files, optimized=True)
    process = start()
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 300  # For both processes, on a busy machine.
    while time.monotonic() < deadline and not (metrics.exists() and metrics.read_text().count("\n") >= 1):
        time.sleep(0.02)
    process.kill()
    process.join()
    seen = metrics.read_text().count("\n")
    assert 1 <= seen < 30
    # Interrupted once more, politely.
    process = start("--resume")
    while time.monotonic() < deadline and metrics.read_text().count("\n") < seen + 1:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    process.join(timeout=60)
    errors = files["stderr"].read_text()
    assert process.exitcode == 130, errors
    assert "--resume goes on from the last checkpoint" in files["stdout"].read_text()
    assert "Traceback" not in errors
    settings = {"objective": "dreg", "m": 2, "k": 2, "eval_samples": 4, "epochs": 30, "batch_size": 2}
    resumed = training.Run(config(tiny, **settings), tmp_path / "run", resume=True).train(verbose=0)
    undisturbed = training.Run(config(tiny, **settings), tmp_path / "other").train(verbose=0)
    assert metrics.read_text() == (tmp_path / "other" / "metrics.jsonl").read_text()
    for ours, theirs in zip(resumed.get_weights(), undisturbed.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:log p")
def test_training_beats_the_untrained_model_and_independent_pixels(tmp_path):
    settings = training.Config(objective="miwae", epochs=4, eval_samples=64, eval_method="importance")
    run = training.Run(settings, tmp_path / "run")
    result = run.evaluate(run.train(verbose=0), verbose=0)
    assert result["iwae_bound"] > result["untrained_iwae_bound"] + 2
    assert result["iwae_bound"] > result["baseline"] + 2
    assert result["num_examples"] == 359


def stopped(tiny, **changes):
    """A run that the validation bound ends early: at such a rate it soon falls."""
    return config(tiny, epochs=30, learning_rate=0.1, early_stopping=2, schedule="cosine", **changes)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:log p")
def test_early_stopping_keeps_the_best_epoch_and_resumes_to_the_bit(tiny, tmp_path):
    run = training.Run(stopped(tiny), tmp_path / "run")
    model = run.train(verbose=0)
    history = run.files.history()
    bounds = [row["val_decoder_bound"] for row in history]
    best = int(np.argmax(bounds))
    assert len(history) == best + 1 + 2 < 30  # Not the last epoch, and two more.
    # What is returned, exported and on disk is the best epoch's.
    validation = run.dataset.evaluation_array("validation")
    for kept in (model, keras.saving.load_model(tmp_path / "run" / "model.keras")):
        assert int(kept.optimizer.iterations) == (best + 1) * run.dataset.steps_per_epoch(run.config.batch_size)
        values = kept.evaluate(validation, batch_size=run.config.batch_size, verbose=0, return_dict=True)
        assert values["decoder_bound"] == pytest.approx(bounds[best], rel=1e-5)
    # Cut off after any epoch, also between an epoch's files, and again, it comes to the same.
    for cut, between_files in ((1, True), (best + 2, False)):
        part = training.Run(stopped(tiny), tmp_path / "cut", resume=True)
        with pytest.raises(KeyboardInterrupt):
            interrupt_after(part, cut, between_files)
        assert len(part.files.history()) == cut + between_files
    resumed = training.Run(stopped(tiny), tmp_path / "cut", resume=True).train(verbose=0)
    for ours, theirs in zip(resumed.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    metrics = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("run", "cut")]
    assert metrics[0] == metrics[1]
    # A finished run does not train on.
    again = training.Run(stopped(tiny), tmp_path / "run", resume=True)
    assert again.train(verbose=0).get_weights()[0].tolist() == model.get_weights()[0].tolist()
    assert again.files.history() == history
    # What is gone, or not whole, is told.
    metrics, kept = tmp_path / "run" / "metrics.jsonl", tmp_path / "run" / "model.keras"
    lines = metrics.read_text().splitlines(keepends=True)
    for left, message in (
        (lines[:-1], f"has {len(history) - 1} of the {len(history)} epochs that latest.keras has seen"),
        ([], f"has 0 of the {len(history)} epochs"),
        ([*lines[:-1], lines[-1][:20]], f"metrics.jsonl is damaged in line {len(history)}: "),
    ):
        metrics.write_text("".join(left))
        with pytest.raises(ValueError, match=message):
            training.Run(stopped(tiny), tmp_path / "run", resume=True).train(verbose=0)
    metrics.write_text("".join(lines))
    kept.unlink()
    with pytest.raises(ValueError, match="model.keras, the model of the best epoch, is gone"):
        training.Run(stopped(tiny), tmp_path / "run", resume=True).train(verbose=0)


def test_of_equal_epochs_the_first_is_the_best():
    """So that epochs that are no better than the best count against patience."""
    history = [{workdir.MONITOR: bound} for bound in (-3.0, -2.0, -2.0)]
    assert workdir.best_epoch(history) == 2
    assert workdir.best_epoch([]) == 0
    assert workdir.best_epoch([{workdir.MONITOR: float("nan")}, *history]) == 3


def test_a_bound_that_is_no_number_does_not_end_a_run():
    """A validation example may be outside the support: the curves are of what is finite."""
    rows = [{prefix + side: -50.0 for prefix in ("", "val_") for side in ("decoder_bound", "encoder_bound")}] * 3
    history = [{**row, "epoch": epoch} for epoch, row in enumerate(rows, 1)]
    history[1]["val_decoder_bound"], history[2]["val_encoder_bound"] = -np.inf, np.nan
    low, high = figures.training_curves(history, "bounds").axes[0].get_ylim()
    assert -51 < low < -50 < high < -49
    figures.training_curves([{**row, **dict.fromkeys(row.keys() - {"epoch"}, np.nan)} for row in history], "bounds")


def interrupt_after(run, epochs, between_files):
    """Trains so many epochs, as Ctrl-C would before the files of the next are written, or between them."""
    write = run.files.write_history

    def interrupted(history):
        if len(history) <= epochs or between_files:
            write(history)
        if len(history) > epochs:
            raise KeyboardInterrupt

    run.files.write_history = interrupted
    run.train(verbose=0)


@pytest.mark.slow
def test_an_older_runs_configuration_is_the_same_run(tiny, tmp_path):
    """One that did not know the newest fields yet."""
    training.Run(config(tiny, epochs=1), tmp_path / "run").train(verbose=0)
    path = tmp_path / "run" / "config.json"
    there = json.loads(path.read_text())
    del there["config"]["schedule"], there["config"]["early_stopping"]
    path.write_text(json.dumps(there))
    training.Run(config(tiny, epochs=1), tmp_path / "run", resume=True)
    with pytest.raises(ValueError, match="schedule='constant' there and 'burda' here"):
        training.Run(config(tiny, epochs=1, schedule="burda"), tmp_path / "run", resume=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": "miwea"}, "Did you mean 'miwae'"),
        ({"preset": "rainfort"}, "Did you mean 'rainforth'"),
        ({"k": 0}, "k must be an integer of at least 1"),
        ({"schedule": "cosin"}, "Did you mean 'cosine'"),
        ({"early_stopping": 0}, "early_stopping must be an integer of at least 1: received 0"),
        ({"epochs": 2.5}, "epochs must be an integer of at least 1: received 2.5"),
        ({"epochs": 0}, "epochs must be an integer of at least 1: received 0"),
        ({"batch_size": -1}, "batch_size must be an integer of at least 1"),
        ({"eval_samples": 0}, "eval_samples must be an integer of at least 1"),
        ({"eval_samples": 2**31}, "eval_samples must be at most"),
        ({"learning_rate": 0.0}, "learning_rate must be a positive number"),
        ({"seed": -1}, "seed must be an integer of at least 0: received -1"),
        ({"seed": 2**31}, "seed must be an integer from 0"),
        ({"kind": "table"}, "whose columns have names"),
        ({"beta": 0.5}, "have no beta"),
        ({"mixed_precision": "float16"}, "mixed_precision must be 'bfloat16' or left out: received 'float16'"),
        ({"backward_particles": 6}, "backward_particles must be below M K = 6: received 6"),
        ({"particle_chunk": 0}, "particle_chunk must be an integer of at least 1: received 0"),
        ({"checkpoint_every": 0}, "checkpoint_every must be an integer of at least 1: received 0"),
        ({"steps_per_execution": 0}, "steps_per_execution must be an integer of at least 1: received 0"),
        ({"steps_per_execution": 1000}, "steps_per_execution must divide the [0-9]+ steps of an epoch: received 1000"),
        ({"likelihood": "norml"}, "Unknown likelihood: received 'norml'. Did you mean 'normal'"),
        ({"likelihood": "normal,spred=column"}, "Unknown setting of normal: received 'spred'. Did you mean 'spread'"),
        ({"likelihood": "normal,spread=row"}, "spread must be 'value', 'column' or a number of at least 0.002"),
        ({"likelihood": "normal,spread=None"}, r"spread of normal must be a value of type str \| float: received None"),
        ({"likelihood": "normal,spread=column,spread=value"}, "spread of normal is given twice"),
        ({"likelihood": "normal,spread={[]}"}, "spread must be 'value', 'column' or a number"),
        ({"likelihood": "normal,shift=3"}, "Unknown setting of normal: received 'shift'"),
        ({"likelihood": "poisson,offset=false"}, "offset of poisson must be a value of type bool: received 'false'"),
        ({"likelihood": "columns,real=1"}, "real of columns must be a value of type str: received 1"),
        ({"likelihood": "normal"}, "kind real: received data of kind binary, binarised from data of kind intensity.$"),
        (
            {"likelihood": "beta"},
            "'beta' is for data of kind intensity: received data of kind binary, binarised from data of kind "
            "intensity. Pass --binarize=none to leave them as they are.$",
        ),
        ({"likelihood": "normal", "binarize": "none"}, "'normal' is for data of kind real: .* of kind intensity.$"),
        ({"kind": "bytes"}, "Unknown kind of data: received 'bytes'. Did you mean 'byte'"),
        ({"kind": "count"}, "must hold whole numbers from 0 to be of kind count"),
        ({"binarize": "always"}, "Unknown binarize: received 'always'"),
    ],
)
def test_bad_configurations(changes, message, tiny, tmp_path):
    with pytest.raises(ValueError, match=message):
        training.Run(config(tiny, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_workers_of_a_cluster_have_the_chiefs_settings_and_data(tmp_path):
    config = training.Config(preset="small").resolved()
    chiefs = workdir.WorkDirectory(tmp_path, config)
    chiefs.describe(config=dataclasses.asdict(config), fingerprint="these data")
    chiefs.check_chief("these data")
    for changes, fingerprint, message in (
        ({"learning_rate": 0.5}, "these data", "learning_rate=.* there and 0.5 here"),
        ({}, "other data", "was on other data"),
        ({"checkpoint_every": 3}, "these data", "go in step, .* checkpoint_every=None there and 3 here"),
        ({"eval_samples": 7}, "these data", "go in step, .* eval_samples=.* there and 7 here"),
    ):
        with pytest.raises(ValueError, match=message):
            workdir.WorkDirectory(tmp_path, dataclasses.replace(config, **changes)).check_chief(fingerprint)


@pytest.mark.slow
def test_work_directory_of_something_else(tiny, tmp_path):
    training.Run(config(tiny, epochs=1), tmp_path / "run").train(verbose=0)
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match="holds this run already. Pass --resume"):
        training.Run(config(tiny, epochs=1), tmp_path / "run")
    for resume in (False, True):
        with pytest.raises(ValueError, match="another configuration: k=3 there and 4 here"):
            training.Run(config(tiny, epochs=1, k=4), tmp_path / "run", resume=resume)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "diary.txt").write_text("Dear diary")
    with pytest.raises(ValueError, match="not empty and holds no run"):
        training.Run(config(tiny), tmp_path / "notes")
    with pytest.raises(ValueError, match="is a file"):
        training.Run(config(tiny), tmp_path / "notes" / "diary.txt")
    run = training.Run(config(tiny, epochs=1), tmp_path / "run", resume=True)
    with run.files.alone(), pytest.raises(ValueError, match="Another process is training the run in"):
        training.Run(config(tiny, epochs=1), tmp_path / "run", resume=True).train(verbose=0)
    first, second = (training.Run(config(tiny, epochs=1, seed=seed), tmp_path / "both") for seed in (0, 1))
    first.train(verbose=0)  # While the other process read its data.
    with pytest.raises(ValueError, match="another configuration: seed=0 there and 1 here"):
        second.train(verbose=0)
    first.train(verbose=0)
    run.train(verbose=0)  # It has ended. Nothing is left to train, and config.json is written as it was.
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_run_goes_on_with_its_own_data_only(tmp_path):
    """The same file with other rows, or with its columns in another order, is told from it; a name is not looked at."""
    rows = [f"{i % 7}.5,{i % 5}" for i in range(60)]
    table = tmp_path / "t.csv"
    table.write_text("\n".join(["size,count", *rows]) + "\n")
    begun = training.Config(dataset=str(table), epochs=1, k=2, m=1, hidden_sizes="4", latent_size="2")
    training.Run(begun, tmp_path / "run").train(verbose=0)
    for changed in (["size,count", *rows[:30]], ["size,count", "9.5,4", *rows[1:]], ["count,size", *rows]):
        table.write_text("\n".join(changed) + "\n")
        with pytest.raises(ValueError, match="was on other data: 48 training examples, [0-9a-f]{16} there and"):
            training.Run(begun, tmp_path / "run", resume=True)
    table.write_text("\n".join(["size,count", *rows]) + "\n")
    # With as much at once as there is memory for now: what a run out of memory is told to do.
    resumed = training.Run(dataclasses.replace(begun, particle_chunk=1), tmp_path / "run", resume=True)
    model = resumed.train(verbose=0)
    assert model.particle_chunk == model.get_compile_config()["particle_chunk"] == 1
    kept = tmp_path / "run" / "model.keras"
    kept.write_bytes(kept.read_bytes()[:1000])  # As a full disk leaves it.
    with pytest.raises(ValueError, match=r"model.keras is damaged: it is no whole .keras file"):
        training.Run(begun, tmp_path / "run", resume=True).train(verbose=0)
    with pytest.raises(ValueError, match=r"model.keras is damaged: it is no whole .keras file"):
        saved_model.export_run(tmp_path / "run", tmp_path / "served")


@pytest.mark.parametrize("split", ["validation", "test"])
def test_what_is_missing_outside_the_training_rows_alone(split):
    values = {name: np.ones([6, 2], np.float32) for name in ("train", "validation", "test")}
    whole = data.Dataset("table", **values, kind="real")
    holes = values[split].copy()
    holes[0, 1] = np.nan
    holed = dataclasses.replace(whole, **{split: holes})
    assert (whole.has_missing, holed.has_missing) == (False, True)
    for dataset in (whole, holed):
        assert presets.build("real_small", data=dataset).decoder.head.missing == dataset.has_missing
    columns = (Column("a", "real"), Column("b", "real"))
    table = dataclasses.replace(holed, kind="table", columns=columns)
    assert all(group.head.missing for group in presets.build("table", data=table).decoder.head.groups)


def test_what_no_training_row_has_a_value_of_is_told():
    values = {name: np.ones([6, 2], np.float32) for name in ("train", "validation", "test")}
    values["train"][:, 1] = np.nan
    with pytest.warns(UserWarning, match="No training row of table has a value of 1: .* invented"):
        presets.build("real_small", data=data.Dataset("table", **values, kind="real"))


def test_a_preset_that_takes_no_missing_values_is_not_given_any(tmp_path):
    config = training.Config(from_preset="digits_miwae", missing=0.1)
    with pytest.raises(ValueError, match="'digits_miwae' takes no missing values, and digits has some"):
        training.Run(config, tmp_path / "run")


@pytest.mark.slow
def test_early_stopping_needs_a_bound_to_watch(tmp_path, monkeypatch):
    x = np.zeros([40, 2], np.int64)
    train, validation, test = (np.array(part) for part in np.split(x, [30, 35]))
    validation[0] = 3
    np.savez(tmp_path / "x.npz", train=train, validation=validation, test=test)
    monkeypatch.setattr(Categorical, "covering", lambda head, data: head)  # One that knows two classes: p(x) = 0.
    settings = {"kind": "class", "preset": "small", "m": 1, "k": 2, "epochs": 3, "early_stopping": 1}
    run = training.Run(training.Config(dataset=str(tmp_path / "x.npz"), **settings), tmp_path / "run")
    with pytest.raises(ValueError, match="early_stopping watches val_decoder_bound, which is -inf"):
        run.train(verbose=0)


def too_much(*_, **__):
    raise MemoryError("Too much.")


def test_particles_at_once_by_memory(tiny, tmp_path, monkeypatch):
    """A number like any other, once it is known; a run that goes on keeps it."""
    there_is = {"rows": 2.5 * 32 * 2}  # Half of it is for 32 rows of two particles, and some.

    def available():
        return int(there_is["rows"] * memory.bytes_per_particle(model, backward=True))

    monkeypatch.setattr(memory, "available", available)
    settings = config(tiny, epochs=1, batch_size=32)
    model = training.Run(settings, tmp_path / "run").build()
    run = training.Run(settings, tmp_path / "run", fits_memory=True)
    assert run.config.particle_chunk == 2
    with monkeypatch.context() as patched, pytest.raises(MemoryError, match="32 rows with 2 particles .*_chunk=1 wou"):
        patched.setattr(type(model), "fit", exhausted)
        run.train(verbose=0)
    with (
        monkeypatch.context() as patched,
        pytest.raises(MemoryError, match="Too much. The trained .* takes --"),
    ):
        patched.setattr(evaluation, "evaluate", too_much)
        run.evaluate(None, verbose=0)
    there_is["rows"] = 1e9
    assert training.Run(settings, tmp_path / "other", fits_memory=True).config.particle_chunk == 6
    resumed = training.Run(settings, tmp_path / "run", resume=True, fits_memory=True)
    assert resumed.config.particle_chunk == resumed.build().particle_chunk == 2
    assert json.loads((tmp_path / "run" / "config.json").read_text())["config"]["particle_chunk"] == 2


def test_divergence_is_named(tiny, tmp_path):
    run = training.Run(config(tiny, learning_rate=1e30), tmp_path / "run")
    with pytest.raises(training.Diverged, match="Lower the learning rate"):
        run.train(verbose=0)


@pytest.mark.slow
def test_presets():
    for name in set(presets.names()) - set(presets.trained.names()):  # Whose networks are those of others.
        head = "bernoulli" if presets.get(name).kind == "table" else None  # There are no columns.
        model, again, other = (presets.build(name, data_shape=(4, 4, 1), likelihood=head, seed=s) for s in (3, 3, 4))
        kernels = [m.get_weights()[0] for m in (model, again, other)]
        np.testing.assert_array_equal(kernels[0], kernels[1])
        assert not np.array_equal(kernels[0], kernels[2])
        assert model(np.zeros((2, 4, 4, 1))).shape == (2, 4, 4, 1)
