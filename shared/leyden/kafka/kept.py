"""Notices that a service's Redis no longer holds what its consumer group has read, and reads that again.

A service keeps state of the records that it has read. Kafka has the group's offsets, Redis the state; if Redis is
emptied, or comes back with an older copy, the offsets are ahead of it. So Redis holds, beside the state, how far it
includes each partition. That position is written after the state and before Kafka's commit, so it is never behind the
commit, unless something was lost. Then the partition is read again from there, or from where the group began to read
it. Handlers are idempotent and ids deterministic: what was published before comes out the same.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import IllegalStateError, KafkaError

from leyden.kafka.delivered import Retry
from leyden.telemetry.metrics import STATE_LOST

log = logging.getLogger(__name__)


class Positions(Protocol):
    """How far a service's state includes each partition: the offset of the first record that is not in it.

    Stored with the state, so that both are lost together. Methods raise `Retry` if the store is unavailable.
    """

    async def of(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        """The positions; partitions without one are omitted."""
        ...

    async def begin(self, tp: TopicPartition, offset: int) -> None:
        """Set a position: the state includes nothing of the partition from `offset` on."""
        ...

    async def advance(self, steps: Mapping[TopicPartition, tuple[int, int]]) -> None:
        """For each (from, to), raise the position to `to`, unless it is below `from`: then something was lost."""
        ...


@dataclass(frozen=True)
class Commit:
    """A committed offset, and where the group began to read the partition; None if somebody else committed it."""

    offset: int
    began: int | None

    @property
    def metadata(self) -> str:
        """What is stored with the offset in Kafka."""
        return "" if self.began is None else f"began:{self.began}"

    @classmethod
    def parse(cls, offset: int, metadata: str) -> "Commit":
        """A commit as Kafka returns it."""
        name, _, number = metadata.partition(":")
        return cls(offset, int(number) if name == "began" and number.isascii() and number.isdecimal() else None)


Commits = Callable[[Sequence[TopicPartition]], Awaitable[Mapping[TopicPartition, Commit]]]
"""The group's commits of partitions; those without one are omitted. Raises `KafkaError`; the caller tries again."""


class KeptState:
    """Compares one consumer's records with the positions of its service's state."""

    def __init__(self, positions: Positions, commits: Commits) -> None:
        self._positions = positions
        self._commits = commits
        self._next: dict[TopicPartition, int] = {}
        """For each partition, the offset after the last record that this process knows to be in the state."""
        self._began: dict[TopicPartition, int] = {}
        self._asked = set[TopicPartition]()
        """Partitions whose commits `check` has asked for since they were assigned. Without one, nothing is kept."""

    async def admit(self, records: Sequence[ConsumerRecord], consumer: Any) -> list[ConsumerRecord]:
        """Those of `records` before which nothing is missing from the state. The others will be read again.

        Raises `Retry` if this cannot be found out now.
        """
        first: dict[TopicPartition, int] = {}
        for record in records:
            first.setdefault(TopicPartition(record.topic, record.partition), record.offset)
        stored = await self._positions.of(list(first))
        await self._learn(first)
        refused = set[TopicPartition]()
        for tp, offset in first.items():
            expected = self._next.get(tp)
            if expected is None:  # a new group, or offsets that an operator has set: the state begins here
                await self._positions.begin(tp, offset)
                self._next[tp] = self._began[tp] = offset
            elif stored.get(tp, -1) < expected:
                # All are set back before a record is handled, as decisions need the records of several topics.
                self._asked.clear()
                refused |= {tp, *await self.check(consumer)}
            elif offset > expected and await consumer.position(tp) <= offset:
                refused.add(tp)  # fetched before the consumer was set back
        return [record for record in records if TopicPartition(record.topic, record.partition) not in refused]

    async def has_handled(self, records: Iterable[ConsumerRecord]) -> None:
        """Note that `records` are in the state. Call it before their offsets are committed. Raises `Retry`."""
        ends = {TopicPartition(record.topic, record.partition): record.offset + 1 for record in records}
        await self._positions.advance({tp: (self._next[tp], end) for tp, end in ends.items()})
        self._next |= ends

    def commit_of(self, tp: TopicPartition, offset: int) -> tuple[int, str]:
        """Offset and metadata to commit for a partition."""
        return offset, Commit(offset, self._began.get(tp)).metadata

    async def check(self, consumer: Any) -> set[TopicPartition]:
        """Set back the partitions whose state is lost, and return them. Raises as `admit` does."""
        mine = list(consumer.assignment())
        self._asked &= set(mine)
        await self._learn(tp for tp in mine if tp not in self._asked)
        self._asked |= set(mine)
        stored = await self._positions.of(mine)
        lost = {tp for tp in mine if tp in self._next and stored.get(tp, -1) < self._next[tp]}
        for tp in lost:
            await self._read_again(tp, self._began[tp] if tp not in stored else stored[tp], consumer)
        return lost

    async def _learn(self, partitions: Iterable[TopicPartition]) -> None:
        """What the group has read of partitions that are new to this process."""
        unknown = [tp for tp in partitions if tp not in self._next]
        if not unknown:
            return
        try:
            commits = await self._commits(unknown)
        except KafkaError as error:
            raise Retry(f"Kafka does not say what its group has read: {error!r}") from error
        for tp, commit in commits.items():
            if commit.began is not None:
                self._next[tp], self._began[tp] = commit.offset, commit.began

    async def _read_again(self, tp: TopicPartition, start: int, consumer: Any) -> None:
        try:
            consumer.seek(tp, start)
        except IllegalStateError:
            return  # the partition has another owner now, who finds the same
        self._next[tp] = start
        await self._positions.begin(tp, start)
        STATE_LOST.labels(topic=tp.topic, partition=tp.partition).inc()
        log.warning("Redis has lost what was read of %s/%d: reading it again from offset %d", *tp, start)
        try:
            await consumer.commit({tp: self.commit_of(tp, start)})
        except KafkaError as error:  # if the process is killed now, its successor finds the loss again
            log.warning("the offset of %s/%d was not set back: %r", *tp, error)
