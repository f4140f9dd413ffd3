"""Versions come, fail and go while the server answers."""

import contextlib
import http.client
import shutil
import socket
import threading
import time

import grpc
import pytest
import tensorflow as tf
from absl import logging
from serving_toy import Rest, save
from tensorflow_serving.apis import prediction_log_pb2

from iwae_zoo_serving.server import serve


@contextlib.contextmanager
def serving(path, poll_seconds=0.05):
    with serve(path, "toy", port=0, rest_api_port=0, poll_seconds=poll_seconds) as ports:
        yield ports, Rest(ports.rest)


def wait_for(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def states(rest):
    answer = rest("GET", "/v1/models/toy")[1].get("model_version_status", [])
    return {item["version"]: item["state"] for item in answer}


def test_new_version_under_load(tmp_path):
    save(tmp_path, 1, offset=2.0)
    with serving(tmp_path) as (_, rest):
        answers, stop = [], threading.Event()

        def ask():
            while not stop.is_set():
                answers.append((time.monotonic(), *rest.raw("POST", "/v1/models/toy:predict", '{"instances": [0]}')))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        wait_for(lambda: len(answers) > 20)
        save(tmp_path, 2, offset=3.0)
        wait_for(lambda: states(rest) == {"1": "END", "2": "AVAILABLE"})
        switched = time.monotonic()
        count = len(answers)
        wait_for(lambda: len(answers) > count + 20)
        stop.set()
        for thread in threads:
            thread.join()
        seen = {(status, text) for _, status, text in answers}
        assert seen == {(200, '{"predictions":[2.0]}'), (200, '{"predictions":[3.0]}')}
        # Requests that began after the switch have the new version's answer; one of each thread may be under way.
        assert sum("[2.0]" in text for at, _, text in answers if at > switched) <= len(threads)
        # As TF Serving does by default, only the latest is served.
        assert rest("POST", "/v1/models/toy/versions/1:predict", {"instances": [0]})[0] == 404
        assert rest("GET", "/v1/models/toy/versions/1")[1]["model_version_status"][0]["state"] == "END"


def test_corrupt_version_keeps_the_old_one(tmp_path, monkeypatch):
    faults = []
    monkeypatch.setattr(logging, "error", lambda text, *values: faults.append(text % values))
    save(tmp_path, 2)
    with serving(tmp_path, poll_seconds=0.02) as (_, rest):
        broken = tmp_path / ".3"
        shutil.copytree(tmp_path / "2", broken)
        data = next((broken / "variables").glob("variables.data*"))
        data.write_bytes(b"")
        broken.rename(tmp_path / "3")
        (tmp_path / "4").mkdir()
        (tmp_path / "4" / "nothing").symlink_to(tmp_path / "nowhere")
        (tmp_path / "5").mkdir()
        (tmp_path / "5" / "saved_model.pb").write_bytes(b"no model")
        (tmp_path / "not_a_version").mkdir()
        wait_for(lambda: states(rest) == {"2": "AVAILABLE", "3": "END", "4": "END", "5": "END"})
        time.sleep(0.3)
        assert rest.predict({"instances": [0]}) == (200, {"predictions": [2.0]})
        # Some fifteen looks later, each fault was logged once.
        assert len(faults) <= 2 * 3
        counted = len(faults)
        time.sleep(0.2)
        assert len(faults) == counted
        assert any("Loading version 5 of toy failed" in fault for fault in faults)
        (status,) = rest("GET", "/v1/models/toy/versions/5")[1]["model_version_status"]
        assert status["status"]["error_code"] == "DATA_LOSS"
        (missing,) = rest("GET", "/v1/models/toy/versions/4")[1]["model_version_status"]
        assert missing["status"]["error_code"] == "NOT_FOUND"
        assert "saved_model.pb" in status["status"]["error_message"]
        # A repaired version is tried again.
        shutil.rmtree(tmp_path / "5")
        save(tmp_path, 5, offset=4.0)
        wait_for(lambda: rest.predict({"instances": [0]}) == (200, {"predictions": [4.0]}))


def test_deleted_version_gives_way_to_the_one_before(tmp_path):
    save(tmp_path, 1, offset=2.0)
    save(tmp_path, 2, offset=3.0)
    with serving(tmp_path) as (_, rest):
        assert rest.predict({"instances": [0]}) == (200, {"predictions": [3.0]})
        shutil.rmtree(tmp_path / "2")
        wait_for(lambda: rest.predict({"instances": [0]}) == (200, {"predictions": [2.0]}))
        shutil.rmtree(tmp_path / "1")
        time.sleep(0.2)
        assert rest.predict({"instances": [0]}) == (200, {"predictions": [2.0]})


def test_another_model_of_the_same_number(tmp_path, monkeypatch):
    """As when the newest version is deleted, and the next export has its number again."""
    faults = []
    monkeypatch.setattr(logging, "error", lambda text, *values: faults.append(text % values))
    save(tmp_path / "made", 1, offset=4.0)
    save(tmp_path / "served", 1, offset=2.0)
    with serving(tmp_path / "served", poll_seconds=0.02) as (_, rest):
        shutil.rmtree(tmp_path / "served")
        time.sleep(0.2)
        assert rest.predict({"instances": [0]}) == (200, {"predictions": [2.0]})
        assert len(faults) <= 2  # Once that there is no folder; perhaps once more while it was deleted.
        (tmp_path / "made").rename(tmp_path / "served")
        wait_for(lambda: rest.predict({"instances": [0]}) == (200, {"predictions": [4.0]}))
        assert states(rest) == {"1": "AVAILABLE"}
        shutil.rmtree(tmp_path / "served" / "1")
        (tmp_path / "served" / "1").mkdir()  # What cannot be loaded leaves what is served.
        wait_for(lambda: any("Loading version 1 of toy failed" in fault for fault in faults))
        time.sleep(0.1)
        assert rest.predict({"instances": [0]}) == (200, {"predictions": [4.0]})
        assert states(rest) == {"1": "AVAILABLE"}


def test_first_version_may_come_later(tmp_path):
    (tmp_path / "20250101000000000000").mkdir()  # No version: those are of int64.
    with serving(tmp_path) as (_, rest):
        assert rest.predict({"instances": [0]})[0] == 404
        save(tmp_path, 1)
        wait_for(lambda: rest.predict({"instances": [0]}) == (200, {"predictions": [2.0]}))
        assert states(rest) == {"1": "AVAILABLE"}


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="This machine has no IPv6.")
def test_an_address_of_ipv6(tmp_path):
    save(tmp_path, 1)
    with serve(tmp_path, "toy", port=0, rest_api_port=0, host="::1") as ports:
        with grpc.insecure_channel(f"[::1]:{ports.grpc}") as channel:
            grpc.channel_ready_future(channel).result(timeout=20)
        connection = http.client.HTTPConnection("::1", ports.rest, timeout=20)
        connection.request("GET", "/v1/models/toy")
        assert connection.getresponse().status == 200
        connection.close()


@pytest.mark.parametrize(("signature", "state"), [("serving_default", "AVAILABLE"), ("nope", "END")])
def test_warm_up_requests_are_part_of_loading(tmp_path, signature, state):
    save(tmp_path, 1)
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.model_spec.signature_name = signature
    log.predict_log.request.inputs["x"].CopyFrom(tf.make_tensor_proto([1.0]))
    extra = tmp_path / "1" / "assets.extra"
    extra.mkdir()
    other = prediction_log_pb2.PredictionLog()
    other.classify_log.request.model_spec.signature_name = "classify"
    with tf.io.TFRecordWriter(str(extra / "tf_serving_warmup_requests")) as writer:
        writer.write(other.SerializeToString())  # Of a kind that this server does not answer.
        writer.write(log.SerializeToString())
    with serving(tmp_path) as (_, rest):
        assert states(rest) == {"1": state}
