"""The gateway as a process on a real Kafka and a real Redis, killed again and again while runners work."""

import asyncio
import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from leyden.events import Event, ModelCallRecorded, PolicyServed, RolloutEnded
from leyden.events.codec import MODEL_CALLS, MODELS, OTLP, ROLLOUTS, decode, encode
from leyden.kafka.admin import ensure_topics
from leyden.kafka.claims import ClaimStore
from leyden.kafka.delivered import Outgoing
from leyden.kafka.publisher import KafkaPublisher
from leyden.kafka.reading import read_topics
from leyden.kafka.settings import KafkaSettings
from leyden.stack.ports import free_port
from roots import ROOT
from service.gateway.gateway_engine_fake import ScriptedEngine, engine_server
from service.gateway.gateway_fakes import START

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("default"), pytest.mark.timeout(200)]

KEY = {"authorization": "Bearer key"}
TASKS = 12


class GatewayProcess:
    """One gateway that can be killed and started again on the same port."""

    def __init__(self, kafka: KafkaSettings, redis_url: str, prefix: str, folder: Path) -> None:
        self.kafka, self.prefix, self.folder = kafka, prefix, folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = os.environ | {
            "PYTHONPATH": f"{ROOT / 'services'}{os.pathsep}{ROOT / 'shared'}",
            "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "REDIS_URL": redis_url,
            "LEYDEN_TOPIC_PREFIX": prefix,
            "LEYDEN_DATA_DIR": str(folder),
            "LEYDEN_GATEWAY_PORT": str(self.port),
            "LEYDEN_GATEWAY_SECRET": "a secret of the tests",
            "LEYDEN_GATEWAY_API_KEYS": "key",
            "LEYDEN_GATEWAY_LEASE_S": "3",
            "LEYDEN_GATEWAY_UNSETTLED_GRACE_S": "1",
            "LEYDEN_GATEWAY_SWEEP_INTERVAL_S": "0.2",
        }
        self.claims = ClaimStore(f"file://{self.folder}/claims")
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        with (self.folder / "gateway.log").open("ab") as log:
            command = [sys.executable, "-m", "leyden.gateway"]
            return subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)

    async def restart(self) -> None:
        self.process.kill()
        await asyncio.to_thread(self.process.wait)
        self.process = self._start()
        await self.ready()

    async def ready(self) -> None:
        async with httpx.AsyncClient(trust_env=False) as http, asyncio.timeout(60):
            while True:
                assert self.process.poll() is None, (self.folder / "gateway.log").read_text()[-3000:]
                try:
                    if (await http.get(f"{self.url}/readyz")).status_code == 200:
                        return
                except httpx.HTTPError:
                    pass
                await asyncio.sleep(0.1)

    async def leyden(self, *arguments: str) -> str:
        """What a command prints that is told of this gateway and its log by the environment alone."""
        told = {"LEYDEN_GATEWAY_URL": self.url, "LEYDEN_API_KEY": "key", "TERM": "dumb"}
        command = [sys.executable, "-m", "leyden.cli", *arguments, "--data-dir", str(self.folder / "no-stack")]
        done = await asyncio.to_thread(
            subprocess.run, command, env=self.environment | told, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    async def events(self, topic: str) -> list[Event]:
        return [decode(topic, value) for value in await self.values(topic)]

    async def values(self, topic: str) -> list[bytes]:
        return [record.value async for record in read_topics(self.kafka, self.claims, self.prefix + topic)]


@pytest.fixture
async def engine() -> AsyncIterator[ScriptedEngine]:
    scripted = ScriptedEngine()
    async with engine_server(scripted):
        yield scripted


@pytest.fixture
async def gateway(
    kafka_servers: str, redis_server_url: str, topic_prefix: str, tmp_path: Path, engine: ScriptedEngine
) -> AsyncIterator[GatewayProcess]:
    kafka = KafkaSettings(bootstrap_servers=kafka_servers)
    await ensure_topics(kafka, topic_prefix)
    served = PolicyServed(
        event_id="s", event_time=START, producer="policy", policy="policy", version=3, replica="r",
        endpoint=engine.url, model="m", engine="scripted",
    )  # fmt: skip
    async with KafkaPublisher(kafka, topic_prefix, ClaimStore(f"file://{tmp_path}/claims")) as publisher:
        await publisher.publish_all([Outgoing(MODELS, "policy/r", served)])
    process = GatewayProcess(kafka, redis_server_url, topic_prefix, tmp_path)
    try:
        await process.ready()
        yield process
    finally:
        process.process.terminate()
        status = await asyncio.to_thread(process.process.wait, 40)
    assert status == 0, (tmp_path / "gateway.log").read_text()[-3000:]


class Runners:
    """Runners that try again whatever fails, and note which calls they were answered."""

    def __init__(self, url: str) -> None:
        self.http = httpx.AsyncClient(base_url=url, headers=KEY, trust_env=False, timeout=10)
        self.answered: dict[str, set[str]] = defaultdict(set)

    async def post(self, path: str, body: Any) -> httpx.Response:
        while True:
            try:
                reply = await self.http.post(path, json=body)
                if reply.status_code not in (429, 502, 503):
                    return reply
            except httpx.HTTPError:
                pass
            await asyncio.sleep(0.05)

    async def work(self) -> None:
        while True:
            reply = await self.post("/leyden/v1/rollouts/claim", {"runner": "r", "wait_s": 1})
            for rollout in reply.json()["rollouts"]:
                await self._rollout(rollout)

    async def _rollout(self, rollout: dict[str, Any]) -> None:
        trace = rollout["trace_id"]
        for stream in (False, True, False):
            body = {"model": "policy", "messages": [], "stream": stream}
            reply = await self.post(f"/rollouts/{trace}/v1/chat/completions", body)
            if reply.status_code == 200 and (not stream or reply.text.endswith("data: [DONE]\n\n")):
                self.answered[trace].add(reply.headers["x-leyden-call-id"])
            await asyncio.sleep(0.1)
        end = f"/leyden/v1/rollouts/{rollout['rollout_id']}/attempts/{rollout['attempt']}/end"
        reply = await self.post(end, {"status": "succeeded"})
        assert reply.status_code in (200, 404, 409), reply.text


async def test_killed_at_any_moment_every_rollout_ends_once_with_all_its_calls(gateway: GatewayProcess) -> None:
    runners = Runners(gateway.url)
    tasks = [{"task_id": f"t{n}", "max_attempts": 20} for n in range(TASKS)]
    assert (await runners.post("/leyden/v1/tasks", {"tasks": tasks})).status_code == 201
    working = [asyncio.create_task(runners.work()) for _ in range(4)]
    for _ in range(3):
        await asyncio.sleep(0.5)
        await gateway.restart()
    async with asyncio.timeout(60):
        while (await runners.http.get("/leyden/v1/queue")).json()["ended"] < TASKS:
            await asyncio.sleep(0.2)
    for task in working:
        task.cancel()
    results = await asyncio.gather(*working, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results), results
    await runners.http.aclose()
    await _check(gateway, runners.answered)


async def _check(gateway: GatewayProcess, answered: dict[str, set[str]]) -> None:
    ends = [event for event in await gateway.events(ROLLOUTS) if isinstance(event, RolloutEnded)]
    assert len({encode(end) for end in ends}) == len({end.event_id for end in ends}), "an end that came twice differs"
    final = {end.rollout_id: end for end in ends if end.final}
    assert len(final) == TASKS
    assert len({end.event_id for end in ends if end.final}) == TASKS
    calls = [event for event in await gateway.events(MODEL_CALLS) if isinstance(event, ModelCallRecorded)]
    recorded = {call.call_id: call for call in calls}
    assert len(recorded) == len(calls)
    for end in {end.event_id: end for end in ends}.values():
        assert answered.get(end.ref.trace_id, set()) <= set(end.call_ids), "an answered call is not listed"
        assert all((recorded[call].rollout_id, recorded[call].attempt) == end.ref for call in end.call_ids)
    print(f"{len(ends)} ends, {len(calls)} calls, {sum(map(len, answered.values()))} answered")


async def test_when_redis_loses_its_data_every_rollout_ends_once_all_the_same(
    gateway: GatewayProcess, redis_server_url: str, topic_prefix: str
) -> None:
    runners = Runners(gateway.url)
    rows = gateway.folder / "rows.jsonl"
    rows.write_text("".join(f'{{"input": {n}}}\n' for n in range(TASKS)))
    for new in (TASKS, 0):
        said = await gateway.leyden("enqueue", str(rows), "--max-attempts", "20", "--backoff", "0.1")
        assert said.endswith(f"{TASKS} tasks, {TASKS} rollouts; {new} tasks are new")
    working = [asyncio.create_task(runners.work()) for _ in range(4)]
    await asyncio.sleep(1.5)
    gateway.process.kill()
    await asyncio.to_thread(gateway.process.wait)
    async with Redis.from_url(redis_server_url) as redis:
        lost = [key async for key in redis.scan_iter(f"{topic_prefix}gateway:*")]
        assert lost
        await redis.delete(*lost)
    await gateway.restart()
    async with asyncio.timeout(60):
        while (await runners.http.get("/leyden/v1/queue")).json()["ended"] < TASKS:
            await asyncio.sleep(0.2)
    for task in working:
        task.cancel()
    await asyncio.gather(*working, return_exceptions=True)
    await runners.http.aclose()
    await _check(gateway, {})
    ends = [event for event in await gateway.events(ROLLOUTS) if isinstance(event, RolloutEnded)]
    assert {end.failure.failure_class for end in ends if end.failure} <= {"infrastructure", "runner_lost"}
    report = json.loads(await gateway.leyden("errors", "--json", "--group-by", "policy_version"))
    assert report["ended"] == len(ends)
    assert report["failed"] == len({end.ref for end in ends if end.status == "failed"})


async def test_spans_that_were_accepted_are_in_the_log(gateway: GatewayProcess) -> None:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    request = ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add().spans.add(name="work")
    body = request.SerializeToString()
    async with httpx.AsyncClient(base_url=gateway.url, headers=KEY, trust_env=False) as http:
        headers = {"content-type": "application/x-protobuf"}
        assert (await http.post("/v1/traces", content=body, headers=headers)).status_code == 200
    assert await gateway.values(OTLP) == [body]


async def test_a_key_outlives_its_gateway_and_its_end_reaches_another_replica(
    gateway: GatewayProcess, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = GatewayProcess(gateway.kafka, gateway.environment["REDIS_URL"], gateway.prefix, tmp_path / "other")
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=10) as http:
            wanted = {"name": "ci", "scopes": ["agent"], "requests_per_minute": 6}
            made = (await http.post(f"{gateway.url}/leyden/v1/keys", json=wanted, headers=KEY)).json()
            await gateway.restart()
            await other.ready()
            statuses = [await _call(http, url, made["key"]) for url in (gateway.url, other.url) * 4]
            assert statuses == [200] * 6 + [429] * 2, "one limit for both replicas"
            assert (await http.delete(f"{other.url}/leyden/v1/keys/{made['key_id']}", headers=KEY)).status_code == 200
            async with asyncio.timeout(10):
                while await _call(http, gateway.url, made["key"]) != 401:
                    await asyncio.sleep(0.05)
    finally:
        other.process.terminate()
        await asyncio.to_thread(other.process.wait, 40)
    logs = [(folder / "gateway.log").read_text() for folder in (tmp_path, tmp_path / "other")]
    assert not any(made["key"] in text or made["key"].rpartition("-")[2] in text for text in logs)


async def _call(http: httpx.AsyncClient, url: str, key: str) -> int:
    body = {"model": "policy", "messages": []}
    headers = {"authorization": f"Bearer {key}"}
    return (await http.post(f"{url}/v1/chat/completions", json=body, headers=headers)).status_code
