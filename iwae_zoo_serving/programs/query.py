"""Asks a served model about every row of a file, and writes a table of its answers.

python export/query_main.py --input=x.npy --model_name=digits --output=results.csv
"""

import contextlib
import functools
import json
import pathlib
import tokenize
import zipfile

import numpy as np
import tqdm
from absl import flags

import iwae_zoo_console as console
from iwae_zoo_serving import client, errors

_FLAGS = console.flag_values()
_SERVER = flags.DEFINE_string(
    "server", None, "host:port. Default: 127.0.0.1, and 8501 for rest or 8500 for grpc.", flag_values=_FLAGS
)
_PROTOCOL = flags.DEFINE_enum("protocol", "rest", ["rest", "grpc"], "How to ask.", flag_values=_FLAGS)
_MODEL_NAME = flags.DEFINE_string("model_name", "default", "Name of the model on the server.", flag_values=_FLAGS)
_SIGNATURE_NAME = flags.DEFINE_string("signature_name", "log_prob", "What to ask.", flag_values=_FLAGS)
flags.DEFINE_alias("signature", "signature_name", flag_values=_FLAGS)
_INPUT = flags.DEFINE_string("input", None, "A .npy file with an array of rows.", flag_values=_FLAGS)
_CSV = flags.DEFINE_string(
    "csv", None, "Instead of --input: a .csv or .parquet table; needs --model_card.", flag_values=_FLAGS
)
_MODEL_CARD = flags.DEFINE_string(
    "model_card", None, "The model_card.json in the folder of the served model's version.", flag_values=_FLAGS
)
_DATASET = flags.DEFINE_string(
    "dataset", None, "Instead of --input: the test set of a data set, as in train_main.py.", flag_values=_FLAGS
)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "As in train_main.py.", flag_values=_FLAGS)
_KIND = flags.DEFINE_string("kind", None, "As in train_main.py.", flag_values=_FLAGS)
_BINARIZE = flags.DEFINE_string("binarize", None, "As in train_main.py.", flag_values=_FLAGS)
_NUM_SAMPLES = flags.DEFINE_integer(
    "num_samples", 1000, "Particles per row, if the signature takes a number.", 1, 2**31 - 1, flag_values=_FLAGS
)
_SEED = flags.DEFINE_integer(
    "seed", 0, "Row i gets the seed i 2^32 plus this, if the signature takes one.", 0, 2**31 - 1, flag_values=_FLAGS
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "Rows per request.", 1, flag_values=_FLAGS)
_CONCURRENCY = flags.DEFINE_integer("concurrency", 2, "Requests under way at once.", 1, flag_values=_FLAGS)
_TIMEOUT = flags.DEFINE_float("timeout", 60, "Seconds to wait for one request.", 0.001, 1e6, flag_values=_FLAGS)
_RETRIES = flags.DEFINE_integer(
    "retries", 5, "Further attempts at a request while the server is unavailable.", 0, flag_values=_FLAGS
)
_OUTPUT = flags.DEFINE_string(
    "output", "results.csv", "Where the answers go: a .csv or a .npz file.", flag_values=_FLAGS
)


def _columns():
    """The columns that the served model was trained on, from its card."""
    with console.quiet():  # Takes seconds, with all that it needs.
        from iwae_zoo.columns import Column

    try:
        card = json.loads(pathlib.Path(str(_MODEL_CARD.value)).read_text())
    except ValueError:
        card = None
    if not isinstance(card, dict) or not isinstance(card.get("input"), dict):
        raise ValueError(f"{_MODEL_CARD.value} is no model card, as an exported model has one.")
    columns = card["input"].get("columns")
    if not columns:
        raise ValueError(f"{_MODEL_CARD.value} is of a model that was not trained on a table: use --input.")
    return [Column(**column) for column in columns]


