"""Watching topics from outside: for live views and command-line tools, which commit nothing and join no group."""

from collections.abc import Iterable, Sequence
from typing import Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from pydantic import ValidationError

from leyden.events import Event
from leyden.events.codec import decode
from leyden.kafka.admin import admin_client, end_offsets, topic_partitions
from leyden.kafka.settings import KafkaSettings


class TopicTail:
    """Every event of some topics from the beginning on; `poll` gives what is new. Use as an async context manager."""

    def __init__(self, settings: KafkaSettings, prefix: str, topics: Iterable[str]) -> None:
        self._settings = settings
        self._prefix = prefix
        self._topics = [prefix + topic for topic in topics]
        self._consumer = AIOKafkaConsumer(
            *self._topics, auto_offset_reset="earliest", enable_auto_commit=False, **settings.connection()
        )

    async def __aenter__(self) -> Self:
        await self._consumer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._consumer.stop()

    async def poll(self, timeout_s: float = 0.5) -> list[Event]:
        """What has come since the last call, in each partition's order; records that are no events are passed over."""
        fetched = await self._consumer.getmany(timeout_ms=int(timeout_s * 1000))
        events = []
        for partition, records in fetched.items():
            for record in records:
                try:
                    events.append(decode(partition.topic.removeprefix(self._prefix), record.value or b""))
                except ValidationError:
                    continue  # the service that consumes it keeps it aside, with the reason
        return events


async def group_backlog(settings: KafkaSettings, prefix: str, group: str, topics: Sequence[str]) -> int:
    """Records of `topics` (without prefix) that consumer group `group` has not committed, over all partitions."""
    partitions = await topic_partitions(settings, [prefix + topic for topic in topics])
    async with admin_client(settings) as admin:
        committed = await admin.list_consumer_group_offsets(prefix + group, partitions=partitions)
    ends = await end_offsets(settings, partitions)  # after the commits, so that none is ahead of its end
    done: dict[TopicPartition, int] = {tp: max(0, at.offset) for tp, at in committed.items()}
    return sum(max(0, end - done.get(tp, 0)) for tp, end in ends.items())
