"""Copies a time range of recorded topics under another prefix, with the same bytes, keys, partitions and times."""

from datetime import datetime

from leyden.events.codec import GROUPS, MODEL_CALLS, ROLLOUTS, SPANS, TRAINING_BATCHES, VERDICTS
from leyden.kafka.admin import topic_partitions
from leyden.kafka.reading import copy_range, resolve_range
from leyden.kafka.settings import KafkaSettings
from leyden.kafka.types import TopicPartition

REPLAYED = (ROLLOUTS, MODEL_CALLS, SPANS, VERDICTS, GROUPS, TRAINING_BATCHES)
"""Topics that a replay copies: what agents did, and what was decided by time or arrival. The others are made again."""


async def copy_recorded(
    settings: KafkaSettings, *, source: str, target: str, start: datetime | None, end: datetime | None
) -> dict[str, tuple[int, int]]:
    """Copy the records of [start, end) from prefix `source` to prefix `target`.

    Returns `topic/partition` → copied offsets [first, last), which are the replay's whole input.
    """
    partitions = await topic_partitions(settings, [source + topic for topic in REPLAYED])
    wanted = await resolve_range(settings, partitions, start, end)

    def place(partition: TopicPartition) -> TopicPartition:
        return TopicPartition(target + partition.topic.removeprefix(source), partition.partition)

    await copy_range(settings, wanted, place, source)
    taken = {f"{tp.topic.removeprefix(source)}/{tp.partition}": bounds for tp, bounds in wanted.items()}
    return {name: bounds for name, bounds in sorted(taken.items()) if bounds[1] > bounds[0]}