def _rows():
    if _CSV.value:
        columns = _columns()
        from iwae_zoo.data import tables

        names, cells = tables.read(_CSV.value)
        return tables.rows(columns, names, cells, _CSV.value)
    if _DATASET.value:
        with console.quiet():
            from iwae_zoo import data  # Takes seconds, with all that it needs; a file does without.

        return data.load_rows(None, _DATASET.value, _DATA_DIR.value, kind=_KIND.value, binarize=_BINARIZE.value)
    try:
        x = np.load(str(_INPUT.value), allow_pickle=False)
    except (ValueError, EOFError, zipfile.BadZipFile, tokenize.TokenError) as error:
        raise ValueError(f"{_INPUT.value} cannot be read as .npy: {error} A table is given with --csv.") from error
    if not isinstance(x, np.ndarray) or x.ndim == 0:
        raise ValueError(f"{_INPUT.value} holds no array of rows.")
    if x.dtype.kind not in "buifSU":  # Of what is sent, text and numbers can be what a signature takes.
        raise ValueError(f"{_INPUT.value} must hold real numbers: received an array of {x.dtype}.")
    return x


def _server():
    ask, port = {"rest": (client.RestClient, 8501), "grpc": (client.GrpcClient, 8500)}[_PROTOCOL.value]
    with console.quiet():  # For gRPC it imports TensorFlow.
        return ask(_SERVER.value or f"127.0.0.1:{port}", _MODEL_NAME.value, _TIMEOUT.value)


def _fills_table():
    """Whether a table is asked for that is written as it was read, with its holes filled."""
    return _CSV.value and _SIGNATURE_NAME.value == "impute"


def _write(output, outputs):
    """The answers of a table's imputation as the table with its holes filled; others as columns of their own."""
    if not _fills_table() or output.suffix == ".npz":
        client.write(output, outputs)
        return
    from iwae_zoo._files import whole
    from iwae_zoo.data import filled
    from iwae_zoo.estimation import imputation

    outputs = {**outputs, "draws": outputs["draw"][np.newaxis]}
    answer = imputation.Imputation(**{name: outputs[name] for name in imputation.Imputation._fields})
    columns, row = _columns(), 0
    with whole(output) as partial, filled.writer(partial, columns, num_imputations=1) as write:
        for part in filled.parts(_CSV.value, columns):
            write(part, answer.rows(row, row + len(part.x)))
            row += len(part.x)


def main(name):
    """Asks and writes; the exit status is not 0 if any row has no answer."""
    if sum(bool(flag.value) for flag in (_INPUT, _DATASET, _CSV)) != 1:
        console.fail(name, "one of --input=x.npy, --dataset=digits and --csv=table.csv is needed.")
    if bool(_CSV.value) != bool(_MODEL_CARD.value):
        console.fail(name, "--csv and --model_card go together: the card says what the table's columns are.")
    output = pathlib.Path(_OUTPUT.value)
    ending = ".parquet" if _fills_table() and not str(_CSV.value).endswith(".csv") else ".csv"
    if output.suffix not in (ending, ".npz"):
        console.fail(name, f"--output={output} must end in {ending} or .npz.")
    try:
        console.check_writable(output)
        x = _rows()
        with (
            contextlib.closing(_server()) as server,
            tqdm.tqdm(total=len(x), unit="row", disable=None) as bar,
        ):
            outputs = client.query(
                server,
                x,
                _SIGNATURE_NAME.value,
                num_samples=_NUM_SAMPLES.value,
                seed=_SEED.value,
                batch_size=_BATCH_SIZE.value,
                concurrency=_CONCURRENCY.value,
                retries=_RETRIES.value,
                progress=bar.update,
            )
        _write(output, outputs)
    except (errors.ServingError, ValueError, OSError, EOFError, RuntimeError, MemoryError) as error:
        console.fail(name, error)
    print(f"{len(x)} rows of {', '.join(outputs)} in {output}")


run = functools.partial(console.run, main, _FLAGS, __doc__)
