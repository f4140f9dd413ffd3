"""The local server against TF Serving's documented answers and the cases of its own tests."""

import http.client
import json
import pathlib
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from inprocess import unsilenced

from iwae_zoo_serving import json_tensors
from iwae_zoo_serving.server import serve

ROOT = pathlib.Path(__file__).parents[2]


def test_documented_example(rest):
    # The answer of TF Serving's documentation to this very request.
    assert rest.predict({"instances": [1.0, 2.0, 5.0]}) == (200, {"predictions": [2.5, 3.0, 4.5]})
    assert rest.predict({"inputs": [1.0, 2.0, 5.0]}) == (200, {"outputs": [2.5, 3.0, 4.5]})
    assert rest.predict({"inputs": {"x": [1, 2]}}) == (200, {"outputs": [2.5, 3.0]})
    assert rest.predict({"instances": [{"x": 1}, {"x": 2}], "signature_name": "serving_default"}) == (
        200,
        {"predictions": [2.5, 3.0]},
    )
    assert rest("POST", "/v1/models/toy/versions/1:predict", {"instances": [1]}) == (200, {"predictions": [2.5]})


def test_rows_and_columns_of_many(rest):
    rows = [{"x": [1, 2], "num_samples": 3, "seed": 4}, {"x": [5, 6], "num_samples": 7, "seed": 8}]
    answers = [{"log_prob": 7.0, "num_samples": 3, "pair": [1, 2]}, {"log_prob": 19, "num_samples": 7, "pair": [5, 6]}]
    assert rest.predict({"signature_name": "log_prob", "instances": rows}) == (200, {"predictions": answers})
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    expected = {name: [row[name] for row in answers] for name in answers[0]}
    assert rest.predict({"signature_name": "log_prob", "inputs": columns}) == (200, {"outputs": expected})


def test_nan_and_infinities(rest):
    body = '{"instances": [NaN, Infinity, -Infinity, 1e-45]}'
    status, text = rest.raw("POST", "/v1/models/toy:predict", body)
    assert (status, text) == (200, '{"predictions":[NaN,Infinity,-Infinity,2.0]}')


def test_floats_are_the_shortest_that_round_trip(rest):
    values = np.array([0.2, -1e-7, 123456.789, 16777216.0, 3.4028235e38, 1.1754944e-38], np.float32)
    body = {"signature_name": "total", "inputs": values.astype(float).tolist()}
    _, text = rest.raw("POST", "/v1/models/toy:predict", json.dumps(body))
    assert '"x":[0.2,-1e-07,123456.79,16777216.0,3.4028235e+38,1.1754944e-38]' in text
    np.testing.assert_array_equal(np.array(json.loads(text)["outputs"]["x"], np.float32), values)


def test_shortest_is_numpys_own_text(seed):
    generator = np.random.default_rng(seed)
    bits = generator.integers(0, 2**32, 20_000, dtype=np.uint32).view(np.float32)
    tens = 10.0 ** np.arange(-30, 30)
    values = np.concatenate([bits[np.isfinite(bits)], generator.normal(0, 50, 20_000), tens, -tens, [0.0, -0.0]])
    values = values.astype(np.float32)
    assert [repr(value) for value in json_tensors.shortest(values)] == [repr(float(str(value))) for value in values]


def test_of_columns_the_known_ones_are_taken(rest):
    assert rest.predict({"inputs": {"x": [1], "z": [[]]}}) == (200, {"outputs": [2.5]})


def test_strings(rest):
    binary = {"b64": "/wAB"}  # ff 00 01
    status, answer = rest.predict({"signature_name": "echo", "instances": ["é", {"b64": "aGV\nsbG8"}, binary]})
    assert status == 200
    assert [row["text"] for row in answer["predictions"][:2]] == ["é", "hello"]
    assert [row["text_bytes"]["b64"] for row in answer["predictions"]] == ["w6k=", "aGVsbG8=", "/wAB"]
    assert rest.predict({"signature_name": "echo", "inputs": {"text": [binary]}})[1]["outputs"]["text_bytes"] == [
        binary
    ]


