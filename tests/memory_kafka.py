"""Kafka in memory: the service's own publisher writes to it, and FastStream's in-memory broker drives its subscribers.

Real are registration, our parser, decoding, back-off, dead letters, claim checks and the commit of each batch.
Rebalances, and a broker that is away, need a real broker.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from aiokafka import AIOKafkaProducer, ConsumerRecord, TopicPartition
from faststream.kafka import TestKafkaBroker
from faststream.kafka.subscriber.usecase import BatchSubscriber
from redis.asyncio import Redis

from fakes import TOPIC_OF
from leyden.events import Event
from leyden.events.codec import decode, encode
from leyden.kafka import Publisher
from leyden.kafka.claims import ClaimStore
from leyden.kafka.publisher import KafkaPublisher
from leyden.kafka.reading import partition_of
from leyden.kafka.settings import KafkaSettings
from leyden.kafka.topics import DEAD_LETTER_SUFFIX, load_topics
from leyden.service import Runtime, Service, register
from leyden.settings import ServiceSettings

Headers = Sequence[tuple[str, bytes]]


class MemoryKafka:
    """Every topic of the topic files with its partitions, and the offsets that groups have committed."""

    def __init__(self) -> None:
        specs = load_topics().values()
        self.log: dict[TopicPartition, list[ConsumerRecord]] = {
            TopicPartition(spec.name, number): [] for spec in specs for number in range(spec.partitions)
        }
        self.log |= {TopicPartition(spec.name + DEAD_LETTER_SUFFIX, 0): [] for spec in specs}
        self.committed: dict[tuple[str, TopicPartition], int] = {}

    def partitions(self, topic: str) -> list[TopicPartition]:
        """Raises KeyError for a topic that there is not."""
        found = [tp for tp in self.log if tp.topic == topic]
        if not found:
            raise KeyError(topic)
        return found

    def append(self, topic: str, value: bytes, key: bytes | None, headers: Headers = ()) -> ConsumerRecord:
        """Write one record to the partition of its key."""
        number = partition_of((key or b"").decode(), len(self.partitions(topic)))
        records = self.log[TopicPartition(topic, number)]
        at = len(records)
        records.append(ConsumerRecord(topic, number, at, at, 0, key, value, None, len(key or b""), len(value), headers))
        return records[-1]

    def write(self, *events: Event, key: str = "key") -> None:
        """What other services have published: each event to its topic."""
        for event in events:
            self.append(TOPIC_OF[type(event)], encode(event), key.encode())

    def records(self, topic: str) -> list[ConsumerRecord]:
        """All of a topic, partition after partition."""
        return [record for tp in self.partitions(topic) for record in self.log[tp]]

    def events(self, topic: str) -> list[Event]:
        """The same, decoded; claims are not followed."""
        return [decode(topic, record.value) for record in self.records(topic)]


class MemoryProducer:
    """aiokafka's producer, as far as `KafkaPublisher` uses it."""

    def __init__(self, kafka: MemoryKafka) -> None:
        self._kafka = kafka

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def send(self, topic: str, value: bytes, key: bytes | None, headers: Headers) -> "asyncio.Future[object]":
        sent: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        sent.set_result(self._kafka.append(topic, value, key, headers))
        return sent


class MemoryConsumer:
    """aiokafka's consumer, as far as `BatchConsumer` uses it: the only member of its group."""

    def __init__(self, kafka: MemoryKafka, group: str | None, topics: Sequence[str]) -> None:
        self._kafka = kafka
        self._group = group
        self._positions = {
            tp: 0 if group is None else kafka.committed.get((group, tp), 0)
            for topic in topics
            for tp in kafka.partitions(topic)
        }

    def assignment(self) -> set[TopicPartition]:
        return set(self._positions)

    def highwater(self, partition: TopicPartition) -> int:
        return len(self._kafka.log[partition])

    async def position(self, partition: TopicPartition) -> int:
        return self._positions[partition]

    async def end_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return {tp: len(self._kafka.log[tp]) for tp in partitions}

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        assert self._group is not None, "a consumer without a group has nothing to commit"
        self._kafka.committed |= {(self._group, tp): offset for tp, offset in offsets.items()}

    def fetch(self, most: int) -> tuple[ConsumerRecord, ...]:
        """The next records of all partitions, and the position goes on."""
        batch: list[ConsumerRecord] = []
        for tp, position in self._positions.items():
            found = self._kafka.log[tp][position : position + most - len(batch)]
            self._positions[tp] = position + len(found)
            batch += found
        return tuple(batch)


@dataclass
class Running:
    """A service on `kafka`; `settle` hands it all that there is for it, what it writes itself included."""

    kafka: MemoryKafka
    publisher: KafkaPublisher
    died: list[int]
    """The exit statuses with which it would have ended."""
    consumers: list[tuple[BatchSubscriber, MemoryConsumer]] = field(default_factory=list)

    async def settle(self) -> None:
        """Returns when every subscriber is at the end of its topics."""
        while any([await self._step(*one) for one in self.consumers]):
            pass

    async def _step(self, subscriber: BatchSubscriber, consumer: MemoryConsumer) -> bool:
        batch = consumer.fetch(subscriber.max_records or 1)
        if batch:
            await subscriber.process_message(batch)
        return bool(batch)


Make = Callable[[Publisher], Service]


@asynccontextmanager
async def running(name: str, make: Make, kafka: MemoryKafka, folder: Path) -> AsyncIterator[Running]:
    """A process of the service that `make` puts together on a publisher, from its registration to its end."""
    settings = ServiceSettings(topic_prefix="", data_dir=folder)
    died: list[int] = []
    producer = cast(AIOKafkaProducer, MemoryProducer(kafka))
    publisher = KafkaPublisher(
        KafkaSettings(), "", ClaimStore(settings.claims), producer=lambda *_: producer, max_value_bytes=100_000
    )
    service = make(publisher)
    runtime = Runtime(name, settings, KafkaSettings(), publisher, Redis())
    broker, _ = register(service, runtime, die=died.append)
    async with publisher, TestKafkaBroker(broker, connect_only=False):
        process = Running(kafka, publisher, died)
        topics = {topic for subscription in service.subscriptions for topic in subscription.topics}
        for one in broker.subscribers:
            subscriber = cast(Any, one)
            names = [topic.name for topic in subscriber.topics]
            if topics.issuperset(names):  # the others stand in for the consumers of what it publishes
                subscriber.consumer = MemoryConsumer(kafka, subscriber.group_id, names)
                process.consumers.append((subscriber, subscriber.consumer))
        yield process
