"""The lag of each stage: records that a service has not handled yet."""

from collections.abc import Mapping
from contextlib import suppress

from leyden.events.codec import (
    CHECKPOINTS,
    GROUPS,
    MODEL_CALLS,
    OTLP,
    REWARDS,
    ROLLOUTS,
    SPANS,
    TRAINING_METRICS,
    TRANSITIONS,
    VERDICTS,
)
from leyden.kafka.admin import committed_offsets, stored_ranges, topic_partitions
from leyden.kafka.settings import KafkaSettings
from leyden.kafka.tail import unread
from leyden.kafka.types import GroupCoordinatorNotAvailableError

STAGES: Mapping[str, tuple[str, ...]] = {
    "ingest": (OTLP,),
    "reward": (SPANS, MODEL_CALLS, ROLLOUTS, VERDICTS),
    "credit": (ROLLOUTS, MODEL_CALLS, REWARDS, GROUPS),
    "trainer": (TRANSITIONS,),
    "registry": (CHECKPOINTS, TRAINING_METRICS),
}
"""Service, which is also its consumer group → topics that it consumes, in the order of the loop."""


async def lag_of_stages(kafka: KafkaSettings, prefix: str) -> dict[str, int]:
    """The lag of each stage; without those that Kafka cannot tell yet, as on a broker that no consumer has joined.

    Raises `KafkaError`.
    """
    names = sorted({prefix + topic for topics in STAGES.values() for topic in topics})
    partitions = await topic_partitions(kafka, names)
    done = {}
    for stage, topics in STAGES.items():
        own = {prefix + topic for topic in topics}
        with suppress(GroupCoordinatorNotAvailableError):
            done[stage] = await committed_offsets(kafka, prefix + stage, [tp for tp in partitions if tp.topic in own])
    stored = await stored_ranges(kafka, partitions)  # read last, so that no committed offset is beyond the end
    return {stage: unread(stored, offsets) for stage, offsets in done.items()}
