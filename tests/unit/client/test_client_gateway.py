"""How calls to the gateway are tried again, and when they are not."""

import threading
from collections.abc import Callable

import httpx
import pytest

from leyden.client.claims import Claim
from leyden.client.errors import AttemptOverError, GatewayError, GatewayRefusedError, GatewayUnavailableError
from leyden.client.gateway import START_PAUSE_S, GatewayClient, RealTime

CLAIM = Claim("1e7de" + "0" * 23, 1, "1e7de" + "0" * 23 + "0001", "", "http://gateway/v1", "key")


class FakeTime(RealTime):
    """Time that passes only by waiting."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        self.waits.append(timeout_s)
        self.now += timeout_s
        return event.is_set()


def gateway(
    *answers: httpx.Response | Exception, retry_timeout_s: float = 5.0, clock: RealTime | None = None
) -> tuple[GatewayClient, list[httpx.Request]]:
    """A client whose gateway gives `answers` in turn, the last one again and again; and the requests."""
    requests: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        given = answers[min(len(requests), len(answers)) - 1]
        if isinstance(given, Exception):
            raise given
        return given

    made = GatewayClient("http://gateway/", "secret", retry_timeout_s, httpx.MockTransport(answer), clock or FakeTime())
    return made, requests


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


@pytest.mark.parametrize("header", ["3", "3.0"])
def test_retry_after_is_honoured(header: str) -> None:
    clock = FakeTime()
    sut, _ = gateway(httpx.Response(429, headers={"retry-after": header}), httpx.Response(200, json={}), clock=clock)
    sut.end(CLAIM, {})
    assert clock.waits == [3.0]


def test_a_retry_after_past_the_deadline_is_not_waited_for() -> None:
    clock = FakeTime()
    sut, _ = gateway(httpx.Response(429, headers={"retry-after": "60"}), retry_timeout_s=1.0, clock=clock)
    with pytest.raises(GatewayUnavailableError, match="429"):
        sut.end(CLAIM, {})
    assert clock.waits == []


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
    class ClosedMeanwhile(FakeTime):
        def wait(self, event: threading.Event, timeout_s: float) -> bool:
            sut.close()
            return super().wait(event, timeout_s)

    clock = ClosedMeanwhile()
    sut, requests = gateway(httpx.Response(503, headers={"retry-after": "30"}), retry_timeout_s=60.0, clock=clock)
    with pytest.raises(GatewayUnavailableError):
        sut.end(CLAIM, {})
    assert (len(requests), clock.waits) == (1, [30.0])
    with pytest.raises(GatewayUnavailableError, match="closed"):
        sut.end(CLAIM, {})
    assert len(requests) == 1


def test_a_failed_start_of_an_agent_is_not_repeated_for_a_while() -> None:
    clock = FakeTime()
    sut, requests = gateway(httpx.ConnectError("refused"), clock=clock)
    with pytest.raises(GatewayUnavailableError):
        sut.start_now({}, timeout_s=0.1)
    with pytest.raises(GatewayUnavailableError, match="a moment ago"):
        sut.start_now({}, timeout_s=0.1)
    assert len(requests) == 1
    clock.now += START_PAUSE_S
    with pytest.raises(GatewayUnavailableError, match="refused"):
        sut.start_now({}, timeout_s=0.1)
    assert len(requests) == 2


@pytest.mark.parametrize(
    "call", [lambda sut: sut.start({}), lambda sut: sut.claim("me", 1, 0.0)], ids=["start", "claim"]
)
def test_an_answer_that_is_not_json_is_an_error_of_the_gateway(call: Callable[[GatewayClient], object]) -> None:
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


def test_delays_grow_to_a_limit_and_end_at_the_deadline() -> None:
    clock = FakeTime()
    sut, requests = gateway(httpx.Response(503), retry_timeout_s=100.0, clock=clock)
    with pytest.raises(GatewayUnavailableError, match="503"):
        sut.end(CLAIM, {})
    assert 95.0 < clock.now <= 100.0
    assert all(0.1 <= wait <= 5.0 for wait in clock.waits)
    assert len(requests) == len(clock.waits) + 1 < 60
