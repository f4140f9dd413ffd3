"""Serves an exported model on this machine, by TF Serving's REST and gRPC interfaces but without its binary.

python export/serve_main.py --model_base_path=models/digits --model_name=digits
curl -d '{"instances": [...]}' http://127.0.0.1:8501/v1/models/digits:predict
"""

import functools
import signal
import threading

import tensorflow as tf
from absl import flags, logging

import iwae_zoo_console as console
from iwae_zoo_serving import server

_FLAGS = console.flag_values()
_MODEL_BASE_PATH = flags.DEFINE_string(
    "model_base_path",
    None,
    "Folder with one SavedModel per version: models/digits for models/digits/1.",
    required=True,
    flag_values=_FLAGS,
)
_MODEL_NAME = flags.DEFINE_string(
    "model_name", "default", "Name of the model in the addresses of requests.", flag_values=_FLAGS
)
_HOST = flags.DEFINE_string(
    "host",
    "127.0.0.1",
    "Address to listen on. Nothing is authenticated: keep to the loopback, or behind a proxy.",
    flag_values=_FLAGS,
)
_PORT = flags.DEFINE_integer("port", 8500, "Port of gRPC; 0 chooses a free one.", 0, 65535, flag_values=_FLAGS)
_REST_API_PORT = flags.DEFINE_integer(
    "rest_api_port", 8501, "Port of REST; 0 chooses a free one.", 0, 65535, flag_values=_FLAGS
)
_MAX_BODY_MB = flags.DEFINE_float(
    "max_body_mb", 64, "Size of the largest request, in 2^20 bytes.", 0.001, 2047, flag_values=_FLAGS
)
_POLL_SECONDS = flags.DEFINE_float(
    "poll_seconds", 1, "How often to look for a new version.", 0.01, 1e6, flag_values=_FLAGS
)


def main(name):
    """Serves until SIGINT or SIGTERM, and ends at once on a second one; the exit status is not 0 if it could not."""
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)  # Which version is served, and who hung up.
    # Its ten bits of mantissa are too few for log p(x); TensorFlow switches it on.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    stop = threading.Event()

    def end(*_):
        stop.set()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)  # Who asks again does not wait for what is still computed.

    try:
        with server.serve(
            _MODEL_BASE_PATH.value,
            _MODEL_NAME.value,
            host=_HOST.value,
            port=_PORT.value,
            rest_api_port=_REST_API_PORT.value,
            max_body_mb=_MAX_BODY_MB.value,
            poll_seconds=_POLL_SECONDS.value,
        ) as ports:
            for number in (signal.SIGINT, signal.SIGTERM):  # While the model loads they end the program as always.
                signal.signal(number, end)
            print(f"gRPC {_HOST.value}:{ports.grpc}")
            print(f"REST http://{_HOST.value}:{ports.rest}/v1/models/{_MODEL_NAME.value}", flush=True)
            stop.wait()
    except (ValueError, OSError) as error:
        console.fail(name, error)


run = functools.partial(console.run, main, _FLAGS, __doc__)
