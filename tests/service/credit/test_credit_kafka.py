"""The credit process on a real broker and a real Redis, killed in the middle: every group once, in the same bytes."""

import asyncio
import os
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from credit_support import CreditLoop, CreditPublisher, call, delivered, finished, reward, rollout
from fakes import TOPIC_OF
from leyden.events import Event, ModelCallRecorded
from leyden.events.codec import TRANSITIONS, decode
from leyden.kafka import Outgoing
from leyden.kafka.admin import ensure_topics
from leyden.kafka.claims import ClaimStore
from leyden.kafka.publisher import KafkaPublisher
from leyden.kafka.reading import read_topics
from leyden.kafka.settings import KafkaSettings

pytestmark = pytest.mark.integration
GROUPS = 30


def log_of_groups() -> list[Event]:
    events: list[Event] = []
    for index in range(2 * GROUPS):
        mine = [call(f"c{index}-{n}", [1, 2, *([3, 4] * n)], [3, 4], rollout_id=rollout(index), at=n) for n in range(3)]
        rewards = [reward(float(index % 2), rollout_id=rollout(index))]
        events += finished(mine, rewards, rollout_id=rollout(index), group_size=2, group_id=f"g{index // 2}")
    return events


async def published(settings: KafkaSettings, prefix: str, claims: ClaimStore) -> dict[str, list[bytes]]:
    """Everything in transitions.v1, in order, by group."""
    found: dict[str, list[bytes]] = defaultdict(list)
    async for record in read_topics(settings, claims, prefix + TRANSITIONS):
        found[record.key.decode()].append(record.value)
    return found


def closed(found: dict[str, list[bytes]]) -> int:
    return sum(
        any(decode(TRANSITIONS, value).type == "group-credited" for value in values) for values in found.values()
    )


@pytest.fixture
def process(kafka_servers: str, redis_server_url: str, topic_prefix: str, tmp_path: Path):  # type: ignore[no-untyped-def]
    root = Path(__file__).resolve().parents[3]
    env = os.environ | {
        "KAFKA_BOOTSTRAP_SERVERS": kafka_servers,
        "KAFKA_SESSION_TIMEOUT_MS": "6000",
        "REDIS_URL": redis_server_url,
        "LEYDEN_TOPIC_PREFIX": topic_prefix,
        "LEYDEN_DATA_DIR": str(tmp_path),
        "LEYDEN_CREDIT_MAX_RECORDS": "20",
        "PYTHONPATH": f"{root / 'services'}:{root / 'shared'}",
    }

    @contextmanager
    def run():  # type: ignore[no-untyped-def]
        child = subprocess.Popen([sys.executable, "-m", "leyden.credit"], env=env)
        try:
            yield child
        finally:
            child.kill()
            child.wait()

    return run


async def test_every_group_is_credited_once_through_a_kill(
    kafka_servers: str,
    topic_prefix: str,
    tmp_path: Path,
    process: "type[AbstractContextManager[subprocess.Popen[bytes]]]",
) -> None:
    settings = KafkaSettings(bootstrap_servers=kafka_servers)
    await ensure_topics(settings, topic_prefix)
    claims = ClaimStore(f"file://{tmp_path}/claims")
    publisher = KafkaPublisher(settings, topic_prefix, claims)
    await publisher.start()
    events = log_of_groups()

    async def publish(some: list[Event]) -> None:
        await publisher.publish_all([Outgoing(TOPIC_OF[type(e)], e.rollout_id, e) for e in some])  # type: ignore[attr-defined]

    async def until(groups: int, child: "subprocess.Popen[bytes]") -> dict[str, list[bytes]]:
        deadline = time.monotonic() + 90
        while closed(found := await published(settings, topic_prefix, claims)) < groups:
            assert child.poll() is None, "credit ended by itself"
            assert time.monotonic() < deadline, f"only {closed(found)} of {groups} groups were credited"
            await asyncio.sleep(0.3)
        return found

    half = len(events) // 2
    await publish(events[:half])
    with process() as child:
        await until(1, child)
        await publish(events[half:])
    with process() as child:
        found = await until(GROUPS, child)
        child.terminate()
        assert await asyncio.to_thread(child.wait, 30) == 0, "an orderly end"
    await publisher.stop()

    expected = CreditPublisher()
    await CreditLoop(expected).on_batch(delivered(events))
    assert {value for values in found.values() for value in map(_without_origin, values)} == set(
        map(_without_origin, expected.values)
    )
    for group, values in found.items():
        assert len(set(values)) == 3, f"{group}: what was published again is the same, byte for byte"
    origins = {
        t.origin
        for values in found.values()
        for v in values
        for t in getattr(decode(TRANSITIONS, v), "transitions", [])
    }
    assert len(origins) == sum(isinstance(event, ModelCallRecorded) for event in events)


def _without_origin(value: bytes) -> str:
    """The expected events come from no broker: they differ in the calls' offsets alone."""
    event = decode(TRANSITIONS, value)
    return event.model_dump_json(exclude={"transitions": {"__all__": {"origin"}}})
