"""Runs subscriptions on FastStream. Offsets are committed only after `leyden.kafka.loop` has handled the batch.

FastStream's own acknowledgement policies can lose records (ADR 1 and 16). So acknowledgement is manual, offsets are
committed explicitly per partition, and an unexpected error ends the process.
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
from faststream.kafka import TopicPartition as Partition

from leyden.clock import Clock, SystemClock
from leyden.events import Event
from leyden.events.codec import BatchDecoder, decode_batch
from leyden.kafka.admin import end_offsets, group_commits
from leyden.kafka.claims import ClaimStore
from leyden.kafka.delivered import BatchHandler, Publisher, RawBatchHandler, Retry
from leyden.kafka.diverted import DivertedRecords
from leyden.kafka.kept import Commits, KeptState, Positions
from leyden.kafka.lag import Consumer, EndOffsets, LagMeter
from leyden.kafka.liveness import Heartbeat, Liveness, Phase, Sample
from leyden.kafka.loop import DEFAULT_RETRY, BatchLoop, LoopSettings
from leyden.kafka.settings import KafkaSettings
from leyden.kafka.topics import load_topics

log = logging.getLogger(__name__)
FATAL_EXIT = 70
"""Exit status (EX_SOFTWARE) of a process that stops because of a bug: continuing could lose data."""
SAMPLE_EVERY_S = 5.0
"""Interval between measurements of a consumer's lag and progress."""


@dataclass(frozen=True)
class Subscription:
    """The topics of a handler, as data. `group` None: every replica reads them from the beginning."""

    topics: tuple[str, ...]
    handler: BatchHandler | RawBatchHandler
    group: str | None
    max_records: int = 500
    max_poll_interval_ms: int | None = None
    decoders: Mapping[str, BatchDecoder] = field(default_factory=dict)
    """Decoder by topic, for handlers that need only part of an event. Other topics use `decode_batch`."""
    caught_up: asyncio.Event | None = field(default=None, compare=False)
    """Set once the records that existed at start-up are handled. For services that answer requests from them."""
    starts: Callable[[], Mapping[int, int]] | None = field(default=None, compare=False)
    """For a single reader of one topic that keeps its own positions: partition → where to start; 0 for others. It reads
    all partitions without joining the group, so no start waits for a predecessor; the group only stores offsets."""
    positions: Positions | None = field(default=None, compare=False)
    """For handlers that keep what they read in Redis: how far it includes each partition. Not without a group."""
    heartbeat: Heartbeat = field(default_factory=Heartbeat, compare=False)
    """Used by handlers that may take longer than `stall_after_s` to report progress. Pass the handler's own object."""

    def decode(self, topic: str, values: Sequence[bytes]) -> list[Event]:
        """Decode `values` of `topic`. Raises `pydantic.ValidationError` if any of them is invalid."""
        return self.decoders.get(topic, partial(decode_batch, topic))(values)


