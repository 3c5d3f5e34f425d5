"""How far the verdicts in the log were read: whoever asks a judge before that may pay for what is known."""

import asyncio
import logging

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from leyden.events.codec import VERDICTS
from leyden.kafka.admin import admin_client, topic_partitions
from leyden.kafka.settings import KafkaSettings

log = logging.getLogger(__name__)


async def verdicts_read(kafka: KafkaSettings, prefix: str, group: str, every_s: float = 1.0) -> None:
    """Returns when `group` has handled every verdict that was in the log when this was called. Waits for Kafka."""
    wanted: dict[TopicPartition, int] | None = None
    while True:
        try:
            wanted = await _ends(kafka, prefix) if wanted is None else wanted
            if not wanted or await _handled(kafka, prefix + group, wanted):
                return
        except KafkaError as error:
            log.warning("cannot see yet how far verdicts were read: %r", error)
        await asyncio.sleep(every_s)


async def _ends(kafka: KafkaSettings, prefix: str) -> dict[TopicPartition, int]:
    """The end of every partition of the verdicts that holds any."""
    partitions = await topic_partitions(kafka, [prefix + VERDICTS])
    consumer = AIOKafkaConsumer(enable_auto_commit=False, **kafka.connection())
    await consumer.start()
    try:
        first, ends = await consumer.beginning_offsets(partitions), await consumer.end_offsets(partitions)
    finally:
        await consumer.stop()
    return {tp: end for tp, end in ends.items() if end > first[tp]}


async def _handled(kafka: KafkaSettings, group: str, wanted: dict[TopicPartition, int]) -> bool:
    async with admin_client(kafka) as admin:
        committed = await admin.list_consumer_group_offsets(group, partitions=list(wanted))
    return all(tp in committed and committed[tp].offset >= end for tp, end in wanted.items())