def test_dtypes(rest):
    row = {"bool": True, "int8": -128, "uint8": 255, "int64": -(2**63), "uint64": 2**64 - 1, "float64": 0.1}
    assert rest.predict({"signature_name": "dtypes", "instances": [row]}) == (200, {"predictions": [row]})


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("bool", 1, "not of expected type: bool"),
        ("bool", "true", "not of expected type: bool"),
        ("int8", 1.0, "not of expected type: int8"),
        ("int8", True, "not of expected type: int8"),
        ("int8", 128, "without loss of precision"),
        ("uint8", -1, "without loss of precision"),
        ("int64", 2**63, "without loss of precision"),
        ("uint64", 2**64, "without loss of precision"),
        ("int64", None, "JSON Value: null"),
        ("float64", False, "not of expected type: double"),
        (
            "float64",
            [0.5],
            "element: 1 key: float64 of 'instances' list. Error: INVALID_ARGUMENT: Expecting shape [] but got: [1]",
        ),
    ],
)
def test_no_number_is_bent_to_a_dtype(rest, name, value, part):
    row = {"bool": True, "int8": 1, "uint8": 1, "int64": 1, "uint64": 1, "float64": 1}
    body = {"signature_name": "dtypes", "instances": [row, row | {name: value}]}
    status, answer = rest.predict(body)
    assert status == 400
    assert part in answer["error"]
    assert f"'{name}'" in answer["error"] or f"key: {name} of" in answer["error"]


def test_floats_are_rounded_and_infinite_beyond_their_range(rest):
    row = {"bool": True, "int8": 1, "uint8": 1, "int64": 1, "uint64": 1}
    values = [16777217, 0.1, 1e39, -1e39, 3.4028236e38, 10**30]
    expected = [float(np.float32(value)) for value in (16777216, 0.1, np.inf, -np.inf, np.inf, 1e30)]
    _, answer = rest.predict({"signature_name": "total", "inputs": {"x": values}})
    np.testing.assert_array_equal(np.float32(answer["outputs"]["x"]), np.float32(expected))
    for sent, received in ((2**53 + 1, 2.0**53), (10**40, 1e40)):
        body = {"signature_name": "dtypes", "instances": [row | {"float64": sent}]}
        assert rest.predict(body)[1]["predictions"][0]["float64"] == received


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ("", "The document is empty"),
        ("instances = [1, 2]", "JSON Parse error"),
        ('{"instances": [1, 2}', "JSON Parse error"),
        (b'{"instances": "\xff"}', "JSON Parse error"),
        ('{"instances": [' + "1" * 5000 + "]}", "JSON Parse error"),
        ("[" * 100_000, "nested too deeply"),
        ('{"instances": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
        ('{"instances": ' + "[" * 300 + "1" + "]" * 300 + "}", "nested too deeply"),
        ('{"instances": [' + '{"x":' * 900 + "1" + "}" * 900 + "]}", ""),
        ("[1, 2]", "Is not object"),
        ("{}", "Missing 'inputs' or 'instances' key"),
        ({"instances": [1], "inputs": [1]}, "expecting only one"),
        ({"instances": 1}, "Expecting 'instances' to be a list"),
        ({"instances": []}, "at least one row"),
        ({"signature_name": 5, "instances": [1]}, "'signature_name' key must be a string value"),
        ({"signature_name": "nope", "instances": [1]}, "dtypes, echo, log_prob, serving_default, total"),
        ({"instances": ["x", "y"]}, "not of expected type: float"),
        ({"instances": [{"b64": "aGVsbG8="}]}, "not of expected type: float"),
        (
            {"instances": [1, [1]]},
            "Failed to process element: 1 of 'instances' list. "
            "Error: INVALID_ARGUMENT: Expecting shape [] but got: [1]",
        ),
        ({"instances": [[1, 2], [3]]}, "Expecting tensor size: 2 but got: 1"),
        ({"instances": [[[1, 2], [3]]]}, "Encountered list at unexpected size: 1 at level: 1 expected size: 2"),
        (
            {"instances": [[1, 2], [3, [4]]]},
            "1 of 'instances' list. Error: INVALID_ARGUMENT: Encountered list at unexpected level: 1 expected < 1",
        ),
        ({"inputs": [[1], 2]}, "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. Expected at level: 2"),
        ({"instances": [[1, 2], [3, 4]]}, "expecting [-1]"),
        ({"inputs": 1.0}, "expecting [-1]"),
        ('{"instances": [1e400]}', "JSON Parse error: Number too big to be stored in double"),
        ('{"instances": [' + "1" * 400 + "]}", "JSON Parse error: Number too big to be stored in double"),
        ({"instances": [{"x": 1}, 2]}, "Expecting object but got list at item 1"),
        ({"instances": [{"z": 1}]}, "Missing named input: x"),
        ({"instances": [{"x": 1, "z": 1}]}, "must only have keys: x"),
        ({"signature_name": "log_prob", "inputs": {"x": [[1, 2]]}}, "Missing named input: num_samples, seed"),
        ({"signature_name": "log_prob", "instances": [1]}, "several inputs"),
        ({"signature_name": "echo", "instances": [1]}, "not of expected type: string"),
        ({"signature_name": "echo", "instances": [{"b64": "?"}]}, "Unable to decode"),
        ({"signature_name": "echo", "instances": ["\ud800"]}, "Unable to decode"),
        ({"signature_name": "echo", "inputs": {"text": [{"b65": ""}]}}, "not formatted correctly for base64"),
        ({"signature_name": "total", "instances": [1, 2]}, "inconsistent batch size"),
        (
            {"signature_name": "log_prob", "inputs": {"x": [[1, 2]], "num_samples": [-1], "seed": [0]}},
            "num_samples must not be negative",
        ),
    ],
)
def test_malformed_predictions(rest, body, part):
    status, answer = rest.predict(body)
    assert status == 400
    assert list(answer) == ["error"]
    assert part in answer["error"]
    assert rest.predict({"instances": [1]}) == (200, {"predictions": [2.5]})


