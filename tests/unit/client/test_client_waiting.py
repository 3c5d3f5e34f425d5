"""Commands say whom they wait for."""

import threading

import httpx
import pytest

from leyden.cli.gateway_requests import request
from leyden.client.gateway import GatewayClient
from leyden.client.waiting import told_if_slow
from leyden.stack.errors import StackError


class Lines:
    """Standard error, and an event that is set by its first line."""

    def __init__(self) -> None:
        self.text, self.came = "", threading.Event()

    def write(self, text: str) -> int:
        self.text += text
        self.came.set()
        return len(text)

    def flush(self) -> None:
        """Nothing is buffered."""


def listening(monkeypatch: pytest.MonkeyPatch) -> Lines:
    """Standard error from now on; not a fixture, because pytest replaces it between set-up and test."""
    lines = Lines()
    monkeypatch.setattr("sys.stderr", lines)
    return lines


def test_a_block_that_takes_long_is_told_and_a_short_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = listening(monkeypatch)
    with told_if_slow("the gateway", 30.0, after_s=60.0):
        pass
    assert stderr.text == ""
    with told_if_slow("the gateway", 30.0, after_s=0.0):
        assert stderr.came.wait(20)
    assert stderr.text.startswith("leyden: waiting for the gateway (for up to 30 s)")


def test_a_wait_that_is_not_repeated_names_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = listening(monkeypatch)
    with told_if_slow("the gateway", 0.0, after_s=0.0):
        assert stderr.came.wait(20)
    assert stderr.text == "leyden: waiting for the gateway\n"


@pytest.mark.parametrize("silent", [True, False], ids=["no answer", "no connection"])
def test_every_request_of_a_command_names_the_gateway_it_waits_for(
    monkeypatch: pytest.MonkeyPatch, silent: bool
) -> None:
    stderr = listening(monkeypatch)

    def answer(asked: httpx.Request) -> httpx.Response:
        if silent:
            assert stderr.came.wait(20)
            return httpx.Response(200, json={})
        if stderr.came.is_set():
            return httpx.Response(200, json={})
        raise httpx.ConnectError("refused")

    gateway = GatewayClient("http://gateway:8080", "key", 30.0, httpx.MockTransport(answer))
    assert request(gateway, "POST", "/leyden/v1/tasks", {}, retry_timeout_s=30.0, hints={}) == {}
    assert "waiting for the gateway at http://gateway:8080 (for up to 30 s)" in stderr.text


def test_a_refused_key_is_told_with_the_gateways_reason() -> None:
    refusing = httpx.MockTransport(lambda _: httpx.Response(401, json={"error": {"message": "the key k was revoked"}}))
    with pytest.raises(
        StackError, match=r"answered 401: the key k was revoked\. Pass a valid key with --api-key or LEYDEN_API_KEY"
    ):
        request(GatewayClient("http://gateway", "k", 0.0, refusing), "GET", "/x", retry_timeout_s=0.0, hints={})
