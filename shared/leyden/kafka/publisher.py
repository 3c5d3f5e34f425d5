"""Publishing through FastStream's broker: acks=all, idempotent, keyed, acknowledged before it returns."""

import asyncio
from collections.abc import Sequence

from aiokafka.errors import KafkaError
from faststream.kafka import KafkaBroker

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
                o.topic, o.key, encode(o.event), {TRACEPARENT_HEADER: o.traceparent} if o.traceparent else {}
            )
            for o in outgoing
        ]
        await _acknowledged(sends)

    async def publish_raw(self, topic: str, key: str, value: bytes, headers: dict[str, str] | None = None) -> None:
        await _acknowledged([await self._send(topic, key, value, dict(headers or {}))])

    async def _send(self, topic: str, key: str, value: bytes, headers: dict[str, str]) -> asyncio.Future[object]:
        if len(value) > self._max_value_bytes:
            headers[CLAIM_HEADER] = await asyncio.to_thread(self._claims.put, value)
            value = b""
        PUBLISHED.labels(topic=topic).inc()
        PUBLISHED_BYTES.labels(topic=topic).inc(len(value))
        try:
            return await self._broker.publish(
                value, topic=self._prefix + topic, key=key.encode() or None, headers=headers, no_confirm=True
            )
        except KafkaError as error:
            raise Retry(f"cannot publish to {self._prefix + topic}: {error}") from error


async def _acknowledged(sends: list[asyncio.Future[object]]) -> None:
    results = await asyncio.gather(*sends, return_exceptions=True)
    failed = [result for result in results if isinstance(result, BaseException)]
    if failed:
        raise Retry(f"{len(failed)} of {len(results)} records were not acknowledged: {failed[0]!r}") from failed[0]
