"""A consumer loop without Kafka: records as a consumer gets them, and one that keeps its commits."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaConnectionError

from leyden.clock import Clock
from leyden.events import Event
from leyden.events.codec import encode
from leyden.kafka.claims import ClaimStore
from leyden.kafka.delivered import Delivered, Publisher
from leyden.kafka.loop import LoopSettings
from leyden.kafka.settings import KafkaSettings
from leyden.kafka.subscriber import BatchConsumer, Subscription


class FakeConsumer:
    """`AIOKafkaConsumer` as far as the loop uses it. `ends` says where each assigned partition ends."""

    def __init__(self, ends: Mapping[TopicPartition, int]) -> None:
        self.ends = dict(ends)
        self.at = dict.fromkeys(ends, 0)
        self.commits: list[dict[TopicPartition, int]] = []
        self.failure: Exception | None = None

    def assignment(self) -> set[TopicPartition]:
        return set(self.ends)

    async def position(self, partition: TopicPartition) -> int:
        return self.at[partition]

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self.at[partition] = offset

    async def end_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        if self.failure:
            raise self.failure
        return {tp: self.ends[tp] for tp in partitions}

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        self.commits.append(dict(offsets))


def records_of(delivered: Sequence[Delivered[Event]]) -> list[ConsumerRecord]:
    """What a consumer would have got for `delivered`."""
    return [record(d.topic, d.partition, d.offset, encode(d.event)) for d in delivered]


def record(
    topic: str, partition: int, offset: int, value: bytes, headers: Sequence[tuple[str, bytes]] = ()
) -> ConsumerRecord:
    """One record with the key `key`."""
    return ConsumerRecord(topic, partition, offset, 0, 0, b"key", value, None, 3, len(value), tuple(headers))


def consumer_of(
    subscription: Subscription,
    publisher: Publisher,
    exits: list[int],
    folder: Path = Path("/nowhere"),
    clock: Clock | None = None,
) -> BatchConsumer:
    """A consumer that waits for nothing, and whose process ends by an entry in `exits`."""
    retry = LoopSettings(0, 0)
    claims = ClaimStore(f"file://{folder}/claims")
    return BatchConsumer(
        subscription=subscription,
        settings=KafkaSettings(),
        publisher=publisher,
        claims=claims,
        prefix="",
        retry=retry,
        die=exits.append,
        clock=clock,
        ask_kafka=_no_kafka,
    )


async def _no_kafka(_: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
    raise KafkaConnectionError("there is no Kafka here")
