"""Exported models: loaded without the library, row by row, and whole or not at all."""

import functools
import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from faults import exhausted
from inprocess import unsilenced
from served import ask, requests

from iwae_zoo import annealing, imputation, likelihood, objectives, presets, psis, resampling, saved_model
from iwae_zoo.estimation import importance
from iwae_zoo.saved_model import exporting
from iwae_zoo.testing import LinearGaussian

pytestmark = pytest.mark.slow
ROOT = pathlib.Path(__file__).resolve().parents[1]
ESTIMATE = [*importance.OUTPUTS]
BUDGET = {"num_temperatures": 5, "num_chains": 8}


@pytest.fixture(scope="module")
def model():
    return presets.build("small", data_shape=(3, 2, 1), objective=objectives.get("piwae", m=2, k=2), seed=3)


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    directory = tmp_path_factory.mktemp("models") / "digits"
    saved_model.export(model, directory, num_samples=40, max_num_samples=100, card={"dataset": "digits"}, **BUDGET)
    return saved_model.Exported(directory)


@pytest.fixture
def exports(monkeypatch):
    """Says which signatures an export has, where nobody asks the others."""

    def only(*names):
        every = exporting.signatures_of
        monkeypatch.setattr(
            exporting, "signatures_of", lambda *of: {name: f for name, f in every(*of).items() if name in names}
        )

    return only


@pytest.fixture(scope="module")
def x():
    return (np.random.default_rng(0).random((9, 3, 2, 1)) < 0.4).astype("float32")


