"""One piece of evidence about an attempt: an event and where it was first recorded; and how it is kept as bytes."""

from dataclasses import dataclass

from pydantic import Field

from leyden.credit.core.agents import SpanLink
from leyden.events import (
    Choice,
    Event,
    JsonObject,
    ModelCallRecorded,
    RewardAssigned,
    RewardsCompleted,
    RolloutEnded,
    RolloutSettled,
    SpanRecorded,
)
from leyden.events.codec import EVENT_TYPES, encode

EvidenceEvent = ModelCallRecorded | RewardAssigned | RewardsCompleted | RolloutEnded | RolloutSettled | SpanRecorded
_LINK = "span"


_NOT_READ = "leyden-not-read"
"""Name of a field that no record has."""


class _TrimmedChoice(Choice):
    message: JsonObject = Field(default_factory=dict, validation_alias=_NOT_READ)


class TrimmedCall(ModelCallRecorded):
    """A call as it is read from its topic: its texts are passed over, its numbers are all there."""

    request: JsonObject = Field(default_factory=dict, validation_alias=_NOT_READ)
    choices: list[_TrimmedChoice] = Field(default_factory=list)  # type: ignore[assignment]  # events are frozen


@dataclass(frozen=True, slots=True)
class Exhibit:
    """An event with its origin (`topic/partition/offset`) and the trace context that travelled with it."""

    event: EvidenceEvent | SpanLink
    origin: str
    traceparent: str = ""


def subject_of(event: object) -> str | None:
    """The attempt that `event` is evidence for (`<rollout id>:<attempt>`), or None when it is evidence for none."""
    if isinstance(event, ModelCallRecorded | SpanRecorded):
        return f"{event.rollout_id}:{event.attempt}" if event.rollout_id else None
    if isinstance(event, RewardAssigned | RewardsCompleted | RolloutEnded | RolloutSettled):
        return f"{event.rollout_id}:{event.attempt}"
    return None


def pack(exhibit: Exhibit) -> bytes:
    """Kind, origin, trace context and event as bytes: of a call without its texts, of a span its place alone."""
    event: Event | SpanLink = exhibit.event
    if isinstance(event, SpanRecorded):
        event = SpanLink.of(event)
    if isinstance(event, SpanLink):
        return f"{_LINK}\n\n\n{event.model_dump_json(exclude_none=True)}".encode()
    if isinstance(event, ModelCallRecorded) and not isinstance(event, TrimmedCall):
        choices = [choice.model_copy(update={"message": {}}) for choice in event.choices]
        event = event.model_copy(update={"request": {}, "choices": choices})
    return f"{event.type}\n{exhibit.origin}\n{exhibit.traceparent}\n".encode() + encode(event)


def unpack(value: bytes) -> Exhibit:
    """What `pack` packed."""
    kind, origin, traceparent, body = value.split(b"\n", 3)
    if kind.decode() == _LINK:
        return Exhibit(SpanLink.model_validate_json(body), origin.decode(), traceparent.decode())
    event = EVENT_TYPES[kind.decode()].model_validate_json(body)
    assert isinstance(event, EvidenceEvent)
    return Exhibit(event, origin.decode(), traceparent.decode())
