"""The calls that wait for the model are only shown: whatever the gateway answers, the commands go on."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from leyden.kafka.settings import KafkaSettings
from leyden.reading.location import LogLocation
from leyden.reading.model_wait import ModelWait, read_model_wait

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n"
ONE = b'{"calls": [{"trace_id": "a", "model": "policy", "seconds": 30.0}]}'


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Where a gateway listens that the environment names, with its log."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "kafka:9092")
        monkeypatch.setenv("LEYDEN_GATEWAY_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("LEYDEN_API_KEY", "key")
        yield server


def asked(server: socket.socket, answer: bytes, data_dir: Path) -> ModelWait | None:
    """What is read from a gateway that answers so."""

    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(answer)

    serving = threading.Thread(target=serve)
    serving.start()
    try:
        return read_model_wait(LogLocation(KafkaSettings(), "", "file:///claims"), "", data_dir)
    finally:
        serving.join(10)


def test_calls_are_read(gateway: socket.socket, tmp_path: Path) -> None:
    found = asked(gateway, HEAD + ONE, tmp_path)
    assert found is not None
    assert (found.oldest, found.model, found.oldest_s) == ("a", "policy", 30.0)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n{",
        b"HTTP/1.1 403 Forbidden\r\nconnection: close\r\n\r\n{}",
        *(HEAD + body for body in (b"", b"[]", b"{}", b'{"calls": null}', b'{"calls": [7]}', b'{"calls": ["x"]}')),
        HEAD + ONE.replace(b"30.0", b'"long"'),
        HEAD + ONE.replace(b'"policy"', b"7"),
        HEAD + b"\xff",
    ],
)
def test_an_answer_that_is_none_shows_no_calls(gateway: socket.socket, tmp_path: Path, answer: bytes) -> None:
    assert asked(gateway, answer, tmp_path) is None


@pytest.mark.parametrize("url", ["elsewhere", "http://127.0.0.1:port", "http://[", "http://a b"])
def test_a_url_that_is_none_shows_no_calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "kafka:9092")
    monkeypatch.setenv("LEYDEN_GATEWAY_URL", url)
    assert read_model_wait(LogLocation(KafkaSettings(), "", "file:///claims"), "", tmp_path) is None
