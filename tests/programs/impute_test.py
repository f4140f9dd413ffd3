"""A table with holes, as its user would train on it, fill it, and ask a server about it."""

import csv
import json

import keras
import numpy as np
import pyarrow
import pyarrow.csv
import pyarrow.parquet
import pytest
import tensorflow as tf
from faults import exhausted
from inprocess import call

from iwae_zoo import data, imputation, likelihood, saved_model
from iwae_zoo.model import memory
from iwae_zoo.programs import evaluate, impute, train, trained
from iwae_zoo_serving.programs import query

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:log p")]


def rows_of_people(count, seed):
    """Ages, incomes and towns that go together, with holes; an id that says nothing."""
    rng = np.random.default_rng(seed)
    for i, size in enumerate(rng.normal(size=count)):
        cells = [f"{20 + 5 * size + rng.normal():.2f}", str(rng.poisson(np.exp(2 + size / 2)))]
        cells.append(["Oslo", '"Rome, IT"', "Bonn"][int(np.clip(size + 1, 0, 2))])
        yield [f"p{i}", *(cell if rng.random() < 0.7 else "" for cell in cells)]


def write(path, rows, header="id,age,visits,town"):
    path.write_text("\n".join([header, *(",".join(row) for row in rows)]) + "\n")
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder with people.csv and a briefly trained run."""
    folder = tmp_path_factory.mktemp("tables")
    write(folder / "people.csv", rows_of_people(150, seed=0))
    flags = ["--dataset=people.csv", "--columns=id:ignore", "--objective=iwae", "--m=1", "--k=4", "--epochs=2"]
    flags += ["--hidden_sizes=8", "--latent_size=2", "--eval_samples=4", "--eval_method=importance", "--workdir=run"]
    result = call(train, *flags, cwd=folder)
    assert result.returncode == 0, result.stderr
    assert "columns id:ignore, age:positive, visits:count, town:categorical (3)" in result.stdout
    assert "of the training values missing, most in" in result.stdout
    return folder


@pytest.fixture(scope="module")
def model(run):
    return keras.saving.load_model(run / "run" / "model.keras")


@pytest.fixture(autouse=True)
def _loaded_once(model, run, monkeypatch):
    """The library answers from what the programs have traced."""
    path, load = str(run / "run" / "model.keras"), trained.load_model
    monkeypatch.setattr(trained, "load_model", lambda file, **options: model if file == path else load(file, **options))


def flags_of(run, source, target, *more):
    return [
        f"--model={run / 'run' / 'model.keras'}",
        f"--input={source}",
        f"--output={target}",
        "--num_samples=50",
        *more,
    ]


def test_filled(run, tmp_path):
    rows = list(rows_of_people(30, seed=1))
    source = write(tmp_path / "holes.csv", [[row[3], row[0], row[1], row[2]] for row in rows], "town,id,age,visits")
    flags = flags_of(run, source, "filled.csv", "--num_imputations=2", "--particle_chunk=auto")
    result = call(impute, *flags, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "30 rows in filled.csv; " in result.stdout and "not to be trusted" in result.stdout
    assert "--particle_chunk=50 had room" in result.stdout
    lines = (tmp_path / "filled.csv").read_text().splitlines()
    answers = list(csv.DictReader(lines))
    for line, answer, (_, age, visits, town) in zip(lines[1:], answers, rows, strict=True):
        assert not town or line.startswith(town + ",")
        assert answer["age"] == age or (not age and float(answer["age"]) > 0 and float(answer["age.stddev"]) > 0)
        assert visits or answer["visits.draw2"].isdigit()
        assert bool(town) == (answer["town.probability"] == "") and answer["town"] in ("Oslo", "Rome, IT", "Bonn")
        assert np.isfinite(float(answer["log_prob"])) and answer["trusted"] in ("true", "false")
    assert "--output=filled.npz" in call(impute, *flags_of(run, source, "filled.npz"), cwd=tmp_path).stderr


def test_memory_is_not_enough(run, model, tmp_path, monkeypatch):
    """What would fit counts the moments of each particle, and the flag that it names is there."""

    def available():
        return 2 * 2 * 10 * imputation.MOMENTS * memory.bytes_per_particle(model)

    monkeypatch.setattr(memory, "available", available)
    monkeypatch.setattr(imputation, "_rows_function", lambda *_: exhausted)
    source = write(tmp_path / "holes.csv", rows_of_people(3, seed=1))
    result = call(impute, *flags_of(run, source, "filled.csv", "--particle_chunk=40"), cwd=tmp_path)
    assert result.returncode != 0
    assert "2 rows with 40 particles each" in result.stderr and "(--particle_chunk=10) would fit" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["holes.csv"]


def test_nothing_half_written(run, tmp_path):
    """A cell of the last part that the model does not know: no file."""
    rows = [*rows_of_people(300, seed=2), ["p", "1", "2", "Lima"]]
    result = call(impute, *flags_of(run, write(tmp_path / "h.csv", rows), "filled.csv"), cwd=tmp_path)
    assert result.returncode != 0 and "'town' (categorical), row 300: received 'Lima'" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["h.csv"]


def test_without_rows_nothing_is_written(run, tmp_path):
    for ending in ("csv", "parquet"):
        source = tmp_path / f"empty.{ending}"
        if ending == "csv":
            source.write_text("id,age,visits,town\n")
        else:
            pyarrow.parquet.write_table(pyarrow.table({name: [] for name in ("id", "age", "visits", "town")}), source)
        result = call(impute, *flags_of(run, source, f"filled.{ending}"), cwd=tmp_path)
        assert result.returncode != 0 and f"{source} holds no rows" in result.stderr
        assert [path.name for path in tmp_path.iterdir() if path != source] == []
        source.unlink()


def test_a_file_that_is_no_model(run, tmp_path):
    content = bytearray((run / "run" / "model.keras").read_bytes())
    content[len(content) // 2] ^= 255
    (tmp_path / "model.keras").write_bytes(content)
    flags = [f"--input={run / 'people.csv'}", "--output=filled.csv"]
    result = call(impute, "--model=model.keras", *flags, cwd=tmp_path)
    assert result.returncode != 0 and "The model file model.keras is damaged" in result.stderr
    keras.Sequential([keras.Input([2]), keras.layers.Dense(1)]).save(tmp_path / "other.keras")
    result = call(impute, "--model=other.keras", *flags, cwd=tmp_path)
    assert result.returncode != 0 and "other.keras holds a Sequential and no model of this library" in result.stderr


def test_evaluated_by_the_columns_of_the_model(run, model, tmp_path):
    """A file of which two towns are missing: the numbers of the others stay what they were."""
    rows = [row for row in rows_of_people(200, seed=3) if row[3] in ("Oslo", "")]
    source = write(tmp_path / "oslo.csv", rows)
    flags = [f"--model={run / 'run' / 'model.keras'}", f"--dataset={source}", "--num_samples=4", "--method=importance"]
    result = call(evaluate, *flags, "--output=scores.json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    columns = model.decoder.head.columns
    assert [column.categories for column in columns if column.name == "town"] == [("Bonn", "Oslo", "Rome, IT")]
    x = data.load(str(source), columns=columns).evaluation_array("test")
    expected = likelihood.evaluate_log_prob(model, x, 4, method="importance", verbose=0)
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["log_prob"] == pytest.approx(expected.log_prob, rel=1e-5)


class Direct:
    """In place of a server's client: the exported model itself."""

    def __init__(self, exported):
        self.exported = exported

    def signature(self, name):
        _, inputs = self.exported.signatures[name].structured_input_signature
        names = {tf.float32: "DT_FLOAT", tf.int32: "DT_INT32", tf.int64: "DT_INT64"}
        return {key: names[spec.dtype] for key, spec in inputs.items()}, {}

    def predict(self, name, inputs):
        answer = self.exported.signatures[name](**{key: tf.constant(value) for key, value in inputs.items()})
        return {key: value.numpy() for key, value in answer.items()}

    def close(self):
        pass


