"""`History` on Kafka: a topic from its beginning to its end of now, outside every consumer group."""

from collections.abc import AsyncIterator

from aiokafka.errors import KafkaError
from pydantic import ValidationError

from leyden.events import Event
from leyden.events.codec import decode
from leyden.kafka import Retry
from leyden.kafka.admin import topic_partitions
from leyden.kafka.claims import ClaimStore
from leyden.kafka.ranges import read_range, resolve_range
from leyden.kafka.settings import KafkaSettings


class KafkaHistory:
    """The topics under one prefix."""

    def __init__(self, kafka: KafkaSettings, prefix: str, claims: ClaimStore) -> None:
        self._kafka = kafka
        self._prefix = prefix
        self._claims = claims

    async def events(self, topic: str) -> AsyncIterator[Event]:
        """Its events, each partition in order; what is none is passed over. Raises `Retry`."""
        try:
            partitions = await topic_partitions(self._kafka, [self._prefix + topic])
            wanted = await resolve_range(self._kafka, partitions, None, None)
            async for record in read_range(self._kafka, wanted):
                value = await self._claims.value_of(record)
                try:
                    event = decode(topic, value)
                except ValidationError:
                    continue  # it is among the dead letters, with the reason
                yield event
        except (KafkaError, OSError) as error:
            raise Retry(f"the log cannot be read: {error!r}") from error
