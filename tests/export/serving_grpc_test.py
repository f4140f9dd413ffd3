"""The local server through TF Serving's own gRPC stubs."""

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)


@pytest.fixture(scope="module")
def channel(server):
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc}") as channel:
        yield channel


@pytest.fixture(scope="module")
def prediction(channel):
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


@pytest.fixture(scope="module")
def models(channel):
    return model_service_pb2_grpc.ModelServiceStub(channel)


def predict_request(inputs, signature_name="", **spec):
    spec = {"name": "toy", "signature_name": signature_name} | spec
    request = predict_pb2.PredictRequest(model_spec=spec)
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return request


def test_documented_example(prediction):
    request = predict_request({"x": np.array([1, 2, 5], np.float32)})
    response = prediction.Predict(request, timeout=20)
    # In float_val and not in tensor_content, for many clients look nowhere else.
    assert list(response.outputs["y"].float_val) == [2.5, 3.0, 4.5]
    assert response.model_spec.name == "toy"
    assert response.model_spec.version.value == 1
    assert response.model_spec.signature_name == "serving_default"


def test_typed_fields_and_strings_in(prediction):
    request = predict_pb2.PredictRequest(model_spec={"name": "toy"})
    request.inputs["x"].dtype = tf.float32.as_datatype_enum
    request.inputs["x"].tensor_shape.dim.add(size=3)
    request.inputs["x"].float_val.append(4.0)  # The last value stands for those that are left out.
    assert list(prediction.Predict(request, timeout=20).outputs["y"].float_val) == [4.0, 4.0, 4.0]
    request = predict_request({"text": np.array([b"a\x00", b"\xff"], object)}, "echo")
    assert list(prediction.Predict(request, timeout=20).outputs["text"].string_val) == [b"a\x00", b"\xff"]


def test_dtypes(prediction):
    inputs = {name: np.array([1, 0], name) for name in ("bool", "int8", "uint8", "int64", "uint64", "float64")}
    outputs = prediction.Predict(predict_request(inputs, "dtypes"), timeout=20).outputs
    for name, value in inputs.items():
        array = tf.make_ndarray(outputs[name])
        assert array.dtype == value.dtype
        np.testing.assert_array_equal(array, value)


def test_output_filter(prediction):
    inputs = {"x": np.ones([1, 2], np.float32), "num_samples": np.int32([1]), "seed": np.int64([0])}
    request = predict_request(inputs, "log_prob")
    request.output_filter.append("pair")
    assert list(prediction.Predict(request, timeout=20).outputs) == ["pair"]


X = np.ones(2, np.float32)


@pytest.mark.parametrize(
    ("request_", "code", "part"),
    [
        (predict_pb2.PredictRequest(), "INVALID_ARGUMENT", "Missing ModelSpec"),
        (predict_request({"x": X}, name="foo"), "NOT_FOUND", "Latest(foo)"),
        (predict_request({"x": X}, version={"value": 7}), "NOT_FOUND", "Specific(toy, 7)"),
        (predict_request({"x": X}, version_label="stable"), "INVALID_ARGUMENT", "stable"),
        (predict_request({"x": X}, "nope"), "FAILED_PRECONDITION", "dtypes, echo, log_prob, serving_default, total"),
        (predict_request({}), "INVALID_ARGUMENT", "Missing but required: {x}"),
        (predict_request({"x": X, "z": X}), "INVALID_ARGUMENT", "Sent extra: {z}"),
        (predict_request({"z": X}), "INVALID_ARGUMENT", "Inputs are {x}"),
        (predict_request({"x": X.astype(np.int32)}), "INVALID_ARGUMENT", "expecting float32"),
        (predict_request({"x": X[None]}), "INVALID_ARGUMENT", "expecting [-1]"),
        (
            predict_request({"x": X[None], "num_samples": np.int32([-1]), "seed": np.int64([0])}, "log_prob"),
            "INVALID_ARGUMENT",
            "num_samples must not be negative",
        ),
        (
            predict_pb2.PredictRequest(model_spec={"name": "toy"}, inputs={"x": {"dtype": 1, "tensor_content": b"1"}}),
            "INVALID_ARGUMENT",
            "tensor parsing error: x",
        ),
        (
            predict_pb2.PredictRequest(model_spec={"name": "toy"}, inputs={"x": {"dtype": 999}}),
            "INVALID_ARGUMENT",
            "tensor parsing error: x",
        ),
        (
            predict_pb2.PredictRequest(
                model_spec={"name": "toy"}, inputs={"x": tf.make_tensor_proto(X)}, output_filter=["nope"]
            ),
            "INVALID_ARGUMENT",
            "expecting some of {y}",
        ),
        (predict_request({"x": np.ones(2**19, np.float32)}), "RESOURCE_EXHAUSTED", "larger than max"),
    ],
)
def test_predict_errors(prediction, request_, code, part):
    with pytest.raises(grpc.RpcError) as caught:
        prediction.Predict(request_, timeout=20)
    assert caught.value.code().name == code
    assert part in caught.value.details()
    assert list(prediction.Predict(predict_request({"x": X}), timeout=20).outputs["y"].float_val) == [2.5, 2.5]


