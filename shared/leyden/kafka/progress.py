"""Tells when consumer groups that follow one another have read what the log holds at some moment."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Protocol, Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from leyden.kafka.admin import topic_partitions
from leyden.kafka.delivered import Retry
from leyden.kafka.settings import KafkaSettings
from leyden.kafka.topics import load_topics

TIMEOUT_S = 10.0
"""Limit for each request."""


class LogReading(Protocol):
    """Tells when everything that was in the log at some moment has been read. Methods raise `Retry`."""

    async def begin(self) -> None:
        """Note where the log ends now."""
        ...

    async def done(self) -> bool:
        """Whether all whose work is waited for have read everything up to there."""
        ...


@dataclass(frozen=True)
class Stage:
    """A consumer group and the topics that it reads, without prefix. It publishes before it commits."""

    group: str
    topics: tuple[str, ...]

    @classmethod
    def of(cls, service: str) -> Self:
        """All that a service consumes according to the topic files, in the group of its name."""
        return cls(service, tuple(spec.name for spec in load_topics().values() if service in spec.consumers))


class KafkaProgress:
    """Follows records through `stages`, by the offsets that their groups commit.

    Costs three requests for a stage that has read everything. Connections are opened when first needed; call `close`.
    """

    def __init__(self, settings: KafkaSettings, prefix: str, stages: Sequence[Stage]) -> None:
        self._settings = settings
        self._prefix = prefix
        self._stages = tuple(stages)
        self._partitions: dict[Stage, list[TopicPartition]] = {}
        self._left: list[Stage] = []
        self._ends: dict[TopicPartition, int] = {}
        self._consumer: AIOKafkaConsumer | None = None
        self._admin: AIOKafkaAdminClient | None = None

    async def begin(self) -> None:
        """Note what the first stage's topics hold now. Raises `Retry` if Kafka is unavailable."""
        async with self._requests():
            self._left = list(self._stages)
            self._ends = await self._stored(self._left[0])

    async def done(self) -> bool:
        """Whether that, and what the stages made of it, has been read by all of them. Raises `Retry`."""
        async with self._requests():
            while self._left:
                if not await self._has_read(self._left[0]):
                    return False
                del self._left[0]
                if self._left:
                    self._ends = await self._stored(self._left[0])
        return True

    async def close(self) -> None:
        """Close the connections."""
        consumer, self._consumer = self._consumer, None
        admin, self._admin = self._admin, None
        with suppress(KafkaError):
            if consumer is not None:
                await consumer.stop()
            if admin is not None:
                await admin.close()

    @asynccontextmanager
    async def _requests(self) -> AsyncIterator[None]:
        """Requests to Kafka, each on a connection that works: one that failed is not used again."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                yield
        except (KafkaError, TimeoutError) as error:
            await self.close()
            raise Retry(f"Kafka does not say how far its consumers have read: {error!r}") from error

    async def _stored(self, stage: Stage) -> dict[TopicPartition, int]:
        """The offset after the last record of each partition that is not empty."""
        if self._consumer is None:
            self._consumer = AIOKafkaConsumer(enable_auto_commit=False, **self._settings.connection())
            await self._consumer.start()
        if stage not in self._partitions:
            names = [self._prefix + topic for topic in stage.topics]
            self._partitions[stage] = await topic_partitions(self._settings, names)
        partitions = self._partitions[stage]
        first = await self._consumer.beginning_offsets(partitions)
        ends = await self._consumer.end_offsets(partitions)
        return {tp: end for tp, end in ends.items() if end > first[tp]}

    async def _has_read(self, stage: Stage) -> bool:
        if not self._ends:
            return True
        if self._admin is None:
            self._admin = AIOKafkaAdminClient(**self._settings.connection())
            await self._admin.start()
        committed = await self._admin.list_consumer_group_offsets(
            self._prefix + stage.group, partitions=list(self._ends)
        )
        return all(tp in committed and committed[tp].offset >= end for tp, end in self._ends.items())
