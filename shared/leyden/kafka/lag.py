"""Measures a consumer's lag: the records of its assigned partitions that are not finished. Exports it as gauges."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Protocol

from aiokafka import TopicPartition

from leyden.telemetry.metrics import CONSUMER_LAG, LAG_FAILURES

log = logging.getLogger(__name__)
TIMEOUT_S = 5.0
"""Limit for each request for offsets."""
EndOffsets = Callable[[list[TopicPartition]], Awaitable[Mapping[TopicPartition, int]]]
"""The offset after the last record of each partition."""


class Consumer(Protocol):
    """The methods of `AIOKafkaConsumer` used here."""

    def assignment(self) -> Collection[TopicPartition]: ...

    async def position(self, partition: TopicPartition) -> int: ...

    async def end_offsets(self, partitions: list[TopicPartition]) -> Mapping[TopicPartition, int]: ...


class LagMeter:
    """Measures the lag of one consumer and sets its gauges, one per assigned partition."""

    def __init__(self, prefix: str, ask_kafka: EndOffsets, timeout_s: float = TIMEOUT_S) -> None:
        """`ask_kafka` must use its own connection: it is the fallback if the consumer's connections are dead."""
        self._prefix = prefix
        self._ask_kafka = ask_kafka
        self._timeout_s = timeout_s
        self._shown: set[TopicPartition] = set()

    async def measure(self, consumer: Consumer, in_hand: Mapping[TopicPartition, int]) -> int | None:
        """Number of records assigned to `consumer` and not finished; None if it cannot be measured.

        `in_hand`: for each partition of the current batch, the batch's first offset. Never raises: a consumer must not
        be restarted because measuring its lag failed.
        """
        mine = list(consumer.assignment())
        self._forget(self._shown.difference(mine))
        try:
            ends = await self._ends(consumer, mine) if mine else {}
            reached = await asyncio.gather(*(self._reached(consumer, tp, in_hand) for tp in mine))
        except Exception as error:  # noqa: BLE001 - no failure here is a reason to restart the consumer
            LAG_FAILURES.inc()
            log.warning("cannot measure the consumer lag: %r", error)
            return None
        lags = {tp: max(0, ends[tp] - at) for tp, at in zip(mine, reached, strict=True)}
        still_mine = set(consumer.assignment())
        for tp, lag in lags.items():
            if tp in still_mine:
                CONSUMER_LAG.labels(*self._labels(tp)).set(lag)
                self._shown.add(tp)
        return sum(lag for tp, lag in lags.items() if tp in still_mine)

    async def _ends(self, consumer: Consumer, partitions: list[TopicPartition]) -> Mapping[TopicPartition, int]:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await consumer.end_offsets(partitions)
        except Exception as error:  # noqa: BLE001 - the fallback is tried next
            log.debug("cannot get end offsets from the consumer: %r", error)
        async with asyncio.timeout(self._timeout_s):
            return await self._ask_kafka(partitions)

    async def _reached(self, consumer: Consumer, tp: TopicPartition, in_hand: Mapping[TopicPartition, int]) -> int:
        """The offset before which every record is finished; 0 if the consumer does not know its position."""
        if tp in in_hand:
            return in_hand[tp]
        try:
            async with asyncio.timeout(self._timeout_s):
                return await consumer.position(tp)
        except TimeoutError:
            return 0

    def _forget(self, gone: Collection[TopicPartition]) -> None:
        for tp in gone:
            CONSUMER_LAG.remove(*self._labels(tp))
            self._shown.discard(tp)

    def _labels(self, tp: TopicPartition) -> tuple[str, str]:
        return tp.topic.removeprefix(self._prefix), str(tp.partition)
