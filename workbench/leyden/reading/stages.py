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
from leyden.kafka.settings import KafkaSettings
from leyden.kafka.tail import group_backlog
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
    lags = {}
    for stage, topics in STAGES.items():
        with suppress(GroupCoordinatorNotAvailableError):
            lags[stage] = await group_backlog(kafka, prefix, stage, topics)
    return lags