@pytest.mark.parametrize(
    ("method", "path", "status", "part"),
    [
        ("GET", "/", 404, "GET /"),
        ("POST", "/index", 404, "POST /index"),
        ("GET", "/v1/foo", 400, "Malformed request: GET /v1/foo"),
        ("GET", "/v1/models", 400, "Missing model name"),
        ("GET", "/v1/models/toy:predict", 400, "Malformed request"),
        ("PUT", "/v1/models/toy:predict", 400, "Malformed request"),
        ("POST", "/v1/models/toy:PREDICT", 400, "Malformed request"),
        ("POST", "/v1/models/toy:predict?key=1", 400, "Malformed request"),
        ("GET", "/v1/models/toy?key=1", 404, "Could not find any versions of model toy?key=1"),
        ("DELETE", "/v1/models/toy", 400, "Malformed request"),
        ("POST", "/v1/models/toy", 400, "Malformed request"),
        ("POST", "/v1/models/toy/metadata", 400, "Malformed request"),
        ("POST", "/v1/models/toy/version/1:predict", 400, "Malformed request"),
        ("POST", "/v1/models/toy/versions/one:predict", 400, "Malformed request"),
        ("POST", "/v1/models/toy/versions/1/labels/stable:predict", 400, "Malformed request"),
        ("POST", f"/v1/models/toy/versions/{2**64}:predict", 400, "Failed to convert version"),
        ("GET", "/v1/models/toy/versions/" + 5000 * "9", 400, "Failed to convert version"),
        ("POST", "/v1/models/foo:predict", 404, "Servable not found for request: Latest(foo)"),
        ("POST", "/v1/models/toy/versions/7:predict", 404, "Servable not found for request: Specific(toy, 7)"),
        ("POST", "/v1/models/toy/labels/stable:predict", 400, "Unrecognized servable version label: stable"),
        ("POST", "/v1/models/toy:classify", 501, "predict only"),
        ("GET", "/v1/models/foo", 404, "Could not find any versions of model foo"),
        ("GET", "/v1/models/toy/versions/7", 404, "Could not find version 7 of model toy"),
        ("GET", "/v1/models/foo/metadata", 404, "Servable not found"),
        ("GET", "/v1/models/toy/versions/7/metadata", 404, "Servable not found"),
    ],
)
def test_addresses(rest, method, path, status, part):
    found, answer = rest(method, path, '{"instances": [1]}')
    assert (found, list(answer)) == (status, ["error"])
    assert part in answer["error"]
    assert rest.predict({"instances": [1]}) == (200, {"predictions": [2.5]})


