"""Reads events from the log, chosen by topic, key and time; each partition in order."""

from collections.abc import AsyncIterator, Callable, Collection, Mapping, MutableMapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

from pydantic import ValidationError

from leyden.events import Event
from leyden.events.codec import EVENTS_BY_TOPIC, decode
from leyden.kafka.admin import admin_client
from leyden.kafka.claims import ClaimStore
from leyden.kafka.delivered import ORIGIN_HEADER, Retry
from leyden.kafka.reading import LogReader, partition_of
from leyden.kafka.types import ConsumerRecord, KafkaError, TopicPartition
from leyden.reading.location import LogLocation
from leyden.stack.errors import StackError

Tell = Callable[[str], None]
Wanted = Callable[[bytes, bytes], bool]
"""(Key, value) → whether to decode the record."""
MAX_GAP = 200
"""Up to this many unwanted records are read rather than skipped with a seek."""
TELL_EVERY = 5_000
"""Records between two lines of progress."""


@dataclass(frozen=True)
class Recorded:
    """An event and its place in the log. `origin` is where it was first written, without prefix, also for a copy."""

    event: Event
    origin: str
    partition: int
    offset: int
    at: datetime
    """Kafka's timestamp of the record."""


def runs(offsets: Collection[int], max_gap: int) -> list[tuple[int, int]]:
    """Merge `offsets` into ranges [first, last) without gaps larger than `max_gap`."""
    found: list[tuple[int, int]] = []
    for offset in sorted(offsets):
        if found and offset - found[-1][1] <= max_gap:
            found[-1] = (found[-1][0], offset + 1)
        else:
            found.append((offset, offset + 1))
    return found


def _overlap(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    return max(one[0], other[0]), min(one[1], other[1])


class Log:
    """The topics under one prefix. Use as an async context manager; one read at a time."""

    def __init__(self, location: LogLocation, prefix: str | None = None, tell: Tell = lambda _: None) -> None:
        self.prefix = location.prefix if prefix is None else prefix
        self._location = location
        self._tell = tell
        self._claims = ClaimStore(location.claims_url)
        self._reader = LogReader(location.kafka)
        self._partitions: dict[str, int] = {}

    async def __aenter__(self) -> Self:
        try:
            await self._reader.__aenter__()
            self._partitions = await self._count_partitions()
        except KafkaError as error:
            await self._reader.__aexit__()
            raise StackError(
                f"Kafka at {self._location.kafka.bootstrap_servers} does not answer: {error}. "
                "Check KAFKA_BOOTSTRAP_SERVERS."
            ) from error
        if not self._partitions:
            await self._reader.__aexit__()
            raise StackError(
                f"There are no topics with the prefix {self.prefix!r}. Check --prefix, or the name of the replay."
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._reader.__aexit__()

    def has(self, topic: str) -> bool:
        """Whether the topic exists; logs of older versions may lack some."""
        return topic in self._partitions

    def partition(self, topic: str, key: str) -> int | None:
        """The partition of `key`; None if the topic does not exist."""
        return partition_of(key, self._partitions[topic]) if topic in self._partitions else None

    async def read(
        self,
        topic: str,
        *,
        keys: Collection[str] | None = None,
        wanted: Wanted | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        seen: MutableMapping[int, int] | None = None,
    ) -> AsyncIterator[Recorded]:
        """The events of `topic` up to its current end, each partition in order.

        With `keys`, reads only their partitions and yields only their events. Records that `wanted` rejects are not
        decoded. `start` and `end` are times of writing; None means no limit. `seen` has the first offset to read of
        each partition, and is moved on with every record. Skips records that are not valid events; the service that
        consumes them writes them to the dead-letter topic.
        """
        count = self._partitions.get(topic, 0)
        numbers = sorted({partition_of(key, count) for key in keys}) if keys and count else range(count)
        places = [TopicPartition(self.prefix + topic, number) for number in numbers]
        raw_keys = {key.encode() for key in keys} if keys is not None else None
        bounds = await self._reader.bounds(places, start, end)
        if seen is not None:
            bounds = {tp: (max(first, seen.get(tp.partition, 0)), last) for tp, (first, last) in bounds.items()}
        async for record in self._records(topic, bounds):
            if seen is not None:
                seen[record.partition] = record.offset + 1
            key = record.key or b""
            if raw_keys is not None and key not in raw_keys:
                continue
            value = await self._value(record)
            if (wanted is None or wanted(key, value)) and (found := self._decoded(topic, record, value)) is not None:
                yield found

    async def read_at(self, topic: str, offsets: Mapping[int, Collection[int]]) -> AsyncIterator[Recorded]:
        """The events at `offsets` (by partition) that Kafka still has; seeks over large gaps."""
        pending = {
            TopicPartition(self.prefix + topic, partition): runs(wanted, MAX_GAP)
            for partition, wanted in offsets.items()
            if partition < self._partitions.get(topic, 0)
        }
        while pending := {tp: left for tp, left in pending.items() if left}:
            bounds = {tp: left.pop() for tp, left in pending.items()}
            held = await self._reader.bounds(bounds)
            inside = {tp: _overlap(bounds[tp], kept) for tp, kept in held.items()}
            async for record in self._records(topic, {tp: part for tp, part in inside.items() if part[1] > part[0]}):
                if record.offset not in offsets[record.partition]:
                    continue
                if (found := self._decoded(topic, record, await self._value(record))) is not None:
                    yield found

    async def _count_partitions(self) -> dict[str, int]:
        async with admin_client(self._location.kafka) as admin:
            described = await admin.describe_topics([self.prefix + topic for topic in EVENTS_BY_TOPIC])
        return {t["topic"].removeprefix(self.prefix): len(t["partitions"]) for t in described if not t["error_code"]}

    async def _records(
        self, topic: str, bounds: Mapping[TopicPartition, tuple[int, int]]
    ) -> AsyncIterator[ConsumerRecord]:
        total, seen = sum(last - first for first, last in bounds.values()), 0
        async for record in self._reader.stored(bounds):
            seen += 1
            yield record
            if seen % TELL_EVERY == 0:
                self._tell(f"{self.prefix}{topic}: {seen} of {total} records")

    def _decoded(self, topic: str, record: ConsumerRecord, value: bytes) -> Recorded | None:
        headers = dict(record.headers)
        origin = headers.get(ORIGIN_HEADER, f"{topic}/{record.partition}/{record.offset}".encode()).decode()
        try:
            event = decode(topic, value)
        except ValidationError:
            return None
        at = datetime.fromtimestamp(record.timestamp / 1000, UTC)
        return Recorded(event, origin, record.partition, record.offset, at)

    async def _value(self, record: ConsumerRecord) -> bytes:
        try:
            return await self._claims.value_of(record)
        except (Retry, ValueError) as error:
            raise StackError(
                f"A claim check cannot be read: {error}. Set LEYDEN_CLAIMS_URL to the store of large events."
            ) from error