class BatchConsumer:
    """Runs one subscription on a broker. `caught_up` is set once the records that existed at start-up are handled."""

    def __init__(
        self,
        *,
        subscription: Subscription,
        settings: KafkaSettings,
        publisher: Publisher,
        claims: ClaimStore,
        prefix: str,
        retry: LoopSettings = DEFAULT_RETRY,
        die: Callable[[int], None] = os._exit,
        clock: Clock | None = None,
        ask_kafka: EndOffsets | None = None,
        commits: Commits | None = None,
    ) -> None:
        self.subscription = subscription
        self.caught_up = subscription.caught_up or asyncio.Event()
        self._settings = settings
        self._prefix = prefix
        self._die = die
        self._loop = BatchLoop(
            topics=subscription.topics,
            handler=subscription.handler,
            decode=subscription.decode,
            publisher=publisher,
            claims=claims,
            prefix=prefix,
            retry=retry,
            heartbeat=subscription.heartbeat,
            diverted_among=DivertedRecords(settings, prefix).among if subscription.group is None else None,
        )
        self._meter = LagMeter(prefix, ask_kafka or partial(end_offsets, settings))
        self._liveness = Liveness("+".join(subscription.topics), (clock or SystemClock()).monotonic, SAMPLE_EVERY_S)
        self._kept: KeptState | None = None
        if subscription.positions is not None and subscription.group is not None:
            group = f"{prefix}{subscription.group}"
            self._kept = KeptState(subscription.positions, commits or partial(group_commits, settings, group))
        self._one_at_a_time = asyncio.Lock()
        """Held by a batch, and while partitions are set back."""
        self._phase = Phase.IDLE
        self._finished = 0
        self._in_hand: dict[TopicPartition, int] = {}
        self._subscriber: Any = None
        self._starts: Mapping[int, int] = {}
        self._placed = asyncio.Event()
        """Set once the consumer is where the subscription starts."""
        if subscription.starts is None:
            self._placed.set()

    def register(self, broker: KafkaBroker) -> None:
        """Declare the FastStream subscriber. Consuming starts when the broker is started."""
        sub = self.subscription
        options: dict[str, Any] = {"auto_offset_reset": "earliest", "fetch_max_bytes": self._settings.fetch_max_bytes}
        if sub.group is not None:
            options["group_id"] = f"{self._prefix}{sub.group}"
        if sub.group is not None and sub.starts is None:
            options |= {
                "session_timeout_ms": self._settings.session_timeout_ms,
                "max_poll_interval_ms": sub.max_poll_interval_ms or self._settings.max_poll_interval_ms,
                "partition_assignment_strategy": (RangePartitionAssignor,),
            }
            if self._settings.group_instance_id is not None:
                options["group_instance_id"] = f"{self._settings.group_instance_id}-{sub.topics[0]}"
        topics = [self._prefix + topic for topic in sub.topics]
        if sub.starts is not None:
            [(name, topic)] = zip(sub.topics, topics, strict=True)
            options["partitions"] = [Partition(topic, number) for number in range(load_topics()[name].partitions)]
        self._subscriber = broker.subscriber(
            *(topics if sub.starts is None else ()),
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
        """Replaces FastStream's parser, which raises on headers that are not text and then skips the record."""
        first = records[0]
        name = f"{first.topic}/{first.partition}/{first.offset}"
        return KafkaMessage(records, b"", message_id=name, consumer=self._subscriber.consumer)

    async def _on_message(self, message: KafkaMessage) -> None:
        records = message.raw_message
        assert isinstance(records, tuple)
        await self.consume(records, message.consumer)

    async def begin(self) -> None:
        """Call once after the broker was started: sets the consumer to where the subscription starts."""
        if self.subscription.starts is not None:
            await self.place(self._subscriber.consumer, self.subscription.starts())

    async def place(self, consumer: Any, starts: Mapping[int, int]) -> None:
        """Set `consumer` to `starts`: partition → offset; 0 for others. Nothing is handled before."""
        self._starts = dict(starts)
        offsets = {tp: starts.get(tp.partition, 0) for tp in consumer.assignment()}
        for tp, offset in offsets.items():
            consumer.seek(tp, offset)
        await self._commit(consumer, offsets)
        self.caught_up.set()  # it works from here on; nothing waits for the end of its backlog
        self._placed.set()

    async def consume(self, records: Sequence[ConsumerRecord], consumer: Any) -> None:
        """Handle one batch and commit its offsets. An unexpected error ends the process."""
        await self._placed.wait()
        async with self._one_at_a_time:
            if self.subscription.starts is not None:
                records = [record for record in records if await self._was_read(record, consumer)]
            await self._consume(records, consumer)

    async def _was_read(self, record: ConsumerRecord, consumer: Any) -> bool:
        """Whether the consumer has read `record` since it was placed; else it was fetched before."""
        if record.offset < self._starts.get(record.partition, 0):
            return False
        return bool(await consumer.position(TopicPartition(record.topic, record.partition)) > record.offset)

    async def _consume(self, records: Sequence[ConsumerRecord], consumer: Any) -> None:
        self._in_hand = _first_offsets(records)
        self._phase = Phase.HANDLING
        try:
            if self._kept is not None:
                records = await self._loop.until_available(partial(self._kept.admit, records, consumer))
            await self._loop.handle(records)
            if self._kept is not None:
                await self._loop.until_available(partial(self._kept.has_handled, records))
            if self.subscription.group is not None:
                self._phase = Phase.COMMITTING
                await self._commit(consumer, _ends(records))
        except Exception:
            topics = "+".join(self.subscription.topics)
            log.critical("consumer of %s failed; no offset of its batch was committed", topics, exc_info=True)
            self._die(FATAL_EXIT)
            raise
        self._finished += 1
        self._in_hand, self._phase = {}, Phase.IDLE

    async def look_for_lost_state(self, consumer: Any) -> None:
        """Set back partitions whose state Redis has lost, even if no record comes. Tried again at the next call."""
        if self._kept is None:
            return
        try:
            async with self._one_at_a_time:
                await self._kept.check(consumer)
        except Retry as error:
            log.warning("cannot tell whether Redis has the state: %s", error)

    async def sample(self, consumer: Consumer) -> None:
        """Measure the lag of `consumer` and record whether there was progress."""
        lag = await self._meter.measure(consumer, self._in_hand)
        self._liveness.add(Sample(lag, self._phase, self._finished + self.subscription.heartbeat.beats))

    async def watch(self) -> None:
        """Call `sample` every `SAMPLE_EVERY_S`, concurrently with the handler. Never returns."""
        while True:
            await self.sample(self._subscriber.consumer)
            await asyncio.sleep(SAMPLE_EVERY_S)

    async def watch_state(self) -> None:
        """Call `look_for_lost_state` every `SAMPLE_EVERY_S`. Never returns."""
        while True:
            await self.look_for_lost_state(self._subscriber.consumer)
            await asyncio.sleep(SAMPLE_EVERY_S)

    def stalled(self, after_s: float) -> str | None:
        """One sentence if there was work and no progress for `after_s` seconds, else None. See `Liveness.stalled`."""
        return self._liveness.stalled(after_s)

    @property
    def waiting_for(self) -> str | None:
        """One sentence while the handler of the current batch waits for something, else None."""
        return (self.subscription.heartbeat.waiting_for or None) if self._phase is Phase.HANDLING else None

    async def watch_backlog(self, assigned_within_s: float = 15.0) -> None:
        """Set `caught_up` once the records that existed at start-up are handled.

        A replica that gets no partition within `assigned_within_s` is a standby and has caught up, too.
        """
        if self.subscription.starts is not None:
            return  # `place` sets it
        consumer: AIOKafkaConsumer = self._subscriber.consumer
        deadline = time.monotonic() + assigned_within_s
        while not consumer.assignment():
            if time.monotonic() > deadline:
                self.caught_up.set()
                return
            await asyncio.sleep(0.1)
        ends = await consumer.end_offsets(list(consumer.assignment()))
        seen_idle = 0
        while seen_idle < 2:  # twice, because a batch just fetched may not have reached the handler yet
            await asyncio.sleep(0.1)
            mine = consumer.assignment()
            behind = [tp for tp, end in ends.items() if tp in mine and await consumer.position(tp) < end]
            seen_idle = 0 if behind or self._phase is not Phase.IDLE else seen_idle + 1
        self.caught_up.set()

    async def _commit(self, consumer: Any, ends: Mapping[TopicPartition, int]) -> None:
        """Commit the offsets of the partitions still assigned to this consumer; others belong to their new owner."""
        mine, kept = consumer.assignment(), self._kept
        offsets = {tp: offset for tp, offset in ends.items() if tp in mine}
        try:
            if offsets and kept is not None:
                await consumer.commit({tp: kept.commit_of(tp, offset) for tp, offset in offsets.items()})
            elif offsets:
                await consumer.commit(offsets)
        except KafkaError as error:
            log.warning("offsets were not committed, so these records will be delivered again: %r", error)


def _first_offsets(records: Sequence[ConsumerRecord]) -> dict[TopicPartition, int]:
    found: dict[TopicPartition, int] = {}
    for record in records:
        partition = TopicPartition(record.topic, record.partition)
        found[partition] = min(found.get(partition, record.offset), record.offset)
    return found


def _ends(records: Sequence[ConsumerRecord]) -> dict[TopicPartition, int]:
    found: dict[TopicPartition, int] = {}
    for record in records:
        partition = TopicPartition(record.topic, record.partition)
        found[partition] = max(found.get(partition, 0), record.offset + 1)
    return found


async def _keep_raw(message: KafkaMessage) -> list[bytes]:
    """Replaces FastStream's decoder: `BatchLoop` decodes whole batches."""
    return []
