"""ingest and reward as processes on real Kafka and real Redis, killed in the middle."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from leyden.events import Event, RewardAssigned, RewardsCompleted, RolloutSettled
from leyden.events.codec import MODEL_CALLS, OTLP, REWARDS, ROLLOUTS, decode
from leyden.ids import AttemptRef, rollout_id_of
from leyden.kafka.admin import ensure_topics
from leyden.kafka.claims import ClaimStore
from leyden.kafka.delivered import Outgoing
from leyden.kafka.publisher import KafkaPublisher
from leyden.kafka.reading import read_topics
from leyden.kafka.settings import KafkaSettings
from unit.ingest.otlp_builders import otlp_request, otlp_span
from unit.reward.reward_builders import a_call, an_end

pytestmark = pytest.mark.integration
ROLLOUTS_N = [rollout_id_of("task", n) for n in range(30)]
RUN_FILE = """
reward:
  functions: [{entry: "leyden.reward.functions:exact_match", name: outcome}]
  air: [{rule: tool_status, ok: 0.1, error: -0.2}]
"""


class Stack:
    """The two services on one broker, under a prefix of their own."""

    def __init__(self, servers: str, redis_url: str, prefix: str, folder: Path) -> None:
        self.kafka = KafkaSettings(bootstrap_servers=servers)
        self.prefix = prefix
        self.claims = ClaimStore(f"file://{folder}/claims")
        self.publisher = KafkaPublisher(self.kafka, prefix, self.claims)
        (folder / "run.yaml").write_text(RUN_FILE)
        self.environment = os.environ | {
            "KAFKA_BOOTSTRAP_SERVERS": servers,
            "KAFKA_SESSION_TIMEOUT_MS": "6000",
            "REDIS_URL": redis_url,
            "LEYDEN_TOPIC_PREFIX": prefix,
            "LEYDEN_DATA_DIR": str(folder),
            "LEYDEN_RUN_FILE": str(folder / "run.yaml"),
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        }

    @asynccontextmanager
    async def running(self, *names: str, end_by: signal.Signals = signal.SIGTERM) -> AsyncIterator[None]:
        processes = [
            await asyncio.create_subprocess_exec(sys.executable, "-m", f"leyden.{name}", env=self.environment)
            for name in names
        ]
        try:
            yield
        finally:
            for process in processes:
                if process.returncode is None:
                    process.send_signal(end_by)
            codes = [await process.wait() for process in processes]
        assert codes == [0 if end_by is signal.SIGTERM else -end_by] * len(codes)

    async def events(self, topic: str) -> list[Event]:
        read = read_topics(self.kafka, self.claims, self.prefix + topic)
        return [decode(topic, record.value) async for record in read]

    async def until_completed(self, at_least: int) -> None:
        async with asyncio.timeout(90):
            while len({e.event_id for e in await self.events(REWARDS) if isinstance(e, RewardsCompleted)}) < at_least:
                await asyncio.sleep(0.5)

    async def write(self, rollouts: Sequence[str]) -> None:
        """One call, one failed tool and the end of each rollout; every third end comes before its evidence."""
        for n, rollout in enumerate(rollouts):
            call = a_call(1, 1, rollout_id=rollout, call_id=f"call-{rollout}", event_id=f"event-{rollout}")
            end = an_end([call], rollout_id=rollout, event_id=f"end-{rollout}", span_count=1, output="4")
            span = otlp_span({"gen_ai.tool.name": "add"}, trace_id=AttemptRef(rollout, 0).trace_id, error="broken")
            outgoing = [Outgoing(MODEL_CALLS, rollout, call), Outgoing(ROLLOUTS, rollout, end)]
            await self.publisher.publish_all(outgoing[:: -1 if n % 3 == 0 else 1])
            await self.publisher.publish_raw(OTLP, "", otlp_request(span).SerializeToString())


@pytest.fixture
async def stack(kafka_servers: str, redis_server_url: str, topic_prefix: str, tmp_path: Path) -> AsyncIterator[Stack]:
    stack = Stack(kafka_servers, redis_server_url, topic_prefix, tmp_path)
    await ensure_topics(stack.kafka, topic_prefix)
    await stack.publisher.start()
    yield stack
    await stack.publisher.stop()


async def test_every_rollout_is_rewarded_once_though_both_services_are_killed(stack: Stack) -> None:
    await stack.write(ROLLOUTS_N[:15])
    async with stack.running("ingest", "reward", end_by=signal.SIGKILL):
        await stack.until_completed(1)
        await stack.write(ROLLOUTS_N[15:])
    async with stack.running("ingest", "reward"):
        await stack.until_completed(len(ROLLOUTS_N))
    settled = {e.rollout_id: e for e in await stack.events(ROLLOUTS) if isinstance(e, RolloutSettled)}
    assert set(settled) == set(ROLLOUTS_N)
    assert all(e.complete and len(e.span_ids) == 1 for e in settled.values())
    rewards = {e.event_id: e for e in await stack.events(REWARDS)}
    given = [e for e in rewards.values() if isinstance(e, RewardAssigned)]
    assert sorted((e.rollout_id, e.rule, e.value) for e in given) == sorted(
        (rollout, rule, value) for rollout in ROLLOUTS_N for rule, value in (("outcome", 1.0), ("tool_status", -0.2))
    )
    completed = [e for e in rewards.values() if isinstance(e, RewardsCompleted)]
    assert {i for e in completed for i in e.reward_ids} == {e.event_id for e in given}
