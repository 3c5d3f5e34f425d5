"""Follows topics without a consumer group and without committing, for live views and command-line tools."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Self

from aiokafka import AIOKafkaConsumer, TopicPartition

from leyden.events import Event
from leyden.events.codec import decode
from leyden.kafka.admin import committed_offsets, stored_ranges, topic_partitions
from leyden.kafka.claims import ClaimStore
from leyden.kafka.settings import KafkaSettings


class TopicTail:
    """Reads topics from their beginning; `poll` returns new events. Use as an async context manager."""

    def __init__(self, settings: KafkaSettings, claims: ClaimStore, prefix: str, topics: Iterable[str]) -> None:
        self._claims = claims
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
        """Events since the last call, in order within each partition. Waits up to `timeout_s` for some.

        Skips records that are no events and records whose claimed value is gone. Raises `Retry` if the claim store is
        unavailable.
        """
        fetched = await self._consumer.getmany(timeout_ms=int(timeout_s * 1000))
        events = []
        for partition, records in fetched.items():
            topic = partition.topic.removeprefix(self._prefix)
            for record in records:
                try:
                    events.append(decode(topic, await self._claims.value_of(record)))
                except ValueError:
                    continue  # the service that consumes the topic writes it to the dead letters
        return events


async def group_backlog(settings: KafkaSettings, prefix: str, group: str, topics: Sequence[str]) -> int:
    """Number of stored records of `topics` that consumer group `group` has not committed. Names are without prefix.

    Records that expired unread do not count: they will never be committed.
    """
    partitions = await topic_partitions(settings, [prefix + topic for topic in topics])
    done = await committed_offsets(settings, prefix + group, partitions)
    # Read last, so that no committed offset is beyond the end.
    return unread(await stored_ranges(settings, partitions), done)


def unread(stored: Mapping[TopicPartition, tuple[int, int]], done: Mapping[TopicPartition, int]) -> int:
    """Number of records of the partitions in `done` from its offsets on. `stored`: first offset and end of each."""
    ranges = {tp: stored[tp] for tp in done if tp in stored}
    return sum(max(0, end - max(first, done[tp])) for tp, (first, end) in ranges.items())
