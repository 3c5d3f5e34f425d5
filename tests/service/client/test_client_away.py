"""A gateway that is gone, or never answers: the agent works on as fast as it did. Limits here are generous."""

import contextvars
import logging
import socket
import time
from collections.abc import Callable, Iterator

import pytest
from opentelemetry.sdk.trace import TracerProvider

import leyden
from client_support import KEY, FakeGateway, wait_until
from leyden.client.session import close, current_session


@pytest.fixture(params=["refused", "hanging"])
def away(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a gateway that is no good."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if request.param == "hanging":
            listener.listen(128)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        close()


@pytest.fixture(autouse=True)
def _calm(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "leyden.client")


def connect(url: str, **patience: float) -> None:
    patience = {"start_timeout_s": 0.3, "exit_timeout_s": 0.3, "retry_timeout_s": 60.0} | patience
    leyden.init(url, KEY, tracer_provider=TracerProvider(shutdown_on_exit=False), **patience)


def took(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


@leyden.rollout
def agent() -> str:
    for _ in range(10):
        with leyden.operation("step"):
            leyden.emit_message("working")
    leyden.emit_reward(1.0)
    return "done"


def test_an_agent_waits_for_an_absent_gateway_once_and_not_each_time(away: str) -> None:
    connect(away)
    assert took(agent) < 3.0
    assert took(lambda: [agent() for _ in range(50)]) < 3.0


async def test_an_async_agent_does_too(away: str) -> None:
    connect(away)
    began = time.monotonic()
    for _ in range(20):
        async with leyden.Rollout():
            pass
    assert time.monotonic() - began < 3.0


def test_the_process_ends_in_time(away: str) -> None:
    connect(away)
    agent()
    assert took(close) < 3.0


def emit_a_thousand() -> None:
    for _ in range(1000):
        leyden.emit_message("x")


def test_a_gateway_that_dies_in_between_delays_no_agent(gateway: FakeGateway) -> None:
    connect(gateway.url, retry_timeout_s=30.0)
    agent()
    for _ in range(4):
        agent()
    with leyden.Rollout():
        gateway.stop()
        spans = took(emit_a_thousand)
    assert spans < 3.0
    assert took(agent) < 5.0
    assert took(lambda: [agent() for _ in range(20)]) < 3.0
    gateway.start()
    wait_until(lambda: len(gateway.ends) == 6, 20)
    close()


def test_an_end_that_cannot_be_told_yet_is_waited_for_a_moment_and_told_later(gateway: FakeGateway) -> None:
    connect(gateway.url, retry_timeout_s=30.0, exit_timeout_s=5.0)
    with leyden.Rollout():
        gateway.stop()
    assert current_session().ends.pending() == 1
    gateway.start()
    wait_until(lambda: len(gateway.ends) == 1, 20)
    [[end]] = gateway.ends.values()
    assert end == {"status": "succeeded", "span_count": 1}
    close()


def test_a_gateway_that_falls_silent_is_waited_for_once(gateway: FakeGateway) -> None:
    connect(gateway.url)
    apart = [(contextvars.copy_context(), leyden.Rollout()) for _ in range(6)]
    for context, rollout in apart:
        context.run(rollout.__enter__)

    gateway.silent = {"/end", "/v1/traces"}
    assert took(lambda: [context.run(rollout.__exit__, None, None, None) for context, rollout in apart]) < 4.0
    assert current_session().ends.pending() == 6
    close()


def test_memory_is_bounded_while_the_gateway_is_away(gateway: FakeGateway) -> None:
    connect(gateway.url)
    with leyden.Rollout():
        gateway.stop()
        for _ in range(1000):
            leyden.emit_message("x" * 200_000)
        assert leyden.stats().queued * 200_000 <= 64 * 2**20
        assert leyden.stats().dropped > 500
    close()
