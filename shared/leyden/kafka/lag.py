"""Lag, measured beside the loop: how many records of the assigned partitions were not finished yet, and its gauges."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Protocol

from aiokafka import TopicPartition

from leyden.telemetry.metrics import CONSUMER_LAG, LAG_FAILURES

log = logging.getLogger(__name__)
ANSWER_WITHIN_S = 5.0
"""How long the consumer, and then Kafka itself, may take to say where the partitions end."""
EndOffsets = Callable[[list[TopicPartition]], Awaitable[Mapping[TopicPartition, int]]]
"""The offset after the last record of each partition."""


class Consumer(Protocol):
    """What is asked of an `AIOKafkaConsumer`."""

    def assignment(self) -> Collection[TopicPartition]: ...

    async def position(self, partition: TopicPartition) -> int: ...

    async def end_offsets(self, partitions: list[TopicPartition]) -> Mapping[TopicPartition, int]: ...


class LagMeter:
    """Measures one consumer's lag and keeps its gauges: one for each assigned partition, none for others."""

    def __init__(self, prefix: str, ask_kafka: EndOffsets, answer_within_s: float = ANSWER_WITHIN_S) -> None:
        """`ask_kafka` uses a connection of its own: it still answers when the consumer's connections are dead."""
        self._prefix = prefix
        self._ask_kafka = ask_kafka
        self._answer_within_s = answer_within_s
        self._shown: set[TopicPartition] = set()

    async def measure(self, consumer: Consumer, in_hand: Mapping[TopicPartition, int]) -> int | None:
        """Records that are assigned to `consumer` and not finished; None when that cannot be known now.

        `in_hand`: the first offset, by partition, of what was fetched and is not finished. Never raises: a consumer
        must not be restarted because measuring it failed.
        """
        mine = list(consumer.assignment())
        self._forget(self._shown.difference(mine))
        try:
            ends = await self._ends(consumer, mine) if mine else {}
            reached = await asyncio.gather(*(self._reached(consumer, tp, in_hand) for tp in mine))
        except Exception as error:  # noqa: BLE001 - whatever it is: counted, logged, and no reason to restart
            LAG_FAILURES.inc()
            log.warning("the lag cannot be measured now: %r", error)
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
            async with asyncio.timeout(self._answer_within_s):
                return await consumer.end_offsets(partitions)
        except Exception as error:  # noqa: BLE001 - the other way to know is tried
            log.debug("the consumer does not say where its partitions end: %r", error)
        async with asyncio.timeout(self._answer_within_s):
            return await self._ask_kafka(partitions)

    async def _reached(self, consumer: Consumer, tp: TopicPartition, in_hand: Mapping[TopicPartition, int]) -> int:
        """The offset up to which everything is finished; 0 for a consumer that does not find its position."""
        if tp in in_hand:
            return in_hand[tp]
        try:
            async with asyncio.timeout(self._answer_within_s):
                return await consumer.position(tp)
        except TimeoutError:
            return 0

    def _forget(self, gone: Collection[TopicPartition]) -> None:
        for tp in gone:
            CONSUMER_LAG.remove(*self._labels(tp))
            self._shown.discard(tp)

    def _labels(self, tp: TopicPartition) -> tuple[str, str]:
        return tp.topic.removeprefix(self._prefix), str(tp.partition)
