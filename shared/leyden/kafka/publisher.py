"""Publishing with the producer of FastStream's broker: acks=all, idempotent, keyed, acknowledged before it returns."""

import asyncio
from collections.abc import Sequence
from functools import cache
from typing import cast

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from faststream.kafka import KafkaBroker
from faststream.kafka.publisher.producer import AioKafkaFastProducerImpl
from prometheus_client import Counter

from leyden.events.codec import encode
from leyden.kafka.claims import ClaimStore
from leyden.kafka.delivered import CLAIM_HEADER, TRACEPARENT_HEADER, Outgoing, Retry
from leyden.telemetry.metrics import PUBLISHED, PUBLISHED_BYTES


class KafkaPublisher:
    """`Publisher` on a started broker. Records of one call are sent without waiting and acknowledged together."""

    def __init__(self, broker: KafkaBroker, prefix: str, claims: ClaimStore, max_value_bytes: int) -> None:
        self._broker = broker
        self._prefix = prefix
        self._claims = claims
        self._max_value_bytes = max_value_bytes

    async def publish_all(self, outgoing: Sequence[Outgoing]) -> None:
        sends = [
            await self._send(
                o.topic,
                o.key,
                o.event if isinstance(o.event, bytes) else encode(o.event),
                {TRACEPARENT_HEADER: o.traceparent} if o.traceparent else {},
            )
            for o in outgoing
        ]
        await _acknowledged(sends)

    async def publish_raw(self, topic: str, key: str, value: bytes, headers: dict[str, str] | None = None) -> None:
        await _acknowledged([await self._send(topic, key, value, dict(headers or {}))])

    async def _send(self, topic: str, key: str, value: bytes, headers: dict[str, str]) -> asyncio.Future[object]:
        if len(value) > self._max_value_bytes:
            headers[CLAIM_HEADER] = await self._claim(value)
            value = b""
        count, size = _meters(topic)
        count.inc()
        size.inc(len(value))
        try:
            encoded = [(name, text.encode()) for name, text in headers.items()]
            sending: asyncio.Future[object] = await self._producer().send(
                self._prefix + topic, value, key.encode() or None, headers=encoded
            )
            return sending
        except KafkaError as error:
            raise Retry(f"cannot publish to {self._prefix + topic}: {error}") from error

    async def _claim(self, value: bytes) -> str:
        try:
            return await asyncio.to_thread(self._claims.put, value)
        except OSError as error:
            raise Retry(f"a value of {len(value)} bytes cannot be stored: {error!r}") from error

    def _producer(self) -> AIOKafkaProducer:
        """FastStream's own producer, without its `publish`: building a message costs as much again as sending it."""
        return cast(AioKafkaFastProducerImpl, self._broker.config.producer)._producer.producer


@cache
def _meters(topic: str) -> tuple[Counter, Counter]:
    """The metrics of a topic, found once: looking a label up costs more than counting."""
    return PUBLISHED.labels(topic=topic), PUBLISHED_BYTES.labels(topic=topic)


async def _acknowledged(sends: list[asyncio.Future[object]]) -> None:
    results = await asyncio.gather(*sends, return_exceptions=True)
    failed = [result for result in results if isinstance(result, BaseException)]
    if failed:
        raise Retry(f"{len(failed)} of {len(results)} records were not acknowledged: {failed[0]!r}") from failed[0]
