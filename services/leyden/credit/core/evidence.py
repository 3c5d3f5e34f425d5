"""Evidence about an attempt: an event and where it was first recorded; and its form as bytes in the store."""

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
from leyden.events.replies import replies_of_call

EvidenceEvent = ModelCallRecorded | RewardAssigned | RewardsCompleted | RolloutEnded | RolloutSettled | SpanRecorded
_LINK, _ANSWERED = "span", "answered-call"

_NOT_READ = "leyden-not-read"
"""Alias that no record has, so that the field keeps its default."""


class _TrimmedChoice(Choice):
    message: JsonObject = Field(default_factory=dict, validation_alias=_NOT_READ)


class KeptCall(ModelCallRecorded):
    """A call as it is stored: without its texts, but with what recognises its reply in a span."""

    replies: tuple[str, ...] = ()
    """See `leyden.events.replies`."""


class AnsweredCall(ModelCallRecorded):
    """A call as it is read from its topic when spans are needed: without its prompt."""

    request: JsonObject = Field(default_factory=dict, validation_alias=_NOT_READ)


class TrimmedCall(ModelCallRecorded):
    """A call as it is read from its topic: without its texts, with all its numbers."""

    request: JsonObject = Field(default_factory=dict, validation_alias=_NOT_READ)
    choices: list[_TrimmedChoice] = Field(default_factory=list)  # type: ignore[assignment]  # events are frozen


@dataclass(frozen=True, slots=True)
class Evidence:
    """An event with its origin (`topic/partition/offset`) and the trace context that travelled with it."""

    event: EvidenceEvent | SpanLink
    origin: str
    traceparent: str = ""


def subject_of(event: object) -> str | None:
    """The attempt that `event` belongs to, as `<rollout id>:<attempt>`; None if it belongs to none."""
    if isinstance(event, ModelCallRecorded | SpanRecorded):
        return f"{event.rollout_id}:{event.attempt}" if event.rollout_id else None
    if isinstance(event, RewardAssigned | RewardsCompleted | RolloutEnded | RolloutSettled):
        return f"{event.rollout_id}:{event.attempt}"
    return None


def pack(one: Evidence) -> bytes:
    """Type, origin, trace context and event as bytes; a call without its texts, a span as its `SpanLink`."""
    event: Event | SpanLink = one.event
    if isinstance(event, SpanRecorded):
        event = SpanLink.of(event)
    if isinstance(event, SpanLink):
        return f"{_LINK}\n\n\n{event.model_dump_json(exclude_defaults=True)}".encode()
    kind = _ANSWERED if isinstance(event, KeptCall) else event.type
    if isinstance(event, ModelCallRecorded) and not isinstance(event, TrimmedCall | KeptCall):
        choices = [choice.model_copy(update={"message": {}}) for choice in event.choices]
        less: dict[str, object] = {"request": {}, "choices": choices}
        if replies := replies_of_call(event):
            kind, event = _ANSWERED, KeptCall.model_construct(**event.__dict__ | less, replies=replies)
        else:
            event = event.model_copy(update=less)
    return f"{kind}\n{_line(one.origin)}\n{_line(one.traceparent)}\n".encode() + encode(event)


def unpack(value: bytes) -> Evidence:
    """Inverse of `pack`."""
    kind, origin, traceparent, body = value.split(b"\n", 3)
    if kind.decode() == _LINK:
        return Evidence(SpanLink.model_validate_json(body), origin.decode(), traceparent.decode())
    kept = KeptCall if kind.decode() == _ANSWERED else EVENT_TYPES[kind.decode()]
    event = kept.model_validate_json(body)
    assert isinstance(event, EvidenceEvent)
    return Evidence(event, origin.decode(), traceparent.decode())


def _line(header: str) -> str:
    """A record's header without line breaks: whoever writes to the topic may put anything there."""
    return header.replace("\n", " ")
