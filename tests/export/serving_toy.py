"""A model whose answers can be computed in the head, and plain HTTP to ask for them."""

import contextlib
import http.client
import json
import pathlib

import tensorflow as tf


class Toy(tf.Module):
    """x / 2 + offset, and signatures that try each form of a tensor."""

    def __init__(self, offset):
        super().__init__()
        self.offset = tf.Variable(offset)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def half_plus(self, x):
        return {"y": x * 0.5 + self.offset}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 2], tf.float32, name="x"),
            tf.TensorSpec([None], tf.int32, name="num_samples"),
            tf.TensorSpec([None], tf.int64, name="seed"),
        ]
    )
    def log_prob(self, x, num_samples, seed):
        positive = tf.debugging.assert_non_negative(num_samples, message="num_samples must not be negative")
        with tf.control_dependencies([positive]):
            return {
                "log_prob": tf.reduce_sum(x, axis=1) + tf.cast(seed // 2**32 + seed % 2**32, tf.float32),
                "num_samples": num_samples,
                "pair": x,
            }

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def echo(self, text):
        return {"text": text, "text_bytes": text}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], dtype, name=dtype.name)
            for dtype in (tf.bool, tf.int8, tf.uint8, tf.int64, tf.uint64, tf.float64)
        ]
    )
    def dtypes(self, bool, int8, uint8, int64, uint64, float64):
        return {"bool": bool, "int8": int8, "uint8": uint8, "int64": int64, "uint64": uint64, "float64": float64}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def total(self, x):
        return {"total": tf.reduce_sum(x), "x": x}


def save(base_path, version, offset=2.0):
    """Writes a version as the exporter does: elsewhere first, so that it appears whole."""
    toy = Toy(offset)
    names = {"log_prob": "log_prob", "echo": "echo", "dtypes": "dtypes", "total": "total"}
    signatures = {"serving_default": toy.half_plus} | {key: getattr(toy, name) for key, name in names.items()}
    temporary = pathlib.Path(base_path) / f".{version}"
    tf.saved_model.save(toy, str(temporary), signatures=signatures)
    temporary.rename(pathlib.Path(base_path) / str(version))


class Rest:
    """Plain HTTP, so that nothing of the client under test is trusted."""

    def __init__(self, port):
        self.port = port

    def raw(self, method, path, body=None):
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)) as connection:
            connection.request(method, path, body)
            response = connection.getresponse()
            return response.status, response.read().decode()

    def __call__(self, method, path, body=None):
        text = body if isinstance(body, str | bytes | None) else json.dumps(body)
        status, answer = self.raw(method, path, text)
        return status, json.loads(answer)

    def predict(self, body, model="toy"):
        return self("POST", f"/v1/models/{model}:predict", body)