def test_asked_of_a_server(run, tmp_path, monkeypatch, no_annealing):
    """The same draws and the same file, but for the last digits, as without a server."""
    exported = saved_model.export_run(run / "run", tmp_path / "model", num_samples=50)
    card = json.loads((exported / "model_card.json").read_text())
    assert [column["name"] for column in card["input"]["columns"]] == ["id", "age", "visits", "town"]
    client = Direct(saved_model.Exported(exported))
    monkeypatch.setattr(query, "_server", lambda: client)
    source = write(tmp_path / "holes.csv", rows_of_people(20, seed=4))
    flags = [f"--csv={source}", f"--model_card={exported / 'model_card.json'}", "--num_samples=50"]
    result = call(query, *flags, "--signature=impute", "--output=served.csv", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    call(impute, *flags_of(run, source, "filled.csv", "--num_imputations=1"), cwd=tmp_path)
    served, filled = (list(csv.reader(open_lines(tmp_path / name))) for name in ("served.csv", "filled.csv"))
    assert served[0] == filled[0]
    numbers = [np.array([[float(c) if number(c) else np.nan for c in row] for row in t[1:]]) for t in (served, filled)]
    k = served[0].index("pareto_k")  # Small differences of large weights: float32 shows.
    np.testing.assert_allclose(np.delete(numbers[0], k, 1), np.delete(numbers[1], k, 1), rtol=1e-4, atol=1e-5)
    assert [[c for c in row if not number(c)] for row in served] == [
        [c for c in row if not number(c)] for row in filled
    ]
    table = pyarrow.csv.read_csv(source)
    pyarrow.parquet.write_table(table, tmp_path / "holes.parquet")
    flags[0] = "--csv=holes.parquet"
    result = call(query, *flags, "--signature=impute", "--output=served.csv", cwd=tmp_path)
    assert result.returncode != 0 and "--output=served.csv must end in .parquet or .npz" in result.stderr
    result = call(query, *flags, "--signature=impute", "--output=served.parquet", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    again = pyarrow.parquet.read_table(tmp_path / "served.parquet")
    assert again.column_names == served[0]
    np.testing.assert_allclose(again["log_prob"], numbers[0][:, served[0].index("log_prob")], rtol=1e-4)
    plain = call(query, *flags, "--output=log_prob.csv", cwd=tmp_path)
    assert plain.returncode == 0 and "pareto_k" in (tmp_path / "log_prob.csv").read_text().splitlines()[0]
    assert "go together" in call(query, f"--csv={source}", cwd=tmp_path).stderr
    exact = client.predict(
        "log_prob", {"x": np.full([1, 3], np.inf, np.float32), "num_samples": np.int32([5]), "seed": np.int64([1])}
    )
    assert np.isneginf(exact["log_prob"]).all() and not exact["in_support"].any()


def open_lines(path):
    return path.read_text().splitlines()


def number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


def test_an_array(run, tmp_path):
    """Holes in an array: a .npz with everything; a model of a table says that it wants a table, and the reverse."""
    np.save(tmp_path / "x.npy", np.array([[20, np.nan, 1], [np.nan] * 3], np.float32))
    result = call(impute, *flags_of(run, "x.npy", "out.npz"), cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    with np.load(tmp_path / "out.npz") as left:
        assert left["mean"].shape == (2, 3) and left["mean"][0, 0] == 20.0 and "draws" not in left
        assert left["trusted"].shape == (2,)
    x = np.zeros([300, 3])
    x[280, 1] = 1e300  # Of float64; in float32 it is infinite.
    np.save(tmp_path / "x.npy", x)
    assert (
        "1 of 300 examples, the first at row 280"
        in call(impute, *flags_of(run, "x.npy", "new.npz"), cwd=tmp_path).stderr
    )
    (tmp_path / "x.npy").write_bytes(b"no array")
    assert call(impute, *flags_of(run, "x.npy", "new.npz"), cwd=tmp_path).returncode != 0
    assert not (tmp_path / "new.npz").exists()
