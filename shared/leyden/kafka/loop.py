"""What happens to one batch of records: decode, hand over, back off, dead letters. No Kafka client, no offsets.

`leyden.kafka.subscriber` feeds it from a FastStream subscriber and commits what it has finished.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from aiokafka import ConsumerRecord
from pydantic import ValidationError

from leyden.events import Event
from leyden.kafka.claims import ClaimStore
from leyden.kafka.delivered import (
    CLAIM_HEADER,
    ERROR_HEADER,
    ORIGIN_HEADER,
    BatchHandler,
    Delivered,
    Poison,
    Publisher,
    RawBatchHandler,
    Retry,
)
from leyden.kafka.topics import DEAD_LETTER_SUFFIX, load_topics
from leyden.telemetry.metrics import CONSUMED, DEAD_LETTERS, HANDLER_SECONDS, RETRIES

log = logging.getLogger(__name__)
T = TypeVar("T")
Decode = Callable[[str, Sequence[bytes]], list[Event]]
"""The events of a topic's values; raises `pydantic.ValidationError` when any of them is not one."""


@dataclass(frozen=True)
class RetryPolicy:
    """Seconds between tries of the same batch (doubling), and how many dead letters in a row end the process."""

    first_delay_s: float = 0.2
    max_delay_s: float = 10.0
    dead_letter_limit: int = 100


DEFAULT_RETRY = RetryPolicy()


class BatchLoop:
    """Handles batches of `topics`. Topic names of records have `prefix`, all others have not."""

    def __init__(
        self,
        topics: Sequence[str],
        handler: BatchHandler | RawBatchHandler,
        decode: Decode,
        publisher: Publisher,
        claims: ClaimStore,
        prefix: str = "",
        retry: RetryPolicy = DEFAULT_RETRY,
    ) -> None:
        self._label = "+".join(topics)
        self._handler: Callable[[Sequence[Delivered[Any]]], Awaitable[None]] = handler
        self._decode = decode
        self._publisher = publisher
        self._claims = claims
        self._prefix = prefix
        self._retry = retry
        self._dead_in_a_row = 0

    async def handle(self, records: Sequence[ConsumerRecord]) -> None:
        """Decode and hand over one batch; returns when every record was handled or dead-lettered."""
        delivered = await self._decode_all(records)
        if not delivered:
            return
        with HANDLER_SECONDS.labels(topics=self._label).time():
            try:
                await self._with_backoff(partial(self._run_handler, delivered))
            except Exception as error:  # noqa: BLE001 - the boundary: whatever it is, the record is kept
                if len(delivered) == 1:
                    await self._dead_letter(delivered[0], error)
                    return
                log.warning("a batch of %d failed (%r): one record at a time", len(delivered), error)
                await self._one_by_one(delivered)
            else:
                self._dead_in_a_row = 0

    async def _one_by_one(self, delivered: Sequence[Delivered[Any]]) -> None:
        for one in delivered:
            try:
                await self._with_backoff(partial(self._run_handler, [one]))
            except Exception as error:  # noqa: BLE001 - the same boundary
                await self._dead_letter(one, error)
            else:
                self._dead_in_a_row = 0

    async def _run_handler(self, delivered: Sequence[Delivered[Any]]) -> None:
        try:
            await self._handler(delivered)
        except Retry:
            RETRIES.labels(topics=self._label).inc()
            raise

    async def _with_backoff(self, act: Callable[[], Awaitable[T]]) -> T:
        """Do `act` again for as long as it raises `Retry`; anything else that it raises goes through."""
        delay = self._retry.first_delay_s
        while True:
            try:
                return await act()
            except Retry as error:
                log.warning("will try again in %.1f s: %s", delay, error)
            await asyncio.sleep(delay)
            delay = min(delay * 2, self._retry.max_delay_s)

    async def _decode_all(self, records: Sequence[ConsumerRecord]) -> list[Delivered[Any]]:
        """Validate per topic in one pass; only when that fails, record by record, to find the bad ones."""
        by_topic: dict[str, list[tuple[int, ConsumerRecord, bytes]]] = {}
        for index, record in enumerate(records):
            topic = record.topic.removeprefix(self._prefix)
            if (value := await self._value(record, topic)) is not None:
                by_topic.setdefault(topic, []).append((index, record, value))
        found: dict[int, Delivered[Any]] = {}
        for topic, items in by_topic.items():
            CONSUMED.labels(topic=topic).inc(len(items))
            if load_topics()[topic].format != "json":
                found |= {i: self._delivered(record, topic, value, value) for i, record, value in items}
                continue
            try:
                events = self._decode(topic, [value for _, _, value in items])
                found |= {i: self._delivered(r, topic, e, v) for (i, r, v), e in zip(items, events, strict=True)}
            except ValidationError:
                found |= await self._decode_singly(topic, items)
        return [found[index] for index in sorted(found)]

    async def _value(self, record: ConsumerRecord, topic: str) -> bytes | None:
        """A record's value, from wherever it is; None for one that cannot be had and is a dead letter now."""
        try:
            return await self._with_backoff(partial(self._claims.value_of, record))
        except ValueError as error:
            await self._dead_letter(self._delivered(record, topic, b"", b""), Poison(str(error)))
            return None

    async def _decode_singly(
        self, topic: str, items: list[tuple[int, ConsumerRecord, bytes]]
    ) -> dict[int, Delivered[Any]]:
        good: dict[int, Delivered[Any]] = {}
        for index, record, value in items:
            try:
                [event] = self._decode(topic, [value])
                good[index] = self._delivered(record, topic, event, value)
            except ValidationError as error:
                faults = (f"{'.'.join(map(str, e['loc'][1:]))}: {e['msg']}" for e in error.errors()[:5])
                await self._dead_letter(self._delivered(record, topic, value, value), Poison("; ".join(faults)))
        return good

    def _delivered(self, record: ConsumerRecord, topic: str, body: Any, value: bytes) -> Delivered[Any]:
        headers = {name: value.decode("utf-8", "replace") for name, value in record.headers}
        here = f"{topic}/{record.partition}/{record.offset}"
        key = (record.key or b"").decode("utf-8", "replace")
        origin = headers.get(ORIGIN_HEADER, here)
        return Delivered(body, topic, key, record.partition, record.offset, origin, headers, value)

    async def _dead_letter(self, one: Delivered[Any], error: BaseException) -> None:
        """Keep what cannot be handled, with the reason and where it was; give up when nothing but dead letters come."""
        self._dead_in_a_row += 1
        DEAD_LETTERS.labels(topic=one.topic).inc()
        if self._dead_in_a_row > self._retry.dead_letter_limit:
            text = f"{self._dead_in_a_row} dead letters in a row: the code is at fault, not the data"
            raise RuntimeError(text) from error
        log.error("dead letter from %s: %r", one.origin, error, exc_info=None if isinstance(error, Poison) else error)
        # A value that was had is kept here; of one that was not, only the reference is left.
        headers = {name: text for name, text in one.headers.items() if name != CLAIM_HEADER or not one.value}
        headers |= {ORIGIN_HEADER: one.origin, ERROR_HEADER: f"{type(error).__name__}: {error}"[:2000]}
        await self._with_backoff(
            lambda: self._publisher.publish_raw(one.topic + DEAD_LETTER_SUFFIX, one.key, one.value, headers)
        )
