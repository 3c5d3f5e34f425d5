"""Services on FastStream's in-memory broker: registered, decoded, committed and dead-lettered by our own consumer."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from credit_support import T0, memory_stores, one_rollout
from leyden.clock import ManualClock
from leyden.credit import topology as credit
from leyden.credit.core.section import CreditSection
from leyden.credit.handlers import CreditHandlers
from leyden.events import Event, GroupClosed, GroupCredited, PolicyPromoted, SequenceCredited, SpanRecorded
from leyden.events.codec import (
    CHECKPOINTS,
    GROUPS,
    MODEL_CALLS,
    MODELS,
    OTLP,
    REWARDS,
    ROLLOUTS,
    SPANS,
    TRANSITIONS,
    decode,
)
from leyden.ingest import topology as ingest
from leyden.ingest.core.limits import Limits
from leyden.ingest.dialects import known_dialects
from leyden.ingest.handlers import IngestHandlers
from leyden.ingest.settings import IngestSettings
from leyden.kafka import Delivered, Outgoing, Publisher
from leyden.kafka.claims import ClaimStore
from leyden.kafka.delivered import CLAIM_HEADER, ERROR_HEADER, ORIGIN_HEADER
from leyden.kafka.publisher import UndeclaredTopicError
from leyden.kafka.subscriber import Subscription
from leyden.kafka.topics import DEAD_LETTER_SUFFIX
from leyden.registry import topology as registry
from leyden.registry.handlers import RegistryHandlers
from leyden.service import Service
from memory_kafka import MemoryKafka, running
from registry_support import MemoryPromotions, checkpoint
from unit.ingest.otlp_builders import END, otlp_request, otlp_span


@pytest.fixture
def kafka() -> MemoryKafka:
    return MemoryKafka()


def registry_of(promotions: MemoryPromotions) -> Callable[[Publisher], Service]:
    def make(publisher: Publisher) -> Service:
        handlers = RegistryHandlers(promotions, publisher, automatic=True)
        return Service(subscriptions=registry.subscriptions(handlers), publishes=registry.PUBLISHES)

    return make


def credit_of(publisher: Publisher) -> Service:
    clock = ManualClock(T0)
    handlers = CreditHandlers(memory_stores(clock), publisher, CreditSection(), clock)
    return Service(subscriptions=credit.subscriptions(handlers, CreditSection()), publishes=credit.PUBLISHES)


def ingest_of(publisher: Publisher) -> Service:
    clock = ManualClock(datetime.fromtimestamp(END / 1e9 + 1, UTC))
    handlers = IngestHandlers(publisher, known_dialects(), clock, Limits(50_000, 100_000))
    return Service(subscriptions=ingest.subscriptions(handlers, IngestSettings()), publishes=ingest.PUBLISHES)


def committed(kafka: MemoryKafka, group: str, topic: str) -> int:
    return sum(offset for (name, tp), offset in kafka.committed.items() if (name, tp.topic) == (group, topic))


async def test_a_checkpoint_is_promoted_and_a_restarted_registry_goes_on_behind_it(
    kafka: MemoryKafka, tmp_path: Path
) -> None:
    promotions = MemoryPromotions()
    for version in (1, 2):
        kafka.write(checkpoint(version), key="p")
        async with running("registry", registry_of(promotions), kafka, tmp_path) as process:
            await process.settle()
        assert committed(kafka, "registry", CHECKPOINTS) == version
    assert [one.version for one in kafka.events(MODELS) if isinstance(one, PolicyPromoted)] == [1, 2]
    assert [record.key for record in kafka.records(MODELS)] == [b"p@1", b"p@1/promoted", b"p@2", b"p@2/promoted"]


async def test_a_record_that_is_no_event_is_a_dead_letter_and_its_neighbours_are_handled(
    kafka: MemoryKafka, tmp_path: Path
) -> None:
    kafka.append(CHECKPOINTS, b'{"type": "checkpoint-saved"}', b"p", [("foreign", b"\xff")])
    kafka.write(checkpoint(1), key="p")
    async with running("registry", registry_of(MemoryPromotions()), kafka, tmp_path) as process:
        await process.settle()
    [dead] = kafka.records(CHECKPOINTS + DEAD_LETTER_SUFFIX)
    headers = dict(dead.headers)
    assert (dead.value, dead.key) == (b'{"type": "checkpoint-saved"}', b"p")
    assert (headers[ORIGIN_HEADER], headers[ERROR_HEADER][:6]) == (b"checkpoints.v1/0/0", b"Poison")
    assert [one.version for one in kafka.events(MODELS) if isinstance(one, PolicyPromoted)] == [1]
    assert (committed(kafka, "registry", CHECKPOINTS), process.died) == (2, [])


async def test_credit_reads_its_own_groups_back_and_commits_all_its_topics(kafka: MemoryKafka, tmp_path: Path) -> None:
    kafka.write(*one_rollout(0, 1.0, size=2), key="rollout-0")
    async with running("credit", credit_of, kafka, tmp_path) as process:
        await process.settle()
        assert kafka.records(TRANSITIONS) == []
        kafka.write(*one_rollout(1, 0.0, size=2), key="rollout-1")
        await process.settle()
    assert [type(event) for event in kafka.events(GROUPS)] == [GroupClosed]
    assert [type(event) for event in kafka.events(TRANSITIONS)] == [SequenceCredited, SequenceCredited, GroupCredited]
    for topic in (ROLLOUTS, MODEL_CALLS, REWARDS, GROUPS):
        assert committed(kafka, "credit", topic) == len(kafka.records(topic)) > 0


async def test_credit_joins_what_came_to_different_partitions(kafka: MemoryKafka, tmp_path: Path) -> None:
    for index in range(4):
        kafka.write(*one_rollout(index, float(index % 2), size=4), key=f"rollout-{index}")
    assert len({record.partition for record in kafka.records(ROLLOUTS)}) > 1
    async with running("credit", credit_of, kafka, tmp_path) as process:
        await process.settle()
    [group] = [event for event in kafka.events(TRANSITIONS) if isinstance(event, GroupCredited)]
    assert group.sequences == 4


async def test_ingest_takes_raw_otlp_and_keeps_other_bytes_as_a_dead_letter(kafka: MemoryKafka, tmp_path: Path) -> None:
    kafka.append(OTLP, otlp_request(otlp_span()).SerializeToString(), b"k")
    kafka.append(OTLP, b"\xff not OTLP", b"k")
    async with running("ingest", ingest_of, kafka, tmp_path) as process:
        await process.settle()
    assert [type(event) for event in kafka.events(SPANS)] == [SpanRecorded]
    [dead] = kafka.records(OTLP + DEAD_LETTER_SUFFIX)
    assert dead.value == b"\xff not OTLP"
    assert committed(kafka, "ingest", OTLP) == 2


async def test_a_value_too_big_for_kafka_reaches_the_handler_whole(kafka: MemoryKafka, tmp_path: Path) -> None:
    seen: list[Event] = []

    async def take(batch: Sequence[Delivered[Event]]) -> None:
        seen.extend(one.event for one in batch)

    service = Service(subscriptions=[Subscription((MODELS,), take, None)], publishes=frozenset({CHECKPOINTS, MODELS}))
    big = checkpoint(1).model_copy(update={"base_model": "b" * 200_000})
    async with running("policy", lambda _: service, kafka, tmp_path) as process:
        await process.publisher.publish_all([Outgoing(CHECKPOINTS, "p", big)])
    [record] = kafka.records(CHECKPOINTS)
    claim = dict(record.headers)[CLAIM_HEADER].decode()
    assert (record.value, decode(CHECKPOINTS, ClaimStore(f"file://{tmp_path}/claims").get(claim))) == (b"", big)
    reader = Service(subscriptions=[Subscription((CHECKPOINTS,), take, "reader")])
    async with running("registry", lambda _: reader, kafka, tmp_path) as process:
        await process.settle()
    assert seen == [big]


async def test_a_service_that_publishes_to_a_topic_that_it_does_not_declare_is_refused(
    kafka: MemoryKafka, tmp_path: Path
) -> None:
    async with running("registry", registry_of(MemoryPromotions()), kafka, tmp_path) as process:
        with pytest.raises(UndeclaredTopicError, match="rewards"):
            await process.publisher.publish_raw(REWARDS, "k", b"{}")
    assert kafka.records(REWARDS) == []


async def test_without_a_group_nothing_is_committed_and_every_start_reads_from_the_beginning(
    kafka: MemoryKafka, tmp_path: Path
) -> None:
    seen: list[Event] = []

    async def take(batch: Sequence[Delivered[Event]]) -> None:
        seen.extend(one.event for one in batch)

    kafka.write(checkpoint(1), key="p")
    service = Service(subscriptions=[Subscription((CHECKPOINTS,), take, None)])
    for _ in range(2):
        async with running("policy", lambda _: service, kafka, tmp_path) as process:
            await process.settle()
    assert (seen, kafka.committed) == ([checkpoint(1)] * 2, {})
