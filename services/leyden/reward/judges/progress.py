"""Waits until recorded verdicts have been read, so that no judge is asked for a verdict that exists."""

import asyncio
import logging

from leyden.backoff import Backoff, retrying
from leyden.events.codec import VERDICTS
from leyden.kafka.admin import committed_offsets, stored_ranges, topic_partitions
from leyden.kafka.settings import KafkaSettings
from leyden.kafka.types import KafkaError, TopicPartition

log = logging.getLogger(__name__)


async def verdicts_read(kafka: KafkaSettings, prefix: str, group: str, every_s: float = 1.0) -> None:
    """Return once `group` has handled every verdict that was in the topic at the call. Retries while Kafka is down."""
    pause = Backoff(every_s, every_s)

    async def ends() -> dict[TopicPartition, int]:
        ranges = await stored_ranges(kafka, await topic_partitions(kafka, [prefix + VERDICTS]))
        return {tp: end for tp, (_, end) in ranges.items()}

    wanted = await retrying(ends, pause, KafkaError, failed=_tell)
    while wanted:
        done = await retrying(lambda: committed_offsets(kafka, prefix + group, wanted), pause, KafkaError, failed=_tell)
        if all(done[tp] >= end for tp, end in wanted.items()):
            return
        await asyncio.sleep(every_s)


def _tell(error: Exception, delay_s: float) -> None:
    log.warning("cannot read the offsets of verdicts, retrying in %.0f s: %r", delay_s, error)
