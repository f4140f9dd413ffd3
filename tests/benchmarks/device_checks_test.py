"""The checks of `benchmarks/devices.py` can fail: each kind is shown an answer that is wrong by little."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from tensorflow.python.ops import math_ops

from benchmarks import device_checks, device_figures, device_profile, device_table, devices
from benchmarks.device_checks import QUICK, Place
from benchmarks.device_table import FAIL, PASS, SKIP, Row
from iwae_zoo import ImportanceWeightedAutoencoder, likelihood
from iwae_zoo.data import Dataset
from iwae_zoo.model import replicas


@pytest.fixture
def program(tmp_path, monkeypatch):
    """The program in this process: a function of its stages that returns its status and its JSON."""
    monkeypatch.setattr(devices, "apart", devices.here)
    monkeypatch.setattr(sys, "argv", ["benchmarks/devices.py"])

    def run(*stages):
        path = tmp_path / "found.json"
        flags.FLAGS(["devices.py", "--quick", f"--only={','.join(stages)}", f"--output={path}"])
        try:
            return devices.main(None), json.loads(path.read_text())
        finally:
            flags.FLAGS.unparse_flags()

    return run


def one_question(monkeypatch, *names):
    """Stages ask these alone."""
    every = device_checks.questions
    monkeypatch.setattr(device_checks, "questions", lambda sizes: {name: every(sizes)[name] for name in names})


def statuses(found):
    return {row["name"]: row["status"] for row in found["checks"]}


def in_ten_bits(value):
    """Factors as TensorFloat-32 has them."""
    value = tf.convert_to_tensor(value)
    return value + tf.stop_gradient(_rounded(value) - value) if value.dtype == tf.float32 else value


def _rounded(value):
    bits = tf.bitcast(value, tf.int32)
    return tf.bitcast(tf.bitwise.bitwise_and(bits + (1 << 12), -(1 << 13)), tf.float32)


@pytest.mark.slow
def test_gradients_and_their_failure(program, monkeypatch):
    one_question(monkeypatch, "gradients of iwae", "gradients of dreg", "log p(x)")
    status, found = program("float64", "cpu", "gpu")
    expected = dict.fromkeys([f"gradients of {name}, cpu against float64" for name in QUICK.objectives], PASS)
    assert statuses(found) == {**expected, "log p(x), cpu against float64": PASS, "stage gpu": SKIP}
    assert status == 0 and found["tensorflow"] == tf.__version__
    assert all(row["measured"] > 0 for row in found["checks"] if row["status"] == PASS)  # Two types, not one.
    # One bias of the decoder is off by a thousandth.
    compute = device_checks.Place.build

    def wrong(place, *arguments, **options):
        model = compute(place, *arguments, **options)
        if place.name == "cpu":
            right = model.compute_gradients

            def off(x, seed):
                found = right(x, seed)
                return found._replace(decoder=[*found.decoder[:-1], 1.001 * found.decoder[-1]])

            model.compute_gradients = off
        return model

    monkeypatch.setattr(Place, "build", wrong)
    one = statuses(program("float64", "cpu")[1])
    assert {one[name] for name in expected} == {FAIL} and one["log p(x), cpu against float64"] == PASS
    # log p(x) is off by two thousandths of a nat.
    monkeypatch.setattr(Place, "build", compute)
    right = likelihood.estimate_log_prob

    def low(model, x, *arguments):
        answer = right(model, x, *arguments)
        return answer._replace(log_prob=answer.log_prob - (0.002 if x.dtype == np.float32 else 0.0))

    monkeypatch.setattr(likelihood, "estimate_log_prob", low)
    status, found = program("float64", "cpu")
    assert status == 1
    assert [name for name, one in statuses(found).items() if one == FAIL] == ["log p(x), cpu against float64"]


@pytest.mark.slow
@pytest.mark.parametrize("question", ["log p(x) in closed form", "log p(x)", "gradients of iwae"])
def test_tensor_float_32_left_on_is_seen(question, tmp_path, monkeypatch):
    """Factors of the products are rounded as a card would, if nobody switched it off."""
    sizes = device_checks.Sizes(examples=8, num_samples=100)  # Smaller networks have less to round.
    ask = device_checks.questions(sizes)[question]

    def row():
        for place in ("gpu", "cpu")[: 1 + (not rounds)]:
            answer = ask(Place(tf.distribute.get_strategy(), sizes, tmp_path, place))
            device_table.keep(tmp_path, place, question, answer)
        (compared,) = device_table.compare(tmp_path, "gpu", [question])
        return compared

    rounds = []
    for module, name in ((tf, "matmul"), (math_ops, "matmul"), (tf, "einsum")):
        right = getattr(module, name)

        def rounded(*arguments, right=right, **options):
            return right(*(in_ten_bits(a) if tf.is_tensor(a) and rounds else a for a in arguments), **options)

        monkeypatch.setattr(module, name, rounded)
    assert row().status == PASS
    rounds.append(True)
    found = row()
    assert found.status == FAIL and found.measured > 1.5 * found.limit


@pytest.mark.slow
def test_two_replicas_and_their_failure(monkeypatch, tmp_path):
    one_question(monkeypatch, "training")
    flags.FLAGS(["devices.py"])
    rows = []

    def ask(*stages):
        rows.clear()
        devices.check(stages, QUICK, devices.here, lambda _, row: rows.append(row), tmp_path)
        return [(row.name, row.status) for row in rows]

    assert ask("cpu", "cpu twice") == [("training, cpu twice against cpu", PASS)]
    # Each replica thinks that its rows are the first.
    place = replicas.place
    monkeypatch.setattr(replicas, "place", lambda x: (0, place(x)[1]))
    assert ask("cpu twice") == [("training, cpu twice against cpu", FAIL)]


@pytest.mark.slow
def test_no_error_stops_the_rest(program, monkeypatch, no_annealing):
    def broken(place):
        raise tf.errors.InternalError(None, None, "CUDA\nerror")

    one_question(monkeypatch, "log p(x)", "resampling", "steps_per_execution", "files")
    some = device_checks.questions
    monkeypatch.setattr(device_checks, "questions", lambda sizes: some(sizes) | {"resampling": broken})
    status, found = program("cpu")
    assert status == 1
    assert statuses(found) == {
        "log p(x), cpu against float64": FAIL,  # Whose stage did not run.
        "resampling, cpu": FAIL,
        "steps_per_execution, cpu": PASS,
        "files, cpu": PASS,
    }
    reasons = [row["reason"] for row in found["checks"] if row["reason"]]
    assert reasons == ["there is no answer of float64 to 'log p(x)' to hold it against", "InternalError: CUDA error"]


@pytest.mark.slow
def test_input_on_the_device_and_its_failure(program, monkeypatch):
    one_question(monkeypatch, "input on the device")
    assert statuses(program("cpu")[1]) == {"input on the device, cpu": PASS}
    # Another step's seed.
    make = Dataset._made

    def wrong(dataset, train, device):
        right, on_host = make(dataset, train, device), train is dataset.train
        return right if on_host else lambda plan: right(plan._replace(seed=plan.seed + 1))

    monkeypatch.setattr(Dataset, "_made", wrong)
    assert statuses(program("cpu")[1]) == {"input on the device, cpu": FAIL}


def test_training_is_without_tensor_float_32(monkeypatch, tmp_path):
    seen, allowed = [], tf.config.experimental.tensor_float_32_execution_enabled

    def fit(*_, **__):
        seen.append(allowed())

    monkeypatch.setattr(ImportanceWeightedAutoencoder, "fit", fit)
    place = Place(tf.distribute.get_strategy(), QUICK, tmp_path)
    assert not device_checks.trained(place)["moved"].any()
    assert seen == [False] and allowed()


def test_rows():
    assert device_table.row("a", 1.0, 1.0, "nats").status == PASS
    for wrong in (1.01, np.nan, np.inf):
        assert device_table.row("a", wrong, 1.0, "nats").status == FAIL


def test_every_comparison_is_asked_on_both_sides():
    sizes = device_checks.Sizes()
    of_place = {name: devices.asked(stage, sizes) for name, stage in devices.STAGES.items()}
    compared = set()
    for comparison in device_table.COMPARISONS:
        asked = device_table.fnmatch.filter(of_place[comparison.place], comparison.questions)
        assert asked, comparison
        compared |= {(comparison.place, name) for name in asked}
        for name in asked if comparison.against else ():
            assert (comparison.other or name) in of_place[comparison.against], comparison
    # A card is asked nothing that nobody looks at.
    assert {name for place, name in compared if place == "gpu"} == set(of_place["gpu"])


def answers(tmp_path, question, **of_places):
    for place, answer in of_places.items():
        device_table.keep(tmp_path, place, question, answer)
    return [row.status for row in device_table.compare(tmp_path, "gpu", [question])]


def test_what_is_random_is_compared_as_such(tmp_path):
    value, error = np.zeros(3), np.full(3, 0.1)
    near, far = value + 0.6, value + 0.8  # Differences have a standard error of 0.14.
    for found, status in ((near, PASS), (far, FAIL), (near + np.nan, FAIL)):
        cpu, gpu = ({"value": v, "standard_error": error} for v in (value, found))
        assert answers(tmp_path, "annealing", cpu=cpu, gpu=gpu) == [status]
    useless = {"value": far, "standard_error": np.full(3, 2.0)}
    assert answers(tmp_path, "annealing", cpu=useless, gpu=useless) == [FAIL]
    draws = np.zeros([10, 10, 2])
    for others, by, status in ((2, 1.0, PASS), (3, 1.0, FAIL), (3, np.nan, FAIL)):
        moved = draws.copy()
        moved[0, :others, 1] = by
        cpu, gpu = ({"draws": d, "ess": np.ones(10)} for d in (draws, moved))
        assert answers(tmp_path, "resampling", cpu=cpu, gpu=gpu) == [status]


def test_a_nan_in_a_later_array_is_far():
    right, wrong = {"a": np.ones(3), "b": np.ones(3)}, {"a": np.ones(3), "b": np.array([1.0, np.nan, 1.0])}
    for distance in (device_table.relative, device_table.nats):
        assert distance(right, right) == 0.0
        assert device_table.row("", distance(wrong, right), 1e9, "").status == FAIL


def test_arrays_that_do_not_fit_fail(tmp_path):
    assert answers(tmp_path, "training", cpu={"moved": np.ones(3)}, gpu={"moved": np.ones(4)}) == [FAIL]
    assert answers(tmp_path, "training by XLA", gpu={"moved": np.ones(4)}) == [FAIL]


@pytest.mark.parametrize(
    ("script", "told", "reason"),
    [
        ("echo '::\"files\"'; echo noise; kill -6 $$", ["files"], "ended with status -6"),
        ('echo \'::["row", ["a", "pass"]]\'; exec sleep 60', [Row("a", PASS)], "ran out of time"),
        ("exit 0", [], None),
    ],
)
def test_a_stage_that_dies_is_a_row(script, told, reason, tmp_path, monkeypatch):
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setattr(devices, "sys", SimpleNamespace(executable=str(path)))
    flags.FLAGS(["devices.py"])
    heard = []
    devices.apart("cpu", tmp_path, QUICK, heard.append, 0.5)
    assert heard[: len(told)] == told
    assert [row.reason[: len(reason)] for row in heard[len(told) :]] == ([reason] if reason else [])


def test_the_time_is_limited(monkeypatch, tmp_path):
    flags.FLAGS(["devices.py", "--minutes=1"])
    now, ran, rows = [0.0], [], []

    def run(name, folder, sizes, tell, seconds):
        ran.append((name, seconds))
        now[0] += 50.0

    devices.check(
        ["float64", "cpu", "cpu twice"], QUICK, run, lambda _, row: rows.append(row), tmp_path, lambda: now[0]
    )
    assert ran == [("float64", 60.0), ("cpu", 10.0)]
    assert [row.status for row in rows] == [FAIL] and "minutes were over" in rows[0].reason


def test_what_a_stage_tells_comes_through(capsys):
    for told in ("files", Row("a", FAIL, 1.0, 2.0, "nats", "why"), device_figures.Figure("b", 1.0, "ms", 2.0, True)):
        devices._said(told)
        line = capsys.readouterr().out
        assert devices._read(json.loads(line.removeprefix("::"))) == told


def test_figures_and_their_aims():
    assert device_figures.Figure("a", 1.4, "ratio", 1.5).reached
    assert not device_figures.Figure("a", 1.6, "ratio", 1.5).reached
    assert not device_figures.Figure("a", 0.4, "ratio", 0.5, at_least=True).reached
    assert device_figures.Figure("a", 1.0, "ms").reached is None


@pytest.mark.slow
def test_speed_runs():
    flags.FLAGS(["devices.py"])
    shown = [*device_figures.speed(device_figures.TINY)]
    ratios = {figure.name: figure for figure in shown if figure.unit == "ratio"}
    assert len(ratios) == 3 and all(figure.aim and figure.value > 0 for figure in ratios.values())
    assert devices.drawn(shown).axes[0].get_yticklabels()
    assert {figure.unit for figure in shown} == {
        "ratio",
        "ms",
        "ms an example",
        "ms a batch",
        "TFLOP/s",
        "TB/s, read and written",
    }


def test_a_card_in_a_profile():
    space = device_profile.xplane_pb2.XSpace()
    plane = space.planes.add(name="/device:GPU:0")
    for i, name in enumerate(["gemm", "fusion", "MemcpyD2H"]):
        plane.event_metadata[i].name = name
    # Two streams that overlap from 2 to 3 us, a copy to the host at 10 us; another line that says the same again.
    for line_name, start, events in (
        ("Stream #13(Compute)", 0, [(0, 0, 3)]),
        ("Stream #14(Compute)", 1000, [(1, 1, 3)]),
        ("Stream #15(MemcpyD2H)", 0, [(2, 10, 1)]),
        ("XLA Ops", 0, [(0, 0, 3)]),
    ):
        line = plane.lines.add(name=line_name, timestamp_ns=start)
        for kind, offset, duration in events:
            line.events.add(metadata_id=kind, offset_ps=offset * 10**6, duration_ps=duration * 10**6)
    found = device_profile.of_card(space.planes, wall=24e-6, steps=2)
    assert found.wall == pytest.approx(12e-6) and found.busy == pytest.approx(3e-6)
    assert (found.kernels, found.copies) == (1.0, 0.5)
    assert found.idle == pytest.approx(0.75)
    assert found.seconds == pytest.approx({"gemm": 1.5e-6, "fusion": 1.5e-6, "MemcpyD2H": 0.5e-6})
    assert device_profile.of_card([], 1.0, 1) is None


@pytest.mark.slow
def test_retracing_is_counted(tmp_path):
    place = Place(tf.distribute.get_strategy(), QUICK, tmp_path)
    assert device_profile.retraced(place.build(jit_compile=False), place.x[:3], 2) == 0
    assert device_profile.retraced(place.build(run_eagerly=True, jit_compile=False), place.x[:3], 2) == 4
