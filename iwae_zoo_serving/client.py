"""Asking a server, TF Serving or the local one, about many rows, and writing down its answers."""

import concurrent.futures
import csv
import os
import pathlib
import random
import time
import urllib.parse

import numpy as np
import urllib3
from google.protobuf import json_format

from iwae_zoo_serving import json_tensors
from iwae_zoo_serving.errors import ServingError, code_of, grpc, invalid

__all__ = ["GrpcClient", "RestClient", "query", "write"]

_NO_CONNECTION = urllib3.exceptions.NewConnectionError


class _Client:
    """What does not depend on the protocol."""

    _signatures = None

    def signature(self, name):
        """Names and dtypes (`DT_FLOAT`) of a signature's inputs, and of its outputs: two dicts."""
        self._signatures = self._signatures or self.signatures()
        if name not in self._signatures:
            known = ", ".join(sorted(own for own in self._signatures if not own.startswith("__")))
            raise invalid(f"no signature '{name}', the model has {known}")
        sides = (self._signatures[name].get(side, {}) for side in ("inputs", "outputs"))
        return tuple({key: info["dtype"] for key, info in sorted(side.items())} for side in sides)

    def signatures(self):
        """The model's signatures, as the dict that a `SignatureDefMap` is in JSON."""
        raise NotImplementedError

    def close(self):
        """Closes the connections."""
        raise NotImplementedError


class RestClient(_Client):
    """Asks over HTTP.

    Args:
      server: "host:port".
      model_name: str.
      timeout: seconds for one attempt.
    """

    def __init__(self, server, model_name, timeout=60.0):
        self._url = f"http://{server}/v1/models/{urllib.parse.quote(model_name, safe='')}"
        self._pool = urllib3.PoolManager(maxsize=64, retries=False, timeout=timeout)

    def close(self):
        self._pool.clear()

    def predict(self, name, inputs):
        """Runs a signature: dict of arrays -> dict of arrays."""
        columns = {key: json_tensors.as_json(value) for key, value in inputs.items()}
        body = json_tensors.dumps({"signature_name": name, "inputs": columns})
        outputs = self._ask("POST", ":predict", "outputs", body)
        _, dtypes = self.signature(name)
        named = outputs if len(dtypes) > 1 else dict.fromkeys(dtypes, outputs)
        if not isinstance(named, dict) or named.keys() != dtypes.keys():
            raise _changed(name)
        return {key: json_tensors.parse_tensor(key, named[key], dtype) for key, dtype in dtypes.items()}

    def signatures(self):
        return self._ask("GET", "/metadata", "metadata")["signature_def"]["signature_def"]

    def _ask(self, method, path, key, body=None):
        try:
            response = self._pool.request(method, self._url + path, body=body)
        except urllib3.exceptions.HTTPError as error:
            code, text = grpc.StatusCode.UNAVAILABLE, "cannot be reached"
            # urllib3 counts a refused connection among the time-outs.
            if isinstance(error, urllib3.exceptions.TimeoutError) and not isinstance(error, _NO_CONNECTION):
                code, text = grpc.StatusCode.DEADLINE_EXCEEDED, "timed out"
            raise ServingError(code, f"{self._url} {text}: {error}") from None
        try:
            answer = json_tensors.loads(response.data)
        except ServingError:
            answer = {}
        if response.status != 200 or key not in answer:
            text = answer.get("error") or response.data[:200].decode(errors="replace")
            raise ServingError(code_of(response.status), f"HTTP {response.status}: {text}")
        return answer[key]


class GrpcClient(_Client):
    """As `RestClient`, over gRPC."""

    def __init__(self, server, model_name, timeout=60.0):
        # TensorFlow comes with these stubs, and takes seconds to import: REST does without.
        import tensorflow as tf
        from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2, prediction_service_pb2_grpc

        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self._channel = grpc.insecure_channel(server, options)
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._tf, self._metadata, self._predict = tf, get_model_metadata_pb2, predict_pb2
        self._spec, self._timeout = {"name": model_name}, timeout

    def close(self):
        self._channel.close()

    def predict(self, name, inputs):
        """Runs a signature: dict of arrays -> dict of arrays."""
        protos = {key: self._tf.make_tensor_proto(value) for key, value in inputs.items()}
        request = self._predict.PredictRequest(model_spec=self._spec | {"signature_name": name}, inputs=protos)
        outputs = self._ask(self._stub.Predict, request).outputs
        return {key: self._tf.make_ndarray(outputs[key]) for key in sorted(outputs)}  # A message has them in any order.

    def signatures(self):
        request = self._metadata.GetModelMetadataRequest(model_spec=self._spec, metadata_field=["signature_def"])
        signatures = self._metadata.SignatureDefMap()
        self._ask(self._stub.GetModelMetadata, request).metadata["signature_def"].Unpack(signatures)
        return json_format.MessageToDict(signatures, preserving_proto_field_name=True)["signature_def"]

    def _ask(self, method, request):
        try:
            return method(request, timeout=self._timeout)
        except grpc.RpcError as error:
            raise ServingError(error.code(), f"{error.code().name}: {error.details()}") from None


