"""The study of anomalies: who is fitted to, what is said of made-up scores, and a run from end to end."""

import json

import matplotlib.image
import numpy as np
import pytest
from inprocess import call

from studies import anomaly, anomaly_main


def test_rows_are_of_one_class():
    rows, x, anomalous = anomaly.problem("breast_cancer")
    assert (len(rows), len(x), anomalous.sum()) == (285, 72 + 212, 212)
    assert rows.mean(axis=0) == pytest.approx(0, abs=1e-5) and rows.std(axis=0) == pytest.approx(1, abs=1e-4)
    assert not (x[:, np.newaxis] == rows).all(axis=2).any()
    # Malignant tumours are larger.
    assert np.median(x[anomalous, 0]) > 2 > 0.5 > abs(np.median(x[~anomalous, 0]))
    assert anomaly.problem("digits_9")[2].sum() == 180


@pytest.mark.slow
@pytest.mark.parametrize("name", anomaly.PEERS)
def test_peers_score_what_is_far_higher(name, seed):
    rows = np.random.default_rng(seed).normal(size=(100, 3)).astype(np.float32)
    x = np.array([[0.0, 0.0, 0.0], [9.0, 9.0, 9.0]] * 5, np.float32)
    scores = anomaly.of_peer(rows, x, [0.0, 0.3], name)
    assert scores.shape == (2, 10) and np.isfinite(scores).all()
    assert scores[0, 1] > scores[0, 0]


def test_metrics_and_paired_differences(seed):
    rng = np.random.default_rng(seed)
    anomalous = np.arange(200) < 50
    perfect = np.stack([anomalous + 0.5 * rng.random(200) for _ in range(2)])
    noise = rng.random((2, 200))
    of = {
        name: anomaly.bootstrapped(scores, anomalous, 50)
        for name, scores in {"perfect": perfect, "reversed": -perfect, "noise": noise}.items()
    }
    for metric in anomaly.METRICS:
        assert anomaly.interval(of["perfect"][metric]) == pytest.approx((1.0, 1.0, 1.0), abs=1e-12)
    assert anomaly.interval(of["reversed"]["auroc"]) == pytest.approx((0.0, 0.0, 0.0), abs=1e-12)
    value, low, high = anomaly.interval(of["noise"]["auroc"])
    # Of each seed: the share of pairs in order.
    pairs = [(s[anomalous][:, np.newaxis] > s[~anomalous]).mean() for s in noise]
    assert value == pytest.approx(np.mean(pairs)) and low < 0.5 < high
    auroc = {name: metrics["auroc"] for name, metrics in of.items()} | {"same": of["noise"]["auroc"] + 0.01}
    differences = anomaly.differences(auroc, "noise")
    assert set(differences) == {"perfect", "reversed", "same"}
    assert differences["same"] == pytest.approx((0.01, 0.01, 0.01))


def test_table_says_who_is_better():
    anomalous = np.arange(40) < 10
    scores = {"log_prob": np.ones([1, 2, 40]), "forest": np.stack([[anomalous, ~anomalous]]).astype(float)}
    labels = {"log_prob": "log p", "forest": "IsolationForest"}
    found = anomaly_main.judged(scores, anomalous, ["0", "50"], 20)
    text = anomaly_main.table("made up", found, anomalous, labels)
    assert text.startswith("made up, 10 anomalies of 40 rows,")
    assert "| log p | 0.500 (0.500 to 0.500) | 0.500 (0.500 to 0.500) | 0.250" in text
    assert "- With 0 % missing, IsolationForest has a better AUROC, by 0.500 (0.500 to 0.500).\n" in text
    assert "With 50 % missing" not in text
    alone = anomaly_main.judged({"log_prob": scores["log_prob"]}, anomalous, ["0", "50"], 20)
    assert anomaly_main.table("", alone, anomalous, {"log_prob": "log p"}).endswith("None is better than log p.\n")


FLAGS = ["--workdir=study", "--problems=breast_cancer", "--rates=0,30", "--peers=forest,neighbours", "--seeds=1"]


@pytest.mark.slow
def test_from_end_to_end(tmp_path, monkeypatch):
    flags = [*FLAGS, "--epochs=1", "--num_samples=100", "--resamples=20"]
    ended = call(anomaly_main, *flags, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    root = tmp_path / "study"
    text = (root / "table.md").read_text()
    assert text in ended.stdout and "| LocalOutlierFactor, of means where missing |" in text
    assert matplotlib.image.imread(root / "anomaly.png").std() > 0.01
    value, low, high = json.loads((root / "results.json").read_text())["breast_cancer"]["30"]["auroc"]["values"]["elbo"]
    assert 0.5 < low <= value <= high <= 1.0
    monkeypatch.setattr(anomaly, "of_model", lambda *_, **__: pytest.fail("finished scores were asked for again"))
    assert text in call(anomaly_main, *flags, cwd=tmp_path).stdout
