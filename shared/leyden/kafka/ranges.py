"""Reading a stretch of the log as it was: bounded by offsets, outside every consumer group; and copying it.

For replay and inspection.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition

from leyden.kafka.clients import make_producer
from leyden.kafka.delivered import ORIGIN_HEADER
from leyden.kafka.settings import KafkaSettings

Range = Mapping[TopicPartition, tuple[int, int]]
"""Partition → [first, last) offsets."""


async def resolve_range(
    settings: KafkaSettings, partitions: list[TopicPartition], start: datetime | None, end: datetime | None
) -> dict[TopicPartition, tuple[int, int]]:
    """The offsets of the records written in [start, end); None means from the beginning, or up to the end of now."""
    consumer = AIOKafkaConsumer(enable_auto_commit=False, **settings.connection())
    await consumer.start()
    try:
        first = await consumer.beginning_offsets(partitions)
        last = await consumer.end_offsets(partitions)
        for bound, time in ((first, start), (last, end)):
            if time is not None:
                found = await consumer.offsets_for_times(dict.fromkeys(partitions, int(time.timestamp() * 1000)))
                bound |= {tp: at.offset if at is not None else last[tp] for tp, at in found.items()}
        return {tp: (first[tp], max(first[tp], last[tp])) for tp in partitions}
    finally:
        await consumer.stop()


async def read_range(settings: KafkaSettings, wanted: Range) -> AsyncIterator[ConsumerRecord]:
    """Every record of `wanted`, each partition in order. Ends when all are read; commits nothing."""
    open_ends = {tp: last for tp, (first, last) in wanted.items() if last > first}
    if not open_ends:
        return
    consumer = AIOKafkaConsumer(
        enable_auto_commit=False, fetch_max_bytes=settings.fetch_max_bytes, **settings.connection()
    )
    await consumer.start()
    try:
        consumer.assign(list(open_ends))
        for tp in open_ends:
            consumer.seek(tp, wanted[tp][0])
        while open_ends:
            for tp, records in (await consumer.getmany(timeout_ms=500)).items():
                for record in records:
                    if record.offset < wanted[tp][1]:
                        yield record
            for tp in [tp for tp, last in open_ends.items() if await consumer.position(tp) >= last]:
                del open_ends[tp]
                consumer.pause(tp)
    finally:
        await consumer.stop()


async def copy_range(
    settings: KafkaSettings, wanted: Range, place: Callable[[TopicPartition], TopicPartition], source_prefix: str
) -> int:
    """Write every record of `wanted` to where `place` says, acknowledged; returns how many.

    A copy keeps key, value, timestamp and headers, and names its first place in the `leyden-origin` header.
    """
    producer = make_producer(settings, "leyden-copy")
    await producer.start()
    try:
        sends = [
            await _send_copy(producer, record, place, source_prefix) async for record in read_range(settings, wanted)
        ]
        await asyncio.gather(*sends)
        return len(sends)
    finally:
        await producer.stop()


async def _send_copy(
    producer: AIOKafkaProducer,
    record: ConsumerRecord,
    place: Callable[[TopicPartition], TopicPartition],
    source_prefix: str,
) -> asyncio.Future[object]:
    target = place(TopicPartition(record.topic, record.partition))
    headers = list(record.headers)
    if all(name != ORIGIN_HEADER for name, _ in headers):
        origin = f"{record.topic.removeprefix(source_prefix)}/{record.partition}/{record.offset}"
        headers.append((ORIGIN_HEADER, origin.encode()))
    sent: asyncio.Future[object] = await producer.send(
        target.topic, record.value, record.key, target.partition, record.timestamp, headers
    )
    return sent
