"""Calls that wait for a model: who can see them, and what becomes of them when their attempt ends first."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from aiohttp import web
from prometheus_client import REGISTRY

from leyden.events import RolloutEnded, Task
from leyden.gateway.core.rollouts import RolloutSpec, Running
from leyden.ids import AttemptRef
from service.gateway.gateway_fakes import API_KEY, REF, START, Bench, bench
from service.gateway.gateway_servers import status
from waiting import until

HELLO = [{"role": "user", "content": "Say hi"}]
SWEEP_S = 0.01
OTHER = AttemptRef("1e7de" + "0" * 22 + "2", 0)
TIMEOUT: dict[str, Any] = {
    "status": "failed",
    "failure": {"failure_class": "timeout", "message": "the agent did not end in 1 s"},
}


@pytest.fixture
async def gate() -> AsyncIterator[Bench]:
    async with bench(sweep_interval_s=SWEEP_S, retry_base_s=600.0, retry_cap_s=600.0, retry_after_cap_s=60.0) as made:
        for ref in (REF, OTHER):
            spec = RolloutSpec(task=Task(task_id="t"), group_id="g")
            await made.store.begin(Running(ref, spec, START), START)
        yield made


async def ask(http: httpx.AsyncClient, ref: AttemptRef | None, stream: bool = False) -> httpx.Response:
    path = f"/rollouts/{ref.trace_id}/v1" if ref else "/v1"
    body = {"model": "policy", "messages": HELLO, "stream": stream}
    return await http.post(f"{path}/chat/completions", json=body)


async def end(http: httpx.AsyncClient, ref: AttemptRef) -> None:
    url = f"/leyden/v1/rollouts/{ref.rollout_id}/attempts/{ref.attempt}/end"
    assert (await http.post(url, json=TIMEOUT)).status_code == 200


def refused() -> float:
    """How many tries an engine has answered with 503."""
    labels = {"target": "policy", "outcome": "status_503"}
    return REGISTRY.get_sample_value("leyden_gateway_tries_total", labels) or 0.0


async def waiting(gate: Bench, calls: int) -> None:
    """Until so many calls have waited for so long that they are shown."""
    await until(lambda: len(gate.gateway.in_flight.waiting_for(SWEEP_S)) == calls)


async def in_flight(gate: Bench, http: httpx.AsyncClient) -> list[str | None]:
    await gate.gateway.watch.look()
    return [call["trace_id"] for call in (await http.get("/leyden/v1/calls")).json()["calls"]]


@pytest.mark.parametrize("stream", [False, True])
async def test_the_call_of_an_attempt_that_is_over_stops_at_the_engine_although_its_agent_still_waits(
    gate: Bench, http: httpx.AsyncClient, stream: bool
) -> None:
    gate.engine.hold.clear()
    asking = asyncio.ensure_future(ask(http, REF, stream))
    await until(lambda: bool(gate.engine.bodies))
    await end(http, REF)
    await until(lambda: gate.gateway.in_flight.attempts(SWEEP_S) == [REF])
    await gate.gateway.watch.look()
    await asyncio.wait_for(gate.engine.cancelled.wait(), 5)
    reply = await asyncio.wait_for(asking, 5)
    if stream:
        assert "attempt_over" in reply.text
    else:
        assert (reply.status_code, reply.json()["error"]["code"]) == (409, "attempt_over")
    await until(lambda: bool(gate.log.calls))
    assert [call.error for call in gate.log.calls] == ["cut_off: its attempt ended before the answer did"]
    assert gate.gateway.servers.load == {}
    assert await in_flight(gate, http) == []


async def test_a_streamed_call_waits_until_its_first_piece_and_can_be_cancelled_after_it(
    gate: Bench, http: httpx.AsyncClient
) -> None:
    gate.engine.hold.clear()
    silent = asyncio.Event()

    async def late(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        await silent.wait()
        return await gate.engine.default(request, body)

    gate.engine.reply = late
    asking = asyncio.ensure_future(ask(http, REF, stream=True))
    await waiting(gate, 1)
    assert await in_flight(gate, http) == [REF.trace_id]
    silent.set()
    await waiting(gate, 0)
    assert await in_flight(gate, http) == [], "it writes its answer"
    assert not asking.done()
    await end(http, REF)
    await gate.gateway.watch.look()
    await asyncio.wait_for(gate.engine.cancelled.wait(), 5)
    assert "attempt_over" in (await asyncio.wait_for(asking, 5)).text


async def test_a_call_that_waits_for_a_retry_is_given_up_with_its_attempt(gate: Bench, http: httpx.AsyncClient) -> None:
    gate.engine.reply = status(503, {"retry-after": "50"})
    before = refused()
    asking = asyncio.ensure_future(ask(http, REF))
    await until(lambda: refused() == before + 1 and not gate.gateway.servers.load)
    await waiting(gate, 1)
    assert not asking.done()
    await end(http, REF)
    await gate.gateway.watch.look()
    assert (await asyncio.wait_for(asking, 5)).json()["error"]["code"] == "attempt_over"


async def test_calls_of_other_attempts_and_of_none_go_on(gate: Bench, http: httpx.AsyncClient) -> None:
    gate.engine.hold.clear()
    asking = [asyncio.ensure_future(ask(http, ref)) for ref in (REF, OTHER, None)]
    await waiting(gate, 3)
    assert sorted(await in_flight(gate, http), key=str) == sorted([REF.trace_id, OTHER.trace_id, None], key=str)
    await end(http, REF)
    await gate.gateway.watch.look()
    assert (await asyncio.wait_for(asking[0], 5)).status_code == 409
    assert set(await in_flight(gate, http)) == {OTHER.trace_id, None}
    gate.engine.hold.set()
    assert [(await reply).status_code for reply in asking[1:]] == [200, 200]
    assert await in_flight(gate, http) == []


async def test_a_failure_says_that_the_model_had_not_answered(gate: Bench, http: httpx.AsyncClient) -> None:
    gate.engine.hold.clear()
    asking = [asyncio.ensure_future(ask(http, ref)) for ref in (REF, OTHER, REF)]
    await waiting(gate, 3)
    await gate.gateway.watch.look()
    await end(http, REF)
    gate.engine.hold.set()
    await asyncio.gather(*asking)
    await end(http, OTHER)
    first, second = gate.log.of(RolloutEnded)
    assert first.failure is not None and first.failure.evidence is not None
    assert first.failure.message == "the agent did not end in 1 s; 2 model calls were still unanswered after 0 s"
    assert first.failure.evidence.unanswered_calls == 2
    assert first.failure.evidence.waited_s is not None
    assert SWEEP_S <= first.failure.evidence.waited_s < 1, "it is told in whole seconds"
    assert second.failure is not None and second.failure.message == TIMEOUT["failure"]["message"], "it was answered"


async def test_keys_of_a_project_see_the_calls_of_that_project_alone(gate: Bench, http: httpx.AsyncClient) -> None:
    gate.engine.hold.clear()
    asked = {"name": "n", "scopes": ["runner"], "project": "ours"}
    key = (await http.post("/leyden/v1/keys", json=asked)).json()["key"]
    await gate.gateway.keys.on_keys([])
    mine = {"authorization": f"Bearer {key}"}
    own = asyncio.ensure_future(
        http.post("/v1/chat/completions", json={"model": "policy", "messages": HELLO}, headers=mine)
    )
    other = asyncio.ensure_future(ask(http, REF))
    await waiting(gate, 2)
    await gate.gateway.watch.look()
    assert [c["trace_id"] for c in (await http.get("/leyden/v1/calls", headers=mine)).json()["calls"]] == [None]
    assert (
        len((await http.get("/leyden/v1/calls", headers={"authorization": f"Bearer {API_KEY}"})).json()["calls"]) == 2
    )
    gate.engine.hold.set()
    await asyncio.gather(own, other)
