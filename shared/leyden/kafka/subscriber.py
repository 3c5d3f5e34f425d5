"""The one consumer loop of Leyden: batches in, offsets committed only after the handler has returned.

What FastStream's own policies would lose (see docs/adr) is done here: manual acknowledgement, explicit offsets per
partition, back-off on passing faults, dead letters for records that can never be handled, and an end to the process
when too much goes to the dead letters, because then the code is wrong and not the data.
"""

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import KafkaError
from faststream import AckPolicy
from faststream.kafka import KafkaBroker, KafkaMessage
from pydantic import ValidationError

from leyden.events import Event
from leyden.events.codec import BatchDecoder, decode_batch
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
from leyden.kafka.settings import KafkaSettings
from leyden.kafka.topics import DEAD_LETTER_SUFFIX, load_topics
from leyden.telemetry.metrics import CONSUMED, CONSUMER_LAG, DEAD_LETTERS, HANDLER_SECONDS, RETRIES

log = logging.getLogger(__name__)
T = TypeVar("T")
FATAL_EXIT = 70
"""Exit status (EX_SOFTWARE) of a process that stops itself because going on would lose or waste data."""


@dataclass(frozen=True)
class Subscription:
    """Which topics a handler gets, as data. `group` None: every replica reads everything from the beginning."""

    topics: tuple[str, ...]
    handler: BatchHandler | RawBatchHandler
    group: str | None
    max_records: int = 500
    max_poll_interval_ms: int | None = None
    decoders: Mapping[str, BatchDecoder] = field(default_factory=dict)
    """By topic, where the handler does not need its events whole; otherwise they are decoded as the topic says."""
    caught_up: asyncio.Event | None = field(default=None, compare=False)
    """Set once everything that was there at the start was handled, for a service that answers by what it has read."""

    def decode(self, topic: str, values: Sequence[bytes]) -> list[Event]:
        """The events of `values`; raises `pydantic.ValidationError` when any of them is none."""
        return self.decoders.get(topic, partial(decode_batch, topic))(values)


@dataclass(frozen=True)
class RetryPolicy:
    """Seconds between tries of the same batch (doubling), and how many dead letters in a row end the process."""

    first_delay_s: float = 0.2
    max_delay_s: float = 10.0
    dead_letter_limit: int = 100


