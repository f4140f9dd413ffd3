"""The client: against the local server, and against stubs that fail on purpose."""

import contextlib
import csv
import http.server
import json
import pathlib
import subprocess
import sys
import threading
import time

import grpc
import numpy as np
import pytest
from inprocess import call

from iwae_zoo_serving import client as client_lib
from iwae_zoo_serving import json_tensors
from iwae_zoo_serving.client import GrpcClient, RestClient, query, write
from iwae_zoo_serving.errors import ServingError
from iwae_zoo_serving.programs import query as query_program

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(params=["rest", "grpc"])
def client(server, request):
    kind, port = {"rest": (RestClient, server.rest), "grpc": (GrpcClient, server.grpc)}[request.param]
    with contextlib.closing(kind(f"127.0.0.1:{port}", "toy", timeout=20)) as client:
        yield client


SIGNATURE = {"inputs": {"x": {"dtype": "DT_FLOAT"}}, "outputs": {"y": {"dtype": "DT_FLOAT"}}}
METADATA = {"metadata": {"signature_def": {"signature_def": {"log_prob": SIGNATURE}}}}


class Stub:
    """An HTTP server that gives a list of answers, and counts the requests."""

    def __init__(self, *answers):
        stub = self
        self.answers, self.asked = list(answers), []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.reply(200, METADATA)

            def do_POST(self):
                inputs = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["inputs"]
                stub.asked.append(time.monotonic())
                status = stub.answers.pop(0) if stub.answers else 200
                if status == "slow":
                    time.sleep(1)
                self.reply(status, {"outputs": inputs["x"]} if status == 200 else {"error": "no"})

            def reply(self, status, answer):
                if status == "slow":
                    return
                body = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def client(self, timeout=20):
        return contextlib.closing(RestClient(f"127.0.0.1:{self.server.server_port}", "toy", timeout))


@pytest.mark.parametrize(("batch_size", "concurrency"), [(1, 3), (4, 2), (7, 1), (100, 2)])
def test_answers_do_not_depend_on_batches(client, batch_size, concurrency):
    x = np.random.default_rng(0).normal(size=(23, 2)).astype(np.float32)
    done = []
    outputs = query(
        client, x, num_samples=5, seed=100, batch_size=batch_size, concurrency=concurrency, progress=done.append
    )
    # The toy's log_prob is the row's sum and both halves of its seed: the row's index and the given one.
    np.testing.assert_allclose(outputs["log_prob"], x.sum(axis=1) + 100 + np.arange(23), rtol=1e-6)
    np.testing.assert_array_equal(outputs["num_samples"], np.full(23, 5))
    np.testing.assert_array_equal(outputs["pair"], x)
    assert outputs["num_samples"].dtype == np.int32
    assert outputs["pair"].dtype == np.float32
    assert list(outputs) == sorted(outputs)  # The columns of a file.
    assert sum(done) == 23


def test_only_what_the_signature_takes_is_sent(client):
    x = np.array([1, np.nan, np.inf])
    np.testing.assert_array_equal(query(client, x, "serving_default")["y"], [2.5, np.nan, np.inf])


def test_strings_of_both_protocols_are_bytes(client):
    # Text in JSON, and base64 for a name that ends in _bytes.
    outputs = client.predict("echo", {"text": np.array(["é", "b"], object)})
    assert outputs["text"].tolist() == outputs["text_bytes"].tolist() == ["é".encode(), b"b"]
    outputs = query(client, np.array(["é".encode(), b"b"]), "echo")
    assert outputs["text"].tolist() == ["é".encode(), b"b"]


def test_numbers_are_rounded_to_floats_alone():
    assert json_tensors.cast("x", [0.1], "DT_FLOAT").dtype == np.float32
    for values in ([1.0, 255], np.array([True, False])):
        np.testing.assert_array_equal(json_tensors.cast("x", values, "DT_UINT8"), values)
    for value, dtype in ((1.7, "DT_INT32"), (np.nan, "DT_INT64"), (256, "DT_UINT8"), (-1, "DT_UINT64"), (2, "DT_BOOL")):
        with pytest.raises(ServingError, match=f"input 'x' is of {json_tensors.DTYPES[dtype]}: received {value}"):
            json_tensors.cast("x", np.array([1, value, 0]), dtype)


@pytest.mark.parametrize(
    ("x", "signature", "part"),
    [
        (np.zeros([2, 3]), "log_prob", "shape"),
        (np.zeros([0, 2]), "log_prob", "0 rows"),
        (np.zeros(2), "nope", "log_prob"),
        (np.zeros(2), "dtypes", "expecting rows, and one such input"),
        (np.zeros(2), "total", "no entry per row"),
    ],
)
def test_faults(client, x, signature, part):
    with pytest.raises(ServingError, match=part) as caught:
        query(client, x, signature, retries=5)
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT


def test_another_model_meanwhile(client, monkeypatch):
    predict, asked = client.predict, []

    def predict_and_change(name, inputs):
        asked.append(name)
        outputs = predict(name, inputs)
        return outputs if len(asked) == 1 else {**outputs, "more": outputs["log_prob"]}

    monkeypatch.setattr(client, "predict", predict_and_change)
    with pytest.raises(ServingError, match="'log_prob' has other outputs than before: another model"):
        query(client, np.zeros([4, 2]), batch_size=2, concurrency=1)
    monkeypatch.undo()
    if isinstance(client, RestClient):  # Which knows an answer's names by the model's metadata.
        _, dtypes = client.signature("log_prob")
        monkeypatch.setattr(client, "signature", lambda name: (None, {**dtypes, "more": "DT_FLOAT"}))
        inputs = {"x": np.zeros([1, 2]), "num_samples": np.ones(1, int), "seed": np.ones(1, int)}
        with pytest.raises(ServingError, match="another model is served meanwhile"):
            client.predict("log_prob", inputs)


