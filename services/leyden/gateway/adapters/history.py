"""`History` on Kafka: reads a topic from its beginning to its current end, in no consumer group."""

import logging
from collections.abc import AsyncGenerator

from pydantic import ValidationError

from leyden.events import Event
from leyden.events.codec import decode
from leyden.gateway.metrics import UNREADABLE
from leyden.kafka import Retry
from leyden.kafka.admin import topic_partitions
from leyden.kafka.claims import ClaimStore
from leyden.kafka.reading import LogReader
from leyden.kafka.settings import KafkaSettings
from leyden.kafka.types import ConsumerRecord, KafkaError

log = logging.getLogger(__name__)


class KafkaHistory:
    """The topics under one prefix."""

    def __init__(self, kafka: KafkaSettings, prefix: str, claims: ClaimStore) -> None:
        self._kafka = kafka
        self._prefix = prefix
        self._claims = claims

    async def events(self, topic: str) -> AsyncGenerator[Event, None]:
        """The topic's events, each partition in order, without invalid and unreadable records. Raises `Retry`."""
        try:
            partitions = await topic_partitions(self._kafka, [self._prefix + topic])
            async with LogReader(self._kafka) as reader:
                async for record in reader.stored(await reader.bounds(partitions)):
                    if (event := await self.event_of(topic, record)) is not None:
                        yield event
        except (KafkaError, OSError) as error:
            raise Retry(f"the log cannot be read: {error!r}") from error

    async def event_of(self, topic: str, record: ConsumerRecord) -> Event | None:
        """A record's event; None if it is invalid or its claim check cannot be read. Raises `Retry`."""
        try:
            return decode(topic, await self._claims.value_of(record))
        except ValidationError:
            return None  # it is in the dead-letter topic, with the reason
        except ValueError as error:
            UNREADABLE.labels(topic=topic).inc()
            log.warning("%s/%s/%s is left out: %s", topic, record.partition, record.offset, error)
            return None