def _changed(signature_name):
    text = f"signature '{signature_name}' has other outputs than before: another model is served meanwhile. Ask again"
    return ServingError(grpc.StatusCode.ABORTED, text)


def query(
    client,
    x,
    signature_name="log_prob",
    *,
    num_samples=1000,
    seed=0,
    batch_size=32,
    concurrency=2,
    retries=5,
    progress=lambda rows: None,
):
    """Runs a signature on every row.

    Row i gets the seed i 2^32 + `seed`, so that its answer does not depend on batches and is that of
    `iwae_zoo.likelihood` for the same seed. Of `num_samples` and `seed`, what
    the signature does not take is not sent.

    Args:
      client: `RestClient` or `GrpcClient`.
      x: array [N, ...].
      signature_name: str.
      num_samples: int, sent with each row.
      seed: int.
      batch_size: rows per request.
      concurrency: requests under way at once.
      retries: further attempts while the server is UNAVAILABLE (HTTP 503, or no connection); no other fault is retried.
      progress: called with the number of rows of each batch that was answered, in any order.

    Returns:
      dict of name and array [N, ...], in the order of `x`.

    Raises:
      ServingError: if a request fails for good, or x does not suit the signature.
    """
    wanted, _ = _retry(lambda: client.signature(signature_name), retries)
    names = sorted(set(wanted) - {"num_samples", "seed"})
    if len(names) != 1 or len(x) == 0:
        text = f"{len(x)} rows for the inputs {names} of signature '{signature_name}'"
        raise invalid(f"{text}: expecting rows, and one such input")

    def ask(start):
        rows = np.arange(start, min(start + batch_size, len(x)), dtype=np.int64)
        inputs = {names[0]: x[rows[0] : rows[-1] + 1]}
        inputs |= {"num_samples": np.full(len(rows), num_samples, np.int32), "seed": (rows << 32) + seed}
        typed = {key: json_tensors.cast(key, inputs[key], dtype) for key, dtype in wanted.items()}
        outputs = _retry(lambda: client.predict(signature_name, typed), retries)
        if others := [name for name, array in outputs.items() if array.shape[:1] != rows.shape]:
            raise invalid(f"outputs {others} of signature '{signature_name}' have no entry per row")
        progress(len(rows))
        return outputs

    with concurrent.futures.ThreadPoolExecutor(concurrency) as pool:
        futures = [pool.submit(ask, start) for start in range(0, len(x), batch_size)]
        try:
            for future in concurrent.futures.as_completed(futures):
                future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    batches = [future.result() for future in futures]
    if any(batch.keys() != batches[0].keys() for batch in batches):
        raise _changed(signature_name)
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def write(path, outputs):
    """Writes answers, whole or not at all.

    Args:
      path: of a .npz, with the arrays, or a .csv, with a line per row and a column per number.
      outputs: dict of name and array [N, ...].

    Raises:
      ValueError: if the path ends otherwise.
      OSError: if it cannot be written.
    """
    path = pathlib.Path(path)
    if path.suffix not in (".csv", ".npz"):
        raise ValueError(f"output={str(path)!r} must end in .csv or .npz")
    write_to = _write_npz if path.suffix == ".npz" else _write_csv
    target = path.resolve()  # A link stays.
    if target.exists() and not target.is_file():  # So does a pipe.
        write_to(target, outputs)
        return
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        write_to(temporary, outputs)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _write_npz(path, outputs):
    with path.open("wb") as file:
        np.savez(
            file, **{name: value.astype("S") if value.dtype == object else value for name, value in outputs.items()}
        )


def _write_csv(path, outputs):
    columns = {"row": range(len(next(iter(outputs.values()))))}
    for name, array in outputs.items():
        if array.dtype == object:
            array = np.vectorize(lambda leaf: leaf.decode(errors="replace"), otypes=[object])(array)
        flat = array.reshape(len(array), -1)
        names = [name] if array.ndim == 1 else [f"{name}_{i}" for i in range(flat.shape[1])]
        columns |= zip(names, json_tensors.shortest(flat.T), strict=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def _retry(call, retries):
    for attempt in range(retries + 1):
        try:
            return call()
        except ServingError as error:
            if error.code is not grpc.StatusCode.UNAVAILABLE or attempt == retries:
                raise
        # The jitter keeps the threads, and other clients, from coming back all at once.
        time.sleep(min(0.1 * 2 ** min(attempt, 10), 10) * random.uniform(0.5, 1.5))