def test_unknown_model(server):
    client = RestClient(f"127.0.0.1:{server.rest}", "foo")
    with contextlib.closing(client), pytest.raises(ServingError, match=r"Latest\(foo\)"):
        query(client, np.zeros(1))


def test_unavailable_is_asked_again_with_growing_pauses():
    with Stub(503, 503) as stub, stub.client() as client:
        outputs = query(client, np.arange(3.0), retries=2)
        np.testing.assert_array_equal(outputs["y"], [0, 1, 2])
        first, second, third = stub.asked
        assert 0.04 < second - first < 0.3
        assert 0.09 < third - second < 0.5


@pytest.mark.parametrize(("status", "asked"), [(503, 3), (500, 1), (429, 1), (400, 1), (404, 1)])
def test_what_is_not_asked_again(status, asked):
    with Stub(*[status] * 9) as stub, stub.client() as client:
        with pytest.raises(ServingError, match=f"HTTP {status}: no"):
            query(client, np.arange(3.0), retries=2, concurrency=1)
        assert len(stub.asked) == asked


def test_after_a_fault_no_new_batch_is_sent():
    with Stub(500) as stub, stub.client() as client:
        with pytest.raises(ServingError):
            query(client, np.arange(100.0), batch_size=1, concurrency=2)
        assert len(stub.asked) < 20


def test_time_out_is_not_asked_again():
    with Stub("slow") as stub, stub.client(timeout=0.2) as client:
        with pytest.raises(ServingError, match="timed out") as caught:
            query(client, np.arange(3.0))
        assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert len(stub.asked) == 1


@pytest.mark.parametrize("kind", [RestClient, GrpcClient])
def test_no_server(kind):
    client = kind("127.0.0.1:9", "toy", timeout=5)
    with contextlib.closing(client), pytest.raises(ServingError) as caught:
        query(client, np.zeros(1), retries=1)
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE


def test_csv_and_npz(tmp_path):
    outputs = {
        "log_prob": np.array([0.1, -np.inf, np.nan], np.float32),
        "in_support": np.array([True, False, True]),
        "mean": np.arange(6, dtype=np.float32).reshape(3, 2),
        "text": np.array([b"a", "é".encode(), b"\xff"], object),
    }
    write(tmp_path / "results.csv", outputs)
    with open(tmp_path / "results.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["row", "log_prob", "in_support", "mean_0", "mean_1", "text"]
    assert rows[1] == ["0", "0.1", "True", "0.0", "1.0", "a"]
    assert [row[1] for row in rows[1:]] == ["0.1", "-inf", "nan"]
    assert rows[2][-1] == "é"
    write(tmp_path / "results.npz", outputs)
    with np.load(tmp_path / "results.npz") as loaded:
        for name in ("log_prob", "in_support", "mean"):
            np.testing.assert_array_equal(loaded[name], outputs[name])
            assert loaded[name].dtype == outputs[name].dtype
        assert loaded["text"].tolist() == outputs["text"].tolist()
    (tmp_path / "link.csv").symlink_to(tmp_path / "results.csv")
    write(tmp_path / "link.csv", {"y": np.zeros(1)})
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "results.csv").read_text() == "row,y\n0,0.0\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.csv", "results.csv", "results.npz"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "results.csv"
    path.write_text("old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(client_lib.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write(path, {"y": np.zeros(2)})
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(ValueError, match="must end in"):
        write(tmp_path / "results.txt", {"y": np.zeros(2)})


def run(*flags):
    # Over REST it needs no more than this: a name that is None in sys.modules cannot be imported.
    script = (
        "import sys, runpy; sys.modules.update(dict.fromkeys(['iwae_zoo', 'tensorflow', 'keras']));"
        "sys.argv[0] = 'export/query_main.py'; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = [sys.executable, "-c", script, *map(str, flags)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_program(server, tmp_path):
    np.save(tmp_path / "x.npy", np.arange(10.0).reshape(5, 2))
    output = tmp_path / "results.csv"
    flags = [f"--server=127.0.0.1:{server.rest}", "--model_name=toy", f"--input={tmp_path}/x.npy", f"--output={output}"]
    done = run(*flags, "--batch_size=2", "--seed=7", "--num_samples=3")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"5 rows of log_prob, num_samples, pair in {output}\n"
    rows = list(csv.DictReader(output.read_text().splitlines()))
    assert [float(row["log_prob"]) for row in rows] == [8, 13, 18, 23, 28]
    assert [int(row["num_samples"]) for row in rows] == [3] * 5
    output.unlink()
    (tmp_path / "folder.csv").mkdir()
    np.save(tmp_path / "waves.npy", np.full((2, 2), 1j))
    for extra, part in (
        (["--model_name=foo", "--retries=0"], "Latest(foo)"),
        ([f"--input={tmp_path}/nothing.npy"], "nothing.npy"),
        ([f"--input={tmp_path}/waves.npy"], "must hold real numbers: received an array of complex128"),
        (["--output=results.txt"], "must end in .csv or .npz"),
        ([f"--output={tmp_path / 'folder.csv'}"], "folder.csv is a folder"),
    ):
        done = call(query_program, *flags, *extra, cwd=tmp_path)
        assert done.returncode == 1
        assert done.stderr.startswith("the_program: ")
        assert part in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert not output.exists()
