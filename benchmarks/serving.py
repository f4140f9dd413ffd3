"""What the local server adds to the model's own time.

    python benchmarks/serving.py

An untrained 784-200-200-50 model is exported and served by `export/serve_main.py` in a process of its own. Direct calls
of the SavedModel in this process take turns with the same requests over gRPC and REST.
"""

import contextlib
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import numpy as np
import tensorflow as tf
import urllib3
from absl import app, flags

from export.serving import client
from iwae_zoo import presets, saved_model

ROOT = pathlib.Path(__file__).resolve().parents[1]
_NUM_SAMPLES = flags.DEFINE_integer("num_samples", 1000, "Particles per row.")
_BATCH_SIZES = flags.DEFINE_list("batch_sizes", ["1", "32"], "Rows of a request.")
_REPEATS = flags.DEFINE_integer("repeats", 15, "Turns; the medians over them are printed.")
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write the results to.")


@contextlib.contextmanager
def served(directory):
    """Ports of gRPC and REST of a server process."""
    flags_ = [f"--model_base_path={directory}", "--model_name=model", "--port=0", "--rest_api_port=0"]
    command = [sys.executable, str(ROOT / "export" / "serve_main.py"), *flags_]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            lines = [process.stdout.readline() for _ in range(2)]  # type: ignore[union-attr]
            yield tuple(re.search(r":(\d+)(/|\s*$)", line).group(1) for line in lines)  # type: ignore[union-attr]
        finally:
            process.terminate()


def main(_):
    """Prints latencies, throughput and the overhead."""
    model = presets.build("rainforth", data_shape=(28, 28, 1))
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        count = _NUM_SAMPLES.value
        path = saved_model.export(model, directory, num_samples=count, max_num_samples=count)
        signatures = tf.saved_model.load(str(path)).signatures
        with served(directory) as (grpc_port, rest_port):
            grpc = client.GrpcClient(f"127.0.0.1:{grpc_port}", "model")
            url = f"http://127.0.0.1:{rest_port}/v1/models/model:predict"
            pool = urllib3.PoolManager()

            def direct(name, inputs):
                answer = signatures[name](**{key: tf.constant(value) for key, value in inputs.items()})
                return {key: value.numpy() for key, value in answer.items()}

            def rest(name, inputs):
                del name, inputs
                if pool.request("POST", url, body=body).status != 200:
                    raise RuntimeError("The server has refused a request of the benchmark.")

            ways = {"direct": direct, "gRPC": grpc.predict, "REST": rest}
            for name in ("serving_default", "log_prob"):
                for size in map(int, _BATCH_SIZES.value):
                    x = (np.random.default_rng(0).random((size, 28, 28, 1)) < 0.2).astype(np.float32)
                    extra = {"num_samples": np.full(size, count, np.int32), "seed": np.arange(size, dtype=np.int64)}
                    inputs = {"x": x, **(extra if name == "log_prob" else {})}
                    # Written once: what a client spends on writing JSON is not the server's.
                    columns = {key: np.asarray(value).tolist() for key, value in inputs.items()}
                    body = json.dumps({"signature_name": name, "inputs": columns})
                    seconds: dict[str, list[float]] = {way: [] for way in ways}
                    for turn in range(_REPEATS.value + 2):
                        for way, ask in ways.items():
                            start = time.perf_counter()
                            ask(name, inputs)
                            if turn >= 2:  # The first turns connect and warm up.
                                seconds[way].append(time.perf_counter() - start)
                    for way, times in seconds.items():
                        ratio = float(np.median(np.divide(times, seconds["direct"])))
                        median = float(np.median(times))
                        rows.append({"signature": name, "batch": size, "way": way, "ms": 1e3 * median, "ratio": ratio})
                        rows[-1]["rows_per_second"] = size / median
    print(f"{count} particles per row, median of {_REPEATS.value} turns")
    print(f"{'signature':18}{'batch':>6} {'way':8}{'ms':>9}{'rows/s':>9}{'/ direct':>10}")
    for row in rows:
        text = f"{row['signature']:18}{row['batch']:6} {row['way']:8}{row['ms']:9.2f}"
        print(text + f"{row['rows_per_second']:9.1f}{row['ratio']:10.3f}")
    if _OUTPUT.value:
        with open(_OUTPUT.value, "w") as file:
            json.dump(rows, file, indent=2)


if __name__ == "__main__":
    app.run(main)
