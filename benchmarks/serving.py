"""What the local server adds to the model's own time.

    python benchmarks/serving.py

An untrained 784-200-200-50 model is exported and served by `export/serve_main.py` in a process of its own. Direct calls
of the SavedModel in this process take turns with the same requests over gRPC and REST.
"""

import functools
import json
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import numpy as np
from absl import flags

from iwae_zoo_console import quiet

with quiet():
    import tensorflow as tf
    import urllib3

    from benchmarks import report, workload
    from benchmarks.server import served
    from iwae_zoo import figures, saved_model
    from iwae_zoo_serving import client

_NUM_SAMPLES = flags.DEFINE_integer("num_samples", 1000, "Particles per row.", lower_bound=1)
_BATCH_SIZES = flags.DEFINE_list("batch_sizes", ["1", "32"], "Rows of a request.")
flags.register_validator(_BATCH_SIZES, bool, "at least one is needed")
_REPEATS = flags.DEFINE_integer("repeats", 15, "Turns; the medians over them are printed.", lower_bound=1)
flags.adopt_module_key_flags(report)


def main(_):
    """Prints latencies, throughput and the overhead."""
    sizes, rows = report.whole_numbers(_BATCH_SIZES), []
    with tempfile.TemporaryDirectory() as directory:
        count = _NUM_SAMPLES.value
        path = saved_model.export(workload.build("iwae"), directory, num_samples=count, max_num_samples=count)
        signatures = tf.saved_model.load(str(path)).signatures
        with served(directory) as (server, grpc_port, rest_port):
            grpc = client.GrpcClient(f"127.0.0.1:{grpc_port}", "model")
            url = f"http://127.0.0.1:{rest_port}/v1/models/model:predict"
            pool = urllib3.PoolManager()

            def direct(name, inputs):
                answer = signatures[name](**{key: tf.constant(value) for key, value in inputs.items()})
                return {key: value.numpy() for key, value in answer.items()}

            def rest(body):
                if pool.request("POST", url, body=body).status != 200:
                    raise RuntimeError("The server has refused a request of the benchmark.")

            for name in ("serving_default", "log_prob"):
                for size in sizes:
                    extra = {"num_samples": np.full(size, count, np.int32), "seed": np.arange(size, dtype=np.int64)}
                    inputs = {"x": workload.images(size).numpy(), **(extra if name == "log_prob" else {})}
                    # Written once: what a client spends on writing JSON is not the server's.
                    columns = {key: np.asarray(value).tolist() for key, value in inputs.items()}
                    ways = {
                        "direct": functools.partial(direct, name, inputs),
                        "gRPC": functools.partial(grpc.predict, name, inputs),
                        "REST": functools.partial(rest, json.dumps({"signature_name": name, "inputs": columns})),
                    }
                    turns = report.take_turns(ways, _REPEATS.value, helpers=[server])
                    for way in ways:
                        row = {"signature": name, "batch": size, "way": way, "ms": turns.milliseconds(way)}
                        row |= {"ratio": turns.ratio(way, "direct"), "rows_per_second": 1e3 * size / row["ms"]}
                        rows.append({**row, "load": turns.load})
    print(f"{count} particles per row, last: {turns}")
    print(f"{'signature':18}{'batch':>6} {'way':8}{'ms':>9}{'rows/s':>9}{'/ direct':>10}")
    for row in rows:
        text = f"{row['signature']:18}{row['batch']:6} {row['way']:8}{row['ms']:9.2f}"
        print(text + f"{row['rows_per_second']:9.1f}{row['ratio']:10.3f}")
    ratios = {
        f"{row['signature']}, batch {row['batch']}, {row['way']}": row["ratio"]
        for row in rows
        if row["way"] != "direct"
    }
    title = f"Local server, {count} particles per row"
    report.write({"rows": rows}, figures.ratio_bars(ratios, title, "time / time of a direct call"))


if __name__ == "__main__":
    report.run(main)
