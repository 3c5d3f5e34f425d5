"""The log of recorded batches on real Kafka."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from leyden.events import BatchFormed
from leyden.events.codec import TRAINING_BATCHES, TRANSITIONS
from leyden.kafka import Outgoing, Retry
from leyden.kafka.admin import ensure_topics
from leyden.kafka.claims import ClaimStore
from leyden.kafka.publisher import KafkaPublisher
from leyden.kafka.settings import KafkaSettings
from leyden.trainer.adapters import KafkaBatchLog, KafkaTransitions
from roots import ROOT

pytestmark = pytest.mark.integration


@pytest.fixture
async def publisher(kafka_servers: str, topic_prefix: str, tmp_path: Path) -> AsyncIterator[KafkaPublisher]:
    settings = KafkaSettings(bootstrap_servers=kafka_servers)
    await ensure_topics(settings, topic_prefix)
    async with KafkaPublisher(settings, topic_prefix, ClaimStore(f"file://{tmp_path}"), max_value_bytes=2000) as made:
        yield made


def batch(event_id: str, sequences: int = 1) -> Outgoing:
    example = ROOT / "schemas" / "examples" / TRAINING_BATCHES / "batch-formed.json"
    formed = BatchFormed.model_validate_json(example.read_bytes())
    changes = {"event_id": event_id, "sequence_ids": ["s" * 32] * sequences}
    return Outgoing(TRAINING_BATCHES, formed.policy, formed.model_copy(update=changes))


async def test_each_record_is_read_once_up_to_the_end_however_large(
    publisher: KafkaPublisher, kafka_servers: str, topic_prefix: str, tmp_path: Path
) -> None:
    log = KafkaBatchLog(
        KafkaSettings(bootstrap_servers=kafka_servers),
        ClaimStore(f"file://{tmp_path}"),
        topic_prefix + TRAINING_BATCHES,
    )
    assert await log.read() == []
    await publisher.publish_all([batch("1"), batch("2", sequences=1000)])
    assert [one.event_id for one in await log.read()] == ["1", "2"]
    await publisher.publish_raw(TRAINING_BATCHES, "policy", b"{}")
    await publisher.publish_all([batch("3")])
    assert [one.event_id for one in await log.read()] == ["3"], "what is no batch is skipped"
    await log.close()
    await publisher.publish_all([batch("4")])
    assert [one.event_id for one in await log.read()] == ["4"], "it opens another connection"
    assert await log.read() == []
    await log.close()


async def test_a_broker_that_is_away_is_a_passing_fault(tmp_path: Path) -> None:
    log = KafkaBatchLog(KafkaSettings(bootstrap_servers="127.0.0.1:1"), ClaimStore(f"file://{tmp_path}"), "t")
    for _ in range(2):
        with pytest.raises(Retry):
            await log.read()


async def test_dead_letters_at_a_partitions_end_are_no_records_to_wait_for(
    publisher: KafkaPublisher, kafka_servers: str, topic_prefix: str, tmp_path: Path
) -> None:
    kafka, claims = KafkaSettings(bootstrap_servers=kafka_servers), ClaimStore(f"file://{tmp_path}")
    transitions = KafkaTransitions(kafka, claims, topic_prefix + TRANSITIONS)
    assert await transitions.ends() == {}
    good = (ROOT / "schemas" / "examples" / TRANSITIONS / "group-credited.json").read_bytes()
    for value in (b"{}", good, good, *[b"no event"] * 5):
        await publisher.publish_raw(TRANSITIONS, "one", value)
    await publisher.publish_raw(TRANSITIONS, "another", b"{}")
    [(_, end)] = (await transitions.ends()).items()
    assert end == 3
    for value in (good, b"{}"):
        await publisher.publish_raw(TRANSITIONS, "one", value)
    assert list((await transitions.ends()).values()) == [9]