def test_answers_are_the_models(model, exported, x):
    estimate = likelihood.estimate_log_prob(model, x, 40, seed=5)
    answer = exported.estimate_log_prob(x, 40, seed=5)
    for name in ESTIMATE:
        np.testing.assert_allclose(getattr(answer, name), getattr(estimate, name), rtol=1e-4, atol=1e-5)
    default = ask(exported, "serving_default", x=x)
    assert set(default) == set(ESTIMATE)
    same = exported.signatures["log_prob"](x=x, num_samples=tf.fill([9], 40), seed=tf.zeros([9], tf.int64))
    np.testing.assert_array_equal(default["log_prob"], same["log_prob"])
    q = model.encoder.posterior(x)
    np.testing.assert_allclose(ask(exported, "encode", x=x)["mean"], q.mean(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ask(exported, "encode", x=x)["stddev"], q.stddev(), rtol=1e-4)
    np.testing.assert_allclose(ask(exported, "reconstruct", x=x)["mean"], model(x), rtol=1e-4)
    z = tf.random.stateless_normal([4, 16], seed=[1, 2])
    np.testing.assert_allclose(ask(exported, "decode", z=z)["mean"], model.decoder.likelihood(z).mean(), rtol=1e-4)


def test_each_row_depends_on_itself_alone(exported, x):
    """Bit for bit: alone, in batches of several sizes, and in another order."""
    whole = requests(x, 16)
    for name, inputs in whole.items():
        together = ask(exported, name, **inputs)
        for rows in ([4], [8, 4], [4, 4, 4], [3, 2, 1, 4, 0], list(range(9))[::-1]):
            part = ask(exported, name, rows, **inputs)
            for key, value in part.items():
                np.testing.assert_array_equal(value, together[key][rows], err_msg=f"{name} {key} {rows}")


def test_tiles(exports, tmp_path, x):
    """Of a tile that is chosen at export: each row by itself, bit for bit, with its own number of samples."""
    exports("serving_default", "log_prob", "impute", "posterior_sample")
    settings = {"posterior": "bernoulli", "objective": "rws", "likelihood": "bernoulli,missing=True"}
    built = presets.build("small", data_shape=(3, 2, 1), **settings)  # It has no annealing.
    options = {"num_samples": 40, "max_num_samples": 100, "tile_rows": 48, "particle_chunk": 30}
    tiled = saved_model.Exported(saved_model.export(built, tmp_path / "tiled", **options))
    card = json.loads((tiled.path / saved_model.CARD).read_text())
    assert (card["tile_rows"], card["particle_chunk"]) == (48, 30)
    inputs = {
        "x": np.concatenate([x, x[::-1]]),
        "num_samples": np.resize(np.int32([40, 1, 100, 30, 77]), 18),
        "seed": (np.arange(18, dtype=np.int64) << 32) + 5,
    }
    inputs["x"][3, 0, 0], inputs["x"][16, 0, 0] = np.inf, 0.5  # They leave their neighbours alone.
    inputs["x"][4, 1], inputs["x"][11] = np.nan, np.nan
    together = ask(tiled, "log_prob", **inputs)
    assert list(np.flatnonzero(~together["in_support"])) == [3, 16]
    np.testing.assert_array_equal(together["num_samples"], inputs["num_samples"])
    expected = likelihood.estimate_log_prob(built, inputs["x"][:1], 40, 5, chunk_size=30)
    assert together["log_prob"][0] == pytest.approx(expected.log_prob[0], abs=1e-4)
    assert together["pareto_k"][0] == pytest.approx(expected.pareto_k[0], abs=1e-3)
    for name in ("log_prob", "impute", "posterior_sample"):
        whole = ask(tiled, name, **inputs)
        for rows in ([4], [17, 4], [4, 4, 4], [*range(18)][::-1] * 3, []):
            for key, value in ask(tiled, name, rows, **inputs).items():
                np.testing.assert_array_equal(value, whole[key][rows], err_msg=f"{name} {key} {rows}")
    filled, chunk = ask(tiled, "impute", **inputs), {"chunk_size": 30, "seed": 5}
    expected = imputation.impute(built, inputs["x"][11:12], 1, 1, first_row=11, **{**chunk, "chunk_size": 1})
    assert (filled["log_prob"][11], expected.log_prob[0]) == (0.0, 0.0)
    expected = imputation.impute(built, inputs["x"][4:5], 77, 1, first_row=4, **chunk)
    for name in ("mean", "stddev", "point"):
        np.testing.assert_allclose(filled[name][4], getattr(expected, name)[0], rtol=1e-4, atol=1e-5)
    zeros = {"num_samples": tf.fill([18], 40), "seed": tf.zeros([18], tf.int64)}
    same = ask(tiled, "log_prob", **{**inputs, **zeros})
    np.testing.assert_array_equal(ask(tiled, "serving_default", x=inputs["x"])["log_prob"], same["log_prob"])


def test_annealed_tiles(model, exported, exports, tmp_path, x):
    """The same of what is annealed, and answers that are those of one row at a time, within their errors."""
    exports("log_prob", "log_prob_annealed", "posterior_sample_annealed")
    tiled = saved_model.Exported(saved_model.export(model, tmp_path / "tiled", tile_rows=48, **BUDGET))
    inputs = {"x": np.concatenate([x, x[::-1]]), "seed": (np.arange(18, dtype=np.int64) << 32) + 5}
    inputs["x"][3, 0, 0], inputs["x"][16, 0, 0] = np.nan, 0.5
    whole = {name: ask(tiled, name, **inputs) for name in ("log_prob_annealed", "posterior_sample_annealed")}
    for name, together in whole.items():
        for rows in ([4], [17, 4], [4, 4, 4], [*range(18)][::-1] * 3, []):
            for key, value in ask(tiled, name, rows, **inputs).items():
                np.testing.assert_array_equal(value, together[key][rows], err_msg=f"{name} {key} {rows}")
    annealed, alone = whole["log_prob_annealed"], ask(exported, "log_prob_annealed", **inputs)
    assert (annealed["method"] == b"annealed").all()
    assert (annealed["num_samples"] == BUDGET["num_chains"]).all()
    inside = annealed["in_support"]
    assert list(np.flatnonzero(~inside)) == [3, 16]
    error = np.hypot(annealed["standard_error"], alone["standard_error"])[inside]
    assert (abs(annealed["log_prob"][inside] - alone["log_prob"][inside]) < 5 * error + 1e-3).all()
    assert list(np.flatnonzero(np.isnan(whole["posterior_sample_annealed"]["z"]).any(axis=1))) == [3, 16]


def test_bad_rows_leave_their_neighbours_alone(exported, x):
    bad = x.copy()
    bad[1, 0, 0] = 0.5
    bad[4, 1, 1] = np.nan
    bad[5, 1, 1] = np.inf
    good = [0, 2, 3, 6, 7, 8]
    for name, inputs in requests(x, 16).items():
        if "x" not in inputs:
            continue
        before = ask(exported, name, **inputs)
        after = ask(exported, name, **{**inputs, "x": bad})
        for key in before:
            np.testing.assert_array_equal(after[key][good], before[key][good])
        if "log_prob" in after:
            assert (after["log_prob"][[1, 4, 5]] == -np.inf).all()
            assert list(np.flatnonzero(~after["in_support"])) == [1, 4, 5]
            assert not any(np.isnan(value).any() for value in after.values() if value.dtype != object)
        if name.startswith("posterior_sample"):
            assert list(after["ess"][[1, 4, 5]]) == [0, 0, 0]


def test_annealed_answers_are_the_models(model, exported, x):
    """Of the same seeds, in every output; and the ladder, which anneals no row that importance samples can answer."""
    expected = annealing.estimate_log_prob(model, x, **BUDGET, seed=5, verbose=0)
    rows = tf.constant((np.arange(9) << 32) + 5, tf.int64)
    answer = ask(exported, "log_prob_annealed", x=x, seed=rows)
    assert sorted(answer) == sorted([*ESTIMATE, "method"])
    for name in ("log_prob", "standard_error", "ess", "pareto_k"):
        np.testing.assert_allclose(answer[name], getattr(expected, name), rtol=1e-3, atol=1e-4)
    assert set(answer["method"]) == {b"annealed"}
    assert set(answer["num_samples"]) == {8}
    sampled = exported.estimate_log_prob(x, 40, seed=5)
    np.testing.assert_allclose(answer["elbo"], sampled.elbo, rtol=1e-6)  # Another graph, rounded in its own order.
    climbed = exported.estimate_log_prob(x, 40, seed=5, method="auto")
    surer = (sampled.standard_error > 0.2) & (answer["standard_error"] < sampled.standard_error)
    climbs = ~sampled.trusted | surer
    assert 0 < climbs.sum() < 9
    np.testing.assert_array_equal(climbed.method == "annealed", climbs)
    np.testing.assert_array_equal(climbed.log_prob, np.where(climbs, answer["log_prob"], sampled.log_prob))
    np.testing.assert_array_equal(climbed.importance_log_prob, sampled.log_prob)
    drawn = ask(exported, "posterior_sample_annealed", x=x, seed=rows)
    z, ess = annealing.sample_posterior(model, x, **BUDGET, seed=5, verbose=0)
    np.testing.assert_allclose(drawn["z"], z[0], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(drawn["ess"], ess, rtol=1e-3)


def test_requests_are_clamped(exported, x):
    count = np.array([-5, 0, 1, 50, 100, 101, 2**31 - 1, 3, 4], np.int32)
    answer = ask(exported, "log_prob", x=x, num_samples=tf.constant(count), seed=tf.zeros([9], tf.int64))
    np.testing.assert_array_equal(answer["num_samples"], np.clip(count, 1, 100))


def test_inputs_of_one_length(exported, x):
    """A row that is asked for and left out silently is worse than an error."""
    count, seed = tf.fill([len(x)], 10), tf.zeros([len(x)], tf.int64)
    for wrong in (len(x) - 1, len(x) + 1, 1):
        with pytest.raises(tf.errors.InvalidArgumentError, match="num_samples must have as many rows as x"):
            ask(exported, "log_prob", x=x, num_samples=tf.fill([wrong], 10), seed=seed)
        with pytest.raises(tf.errors.InvalidArgumentError, match="seed must have as many rows as x"):
            ask(exported, "log_prob", x=x, num_samples=count, seed=tf.zeros([wrong], tf.int64))


def test_more_particles_than_an_integer_holds(exported, x):
    assert (exported.estimate_log_prob(x[:2], num_samples=3_000_000_000).num_samples == 100).all()


def test_empty_batch(exported):
    for name, inputs in requests(np.zeros((0, 3, 2, 1), "float32"), 16).items():
        for value in ask(exported, name, **inputs).values():
            assert value.shape[0] == 0, name


def test_seeds(exported, x):
    same = np.repeat(x[:1], 3, axis=0)
    seed = tf.constant([1, 1, 2**40 + 1], tf.int64)
    answer = ask(exported, "log_prob", x=tf.constant(same), num_samples=tf.fill([3], 20), seed=seed)["log_prob"]
    assert answer[0] == answer[1] != answer[2]
    drawn = ask(exported, "sample", seed=tf.constant([5, 5, 6, -1], tf.int64))
    np.testing.assert_array_equal(drawn["x"][0], drawn["x"][1])
    assert not np.array_equal(drawn["mean"][0], drawn["mean"][2])
    assert set(np.unique(drawn["x"])) <= {0.0, 1.0}


def test_samples_have_the_models_mean(exported):
    drawn = ask(exported, "sample", seed=tf.range(4000, dtype=tf.int64))
    error = drawn["x"].std(axis=0) / np.sqrt(4000)
    assert (np.abs(drawn["x"].mean(axis=0) - drawn["mean"].mean(axis=0)) < 5 * error).all()


def test_posterior_samples_are_the_resamplings(exports, tmp_path):
    """On the closed form: nearer to the true posterior than the encoder."""
    exports("log_prob", "posterior_sample")
    truth = LinearGaussian.random()
    directory = tmp_path / "linear"
    model = truth.model(mismatch=0.5)
    saved_model.export(model, directory, num_samples=100, max_num_samples=1000)
    exported = saved_model.Exported(directory)
    x = np.repeat(truth.sample(1), 2000, axis=0).astype("float32")
    count, seed = tf.fill([2000], 200), tf.range(2000, dtype=tf.int64)
    z = ask(exported, "posterior_sample", x=x, num_samples=count, seed=seed)["z"]
    error = z.std(axis=0) / np.sqrt(2000)
    assert (np.abs(z.mean(axis=0) - truth.posterior_mean(x[:1])[0]) < 5 * error + 0.01).all()
    chunk, capacity = likelihood.default_chunk(100), psis.capacity(200)
    one = resampling.resample(model, x[5], tf.constant(200), tf.constant([0, 5]), chunk, capacity)
    np.testing.assert_allclose(z[5], one["z"], rtol=1e-5)


def test_weights_are_stored_once(model, exported):
    size = (exported.path / "variables" / "variables.data-00000-of-00001").stat().st_size
    weights = sum(w.nbytes for w in model.get_weights())
    assert weights <= size < 1.5 * weights + 3000


WITHOUT_PYTHON = """
import runpy, sys
for name in ("keras", "tf_keras", "tensorflow_probability", "iwae_zoo"):
    sys.modules[name] = None
saved, rows, *sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    print(end, file=sys.stderr)
import numpy as np
import tensorflow as tf
tf.get_logger().setLevel("ERROR")
x = np.load(rows)
feed = {"x": x, "num_samples": np.full(len(x), 40, np.int32), "seed": (np.arange(len(x), dtype=np.int64) << 32) + 5}
annealed = {k: v for k, v in feed.items() if k != "num_samples"}
questions = {"log_prob": feed, "log_prob_annealed": annealed}
signatures = tf.saved_model.load(saved).signatures
for name, feed in questions.items():
    print(*(float(v) for v in signatures[name](**{k: tf.constant(v) for k, v in feed.items()})["log_prob"].numpy()))
# The C++ loader that TF Serving uses.
with tf.compat.v1.Session(graph=tf.Graph()) as session:
    graph = tf.compat.v1.saved_model.load(session, ["serve"], saved)
    for name, feed in questions.items():
        signature = graph.signature_def[name]
        inputs = {signature.inputs[k].name: v for k, v in feed.items()}
        print(*(float(v) for v in session.run(signature.outputs["log_prob"].name, inputs)))
"""


@pytest.mark.usefixtures("optimized")
def test_loads_without_the_library(exported, x, tmp_path):
    """By TensorFlow's loader in Python, and by the one in C++; the client, which asks first, imports it quietly."""
    np.save(tmp_path / "x.npy", x)
    client = [ROOT / "export" / "query_main.py", "--input=x.npy", "--protocol=grpc", "--server=127.0.0.1:9"]
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_PYTHON, exported.path, "x.npy", *client, "--retries=0"],
        cwd=tmp_path,
        env=unsilenced(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr.startswith("query_main: UNAVAILABLE: ")
    assert result.stderr.count("\n") == 1
    received = [np.array(line.split(), "float32") for line in result.stdout.splitlines()]
    for values, method in zip(received, 2 * ("importance", "annealed"), strict=True):
        np.testing.assert_array_equal(values, exported.estimate_log_prob(x, 40, seed=5, method=method).log_prob)


def test_out_of_memory(exported, x, monkeypatch):
    full = functools.partial(exhausted)
    full.structured_input_signature = exported.signatures["log_prob"].structured_input_signature
    monkeypatch.setattr(exported, "signatures", {**exported.signatures, "log_prob": full})
    with pytest.raises(MemoryError, match=r"out of memory for .*model.*--particle_chunk=auto\), or for a smaller tile"):
        exported.estimate_log_prob(x)


@pytest.fixture(scope="module")
def traced():
    """A model of a few numbers, and its signatures, which one export after the other may have."""
    return LinearGaussian.random().model(), functools.cache(exporting.signatures_of)


@pytest.fixture
def cheap(traced, no_annealing, monkeypatch):
    """The model; its exports are without annealed signatures."""
    model, signatures_of = traced
    monkeypatch.setattr(exporting, "signatures_of", signatures_of)
    return model


def test_versions_ascend_and_appear_whole(cheap, tmp_path, monkeypatch):
    directory = tmp_path / "model"
    seen = []
    rename = os.rename

    def watched(source, target):
        # Until the very last step, a reader sees no version; then it sees all of it.
        seen.append([p.name for p in directory.iterdir() if p.name.isdigit()])
        assert (pathlib.Path(source) / "assets.extra" / "tf_serving_warmup_requests").exists()
        rename(source, target)

    monkeypatch.setattr(os, "rename", watched)
    (directory / "7").mkdir(parents=True)
    assert saved_model.export(cheap, directory, 10, 20).name == "8"
    assert saved_model.export(cheap, directory, np.int64(10), np.int32(20), seed=np.uint8(0)).name == "9"
    assert seen == [["7"], ["7", "8"]] or seen == [["7"], ["8", "7"]]
    assert sorted(p.name for p in directory.iterdir()) == ["7", "8", "9"]
    (directory / "²").mkdir()  # A digit to Python, but no number; and one that is none of int64.
    (directory / str(10**19)).mkdir()
    assert saved_model.Exported(directory).path.name == "9"
    for name in ("²", str(10**19)):
        (directory / name).rmdir()
    damaged = tmp_path / "damaged"
    shutil.copytree(directory / "9", damaged)
    for path in (damaged / "variables").glob("variables.*"):
        path.write_bytes(path.read_bytes()[:10])
    with pytest.raises(ValueError, match="The SavedModel in .* is damaged"):
        saved_model.Exported(damaged)

    def broken(*arguments, **options):
        raise tf.errors.OutOfRangeError(None, None, "File too large\nand more")

    (directory / "10").write_text("no folder")  # Whose name the next version does not take.
    assert saved_model.Exported(directory).path.name == "9"
    assert saved_model.export(cheap, directory, 10, 20).name == "11"
    shutil.rmtree(directory / "11")
    (directory / "10").unlink()
    monkeypatch.setattr(exporting, "_write_warm_up", broken)
    with pytest.raises(OSError, match="No version can be written to .*: File too large$"):
        saved_model.export(cheap, directory, 10, 20)
    assert sorted(p.name for p in directory.iterdir()) == ["7", "8", "9"]


def test_weights_that_are_no_numbers_are_not_served(cheap, tmp_path, monkeypatch):
    exported = saved_model.Exported(saved_model.export(cheap, tmp_path / "model", 10, 20))
    ask = exported.signatures["log_prob"]

    def poisoned(**inputs):
        return {name: value * np.nan if name == "log_prob" else value for name, value in ask(**inputs).items()}

    poisoned.structured_input_signature = ask.structured_input_signature
    monkeypatch.setattr(exported, "signatures", {"log_prob": poisoned})
    with pytest.raises(ValueError, match="log weights are NaN for an x that is finite"):
        exported.estimate_log_prob(np.zeros((2, 3)))
    diverged = LinearGaussian.random().model()
    variable = diverged.weights[0]
    variable.assign(tf.fill(variable.shape, tf.constant(np.nan, variable.dtype)))
    with pytest.raises(ValueError, match="weights are NaN: restore"):
        saved_model.export(diverged, tmp_path / "other", 10, 20)
    assert not (tmp_path / "other").exists()
    (exported.path / saved_model.CARD).write_text("[]")
    with pytest.raises(ValueError, match="model_card.json is damaged: it holds no table"):
        _ = exported.card


def test_model_card(model, exported):
    card = json.loads((exported.path / saved_model.CARD).read_text())
    assert card == json.loads((exported.path / "assets" / saved_model.CARD).read_text())
    assert card["objective"] == model.objective.get_config()
    assert (card["num_samples"], card["max_num_samples"], card["dataset"]) == (40, 100, "digits")
    assert card["input"]["x"] == "float32 [batch, 3, 2, 1]"
    assert card["annealing"] == {"initial": "laplace", **BUDGET, "num_leapfrog_steps": 3}


def test_warm_up_requests_fit_the_signatures(exported):
    from tensorflow_serving.apis import prediction_log_pb2

    path = exported.path / "assets.extra" / "tf_serving_warmup_requests"
    warmed = []
    for record in tf.data.TFRecordDataset(str(path)):
        request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
        name = request.model_spec.signature_name
        ask(exported, name, **{key: tf.make_ndarray(value) for key, value in request.inputs.items()})
        warmed.append(name)
    assert sorted(warmed) == sorted(exported.signatures)


def test_errors(model, exported, tmp_path):
    for arguments, message in (
        ({"num_samples": 0}, "num_samples must be an integer of at least 1: received 0"),
        ({"num_samples": 20, "max_num_samples": 10}, "at most max_num_samples: received 20 and 10"),
        ({"max_num_samples": 2**31}, r"max_num_samples must be at most 2\^31 - 1: received 2147483648"),
        ({"seed": 2**63}, r"seed must be at most 2\^63 - 1: received"),
        ({"tile_rows": 24}, "tile_rows must be 1 or a multiple of 48.*received 24"),
        ({"particle_chunk": 0}, "particle_chunk must be an integer of at least 1: received 0"),
    ):
        with pytest.raises(ValueError, match=message):
            saved_model.export(model, tmp_path / "model", **arguments)
    assert not (tmp_path / "model").exists()
    with pytest.raises(ValueError, match="holds no trained model"):
        saved_model.export_run(tmp_path, tmp_path / "model")
    with pytest.raises(ValueError, match="There is no SavedModel"):
        saved_model.Exported(tmp_path)
    with pytest.raises(ValueError, match=r"x must have shape \[B, 3, 2, 1\]"):
        exported.estimate_log_prob(np.zeros((2, 4)))
    for arguments, message in (
        ({"seed": 2**31}, r"seed must be .*received 2147483648"),
        ({"first_row": 2**31 - 1}, r"Rows must be below 2\^31: received first_row=2147483647 for 2 examples"),
    ):
        with pytest.raises(ValueError, match=message):
            exported.estimate_log_prob(np.zeros((2, 3, 2, 1)), **arguments)


def test_memory_is_bounded_by_the_chunk(exports, tmp_path):
    """The largest tensor of a row has one chunk of particles, whatever the request."""
    exports("log_prob")
    saved_model.export(LinearGaussian.random().model(), tmp_path / "m", num_samples=50, max_num_samples=1_000_000)
    exported = saved_model.Exported(tmp_path / "m")
    answer = exported.estimate_log_prob(np.zeros((1, 3), "float32"), 200_000)
    assert answer.num_samples[0] == 200_000
    graph = exported.signatures["log_prob"].graph.as_graph_def(add_shapes=True)
    nodes = [node for nodes in (graph.node, *(f.node_def for f in graph.library.function)) for node in nodes]
    shapes = [tf.TensorShape(shape) for node in nodes for shape in node.attr["_output_shapes"].list.shape]
    sizes = [shape.num_elements() for shape in shapes if shape.is_fully_defined()]
    # The weights of the tail, of the most particles of a request, and those of the chunk that may join them.
    assert max(sizes) == psis.capacity(1_000_000) + 50 < 4000
    assert likelihood.default_chunk(50) == 50
