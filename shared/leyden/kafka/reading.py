"""Reads and copies ranges of topics, bounded by offsets or times, without a consumer group."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from aiokafka import AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.partitioner import murmur2

from leyden.kafka.admin import topic_partitions
from leyden.kafka.claims import ClaimStore
from leyden.kafka.clients import make_producer, make_reader
from leyden.kafka.delivered import ORIGIN_HEADER
from leyden.kafka.settings import KafkaSettings

Range = Mapping[TopicPartition, tuple[int, int]]
"""Partition → [first, last) offsets."""
FETCH_WAIT_MS = 10
"""Short, because a fetch waiting at the end of one partition delays the next partition."""


def partition_of(key: str, partitions: int) -> int:
    """The partition of `key` by Kafka's default partitioner (murmur2), which all Leyden producers use."""
    return int((murmur2(key.encode()) & 0x7FFFFFFF) % partitions)


@dataclass(frozen=True, slots=True)
class Record:
    """A record with its value; claim checks are resolved."""

    topic: str
    """With its prefix."""
    partition: int
    offset: int
    timestamp: int
    """Milliseconds since 1970."""
    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...]


class LogReader:
    """Reads ranges over one connection, open while the context is. One read at a time.

    Raises `KafkaError` if Kafka is unavailable.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._consumer = make_reader(settings, FETCH_WAIT_MS)

    async def __aenter__(self) -> Self:
        try:
            await self._consumer.start()
        except BaseException:
            await self._consumer.stop()
            raise
        await asyncio.sleep(0)  # aiokafka raises CancelledError in `stop` if its own task has not begun
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._consumer.stop()

    async def bounds(
        self, partitions: Iterable[TopicPartition], start: datetime | None = None, end: datetime | None = None
    ) -> dict[TopicPartition, tuple[int, int]]:
        """The offsets of the records written in [start, end). None means the beginning, or the current end."""
        wanted = list(partitions)
        if not wanted:
            return {}
        first = dict(await self._consumer.beginning_offsets(wanted))
        last = dict(await self._consumer.end_offsets(wanted))
        ends = dict(last)
        for bound, time in ((first, start), (last, end)):
            if time is not None:
                found = await self._consumer.offsets_for_times(dict.fromkeys(wanted, int(time.timestamp() * 1000)))
                bound |= {tp: at.offset if at is not None else ends[tp] for tp, at in found.items()}
        return {tp: (first[tp], max(first[tp], last[tp])) for tp in wanted}

    async def stored(self, wanted: Range) -> AsyncIterator[ConsumerRecord]:
        """Yield the records of `wanted` as stored: claim checks are not resolved (see `ClaimStore.value_of`).

        Partitions are read one after another, so the order is always the same. Ends when all records are read.
        """
        for partition, (first, last) in sorted(wanted.items()):
            if first >= last:
                continue
            self._consumer.assign([partition])
            self._consumer.seek(partition, first)
            while await self._consumer.position(partition) < last:
                for record in (await self._consumer.getmany(partition, timeout_ms=500)).get(partition, []):
                    if record.offset < last:
                        yield record

    async def read(self, wanted: Range, claims: ClaimStore) -> AsyncIterator[Record]:
        """Yield the records of `wanted` with claim checks resolved. Raises the exceptions of `ClaimStore.value_of`."""
        async for one in self.stored(wanted):
            value = await claims.value_of(one)
            yield Record(one.topic, one.partition, one.offset, one.timestamp, one.key or b"", value, tuple(one.headers))


async def resolve_range(
    settings: KafkaSettings, partitions: Iterable[TopicPartition], start: datetime | None, end: datetime | None
) -> dict[TopicPartition, tuple[int, int]]:
    """`LogReader.bounds` over a connection of its own."""
    async with LogReader(settings) as reader:
        return await reader.bounds(partitions, start, end)


async def read_topics(settings: KafkaSettings, claims: ClaimStore, *topics: str) -> AsyncIterator[Record]:
    """Yield every record of `topics` (with prefix) up to their current ends, one partition after another."""
    partitions = await topic_partitions(settings, topics)
    async with LogReader(settings) as reader:
        async for record in reader.read(await reader.bounds(partitions), claims):
            yield record


async def copy_range(
    settings: KafkaSettings, wanted: Range, target_of: Callable[[TopicPartition], TopicPartition], source_prefix: str
) -> int:
    """Copy every record of `wanted` to the partition that `target_of` returns; returns the number of records.

    A copy keeps key, value, timestamp and headers; its `leyden-origin` header is the position of the original. Returns
    once all copies are acknowledged.
    """
    producer = make_producer(settings, "leyden-copy")
    await producer.start()
    try:
        async with LogReader(settings) as reader:
            records = reader.stored(wanted)
            sends = [await _send_copy(producer, record, target_of, source_prefix) async for record in records]
        await asyncio.gather(*sends)
        return len(sends)
    finally:
        await producer.stop()


async def _send_copy(
    producer: AIOKafkaProducer,
    record: ConsumerRecord,
    target_of: Callable[[TopicPartition], TopicPartition],
    source_prefix: str,
) -> asyncio.Future[object]:
    target = target_of(TopicPartition(record.topic, record.partition))
    headers = list(record.headers)
    if all(name != ORIGIN_HEADER for name, _ in headers):
        origin = f"{record.topic.removeprefix(source_prefix)}/{record.partition}/{record.offset}"
        headers.append((ORIGIN_HEADER, origin.encode()))
    sent: asyncio.Future[object] = await producer.send(
        target.topic, record.value, record.key, target.partition, record.timestamp, headers
    )
    return sent