def test_metadata(prediction):
    request = get_model_metadata_pb2.GetModelMetadataRequest(model_spec={"name": "toy"})
    request.metadata_field.extend(2 * ["signature_def"])  # Once more says nothing new.
    response = prediction.GetModelMetadata(request, timeout=20)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    assert signatures.signature_def["log_prob"].inputs["seed"].dtype == tf.int64.as_datatype_enum
    assert response.model_spec.version.value == 1


@pytest.mark.parametrize(
    ("name", "fields", "code"),
    [("toy", [], "INVALID_ARGUMENT"), ("toy", ["nope"], "INVALID_ARGUMENT"), ("foo", ["signature_def"], "NOT_FOUND")],
)
def test_metadata_errors(prediction, name, fields, code):
    request = get_model_metadata_pb2.GetModelMetadataRequest(model_spec={"name": name}, metadata_field=fields)
    with pytest.raises(grpc.RpcError) as caught:
        prediction.GetModelMetadata(request, timeout=20)
    assert caught.value.code().name == code


def test_status(models):
    request = get_model_status_pb2.GetModelStatusRequest(model_spec={"name": "toy"})
    (status,) = models.GetModelStatus(request, timeout=20).model_version_status
    assert (status.version, status.state) == (1, get_model_status_pb2.ModelVersionStatus.AVAILABLE)
    for spec, code in (({"name": "foo"}, "NOT_FOUND"), ({"name": "toy", "version": {"value": 7}}, "NOT_FOUND")):
        with pytest.raises(grpc.RpcError) as caught:
            models.GetModelStatus(get_model_status_pb2.GetModelStatusRequest(model_spec=spec), timeout=20)
        assert caught.value.code().name == code


def test_what_is_not_there_is_unimplemented(prediction):
    with pytest.raises(grpc.RpcError) as caught:
        prediction.Classify(classification_pb2.ClassificationRequest(model_spec={"name": "toy"}), timeout=20)
    assert caught.value.code().name == "UNIMPLEMENTED"
    assert "PredictionService/Classify is not implemented by this server" in caught.value.details()


def test_one_number_does_not_stand_for_more_than_a_request_holds(prediction):
    request = predict_pb2.PredictRequest(model_spec={"name": "toy"})
    request.inputs["x"].dtype = tf.float32.as_datatype_enum
    request.inputs["x"].tensor_shape.dim.add(size=10**12)
    request.inputs["x"].float_val.append(4.0)
    with pytest.raises(grpc.RpcError) as caught:
        prediction.Predict(request, timeout=20)
    assert caught.value.code().name == "INVALID_ARGUMENT"
    assert "input 'x' takes 4000000000000 bytes, more than the" in caught.value.details()


def test_inputs_that_nobody_asked_for_are_not_unpacked(prediction):
    request = predict_pb2.PredictRequest(model_spec={"name": "toy"})
    request.inputs["other"].dtype = tf.float32.as_datatype_enum
    request.inputs["other"].tensor_shape.dim.add(size=10**12)  # More than a request may hold: not even looked at.
    request.inputs["other"].float_val.append(4.0)
    with pytest.raises(grpc.RpcError) as caught:
        prediction.Predict(request, timeout=20)
    assert caught.value.code().name == "INVALID_ARGUMENT"
    assert "Sent extra: {other}. Missing but required: {" in caught.value.details()


@pytest.mark.parametrize("letter", ["n", "é", "模"])
def test_a_long_name_does_not_hide_the_error(prediction, letter):
    with pytest.raises(grpc.RpcError) as caught:
        prediction.Predict(predict_request({"x": np.zeros(1, np.float32)}, 20_000 * letter), timeout=20)
    assert caught.value.code().name == "FAILED_PRECONDITION"
