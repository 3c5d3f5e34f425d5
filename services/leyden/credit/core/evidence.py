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
from leyden.events.replies import replies_of_call

EvidenceEvent = ModelCallRecorded | RewardAssigned | RewardsCompleted | RolloutEnded | RolloutSettled | SpanRecorded
_LINK, _ANSWERED = "span", "answered-call"

_NOT_READ = "leyden-not-read"
"""Name of a field that no record has."""


class _TrimmedChoice(Choice):
    message: JsonObject = Field(default_factory=dict, validation_alias=_NOT_READ)


class KeptCall(ModelCallRecorded):
    """A call as it is kept: without its texts, but for what recognises its reply in a span."""

    replies: tuple[str, ...] = ()
    """See `leyden.events.replies`."""


class AnsweredCall(ModelCallRecorded):
    """A call as it is read from its topic where spans tell whose it is: its prompt is passed over."""

    request: JsonObject = Field(default_factory=dict, validation_alias=_NOT_READ)


class TrimmedCall(ModelCallRecorded):
    """A call as it is read from its topic: its texts are passed over, its numbers are all there."""

    request: JsonObject = Field(default_factory=dict, validation_alias=_NOT_READ)
    choices: list[_TrimmedChoice] = Field(default_factory=list)  # type: ignore[assignment]  # events are frozen


@dataclass(frozen=True, slots=True)
class Evidence:
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


def pack(one: Evidence) -> bytes:
    """Kind, origin, trace context and event as bytes: of a call without its texts, of a span its place alone."""
    event: Event | SpanLink = one.event
    if isinstance(event, SpanRecorded):
        event = SpanLink.of(event)
    if isinstance(event, SpanLink):
        return f"{_LINK}\n\n\n{event.model_dump_json(exclude_none=True)}".encode()
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
    """What `pack` packed."""
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
