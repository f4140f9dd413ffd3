"""Clients that break off: one line in the log each, and the server goes on."""

import socket
import struct
import time

import grpc
import pytest
from absl import logging


@pytest.fixture
def said(monkeypatch):
    """What the server logs."""
    lines: list = []
    for name in ("warning", "error", "exception"):
        monkeypatch.setattr(logging, name, lambda text, *values: lines.append(text % values))
    return lines


def soon(said, count=1):
    """The lines, when there are so many, and any that come too many."""
    deadline = time.monotonic() + 10
    while len(said) < count and time.monotonic() < deadline:
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
    from export.serving import rest as module

    answer = module.answer
    monkeypatch.setattr(module, "answer", lambda *arguments: time.sleep(0.3) or answer(*arguments))
    body = b'{"instances": [1]}'
    hang_up(rest.port, body, len(body))
    assert soon(said) == ["POST /v1/models/toy:predict: the client hung up"]
    assert not caplog.records
    assert rest.predict({"instances": [1]}) == (200, {"predictions": [2.5]})


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
