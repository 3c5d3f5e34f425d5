"""Processes one batch of records: decode, call the handler, retry with back-off, write dead letters.

It has no Kafka client and no offsets: `leyden.kafka.subscriber` passes batches in and commits them afterwards.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence, Set
from dataclasses import dataclass, field
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
from leyden.kafka.liveness import Heartbeat
from leyden.kafka.topics import DEAD_LETTER_SUFFIX, load_topics
from leyden.telemetry.metrics import CONSUMED, DEAD_LETTERS, HANDLER_SECONDS, RETRIES

log = logging.getLogger(__name__)
T = TypeVar("T")
Decode = Callable[[str, Sequence[bytes]], list[Event]]
"""(topic, values) → events. Raises `pydantic.ValidationError` if any value is invalid."""
DivertedAmong = Callable[[str, Set[str]], Awaitable[Set[str]]]
"""(topic, origins) → those whose records are in the dead letters already. May raise `Retry`."""


class TooManyDeadLettersError(RuntimeError):
    """Too many consecutive dead letters. The likely cause is the service (its version, its topic), not the data."""


@dataclass(frozen=True)
class LoopSettings:
    """Delays between tries of a batch (doubling), and how many consecutive dead letters stop the process."""

    first_delay_s: float = 0.2
    max_delay_s: float = 10.0
    dead_letter_limit: int = 100
    """0: no limit."""


@dataclass(frozen=True)
class _DeadLetter:
    """A record that can never be handled, and the reason."""

    record: Delivered[Any]
    reason: str


@dataclass
class _Decoded:
    """A decoded batch: the good records by their index in the batch, to keep their order, and the dead letters."""

    good: dict[int, Delivered[Any]] = field(default_factory=dict)
    dead: list[_DeadLetter] = field(default_factory=list)


DEFAULT_RETRY = LoopSettings()


class BatchLoop:
    """Handles batches of `topics`. Topic names in records include the prefix; names in code do not."""

    def __init__(
        self,
        *,
        topics: Sequence[str],
        handler: BatchHandler | RawBatchHandler,
        decode: Decode,
        publisher: Publisher,
        claims: ClaimStore,
        prefix: str = "",
        retry: LoopSettings = DEFAULT_RETRY,
        heartbeat: Heartbeat | None = None,
        diverted_among: DivertedAmong | None = None,
    ) -> None:
        self._label = "+".join(topics)
        self._handler: Callable[[Sequence[Delivered[Any]]], Awaitable[None]] = handler
        self._decode = decode
        self._publisher = publisher
        self._claims = claims
        self._prefix = prefix
        self._retry = retry
        self._heartbeat = heartbeat or Heartbeat()
        self._diverted_among = diverted_among
        self._dead_in_a_row = 0

    async def handle(self, records: Sequence[ConsumerRecord]) -> None:
        """Handle a batch. On return every record was handled or is a dead letter, so the offsets may be committed.

        Raises `TooManyDeadLettersError`, and any exception of the handler other than `Retry` and `Poison` (a bug). In
        both cases no dead letter of this batch was written, because they are written last.
        """
        decoded = await self._decode_all(records)
        left = [decoded.good[index] for index in sorted(decoded.good)]
        while left:
            try:
                with HANDLER_SECONDS.labels(topics=self._label).time():
                    await self.until_available(partial(self._handler, left))
                break
            except Poison as poison:
                left, refused = _without(left, poison)
                decoded.dead += [_DeadLetter(one, f"Poison: {poison}") for one in refused]
            except Exception as error:
                error.add_note(f"while handling {origins(left)}")
                raise
        await self._divert(decoded.dead, is_any_handled=bool(left))

    async def until_available(self, act: Callable[[], Awaitable[T]]) -> T:
        """The result of `act`, called until it no longer raises `Retry`; other exceptions are raised."""
        delay = self._retry.first_delay_s
        while True:
            try:
                found = await act()
            except Retry as error:
                RETRIES.labels(topics=self._label).inc()
                log.warning("retrying in %.1f s: %s", delay, error)
                self._heartbeat.beat(f"waiting: {error}")
            else:
                self._heartbeat.beat()
                return found
            await asyncio.sleep(delay)
            delay = min(delay * 2, self._retry.max_delay_s)

    async def _decode_all(self, records: Sequence[ConsumerRecord]) -> _Decoded:
        """Decode the batch, one topic at a time. If that fails, decode record by record to find the invalid ones."""
        found = _Decoded()
        by_topic: dict[str, list[tuple[int, ConsumerRecord, bytes]]] = {}
        for index, record in enumerate(records):
            topic = record.topic.removeprefix(self._prefix)
            try:
                value = await self.until_available(partial(self._claims.value_of, record))
            except ValueError as error:
                found.dead.append(_DeadLetter(self._delivered(record, topic, b"", b""), f"Poison: {error}"))
            else:
                by_topic.setdefault(topic, []).append((index, record, value))
        for topic, items in by_topic.items():
            CONSUMED.labels(topic=topic).inc(len(items))
            self._decode_topic(topic, items, found)
        return found

    def _decode_topic(self, topic: str, items: list[tuple[int, ConsumerRecord, bytes]], found: _Decoded) -> None:
        if load_topics()[topic].format != "json":
            found.good |= {i: self._delivered(record, topic, value, value) for i, record, value in items}
            return
        try:
            events = self._decode(topic, [value for _, _, value in items])
        except ValidationError as error:
            if len(items) > 1:
                for item in items:
                    self._decode_topic(topic, [item], found)
                return
            [(_, record, value)] = items
            faults = (f"{'.'.join(map(str, e['loc'][1:]))}: {e['msg']}" for e in error.errors()[:5])
            reason = f"Poison: {'; '.join(faults)}"
            found.dead.append(_DeadLetter(self._delivered(record, topic, value, value), reason))
        else:
            found.good |= {i: self._delivered(r, topic, e, v) for (i, r, v), e in zip(items, events, strict=True)}

    def _delivered(self, record: ConsumerRecord, topic: str, body: Any, value: bytes) -> Delivered[Any]:
        headers = {name: value.decode("utf-8", "replace") for name, value in record.headers}
        here = f"{topic}/{record.partition}/{record.offset}"
        key = (record.key or b"").decode("utf-8", "replace")
        origin = headers.get(ORIGIN_HEADER, here)
        return Delivered(body, topic, key, record.partition, record.offset, origin, headers, value)

    async def _divert(self, dead: Sequence[_DeadLetter], is_any_handled: bool) -> None:
        """Write the dead letters of a batch. Raises `TooManyDeadLettersError` instead if the limit is exceeded."""
        if self._diverted_among is not None:
            dead = await self._new_ones(dead, self._diverted_among)
        self._dead_in_a_row = 0 if is_any_handled else self._dead_in_a_row + len(dead)
        if 0 < self._retry.dead_letter_limit < self._dead_in_a_row:
            raise TooManyDeadLettersError(
                f"{self._dead_in_a_row} dead letters in a row, the last from {dead[-1].record.origin} "
                f"({dead[-1].reason}); check that this version of the service is not older than the records and that "
                "the topic is right. LEYDEN_DEAD_LETTER_LIMIT sets the limit"
            )
        for letter in dead:
            await self._dead_letter(letter.record, letter.reason)

    async def _new_ones(self, dead: Sequence[_DeadLetter], diverted_among: DivertedAmong) -> list[_DeadLetter]:
        """Those that are not in the dead letters already, which are read once for each topic."""
        by_topic: dict[str, set[str]] = {}
        for letter in dead:
            by_topic.setdefault(letter.record.topic, set()).add(letter.record.origin)
        known = {
            (topic, origin)
            for topic, origins in by_topic.items()
            for origin in await self.until_available(partial(diverted_among, topic, origins))
        }
        for _, origin in sorted(known):
            log.warning("record %s is skipped: it is in the dead letters already", origin)
        return [letter for letter in dead if (letter.record.topic, letter.record.origin) not in known]

    async def _dead_letter(self, one: Delivered[Any], reason: str) -> None:
        """Publish one record to the dead-letter topic, with its origin and the reason as headers."""
        log.error("record %s goes to the dead letters: %s", one.origin, reason)
        # If the claim could be read, the dead letter holds its value; otherwise it keeps the reference.
        headers = {name: text for name, text in one.headers.items() if name != CLAIM_HEADER or not one.value}
        headers |= {ORIGIN_HEADER: one.origin, ERROR_HEADER: reason[:2000]}
        await self.until_available(
            lambda: self._publisher.publish_raw(one.topic + DEAD_LETTER_SUFFIX, one.key, one.value, headers)
        )
        DEAD_LETTERS.labels(topic=one.topic).inc()


def origins(batch: Sequence[Delivered[Any]]) -> str:
    """Positions of `batch` for messages: `topic/partition/offset`, or `topic/partition/first-last` for several."""
    found: dict[tuple[str, int], list[int]] = {}
    for one in batch:
        found.setdefault((one.topic, one.partition), []).append(one.offset)
    return ", ".join(
        f"{topic}/{partition}/{min(offsets)}" + (f"-{max(offsets)}" if len(offsets) > 1 else "")
        for (topic, partition), offsets in sorted(found.items())
    )


def _without(batch: Sequence[Delivered[Any]], poison: Poison) -> tuple[list[Delivered[Any]], list[Delivered[Any]]]:
    """Split `batch` into the records that `poison` does not name and those it names. Raises RuntimeError if none is."""
    named = {(one.topic, one.partition, one.offset) for one in poison.records}
    kept: list[Delivered[Any]] = []
    refused: list[Delivered[Any]] = []
    for one in batch:
        (refused if (one.topic, one.partition, one.offset) in named else kept).append(one)
    if not refused:
        raise RuntimeError(f"a handler raised Poison for records that are not in its batch: {poison}") from poison
    return kept, refused