class BatchConsumer:
    """Runs one subscription on a broker. `caught_up` is set once everything that was there at the start was handled."""

    def __init__(
        self,
        subscription: Subscription,
        settings: KafkaSettings,
        publisher: Publisher,
        claims: ClaimStore,
        prefix: str,
        retry: RetryPolicy = RetryPolicy(),
        die: Callable[[int], None] = os._exit,
    ) -> None:
        self.subscription = subscription
        self.caught_up = subscription.caught_up or asyncio.Event()
        self._settings = settings
        self._publisher = publisher
        self._claims = claims
        self._prefix = prefix
        self._retry = retry
        self._die = die
        self._dead_in_a_row = 0
        self._subscriber: Any = None
        self._busy_since: float | None = None

    def register(self, broker: KafkaBroker) -> None:
        """Declare the FastStream subscriber; consuming starts with the broker."""
        sub = self.subscription
        options: dict[str, Any] = {"auto_offset_reset": "earliest", "fetch_max_bytes": self._settings.fetch_max_bytes}
        if sub.group is not None:
            options |= {
                "group_id": f"{self._prefix}{sub.group}",
                "session_timeout_ms": self._settings.session_timeout_ms,
                "max_poll_interval_ms": sub.max_poll_interval_ms or self._settings.max_poll_interval_ms,
                "partition_assignment_strategy": (RangePartitionAssignor,),
            }
            if self._settings.group_instance_id is not None:
                options["group_instance_id"] = f"{self._settings.group_instance_id}-{sub.topics[0]}"
        self._subscriber = broker.subscriber(
            *(self._prefix + topic for topic in sub.topics),
            batch=True,
            max_records=sub.max_records,
            batch_timeout_ms=50,
            ack_policy=AckPolicy.MANUAL,
            parser=self._parse,
            decoder=_keep_raw,
            **options,
        )
        self._subscriber(self._on_message)

    async def _parse(self, records: tuple[ConsumerRecord, ...]) -> KafkaMessage:
        """FastStream's parser, replaced: its own raises on headers that are no text, and the record is skipped."""
        first = records[0]
        name = f"{first.topic}/{first.partition}/{first.offset}"
        return KafkaMessage(records, b"", message_id=name, consumer=self._subscriber.consumer)

    async def _on_message(self, message: KafkaMessage) -> None:
        records = message.raw_message
        assert isinstance(records, tuple)
        self._busy_since = time.monotonic()
        try:
            await self.handle(records)
            if self.subscription.group is not None:
                await self._commit(message.consumer, records)
        except Exception:
            log.critical("consumer of %s cannot go on", self.subscription.topics, exc_info=True)
            self._die(FATAL_EXIT)
            raise
        self._busy_since = None
        self._note_lag(message.consumer, records)

    def stalled(self, after_s: float) -> str | None:
        """One sentence when a batch has been in the handler for more than `after_s` seconds."""
        if self._busy_since is None or (busy := time.monotonic() - self._busy_since) < after_s:
            return None
        return f"a batch of {'+'.join(self.subscription.topics)} has been in its handler for {busy:.0f} s"

    async def watch_backlog(self, spare_after_s: float = 15.0) -> None:
        """Set `caught_up` once all that was there at the start is handled, or there are no partitions to have."""
        consumer: AIOKafkaConsumer = self._subscriber.consumer
        deadline = time.monotonic() + spare_after_s
        while not consumer.assignment():
            if time.monotonic() > deadline:
                self.caught_up.set()
                return
            await asyncio.sleep(0.1)
        ends = await consumer.end_offsets(list(consumer.assignment()))
        seen_idle = 0
        while seen_idle < 2:  # a batch that was fetched a moment ago may not have reached the handler yet
            await asyncio.sleep(0.1)
            mine = consumer.assignment()
            behind = [tp for tp, end in ends.items() if tp in mine and await consumer.position(tp) < end]
            seen_idle = 0 if behind or self._busy_since is not None else seen_idle + 1
        self.caught_up.set()

    async def handle(self, records: Sequence[ConsumerRecord]) -> None:
        """Decode and hand over one batch; returns when every record was handled or dead-lettered."""
        delivered = await self._decode_all(records)
        if not delivered:
            return
        with HANDLER_SECONDS.labels(topics="+".join(self.subscription.topics)).time():
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
            await self.subscription.handler(delivered)
        except Retry:
            RETRIES.labels(topics="+".join(self.subscription.topics)).inc()
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
                events = self.subscription.decode(topic, [value for _, _, value in items])
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
                [event] = self.subscription.decode(topic, [value])
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

    async def _commit(self, consumer: Any, records: Sequence[ConsumerRecord]) -> None:
        offsets: dict[TopicPartition, int] = {}
        for record in records:
            partition = TopicPartition(record.topic, record.partition)
            offsets[partition] = max(offsets.get(partition, 0), record.offset + 1)
        try:
            await consumer.commit(offsets)
        except KafkaError as error:
            log.warning("offsets were not committed, so these records will come again: %r", error)

    def _note_lag(self, consumer: AIOKafkaConsumer, records: Sequence[ConsumerRecord]) -> None:
        for record in records:
            partition = TopicPartition(record.topic, record.partition)
            high = consumer.highwater(partition) if partition in consumer.assignment() else None
            if high is not None:
                lag = max(0, high - record.offset - 1)
                CONSUMER_LAG.labels(topic=record.topic.removeprefix(self._prefix), partition=record.partition).set(lag)


async def _keep_raw(message: KafkaMessage) -> list[bytes]:
    """FastStream's decoder, switched off: the subscriber decodes whole batches itself."""
    return []
