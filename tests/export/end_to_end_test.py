"""The whole path: train, export, serve, ask, over real sockets."""

import concurrent.futures
import csv
import functools
import json
import re
import shutil
import time

import grpc
import numpy as np
import pytest
from inprocess import call
from serving_toy import Rest

from export import evaluate_main
from iwae_zoo import annealing, likelihood, presets, saved_model
from iwae_zoo.estimation import importance
from iwae_zoo.programs import export, train
from iwae_zoo_serving.client import GrpcClient, RestClient, query
from iwae_zoo_serving.errors import ServingError
from iwae_zoo_serving.programs import query as query_program
from iwae_zoo_serving.server import serve

SAMPLES = 60


@pytest.fixture(scope="module")
def x():
    return (np.random.default_rng(0).random((11, 3, 2, 1)) < 0.4).astype("float32")


@functools.cache
def model(seed):
    return presets.build("small", data_shape=(3, 2, 1), hidden_sizes=(8,), objective="miwae", seed=seed)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "digits"
    saved_model.export(model(0), path, SAMPLES, 1000, num_temperatures=5, num_chains=8)
    return path


@pytest.fixture(scope="module")
def ports(directory):
    with serve(directory, "digits", port=0, rest_api_port=0) as ports:
        yield ports


@pytest.mark.slow
def test_rest_and_grpc_give_the_models_answers(directory, ports, x):
    exported = saved_model.Exported(directory)
    expected = exported.estimate_log_prob(x, SAMPLES, seed=3)
    annealed = exported.estimate_log_prob(x, SAMPLES, seed=3, method="annealed")
    python = likelihood.estimate_log_prob(model(0), x, SAMPLES, seed=3)
    np.testing.assert_allclose(expected.log_prob, python.log_prob, rtol=1e-5)
    for ask in (RestClient(f"127.0.0.1:{ports.rest}", "digits"), GrpcClient(f"127.0.0.1:{ports.grpc}", "digits")):
        for batch_size in (1, 4, 11):
            outputs = query(ask, x, num_samples=SAMPLES, seed=3, batch_size=batch_size)
            for name in importance.OUTPUTS:
                np.testing.assert_array_equal(outputs[name], getattr(expected, name))
        outputs = query(ask, x, "log_prob_annealed", seed=3, batch_size=4)
        np.testing.assert_array_equal(outputs["log_prob"], annealed.log_prob)
        assert set(outputs["method"]) == {b"annealed"}
        ask.close()


@pytest.mark.slow
def test_curl_of_the_readme(ports):
    """Row format, with a row outside the support and one with NaN: bare -Infinity, and neighbours untouched."""
    rows = np.zeros((3, 3, 2, 1)).tolist()
    rows[1][0][0][0] = 0.5
    rest = Rest(ports.rest)
    status, answer = rest.predict({"instances": rows}, "digits")
    assert status == 200
    first, outside, last = answer["predictions"]
    assert first == last
    assert (outside["log_prob"], outside["in_support"]) == (-np.inf, False)
    named = [{"x": row, "num_samples": 10, "seed": 1} for row in rows]
    status, answer = rest.predict({"signature_name": "log_prob", "instances": named}, "digits")
    assert status == 200
    assert answer["predictions"][0]["num_samples"] == 10
    status, answer = rest.predict({"instances": np.zeros((2, 4)).tolist()}, "digits")
    assert status == 400
    assert "error" in answer


@pytest.mark.slow
def test_eight_clients_and_a_new_version(directory, x, tmp_path, no_annealing):
    """No failed valid request, no wrong answer, while bad requests come in and a version is dropped in."""
    directory = shutil.copytree(directory, tmp_path / "digits")
    answers = [likelihood.estimate_log_prob(model(seed), x, SAMPLES, seed=3).log_prob for seed in (0, 1)]
    new = saved_model.export(model(1), tmp_path / "new", num_samples=SAMPLES, max_num_samples=1000)
    with serve(directory, "digits", port=0, rest_api_port=0, poll_seconds=0.2) as ports:
        deadline = time.monotonic() + 120

        def client(number):
            rest = number % 2
            kind, port = (RestClient, ports.rest) if rest else (GrpcClient, ports.grpc)
            ask = kind(f"127.0.0.1:{port}", "digits")
            versions: list[int] = []
            while not any(versions) and time.monotonic() < deadline:  # Until the new version has answered.
                outputs = query(ask, x, num_samples=SAMPLES, seed=3, batch_size=4)["log_prob"]
                # A query of several requests may see the switch: each row is of the one or the other.
                matches = [np.isclose(outputs, answer, rtol=1e-4) for answer in answers]
                assert (matches[0] | matches[1]).all()
                versions.append(int(matches[1].all()))
                for name, wrong in (("log_prob", x), ("serving_default", x[:, :2])):
                    with pytest.raises(ServingError) as refused:
                        ask.predict(name, {"x": wrong})
                    assert refused.value.code is grpc.StatusCode.INVALID_ARGUMENT
            ask.close()
            return versions

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            futures = [pool.submit(client, number) for number in range(8)]
            time.sleep(1)
            new.rename(directory / "2")
            results = [future.result() for future in futures]
    for versions in results:
        assert versions == sorted(versions)
        assert versions[-1] == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:log p")
def test_programs(tiny, tmp_path, monkeypatch, short_annealing):
    """Train, export, evaluate and ask, with the programs alone."""
    flags = [f"--dataset={tiny}", "--objective=dreg", "--m=1", "--k=4", "--epochs=2", "--eval_samples=4"]
    flags += ["--preset=small", "--hidden_sizes=8", "--workdir=run"]
    trained = call(train, *flags, "--export_dir=models/digits", cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    monkeypatch.setattr(annealing, "is_possible", lambda _: False)  # The first export has what is annealed.
    exported = call(export, "--workdir=run", "--export_dir=models/digits", cwd=tmp_path)
    assert exported.returncode == 0, exported.stderr
    assert exported.stdout == "Exported to models/digits/2.\n"
    card = json.loads((tmp_path / "models" / "digits" / "2" / "model_card.json").read_text())
    assert card["config"]["objective"] == "dreg"
    assert np.isfinite(card["evaluation"]["log_prob_error"])
    flags = [f"--dataset={tiny}", "--saved_model=models/digits", "--num_samples=4", "--method=importance"]
    flags += ["--output=log_prob.csv"]
    evaluated = call(evaluate_main, *flags, cwd=tmp_path)
    assert evaluated.returncode == 0, evaluated.stderr
    rows = list(csv.DictReader((tmp_path / "log_prob.csv").read_text().splitlines()))
    assert len(rows) == 10
    # The same noise as in training's own evaluation: the same mean.
    mean = np.mean([float(row["log_prob"]) for row in rows])
    own = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert mean == pytest.approx(own["importance_log_prob"], abs=1e-4)
    assert own["num_annealed"] > 0
    printed = float(re.search(r"log p\(x\) +(\S+)", evaluated.stdout).group(1))
    assert printed == pytest.approx(mean, abs=1e-3)
    with serve(tmp_path / "models" / "digits", "digits", port=0, rest_api_port=0) as ports:
        flags = [f"--server=127.0.0.1:{ports.rest}", "--model_name=digits", f"--dataset={tiny}", "--num_samples=4"]
        asked = call(query_program, *flags, "--output=asked.npz", cwd=tmp_path)
        assert asked.returncode == 0, asked.stderr
    with np.load(tmp_path / "asked.npz") as answers:
        assert np.mean(answers["log_prob"]) == pytest.approx(mean, abs=1e-4)
