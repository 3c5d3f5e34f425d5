"""The runner against a gateway on a real socket: claims, concurrency, timeouts, failures, restarts, a graceful stop."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import openai
import pytest
from starlette.responses import JSONResponse

import leyden
from client_support import KEY, FakeGateway, wait_until
from leyden.client import Claim, GatewayRefusedError
from leyden.client.session import close


@pytest.fixture(autouse=True)
def _disconnect() -> Iterator[None]:
    yield
    close()


@contextmanager
def running(gateway: FakeGateway, agent: Any, **options: Any) -> Iterator[leyden.Runner]:
    """A runner at work; stopped gracefully at the end of the block."""
    runner = leyden.Runner(
        agent, gateway.url, KEY, **{"wait_s": 0.5, "retry_timeout_s": 20.0, "drain_s": 10.0, **options}
    )
    thread = threading.Thread(target=runner.run)
    thread.start()
    try:
        yield runner
    finally:
        runner.stop()
        thread.join(30)
        assert not thread.is_alive()


def ends(gateway: FakeGateway, traces: list[str]) -> list[dict[str, Any]]:
    """The end of each, once all have one."""
    wait_until(lambda: all(gateway.ends.get(trace) for trace in traces), 20)
    assert all(len(gateway.ends[trace]) == 1 for trace in traces)
    return [gateway.ends[trace][0] for trace in traces]


def test_returned_numbers_are_rewards_and_the_rest_is_output(gateway: FakeGateway) -> None:
    def agent(claim: Claim) -> Any:
        return claim.input

    traces = [*gateway.enqueue(1, input=0.5), *gateway.enqueue(1, input={"a": 1}), *gateway.enqueue(1, input=None)]
    with running(gateway, agent) as runner:
        assert ends(gateway, traces) == [
            {"status": "succeeded", "span_count": 1, "reward": 0.5},
            {"status": "succeeded", "span_count": 1, "output": {"a": 1}},
            {"status": "succeeded", "span_count": 1},
        ]
        assert runner.counts == {"succeeded": 3}


def test_sync_agents_run_at_once_up_to_the_concurrency_each_in_its_own_rollout(gateway: FakeGateway) -> None:
    together, most, lock = 0, 0, threading.Lock()

    def agent(claim: Claim) -> None:
        nonlocal together, most
        with lock:
            together += 1
            most = max(most, together)
        time.sleep(0.1)
        assert leyden.current_rollout() is claim
        leyden.emit_reward(1.0)
        with lock:
            together -= 1

    traces = gateway.enqueue(12)
    with running(gateway, agent, concurrency=4):
        assert all(end == {"status": "succeeded", "span_count": 2} for end in ends(gateway, traces))
    assert most == 4
    assert all(len(gateway.spans_of(trace)) == 2 for trace in traces)


def test_async_agents_share_the_loop(gateway: FakeGateway) -> None:
    async def agent(claim: Claim) -> float:
        await asyncio.sleep(0.1)
        leyden.emit_reward(0.25, "speed")
        assert leyden.current_rollout() is claim
        return 1.0

    traces = gateway.enqueue(8)
    with running(gateway, agent, concurrency=8):
        assert all(end == {"status": "succeeded", "span_count": 2, "reward": 1.0} for end in ends(gateway, traces))


def test_failures_are_told_by_class_and_the_runner_goes_on(gateway: FakeGateway) -> None:
    def agent(claim: Claim) -> None:
        match claim.input:
            case "raise":
                raise KeyError("page")
            case "exit":
                raise SystemExit(3)
            case "model":
                raise openai.APIConnectionError(request=httpx.Request("POST", "http://model"))

    kinds = ["raise", "exit", "model", "fine"]
    traces = [gateway.enqueue(1, input=kind)[0] for kind in kinds]
    with running(gateway, agent) as runner:
        told = ends(gateway, traces)
    assert [end.get("failure", {}).get("failure_class") for end in told] == [
        "agent_exception", "agent_exception", "infrastructure", None,
    ]  # fmt: skip
    assert told[0]["failure"]["message"] == "KeyError: 'page'"
    assert runner.counts == {"agent_exception": 2, "infrastructure": 1, "succeeded": 1}


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_an_agent_that_does_not_end_in_time_is_a_timeout(gateway: FakeGateway, kind: str) -> None:
    release = threading.Event()

    def slow(claim: Claim) -> float:
        release.wait(20)
        return 1.0

    async def slow_async(claim: Claim) -> float:
        await asyncio.sleep(20)
        return 1.0

    [trace] = gateway.enqueue(1, timeout_s=0.4)
    began = time.monotonic()
    with running(gateway, slow if kind == "sync" else slow_async):
        [end] = ends(gateway, [trace])
        assert time.monotonic() - began < 10
    assert end["failure"]["failure_class"] == "timeout"
    assert gateway.spans_of(trace)[0].status.code == 2
    release.set()


def test_heartbeats_go_on_while_the_agent_runs(gateway: FakeGateway) -> None:
    [trace] = gateway.enqueue(1, lease_s=0.3)
    with running(gateway, lambda claim: time.sleep(1.0)):
        ends(gateway, [trace])
    assert gateway.heartbeats.count(trace) >= 3


def test_a_lost_lease_gives_the_slot_back_without_an_end(gateway: FakeGateway) -> None:
    async def agent(claim: Claim) -> None:
        await asyncio.sleep(0.0 if claim.input == "next" else 20.0)

    [lost] = gateway.enqueue(1, lease_s=0.3)
    gateway.over.add(lost)
    [following] = gateway.enqueue(1, input="next")
    with running(gateway, agent, concurrency=1) as runner:
        ends(gateway, [following])
    assert lost not in gateway.ends
    assert runner.counts == {"lease_lost": 1, "succeeded": 1}


def test_stopping_lets_running_agents_end(gateway: FakeGateway) -> None:
    started = threading.Event()

    def agent(claim: Claim) -> float:
        started.set()
        time.sleep(0.5)
        return 1.0

    [trace] = gateway.enqueue()
    with running(gateway, agent, concurrency=1):
        assert started.wait(10)
        [later] = gateway.enqueue()
    assert gateway.ends[trace][0]["reward"] == 1.0
    assert later not in gateway.ends


def test_what_does_not_end_while_draining_is_interrupted(gateway: FakeGateway) -> None:
    started = threading.Event()

    async def agent(claim: Claim) -> None:
        started.set()
        await asyncio.sleep(30)

    [trace] = gateway.enqueue()
    with running(gateway, agent, drain_s=0.2):
        assert started.wait(10)
    assert gateway.ends[trace][0]["failure"]["failure_class"] == "interrupted"


def test_a_restart_of_the_gateway_loses_no_rollout(gateway: FakeGateway) -> None:
    def agent(claim: Claim) -> float:
        time.sleep(0.2)
        leyden.emit_reward(1.0)
        return 1.0

    traces = gateway.enqueue(12, lease_s=0.3)
    with running(gateway, agent, concurrency=3):
        wait_until(lambda: len(gateway.ends) >= 3)
        gateway.stop()
        time.sleep(1.5)
        gateway.start()
        assert all(end["status"] == "succeeded" for end in ends(gateway, traces))
    assert all(gateway.ends[trace][0]["span_count"] == 2 for trace in traces)


def test_overload_is_waited_out(gateway: FakeGateway) -> None:
    busy = [JSONResponse({}, 429, headers={"retry-after": "0.2"}) for _ in range(3)]
    gateway.answers = {"/claim": busy[:1], "/end": busy[1:2], "/traces": busy[2:]}
    traces = gateway.enqueue(2)
    with running(gateway, lambda claim: 1.0):
        assert all(end["span_count"] == 1 for end in ends(gateway, traces))


async def test_a_wrong_key_ends_the_runner(gateway: FakeGateway) -> None:
    gateway.answers["/claim"] = [JSONResponse({"error": {"message": "unknown key"}}, 401)]
    runner = leyden.Runner(lambda claim: None, gateway.url, KEY)
    with pytest.raises(GatewayRefusedError, match="unknown key"):
        await runner.serve()
