"""The consumer loop and the publisher on a real broker: what is committed was handled, what is bad is kept aside."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import RecordsToDelete

from leyden.events import Event, RewardsCompleted
from leyden.events.codec import REWARDS, encode
from leyden.kafka import Delivered, Outgoing, Poison, Retry
from leyden.kafka.admin import TopicMismatchError, admin_client, ensure_topics, set_group_offsets, topic_partitions
from leyden.kafka.claims import ClaimStore
from leyden.kafka.clients import make_broker
from leyden.kafka.loop import LoopSettings
from leyden.kafka.publisher import KafkaPublisher
from leyden.kafka.reading import LogReader, read_topics
from leyden.kafka.settings import KafkaSettings
from leyden.kafka.subscriber import BatchConsumer, Subscription
from leyden.kafka.tail import TopicTail, group_backlog
from leyden.telemetry.metrics import CONSUMER_LAG

pytestmark = pytest.mark.integration


def reward(number: int, padding: str = "") -> RewardsCompleted:
    return RewardsCompleted(
        event_id=f"e{number}",
        event_time=datetime(2026, 1, 1, tzinfo=UTC),
        producer="test",
        rollout_id=f"r{number}",
        attempt=0,
        reward_ids=[padding] if padding else [],
    )


class Bus:
    """A started publisher, and consumers to run on the same topics."""

    def __init__(self, settings: KafkaSettings, prefix: str, folder: Path) -> None:
        self.settings, self.prefix = settings, prefix
        self.claims = ClaimStore(f"file://{folder}/claims")
        self.publisher = KafkaPublisher(settings, prefix, self.claims, max_value_bytes=100_000)
        self.deaths: list[int] = []

    async def publish(self, *events: Event) -> None:
        await self.publisher.publish_all([Outgoing(REWARDS, e.rollout_id, e) for e in events])  # type: ignore[attr-defined]

    @asynccontextmanager
    async def consuming(self, handler, *, group: str | None = "g", limit: int = 100):  # type: ignore[no-untyped-def]
        broker = make_broker("consumer", self.settings)
        retry = LoopSettings(first_delay_s=0.01, max_delay_s=0.05, dead_letter_limit=limit)
        subscription = Subscription((REWARDS,), handler, group)
        consumer = BatchConsumer(
            subscription=subscription,
            settings=self.settings,
            publisher=self.publisher,
            claims=self.claims,
            prefix=self.prefix,
            retry=retry,
            die=self.deaths.append,
        )
        consumer.register(broker)
        await broker.start()
        try:
            yield consumer
        finally:
            await broker.stop()

    async def values(self, topic: str) -> list[tuple[bytes, dict[str, bytes]]]:
        read = read_topics(self.settings, self.claims, self.prefix + topic)
        return [(record.value, dict(record.headers)) async for record in read]


@pytest.fixture
async def bus(kafka_servers: str, topic_prefix: str, tmp_path: Path):  # type: ignore[no-untyped-def]
    settings = KafkaSettings(bootstrap_servers=kafka_servers)
    await ensure_topics(settings, topic_prefix)
    bus = Bus(settings, topic_prefix, tmp_path)
    await bus.publisher.start()
    yield bus
    await bus.publisher.stop()


async def until(done: Callable[[], bool], timeout: float = 20.0) -> None:
    async with asyncio.timeout(timeout):
        while not done():
            await asyncio.sleep(0.02)


async def handled(bus: Bus, group: str) -> None:
    """Wait until `group` has committed everything."""
    async with asyncio.timeout(20):
        while await group_backlog(bus.settings, bus.prefix, group, [REWARDS]):
            await asyncio.sleep(0.05)


class Keeper:
    """A handler that keeps what it was given."""

    def __init__(self) -> None:
        self.got: list[str] = []

    async def on_batch(self, batch: Sequence[Delivered[Event]]) -> None:
        self.got += [one.event.event_id for one in batch]


async def test_what_was_handled_is_committed_and_not_delivered_again(bus: Bus) -> None:
    await bus.publish(*(reward(n) for n in range(50)))
    first = Keeper()
    async with bus.consuming(first.on_batch):
        await until(lambda: len(first.got) == 50)
        await handled(bus, "g")
    second = Keeper()
    await bus.publish(reward(50))
    async with bus.consuming(second.on_batch):
        await until(lambda: bool(second.got))
    assert sorted(first.got) == sorted(f"e{n}" for n in range(50))
    assert second.got == ["e50"]
    assert await group_backlog(bus.settings, bus.prefix, "g", [REWARDS]) == 0


async def test_records_that_expired_unread_are_no_backlog(bus: Bus) -> None:
    await bus.publish(*(reward(n) for n in range(50)))
    partitions = await topic_partitions(bus.settings, [bus.prefix + REWARDS])
    async with admin_client(bus.settings) as admin:
        await admin.delete_records({tp: RecordsToDelete(before_offset=-1) for tp in partitions})
    assert await group_backlog(bus.settings, bus.prefix, "g", [REWARDS]) == 0
    await bus.publish(reward(50))
    assert await group_backlog(bus.settings, bus.prefix, "g", [REWARDS]) == 1


async def test_a_passing_fault_delivers_the_same_batch_until_it_is_handled(bus: Bus) -> None:
    keeper, faults = Keeper(), [3]

    async def handler(batch: Sequence[Delivered[Event]]) -> None:
        if faults[0]:
            faults[0] -= 1
            raise Retry("away")
        await keeper.on_batch(batch)

    await bus.publish(*(reward(n) for n in range(20)))
    async with bus.consuming(handler):
        await until(lambda: len(keeper.got) == 20)
    assert sorted(keeper.got) == sorted(f"e{n}" for n in range(20))
    assert bus.deaths == []


async def test_a_poisonous_record_goes_to_the_dead_letters_and_the_others_are_handled(bus: Bus) -> None:
    keeper = Keeper()

    async def handler(batch: Sequence[Delivered[Event]]) -> None:
        if bad := [one for one in batch if one.event.event_id == "e3"]:
            raise Poison("three is not liked", *bad)
        await keeper.on_batch(batch)

    await bus.publish(*(reward(n) for n in range(6)))
    async with bus.consuming(handler):
        await until(lambda: len(keeper.got) >= 5)
    dead = await bus.values(f"{REWARDS}.dlq")
    assert sorted(keeper.got) == ["e0", "e1", "e2", "e4", "e5"]
    assert len(dead) == 1
    assert dead[0][0] == encode(reward(3))
    assert dead[0][1]["leyden-error"] == b"Poison: three is not liked"
    assert dead[0][1]["leyden-origin"].startswith(b"rewards.v1/")


async def test_bytes_that_are_no_event_are_kept_aside_as_they_were(bus: Bus) -> None:
    keeper = Keeper()
    await bus.publisher.publish_raw(REWARDS, "r1", b"{not json", {})
    await bus.publisher.publish_raw(REWARDS, "r1", b'{"type":"reward-assigned"}', {})
    await bus.publish(reward(1))
    async with bus.consuming(keeper.on_batch):
        await until(lambda: bool(keeper.got))
    dead = await bus.values(f"{REWARDS}.dlq")
    assert keeper.got == ["e1"]
    assert {value for value, _ in dead} == {b"{not json", b'{"type":"reward-assigned"}'}


async def test_nothing_but_dead_letters_ends_the_process_instead_of_emptying_the_topic(bus: Bus) -> None:
    async def handler(batch: Sequence[Delivered[Event]]) -> None:
        raise Poison("everything is wrong", *batch)

    await bus.publish(*(reward(n) for n in range(30)))
    async with bus.consuming(handler, limit=4):
        await until(lambda: bool(bus.deaths))
    assert bus.deaths[0] == 70
    assert await group_backlog(bus.settings, bus.prefix, "g", [REWARDS]) > 0


async def test_a_bug_stops_the_process_having_diverted_and_committed_nothing(bus: Bus) -> None:
    async def handler(batch: Sequence[Delivered[Event]]) -> None:
        raise KeyError("a bug")

    await bus.publisher.publish_raw(REWARDS, "r1", b"{not json", {})
    await bus.publish(*(reward(n) for n in range(30)))
    async with bus.consuming(handler):
        await until(lambda: bool(bus.deaths))
    assert bus.deaths[0] == 70
    assert await bus.values(f"{REWARDS}.dlq") == []
    assert await group_backlog(bus.settings, bus.prefix, "g", [REWARDS]) == 31


async def test_the_lag_of_a_consumer_is_known_before_and_after_it_has_handled_its_records(bus: Bus) -> None:
    may_go_on = asyncio.Event()

    async def handler(batch: Sequence[Delivered[Event]]) -> None:
        await may_go_on.wait()

    def gauges() -> float:
        samples = [sample for metric in CONSUMER_LAG.collect() for sample in metric.samples]
        return sum(sample.value for sample in samples if sample.labels["topic"] == REWARDS)

    await bus.publish(*(reward(n) for n in range(30)))
    async with bus.consuming(handler) as consumer:
        watching = asyncio.ensure_future(consumer.watch())
        await until(lambda: gauges() == 30)
        may_go_on.set()
        await until(lambda: gauges() == 0)
        watching.cancel()


async def test_a_value_too_big_for_kafka_is_stored_once_and_arrives_whole(bus: Bus) -> None:
    seen: list[Event] = []

    async def handler(batch: Sequence[Delivered[Event]]) -> None:
        seen.extend(one.event for one in batch)

    big = reward(1, "x" * 300_000)
    await bus.publish(big, big)
    async with bus.consuming(handler):
        await until(lambda: len(seen) == 2)
    assert seen == [big, big]
    wanted = await topic_partitions(bus.settings, [bus.prefix + REWARDS])
    async with LogReader(bus.settings) as reader:
        assert [one.value async for one in reader.stored(await reader.bounds(wanted))] == [b"", b""]


async def test_a_reader_without_a_group_gets_everything_each_time_and_knows_when_it_has_caught_up(bus: Bus) -> None:
    await bus.publish(*(reward(n) for n in range(10)))
    for _ in range(2):
        keeper = Keeper()
        async with bus.consuming(keeper.on_batch, group=None) as consumer:
            await asyncio.wait_for(consumer.watch_backlog(), 20)
            assert consumer.caught_up.is_set()
            assert len(keeper.got) == 10


async def test_a_record_that_no_reader_without_a_group_can_read_is_one_dead_letter_after_many_starts(bus: Bus) -> None:
    await bus.publisher.publish_raw(REWARDS, "r", b"{broken", {})
    await bus.publish(reward(1))
    for _ in range(3):
        keeper = Keeper()
        async with bus.consuming(keeper.on_batch, group=None) as consumer:
            await asyncio.wait_for(consumer.watch_backlog(), 20)
        assert keeper.got == ["e1"]
    assert [value for value, _ in await bus.values(REWARDS + ".dlq")] == [b"{broken"]


async def test_a_groups_offsets_can_be_put_back(bus: Bus) -> None:
    await bus.publish(*(reward(n) for n in range(12)))
    keeper = Keeper()
    async with bus.consuming(keeper.on_batch):
        await until(lambda: len(keeper.got) == 12)
    partitions = await topic_partitions(bus.settings, [bus.prefix + REWARDS])
    await set_group_offsets(bus.settings, f"{bus.prefix}g", dict.fromkeys(partitions, 0))
    again = Keeper()
    async with bus.consuming(again.on_batch):
        await until(lambda: len(again.got) == 12)
    assert sorted(again.got) == sorted(keeper.got)


async def test_a_static_member_that_left_without_a_word_has_its_partitions_back_before_its_session_ends(
    bus: Bus,
) -> None:
    bus.settings = bus.settings.model_copy(update={"group_instance_id": "one", "session_timeout_ms": 60_000})
    first, second = Keeper(), Keeper()
    await bus.publish(*(reward(n) for n in range(6)))
    async with bus.consuming(first.on_batch):
        await until(lambda: len(first.got) == 6)
    # A static member's stop sends no LeaveGroup: to the coordinator it looks like a kill.
    await bus.publish(*(reward(n) for n in range(6, 12)))
    async with bus.consuming(second.on_batch):
        await until(lambda: len(second.got) == 6, timeout=30)
    assert sorted(first.got + second.got) == sorted(f"e{n}" for n in range(12))


async def test_topics_are_created_once_and_a_wrong_partition_count_is_refused(bus: Bus) -> None:
    assert await ensure_topics(bus.settings, bus.prefix) == []
    partitions = await topic_partitions(bus.settings, [bus.prefix + REWARDS])
    assert partitions == [TopicPartition(bus.prefix + REWARDS, n) for n in range(6)]
    from aiokafka.admin import NewTopic

    from leyden.kafka.admin import admin_client

    async with admin_client(bus.settings) as admin:
        await admin.create_topics([NewTopic(f"other{bus.prefix}{REWARDS}", 2, 1)])
        async with asyncio.timeout(20):
            while f"other{bus.prefix}{REWARDS}" not in await admin.list_topics():
                await asyncio.sleep(0.05)
    with pytest.raises(TopicMismatchError, match="has 2 partitions, its YAML says 6"):
        await ensure_topics(bus.settings, f"other{bus.prefix}")


async def test_headers_of_foreign_producers_do_no_harm(bus: Bus) -> None:
    producer = AIOKafkaProducer(**bus.settings.connection())
    await producer.start()
    try:
        await producer.send_and_wait(bus.prefix + REWARDS, encode(reward(1)), headers=[("odd", b"\xff\xfe")])
    finally:
        await producer.stop()
    keeper = Keeper()
    async with bus.consuming(keeper.on_batch):
        await until(lambda: keeper.got == ["e1"])
    assert bus.deaths == []


async def test_every_reading_of_a_topic_follows_claims(bus: Bus) -> None:
    big = reward(1, padding="x" * 200_000)
    await bus.publish(big, reward(2))
    assert {len(value) > 200_000 for value, _ in await bus.values(REWARDS)} == {True, False}
    async with TopicTail(bus.settings, bus.claims, bus.prefix, [REWARDS]) as tail, asyncio.timeout(30):
        seen: list[Event] = []
        while len(seen) < 2:
            seen += await tail.poll()
    assert big in seen