@pytest.mark.parametrize("path", ["/v1/models/toy", "/v1/models/toy/versions/1", "/V1/Models/toy"])
def test_status(rest, path):
    status = {"error_code": "OK", "error_message": ""}
    assert rest("GET", path) == (
        200,
        {"model_version_status": [{"version": "1", "state": "AVAILABLE", "status": status}]},
    )


def test_metadata(rest):
    status, answer = rest("GET", "/v1/models/toy/metadata")
    assert status == 200
    assert answer["model_spec"] == {"name": "toy", "signature_name": "", "version": "1"}
    signature = answer["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["method_name"] == "tensorflow/serving/predict"
    assert signature["inputs"]["x"] == {
        "dtype": "DT_FLOAT",
        "name": "serving_default_x:0",
        "tensor_shape": {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False},
    }


def test_body_over_the_limit(rest):
    status, answer = rest.predict('{"instances": [' + "1," * 2**20 + "1]}")
    assert status == 413
    assert "1048576" in answer["error"]
    assert rest.predict({"instances": [1]}) == (200, {"predictions": [2.5]})


def test_connection_is_kept(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.rest, timeout=20)
    for body, status in (('{"instances": [1]}', 200), ("{", 400), ('{"instances": [1]}', 200)):
        connection.request("POST", "/v1/models/toy:predict", body)
        response = connection.getresponse()
        response.read()
        assert response.status == status
        assert response.headers["Content-Type"] == "application/json"
        assert not response.will_close
    connection.close()


@pytest.mark.slow
def test_program_needs_neither_the_library_nor_keras_nor_tfp(toy_path, rest):
    """And says why it cannot serve another folder."""
    # A name that is None in sys.modules cannot be imported: as if the package were not installed.
    script = """
import runpy, sys

sys.modules.update(dict.fromkeys(["iwae_zoo", "keras", "tf_keras", "tensorflow_probability"]))
flags = sys.argv[1:]
for sys.argv in (["export/serve_main.py", "--model_base_path=/nowhere"], ["export/serve_main.py", *flags]):
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        print(end, flush=True)
"""
    flags = [f"--model_base_path={toy_path}", "--model_name=toy", "--port=0", "--rest_api_port=0", "--max_body_mb=1"]
    process = subprocess.Popen(
        [sys.executable, "-c", script, *flags],
        cwd=ROOT,
        env=unsilenced(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline().startswith("serve_main: model_base_path='/nowhere' is no folder")
        assert process.stdout.readline().startswith("gRPC 127.0.0.1:")
        address = process.stdout.readline()
        assert address.startswith("REST http://127.0.0.1:")
        rest = type(rest)(int(address.split(":")[2].split("/")[0]))
        assert rest.predict({"instances": [1.0, 2.0, 5.0]}) == (200, {"predictions": [2.5, 3.0, 4.5]})
        assert rest.predict(b" " * 2**21)[0] == 413
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert len(process.stderr.read().splitlines()) == 1  # Which version is served.
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("flag", ["port", "rest_api_port"])
def test_port_in_use(server, toy_path, flag):
    taken = server.grpc if flag == "port" else server.rest
    with (
        pytest.raises(OSError, match=str(taken)),
        serve(toy_path, "toy", **{"port": 0, "rest_api_port": 0} | {flag: taken}),
    ):
        pass
    assert not [thread.name for thread in threading.enumerate()].count("versions") > 1
