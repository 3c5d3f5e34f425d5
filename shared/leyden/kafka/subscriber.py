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

from leyden.clock import Clock, SystemClock
from leyden.events import Event
from leyden.events.codec import BatchDecoder, decode_batch
from leyden.kafka.admin import end_offsets
from leyden.kafka.claims import ClaimStore
from leyden.kafka.delivered import BatchHandler, Publisher, RawBatchHandler
from leyden.kafka.lag import Consumer, EndOffsets, LagMeter
from leyden.kafka.liveness import Heartbeat, Liveness, Look, Phase
from leyden.kafka.loop import DEFAULT_RETRY, BatchLoop, RetryPolicy
from leyden.kafka.settings import KafkaSettings

log = logging.getLogger(__name__)
FATAL_EXIT = 70
"""Exit status (EX_SOFTWARE) of a process that stops itself because of a bug: going on could lose data."""
LOOK_EVERY_S = 5.0
"""How often the lag of a consumer is measured."""


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
    heartbeat: Heartbeat = field(default_factory=Heartbeat, compare=False)
    """Where a handler that may take longer than `stall_after_s` shows that it works; the same object is its own."""

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
        clock: Clock | None = None,
        ask_kafka: EndOffsets | None = None,
    ) -> None:
        self.subscription = subscription
        self.caught_up = subscription.caught_up or asyncio.Event()
        self._settings = settings
        self._prefix = prefix
        self._die = die
        self._loop = BatchLoop(
            subscription.topics,
            subscription.handler,
            subscription.decode,
            publisher,
            claims,
            prefix,
            retry,
            subscription.heartbeat,
        )
        self._meter = LagMeter(prefix, ask_kafka or partial(end_offsets, settings))
        self._liveness = Liveness("+".join(subscription.topics), (clock or SystemClock()).monotonic, LOOK_EVERY_S)
        self._phase = Phase.IDLE
        self._finished = 0
        self._in_hand: dict[TopicPartition, int] = {}
        self._subscriber: Any = None

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
        await self.consume(records, message.consumer)

    async def consume(self, records: Sequence[ConsumerRecord], consumer: Any) -> None:
        """Handle one batch and commit it. An error that is not in the contract of handlers stops the process."""
        self._in_hand = _first_offsets(records)
        self._phase = Phase.HANDLING
        try:
            await self._loop.handle(records)
            if self.subscription.group is not None:
                self._phase = Phase.COMMITTING
                await self._commit(consumer, records)
        except Exception:
            topics = "+".join(self.subscription.topics)
            log.critical("the consumer of %s stops; nothing of its batch was committed", topics, exc_info=True)
            self._die(FATAL_EXIT)
            raise
        self._finished += 1
        self._in_hand, self._phase = {}, Phase.IDLE

    async def look(self, consumer: Consumer) -> None:
        """Measure the lag of `consumer` and note whether there was progress; see `watch`."""
        lag = await self._meter.measure(consumer, self._in_hand)
        self._liveness.note(Look(lag, self._phase, self._finished + self.subscription.heartbeat.beats))

    async def watch(self) -> None:
        """Look every `LOOK_EVERY_S`, beside the loop, for as long as the process lives."""
        while True:
            await self.look(self._subscriber.consumer)
            await asyncio.sleep(LOOK_EVERY_S)

    def stalled(self, after_s: float) -> str | None:
        """One sentence when there was work and no progress for `after_s` seconds. See `leyden.kafka.liveness`."""
        return self._liveness.stalled(after_s)

    @property
    def waiting_for(self) -> str | None:
        """One sentence while a batch is in hand that cannot go on; None otherwise."""
        return (self.subscription.heartbeat.waiting_for or None) if self._phase is Phase.HANDLING else None

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
            seen_idle = 0 if behind or self._phase is not Phase.IDLE else seen_idle + 1
        self.caught_up.set()

    async def _commit(self, consumer: Any, records: Sequence[ConsumerRecord]) -> None:
        """Commit what is still this consumer's; a partition that was taken away is its new owner's to commit."""
        mine = consumer.assignment()
        offsets: dict[TopicPartition, int] = {}
        for record in records:
            partition = TopicPartition(record.topic, record.partition)
            if partition in mine:
                offsets[partition] = max(offsets.get(partition, 0), record.offset + 1)
        try:
            if offsets:
                await consumer.commit(offsets)
        except KafkaError as error:
            log.warning("offsets were not committed, so these records will come again: %r", error)


def _first_offsets(records: Sequence[ConsumerRecord]) -> dict[TopicPartition, int]:
    found: dict[TopicPartition, int] = {}
    for record in records:
        partition = TopicPartition(record.topic, record.partition)
        found[partition] = min(found.get(partition, record.offset), record.offset)
    return found


async def _keep_raw(message: KafkaMessage) -> list[bytes]:
    """FastStream's decoder, switched off: the subscriber decodes whole batches itself."""
    return []
