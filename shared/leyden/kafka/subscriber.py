"""Subscriptions on FastStream: batches in, offsets committed only after `leyden.kafka.loop` has finished with them.

What FastStream's own policies would lose (see docs/adr) is done here: manual acknowledgement, explicit offsets per
partition, and an end to the process on an error that nothing else can follow from.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import KafkaError
from faststream import AckPolicy
from faststream.kafka import KafkaBroker, KafkaMessage

from leyden.events import Event
from leyden.events.codec import BatchDecoder, decode_batch
from leyden.kafka.claims import ClaimStore
from leyden.kafka.delivered import BatchHandler, Publisher, RawBatchHandler
from leyden.kafka.loop import DEFAULT_RETRY, BatchLoop, RetryPolicy
from leyden.kafka.settings import KafkaSettings
from leyden.telemetry.metrics import CONSUMER_LAG

log = logging.getLogger(__name__)
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


class BatchConsumer:
    """Runs one subscription on a broker. `caught_up` is set once everything that was there at the start was handled."""

    def __init__(
        self,
        subscription: Subscription,
        settings: KafkaSettings,
        publisher: Publisher,
        claims: ClaimStore,
        prefix: str,
        retry: RetryPolicy = DEFAULT_RETRY,
        die: Callable[[int], None] = os._exit,
    ) -> None:
        self.subscription = subscription
        self.caught_up = subscription.caught_up or asyncio.Event()
        self._settings = settings
        self._prefix = prefix
        self._die = die
        self._loop = BatchLoop(
            subscription.topics, subscription.handler, subscription.decode, publisher, claims, prefix, retry
        )
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
            await self._loop.handle(records)
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
