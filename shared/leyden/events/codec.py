"""Encodes and decodes events, and maps topics to their events."""

from base64 import urlsafe_b64encode
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from typing import Annotated, Union

import orjson
from pydantic import Field, TypeAdapter

from leyden.events.base import Event, Record
from leyden.events.calls import ModelCallRecorded
from leyden.events.keys import KeyCreated, KeyRevoked
from leyden.events.models import (
    BatchFormed,
    CheckpointSaved,
    PolicyPromoted,
    PolicyServed,
    TrainingStepCompleted,
    VersionRegistered,
)
from leyden.events.rewards import RewardAssigned, RewardsCompleted, VerdictRecorded
from leyden.events.rollouts import (
    QueuePaused,
    QueueResumed,
    RolloutEnded,
    RolloutSettled,
    RolloutStarted,
    TaskEnqueued,
)
from leyden.events.spans import SpanRecorded
from leyden.events.transitions import GroupClosed, GroupCredited, SequenceCredited

TASKS = "tasks.v1"
ROLLOUTS = "rollouts.v1"
MODEL_CALLS = "model-calls.v1"
OTLP = "otlp.v1"
"""Raw OTLP requests. The only topic whose records are not JSON events; see `leyden.events.otlp`."""
SPANS = "spans.v1"
REWARDS = "rewards.v1"
VERDICTS = "verdicts.v1"
GROUPS = "groups.v1"
TRANSITIONS = "transitions.v1"
TRAINING_BATCHES = "training-batches.v1"
CHECKPOINTS = "checkpoints.v1"
TRAINING_METRICS = "training-metrics.v1"
MODELS = "models.v1"
KEYS = "keys.v1"

EVENTS_BY_TOPIC: dict[str, tuple[type[Event], ...]] = {
    TASKS: (TaskEnqueued, QueuePaused, QueueResumed),
    ROLLOUTS: (RolloutStarted, RolloutEnded, RolloutSettled),
    MODEL_CALLS: (ModelCallRecorded,),
    SPANS: (SpanRecorded,),
    REWARDS: (RewardAssigned, RewardsCompleted),
    VERDICTS: (VerdictRecorded,),
    GROUPS: (GroupClosed,),
    TRANSITIONS: (SequenceCredited, GroupCredited),
    TRAINING_BATCHES: (BatchFormed,),
    CHECKPOINTS: (CheckpointSaved,),
    TRAINING_METRICS: (TrainingStepCompleted,),
    MODELS: (VersionRegistered, PolicyPromoted, PolicyServed),
    KEYS: (KeyCreated, KeyRevoked),
}
EVENT_TYPES: dict[str, type[Event]] = {
    str(kind.model_fields["type"].default): kind for kinds in EVENTS_BY_TOPIC.values() for kind in kinds
}


BatchDecoder = Callable[[Sequence[bytes]], list[Event]]
"""Decodes values in one pass. Raises `pydantic.ValidationError` if any is invalid."""


@cache
def batch_decoder(kinds: tuple[type[Event], ...]) -> BatchDecoder:
    """A decoder for values whose type is one of `kinds`."""
    # ruff's fix for UP007 would drop the Union here and leave a bare tuple, which is not a type.
    item = Annotated[Union[kinds], Field(discriminator="type")] if len(kinds) > 1 else kinds[0]  # noqa: UP007
    adapter: TypeAdapter[list[Event]] = TypeAdapter(list[item])  # type: ignore[valid-type]
    return lambda values: adapter.validate_json(b"[" + b",".join(values) + b"]")


@cache
def _encoder(kind: type[Event]) -> TypeAdapter[Event]:
    return TypeAdapter(kind)


def encode(event: Event) -> bytes:
    """The event as JSON. The same event always gives the same bytes."""
    if type(event) is ModelCallRecorded:
        # The same bytes as pydantic's, in a seventh of the time for a long conversation.
        # orjson refuses integers of more than 64 bits; pydantic writes them.
        with suppress(orjson.JSONEncodeError):
            return orjson.dumps(event.__dict__, default=_plain, option=orjson.OPT_UTC_Z)
    return _encoder(type(event)).dump_json(event, by_alias=True)


def _plain(value: object) -> object:
    """For orjson: converts nested records and packed numbers."""
    if isinstance(value, Record):
        return value.__dict__
    if isinstance(value, bytes):
        return urlsafe_b64encode(value).decode()
    raise TypeError(f"cannot encode a {type(value).__name__} in an event")


def decode_batch(topic: str, values: Sequence[bytes]) -> list[Event]:
    """Decode `values` in one pass. Raises `pydantic.ValidationError` if any is not an event of `topic`."""
    return batch_decoder(EVENTS_BY_TOPIC[topic])(values)


def decode(topic: str, value: bytes) -> Event:
    """Decode one event of `topic`. Raises `pydantic.ValidationError` if it is invalid."""
    return decode_batch(topic, [value])[0]
