"""Publishes to Kafka with acks=all and an idempotent producer; returns once the records are acknowledged.

It uses aiokafka's producer, not FastStream's, whose message objects double the cost of a publish (ADR 16).
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from functools import cache
from typing import Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    InvalidProducerEpoch,
    KafkaError,
    MessageSizeTooLargeError,
    OutOfOrderSequenceNumber,
    ProducerClosed,
    ProducerFenced,
    RecordListTooLargeError,
    RecordTooLargeError,
    UnknownProducerId,
)
from prometheus_client import Counter

from leyden.events.codec import encode
from leyden.kafka.claims import ClaimStore
from leyden.kafka.clients import make_producer
from leyden.kafka.delivered import CLAIM_HEADER, TRACEPARENT_HEADER, Outgoing, Retry
from leyden.kafka.settings import KafkaSettings
from leyden.telemetry.metrics import PUBLISHED, PUBLISHED_BYTES


class UndeclaredTopicError(RuntimeError):
    """A service published to a topic that its topology does not declare: a bug in the service."""


TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError, RecordTooLargeError)
"""Errors for which a retry cannot succeed, because the record itself is invalid."""
PRODUCER_LOST = (InvalidProducerEpoch, OutOfOrderSequenceNumber, ProducerClosed, ProducerFenced, UnknownProducerId)
"""Errors after which an idempotent producer sends no more records; a new producer is needed."""
HEADERS_BYTES = 256 * 1024
"""Part of `max_request_size` reserved for a record's key and headers."""


class KafkaPublisher:
    """`Publisher` on Kafka. Usable between `start` and `stop`, or as an async context manager.

    All records of one call are in flight together. A value of more than `max_value_bytes` (default: what fits into a
    request) is stored in `claims`, and the record holds a reference.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        prefix: str,
        claims: ClaimStore,
        *,
        client_id: str = "leyden",
        max_value_bytes: int | None = None,
        producer: Callable[[KafkaSettings, str], AIOKafkaProducer] = make_producer,
    ) -> None:
        self._settings = settings
        self._prefix = prefix
        self._claims = claims
        self._client_id = client_id
        self._max_value_bytes = max_value_bytes or settings.max_request_size - HEADERS_BYTES
        self._make_producer = producer
        self._producer: AIOKafkaProducer | None = None
        self._allowed: frozenset[str] | None = None
        self._lost = asyncio.Event()
        self._lost_by: KafkaError | None = None

    def allow_only(self, topics: Collection[str]) -> None:
        """Make records to any other topic raise `UndeclaredTopicError`. Names are without prefix."""
        self._allowed = frozenset(topics)

    async def start(self) -> None:
        """Connect. Raises `Retry` if Kafka cannot be reached; may then be called again."""
        producer = self._make_producer(self._settings, self._client_id)
        try:
            await producer.start()
            self._producer = producer
        except (KafkaError, OSError) as error:
            raise Retry(f"cannot connect to Kafka at {self._settings.bootstrap_servers}: {error}") from error
        finally:
            if self._producer is not producer:
                await producer.stop()

    async def watch(self) -> None:
        """Wait until the producer can send no more records, then raise the reason: the process must restart."""
        await self._lost.wait()
        assert self._lost_by is not None
        raise self._lost_by

    async def stop(self) -> None:
        """Flush pending records and disconnect."""
        if self._producer is not None:
            await self._producer.stop()
            self._producer = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

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
        await self._acknowledged(sends)

    async def publish_raw(self, topic: str, key: str, value: bytes, headers: dict[str, str] | None = None) -> None:
        await self._acknowledged([await self._send(topic, key, value, dict(headers or {}))])

    async def _send(self, topic: str, key: str, value: bytes, headers: dict[str, str]) -> asyncio.Future[object]:
        if self._allowed is not None and topic not in self._allowed:
            raise UndeclaredTopicError(f"{self._client_id} published to {topic}; add it to PUBLISHES in its topology")
        assert self._producer is not None, "the publisher was not started"
        if len(value) > self._max_value_bytes:
            headers[CLAIM_HEADER] = await self._claim(value)
            value = b""
        count, size = _meters(topic)
        count.inc()
        size.inc(len(value))
        try:
            encoded = [(name, text.encode()) for name, text in headers.items()]
            sending: asyncio.Future[object] = await self._producer.send(
                self._prefix + topic, value, key.encode() or None, headers=encoded
            )
            return sending
        except TOO_LARGE:
            raise
        except KafkaError as error:
            self._note(error)
            raise Retry(f"cannot publish to {self._prefix + topic}: {error!r}") from error

    async def _acknowledged(self, sends: list[asyncio.Future[object]]) -> None:
        results = await asyncio.gather(*sends, return_exceptions=True)
        failed = [result for result in results if isinstance(result, BaseException)]
        if too_large := next((error for error in failed if isinstance(error, TOO_LARGE)), None):
            raise too_large
        if failed:
            self._note(failed[0])
            raise Retry(f"{len(failed)} of {len(results)} records were not acknowledged: {failed[0]!r}") from failed[0]

    def _note(self, error: BaseException) -> None:
        """Record an error that ended the producer. A plain `KafkaError` means that aiokafka's sending task ended."""
        if isinstance(error, PRODUCER_LOST) or type(error) is KafkaError:
            self._lost_by = self._lost_by or error
            self._lost.set()

    async def _claim(self, value: bytes) -> str:
        try:
            return await asyncio.to_thread(self._claims.put, value)
        except OSError as error:
            raise Retry(f"cannot store a value of {len(value)} bytes in the claim store: {error!r}") from error


@cache
def _meters(topic: str) -> tuple[Counter, Counter]:
    """The counters of a topic. Cached, because looking up a label costs more than incrementing a counter."""
    return PUBLISHED.labels(topic=topic), PUBLISHED_BYTES.labels(topic=topic)
