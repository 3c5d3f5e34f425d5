"""How calls to the gateway are tried again, and when they are not."""

import time
from collections.abc import Callable

import httpx
import pytest

from leyden.client.claims import Claim
from leyden.client.errors import AttemptOverError, GatewayError, GatewayRefusedError, GatewayUnavailableError
from leyden.client.gateway import Backoff, Gateway

CLAIM = Claim("1e7de" + "0" * 23, 1, "1e7de" + "0" * 23 + "0001", "", "http://gateway/v1", "key")


def gateway(*answers: httpx.Response | Exception, patience_s: float = 5.0) -> tuple[Gateway, list[httpx.Request]]:
    """A gateway that gives `answers` in turn, and the requests that it got."""
    requests: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        given = answers[len(requests) - 1]
        if isinstance(given, Exception):
            raise given
        return given

    return Gateway("http://gateway/", "secret", patience_s, httpx.MockTransport(answer)), requests


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leyden.client.gateway.FIRST_DELAY_S", 0.01)


@pytest.mark.parametrize(
    "trouble",
    [
        httpx.ConnectError("refused"),
        httpx.ReadError("cut"),
        httpx.RemoteProtocolError("killed"),
        httpx.Response(429),
        httpx.Response(503),
        httpx.Response(500),
    ],
)
def test_trouble_that_may_pass_is_tried_again(trouble: httpx.Response | Exception) -> None:
    sut, requests = gateway(trouble, httpx.Response(200, json={}))
    sut.end(CLAIM, {"status": "succeeded"})
    assert [request.url.path for request in requests] == [f"/leyden/v1/rollouts/{CLAIM.rollout_id}/attempts/1/end"] * 2
    assert requests[0].content == requests[1].content
    assert requests[0].headers["authorization"] == "Bearer secret"


def test_retry_after_is_honoured() -> None:
    sut, _ = gateway(httpx.Response(429, headers={"retry-after": "0.3"}), httpx.Response(200, json={}))
    began = time.monotonic()
    sut.end(CLAIM, {})
    assert time.monotonic() - began >= 0.3


def test_a_retry_after_past_the_deadline_is_not_waited_for() -> None:
    sut, _ = gateway(httpx.Response(429, headers={"retry-after": "60"}), patience_s=1.0)
    began = time.monotonic()
    with pytest.raises(GatewayUnavailableError, match="429"):
        sut.end(CLAIM, {})
    assert time.monotonic() - began < 1.0


@pytest.mark.parametrize(
    ("status", "kind"), [(400, GatewayRefusedError), (401, GatewayRefusedError), (409, AttemptOverError)]
)
def test_a_refusal_is_not_tried_again(status: int, kind: type[GatewayError]) -> None:
    sut, requests = gateway(httpx.Response(status, json={"error": {"message": "no"}}))
    with pytest.raises(kind, match="no"):
        sut.end(CLAIM, {})
    assert len(requests) == 1


def test_a_heartbeat_is_one_try() -> None:
    sut, requests = gateway(httpx.ConnectError("refused"))
    with pytest.raises(GatewayUnavailableError):
        sut.heartbeat(CLAIM)
    assert len(requests) == 1


def test_closing_ends_the_waiting() -> None:
    sut, _ = gateway(httpx.Response(503, headers={"retry-after": "30"}), patience_s=60.0)
    sut.close()
    began = time.monotonic()
    with pytest.raises((GatewayUnavailableError, RuntimeError)):
        sut.end(CLAIM, {})
    assert time.monotonic() - began < 5.0


@pytest.mark.parametrize(
    "call", [lambda sut: sut.start({}), lambda sut: sut.claim("me", 1, 0.0)], ids=["start", "claim"]
)
def test_an_answer_that_is_not_json_is_an_error_of_the_gateway(call: Callable[[Gateway], object]) -> None:
    sut, _ = gateway(httpx.Response(200, text="<html>"))
    with pytest.raises(GatewayError, match="not JSON"):
        call(sut)


def test_a_rollout_of_a_newer_gateway_can_be_read_and_a_lacking_field_is_named() -> None:
    document = {
        "rollout_id": "r", "attempt": 0, "trace_id": "t", "traceparent": "p", "base_url": "u", "api_key": "k",
        "input": 1, "colour": "green",
    }  # fmt: skip
    assert Claim.from_json(document).input == 1
    del document["api_key"]
    with pytest.raises(GatewayError, match="api_key"):
        Claim.from_json(document)


def test_delays_grow_and_stop_at_the_deadline() -> None:
    backoff = Backoff(patience_s=100.0)
    delays = [backoff.next() for _ in range(14)]
    assert all(delay is not None and 0 < delay <= 5.0 for delay in delays)
    assert Backoff(patience_s=0.0).next() is None
