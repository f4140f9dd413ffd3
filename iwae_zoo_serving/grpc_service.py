"""TF Serving's gRPC services over a `Model`, by its own generated stubs."""

import contextlib
import functools
import math

import numpy as np
import tensorflow as tf
from absl import logging
from google.protobuf.message import DecodeError
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from iwae_zoo_serving.errors import ServingError, grpc, invalid

__all__ = ["ModelService", "PredictionService", "serve"]

# Bytes of an error: it travels beside the answer, three characters for a byte, where gRPC allows for 8 KB.
_LONGEST = 2000
_FIELDS = {"float32": "float_val", "float64": "double_val", "int64": "int64_val", "bool": "bool_val"}
_FIELDS |= {"uint32": "uint32_val", "uint64": "uint64_val", "object": "string_val"}
_FIELDS |= dict.fromkeys(("int8", "uint8", "int16", "int32"), "int_val")


def _answers(method):
    """Has a service's method end in a gRPC status instead of an exception, which gRPC would show as UNKNOWN."""

    @functools.wraps(method)
    def call(self, request, context):
        if not context.is_active():  # While it waited for its turn.
            logging.warning("%s: the client hung up", method.__name__)
            context.abort(grpc.StatusCode.CANCELLED, "")
        try:
            if not request.HasField("model_spec"):
                raise invalid("Missing ModelSpec")
            answer = method(self, request)
            if not context.is_active():
                logging.warning("%s: the client hung up", method.__name__)
            return answer
        except ServingError as error:
            context.abort(error.code, _shortened(str(error)))
        except Exception as error:
            logging.exception("%s failed", method.__name__)
            context.abort(grpc.StatusCode.INTERNAL, _shortened(f"{type(error).__name__}: {error}"))

    return call


def _shortened(text):
    return text.encode(errors="replace")[:_LONGEST].decode(errors="ignore")


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Predict and GetModelMetadata; the rest is UNIMPLEMENTED.

    Args:
      model: `Model`.
      max_body_bytes: what a tensor may take: one number in a message can stand for any number of the same.
    """

    def __init__(self, model, max_body_bytes):
        self._model = model
        self._max_bytes = max_body_bytes

    @_answers
    def Predict(self, request):
        """Runs a signature of the version asked for."""
        spec = request.model_spec
        servable = self._model.servable(spec)
        # Before a tensor is unpacked: one number in a message can stand for any number of the same.
        servable.check_names(spec.signature_name, request.inputs)
        inputs = {name: _to_array(name, proto, self._max_bytes) for name, proto in request.inputs.items()}
        outputs = servable.predict(spec.signature_name, inputs, request.output_filter)
        return predict_pb2.PredictResponse(
            model_spec=self._model.served_spec(servable, spec.signature_name or "serving_default"),
            outputs={name: _to_proto(array) for name, array in outputs.items()},
        )

    @_answers
    def GetModelMetadata(self, request):
        """The signatures of the version asked for."""
        if set(request.metadata_field) != {"signature_def"}:
            fields = list(request.metadata_field)
            raise invalid(f"metadata_field {fields} is not supported, expecting ['signature_def']")
        spec, signatures = self._model.metadata(request.model_spec)
        response = get_model_metadata_pb2.GetModelMetadataResponse(model_spec=spec)
        response.metadata["signature_def"].Pack(signatures)
        return response


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """GetModelStatus; reloading a config is UNIMPLEMENTED."""

    def __init__(self, model):
        self._model = model

    @_answers
    def GetModelStatus(self, request):
        """The state of one version, or of all."""
        return self._model.status(request.model_spec)


class _Reading(grpc.ServerInterceptor):
    """Says in one line that a message cannot be read, or not be answered, where gRPC would print a traceback."""

    def intercept_service(self, continuation, handler_call_details):
        handler = continuation(handler_call_details)
        if handler is None or handler.unary_unary is None:
            return handler

        def read(message):
            try:
                return handler.request_deserializer(message)
            except DecodeError as error:
                logging.warning("%s: %s", handler_call_details.method, error)
                return None  # By which gRPC knows that it failed; the client gets INTERNAL.

        def answer(request, context):
            try:
                return handler.unary_unary(request, context)
            except NotImplementedError:
                method = handler_call_details.method
                return context.abort(grpc.StatusCode.UNIMPLEMENTED, f"{method} is not implemented by this server")

        return grpc.unary_unary_rpc_method_handler(
            answer, request_deserializer=read, response_serializer=handler.response_serializer
        )


@contextlib.contextmanager
def serve(model, host, port, pool, max_body_bytes):
    """Answers gRPC while the context lasts.

    Args:
      model: `Model`.
      host: address to listen on.
      port: int, 0 for a free one.
      pool: `ThreadPoolExecutor` in which requests run.
      max_body_bytes: size of the largest request; a larger one is RESOURCE_EXHAUSTED.

    Yields:
      The port.

    Raises:
      OSError: if the port cannot be had.
    """
    # Without so_reuseport=0, two servers would share one port, and each get some of the requests.
    options = [("grpc.max_receive_message_length", max_body_bytes), ("grpc.max_send_message_length", -1)]
    server = grpc.server(pool, options=[*options, ("grpc.so_reuseport", 0)], interceptors=[_Reading()])
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        PredictionService(model, max_body_bytes), server
    )
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(model), server)
    try:
        port = server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    except RuntimeError as error:
        raise OSError(f"gRPC cannot listen on {host}:{port}: {error}") from None
    server.start()
    try:
        yield port
    finally:
        server.stop(5).wait()


def _to_array(name, proto, max_bytes):
    try:
        size = math.prod(dim.size for dim in proto.tensor_shape.dim) * tf.as_dtype(proto.dtype).size
        if size > max_bytes:
            raise invalid(f"input '{name}' takes {size} bytes, more than the {max_bytes} of a request")
        return np.asarray(tf.make_ndarray(proto))
    except ServingError:
        raise
    except Exception as error:  # A client's bytes may break it in many ways, and all are the client's fault.
        raise invalid(f"tensor parsing error: {name}: {error}") from error


def _to_proto(array):
    """As TF Serving does, with values in the dtype's own field: many clients read `float_val` and nothing else."""
    field = _FIELDS.get(array.dtype.name)
    if field is None:
        return tf.make_tensor_proto(array)
    proto = tensor_pb2.TensorProto(dtype=tf.as_dtype(array.dtype).as_datatype_enum)
    proto.tensor_shape.CopyFrom(tf.TensorShape(array.shape).as_proto())
    getattr(proto, field).extend(array.ravel().tolist())
    return proto
