"""Clients that break off: one line in the log each, and the server goes on."""

import concurrent.futures
import functools
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from absl import logging
from serving_toy import Rest
from tensorflow_serving.apis import get_model_status_pb2, model_service_pb2_grpc

from iwae_zoo_serving import models
from iwae_zoo_serving import server as serving


@pytest.fixture
def said(monkeypatch):
    """What the server logs."""
    lines: list = []
    for name in ("warning", "error", "exception"):
        monkeypatch.setattr(logging, name, lambda text, *values: lines.append(text % values))
    return lines


def soon(said):
    """The lines, when there is one, and any that come too many."""
    deadline = time.monotonic() + 10
    while not said and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    return list(said)


def hang_up(port, body, length):
    with socket.create_connection(("127.0.0.1", port)) as connection:
        head = f"POST /v1/models/toy:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"
        connection.sendall(head.encode() + body)
        time.sleep(0.05)  # Until the server has begun with it.
        # Closed at once, with a reset, as when a process is killed.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_a_client_hangs_up_within_its_request(rest, said, caplog):
    hang_up(rest.port, b'{"instances": [', 1000)
    assert soon(said) == ["POST /v1/models/toy:predict: the client hung up"]
    assert not caplog.records
    assert rest.predict({"instances": [1]}) == (200, {"predictions": [2.5]})


def test_a_client_hangs_up_before_its_answer(rest, said, caplog, monkeypatch):
    from iwae_zoo_serving import rest as module

    answer = module.answer
    monkeypatch.setattr(module, "answer", lambda *arguments: time.sleep(0.3) or answer(*arguments))
    body = b'{"instances": [1]}'
    hang_up(rest.port, body, len(body))
    assert soon(said) == ["POST /v1/models/toy:predict: the client hung up"]
    assert not caplog.records
    assert rest.predict({"instances": [1]}) == (200, {"predictions": [2.5]})


def test_a_client_hangs_up_within_its_answer(rest, said, caplog, monkeypatch):
    from iwae_zoo_serving import rest as module

    large = "x" * 50_000_000  # More than is underway at once.
    monkeypatch.setattr(module, "answer", lambda *_: (200, large))
    hang_up(rest.port, b"{}", 2)
    assert soon(said) == ["POST /v1/models/toy:predict: the client hung up"]
    assert not caplog.records


def test_nothing_is_computed_for_who_has_gone(toy_path, said, monkeypatch):
    """While a request waits for its turn; who asks how the server is does not wait."""
    from iwae_zoo_serving import rest as module

    answer, posted, goes_on = module.answer, [], threading.Event()

    def slow(model, method, path, body):
        if method == "POST":
            posted.append(body)
            goes_on.wait(20)
        return answer(model, method, path, body)

    monkeypatch.setattr(module, "answer", slow)
    monkeypatch.setattr(concurrent.futures, "ThreadPoolExecutor", functools.partial(ThreadPoolExecutor, 1))
    with serving.serve(toy_path, "toy", port=0, rest_api_port=0) as ports:
        first = threading.Thread(target=Rest(ports.rest).predict, args=({"instances": [1]},))
        first.start()
        while not posted:
            time.sleep(0.01)
        body = b'{"instances": [2]}'
        for _ in range(3):
            hang_up(ports.rest, body, len(body))
        assert Rest(ports.rest)("GET", "/v1/models/toy")[0] == 200
        time.sleep(0.1)
        goes_on.set()
        first.join()
        assert Rest(ports.rest).predict({"instances": [3]}) == (200, {"predictions": [3.5]})
    assert len(posted) == 2 and body not in posted
    assert said == ["POST /v1/models/toy:predict: the client hung up"] * 3


def test_a_grpc_client_hangs_up_before_its_answer(server, said, monkeypatch):
    status = models.Model.status
    monkeypatch.setattr(models.Model, "status", lambda *arguments: time.sleep(0.3) or status(*arguments))
    request = get_model_status_pb2.GetModelStatusRequest(model_spec={"name": "toy"})
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc}") as channel:
        ask = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus
        with pytest.raises(grpc.RpcError, match="DEADLINE_EXCEEDED"):
            ask(request, timeout=0.1)
        assert soon(said) == ["GetModelStatus: the client hung up"]
        assert ask(request, timeout=20).model_version_status


def test_a_message_that_cannot_be_read(server, said, caplog):
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc}") as channel:
        predict = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        with pytest.raises(grpc.RpcError) as error:
            predict(b"\xff\xff\xff no message", timeout=20)
        assert error.value.code() == grpc.StatusCode.INTERNAL
        assert error.value.details() == "Exception deserializing request!"
        (line,) = soon(said)
        assert line.startswith("/tensorflow.serving.PredictionService/Predict: Error parsing message")
        assert not caplog.records
        with pytest.raises(grpc.RpcError) as error:  # The server goes on: an empty message is answered.
            predict(b"", timeout=20)
        assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("headers", "part"),
    [
        ("Content-Length: -5", "Invalid character in Content-Length"),
        ("Content-Encoding: gzip\r\nContent-Length: 5", "Can not decode content-encoding: gzip"),
    ],
    ids=["length", "compression"],
)
def test_a_request_that_cannot_be_read(headers, part, rest, said, caplog):
    with socket.create_connection(("127.0.0.1", rest.port), timeout=10) as connection:
        connection.sendall(f"POST /v1/models/toy:predict HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\nhello".encode())
        assert b" 400 Bad Request" in connection.recv(100)
    (record,) = soon(caplog.records)  # The answer comes first.
    assert not said
    assert part in record.getMessage()
    assert "\n" not in record.getMessage()
    assert not record.exc_info
    assert rest.predict({"instances": [1]}) == (200, {"predictions": [2.5]})
