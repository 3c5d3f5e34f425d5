"""One piece of evidence about an attempt: an event and where it was first recorded; and how it is kept as bytes."""

from dataclasses import dataclass

from leyden.events import (
    ModelCallRecorded,
    OfAttempt,
    RewardAssigned,
    RewardsCompleted,
    RolloutEnded,
    RolloutSettled,
)
from leyden.events.codec import EVENT_TYPES, encode

EvidenceEvent = ModelCallRecorded | RewardAssigned | RewardsCompleted | RolloutEnded | RolloutSettled


@dataclass(frozen=True, slots=True)
class Exhibit:
    """An event with its origin (`topic/partition/offset`) and the trace context that travelled with it."""

    event: EvidenceEvent
    origin: str
    traceparent: str = ""


def subject_of(event: object) -> str | None:
    """The attempt that `event` is evidence for (`<rollout id>:<attempt>`), or None when it is evidence for none."""
    if isinstance(event, ModelCallRecorded):
        return f"{event.rollout_id}:{event.attempt}" if event.rollout_id else None
    if isinstance(event, RewardAssigned | RewardsCompleted | RolloutEnded | RolloutSettled):
        return f"{event.rollout_id}:{event.attempt}"
    return None


def pack(exhibit: Exhibit) -> bytes:
    """Kind, origin, trace context and event as bytes; of a call only what credit needs, not its texts."""
    event: OfAttempt | ModelCallRecorded = exhibit.event
    if isinstance(event, ModelCallRecorded):
        choices = [choice.model_copy(update={"message": {}}) for choice in event.choices]
        event = event.model_copy(update={"request": {}, "choices": choices})
    return f"{event.type}\n{exhibit.origin}\n{exhibit.traceparent}\n".encode() + encode(event)


def unpack(value: bytes) -> Exhibit:
    """What `pack` packed."""
    kind, origin, traceparent, body = value.split(b"\n", 3)
    event = EVENT_TYPES[kind.decode()].model_validate_json(body)
    assert isinstance(event, EvidenceEvent)
    return Exhibit(event, origin.decode(), traceparent.decode())
