"""The client library against our own gateway: both sides of the HTTP contract, with Kafka and Redis in memory."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator

import httpx
import pytest
from openai import OpenAI
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider

import leyden
from leyden.client import Claim, GatewayRefusedError
from leyden.client.executors import Command
from leyden.client.session import close
from leyden.events import RolloutEnded, RolloutStarted
from service.gateway.gateway_fakes import API_KEY, Bench, bench


@pytest.fixture
async def gate() -> AsyncIterator[Bench]:
    async with bench() as made:
        yield made
        await asyncio.to_thread(close)


def connect(gate: Bench, key: str = API_KEY) -> None:
    leyden.init(gate.url, key, tracer_provider=TracerProvider(shutdown_on_exit=False), retry_timeout_s=5.0)


def reach(gate: Bench, claim: Claim) -> str:
    """The claim's base URL on the test's port: the gateway names its configured one."""
    return f"{gate.url}{httpx.URL(claim.base_url).path}"


def span_names(gate: Bench) -> list[str]:
    sent = [ExportTraceServiceRequest.FromString(value) for topic, _, value in gate.log.raw if topic == "otlp.v1"]
    return [s.name for request in sent for r in request.resource_spans for scope in r.scope_spans for s in scope.spans]


async def test_a_runner_takes_tasks_to_their_ends(gate: Bench) -> None:
    def agent(claim: Claim) -> float:
        with OpenAI(base_url=reach(gate, claim), api_key=claim.api_key, max_retries=0) as client:
            client.chat.completions.create(model="policy", messages=[{"role": "user", "content": claim.input["q"]}])
        leyden.emit_reward(0.5, "style")
        return 1.0

    async with httpx.AsyncClient(base_url=gate.url, headers={"authorization": f"Bearer {API_KEY}"}) as http:
        asked = {"tasks": [{"task_id": "t", "input": {"q": "why?"}, "samples": 3}]}
        assert (await http.post("/leyden/v1/tasks", json=asked)).status_code == 201
    await gate.drain_tasks()
    connect(gate)
    runner = leyden.Runner(agent, gate.url, API_KEY, concurrency=2, wait_s=0.2, retry_timeout_s=5.0)
    serving = asyncio.create_task(runner.serve())
    async with asyncio.timeout(30):
        while len(gate.log.of(RolloutEnded)) < 3:
            await asyncio.sleep(0.02)
        runner.stop()
        await serving
    ended = gate.log.of(RolloutEnded)
    assert [(e.status, e.reward, e.span_count, len(e.call_ids), e.final) for e in ended] == [
        ("succeeded", 1.0, 2, 1, True)
    ] * 3
    assert {(call.rollout_id, call.attempt) for call in gate.log.calls} == {(e.rollout_id, e.attempt) for e in ended}
    assert sorted(span_names(gate)) == ["gen_ai.evaluation.result"] * 3 + ["invoke_agent agent"] * 3


PROGRAM = """
import os, leyden, httpx
url = httpx.URL(os.environ["OPENAI_BASE_URL"]).path
asked = {"model": "policy", "messages": [{"role": "user", "content": os.environ["LEYDEN_TASK_INPUT"]}]}
key = {"authorization": "Bearer " + os.environ["OPENAI_API_KEY"]}
gateway = os.environ["LEYDEN_GATEWAY_URL"]
httpx.post(gateway + url + "/chat/completions", json=asked, headers=key, timeout=30).raise_for_status()
leyden.emit_reward(0.5)
"""


async def test_a_program_of_a_runner_is_bound_by_its_environment_alone(
    gate: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with httpx.AsyncClient(base_url=gate.url, headers={"authorization": f"Bearer {API_KEY}"}) as http:
        assert (await http.post("/leyden/v1/tasks", json={"tasks": [{"input": "why?"}]})).status_code == 201
    await gate.drain_tasks()
    connect(gate)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    agent = Command([sys.executable, "-c", PROGRAM])
    async with asyncio.timeout(60):
        await leyden.Runner(agent, gate.url, API_KEY, limit=1, wait_s=0.2).serve()
    [ended] = gate.log.of(RolloutEnded)
    assert (ended.status, ended.failure, ended.span_count, len(ended.call_ids)) == ("succeeded", None, 2, 1)
    [call] = gate.log.calls
    assert (call.rollout_id, call.attempt) == (ended.rollout_id, ended.attempt)


async def test_a_decorated_agent_starts_and_ends_its_own_rollout(gate: Bench) -> None:
    connect(gate)

    @leyden.rollout
    async def agent() -> str:
        return leyden.current_rollout().rollout_id

    rollout_id = await agent()
    [started], [ended] = gate.log.of(RolloutStarted), gate.log.of(RolloutEnded)
    assert started.rollout_id == ended.rollout_id == rollout_id
    assert (ended.status, ended.output, ended.span_count) == ("succeeded", rollout_id, 1)


async def test_a_failed_agent_is_recorded_with_its_class(gate: Bench) -> None:
    connect(gate)
    with pytest.raises(KeyError):
        async with leyden.Rollout("solver"):
            raise KeyError("page")
    [ended] = gate.log.of(RolloutEnded)
    assert (ended.status, ended.failure.failure_class, ended.failure.message) == (
        "failed", "agent_exception", "KeyError: 'page'",
    )  # fmt: skip


async def test_a_wrong_key_is_refused(gate: Bench) -> None:
    connect(gate, "wrong")
    with pytest.raises(GatewayRefusedError, match="401"):
        async with leyden.Rollout():
            pass
