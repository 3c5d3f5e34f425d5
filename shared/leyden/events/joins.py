"""Joins recorded model calls to the spans that instrumentations made of them.

Evidence, the best first: the span in which the call was made (trace id and span id of its `traceparent`); the response
or request id in a span; the reply itself (see `replies`). An id that two calls have joins nothing, and neither does a
span in which another call was made. docs/adr/0023-how-a-span-is-joined.md gives the reasons.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol, TypeVar

from leyden.events.replies import call_names, plain_name, replies_of_span
from leyden.events.spans import SpanRecorded

Place = tuple[str, str]
"""(Trace id, span id)."""
CLOCK_SLACK_NANO = 500_000_000
"""By how much the clocks of an agent and of the gateway may differ, in nanoseconds."""
Call = TypeVar("Call", bound=Hashable)
Span = TypeVar("Span", bound=Hashable)


@dataclass(frozen=True, slots=True)
class JoinableCall:
    """What joins need to know of a recorded call."""

    call_id: str
    ids: frozenset[str]
    """The ids that its client may know it by: response id and request id."""
    names: frozenset[str]
    """Names of the model, without a provider's prefix."""
    replies: Sequence[str]
    made_in: Place | None
    """The span in which it was made."""
    started_unix_nano: int
    ended_unix_nano: int


@dataclass(frozen=True, slots=True)
class JoinableSpan:
    """What joins need to know of a span or of a log record of one."""

    place: Place
    parent: Place | None
    response_id: str | None = None
    replies: Sequence[str] = ()
    told_by: Place | None = None
    """The span that the reply belongs to, for a log record."""
    model: str | None = None
    started_unix_nano: int = 0
    ended_unix_nano: int = 0


@dataclass(frozen=True, slots=True)
class Joins:
    """Which spans belong to which calls."""

    spans: Mapping[str, Sequence[Place]]
    """Call id → its spans; those with the better evidence first."""
    calls: Mapping[Place, str]
    """Span → its call. Of several calls made in one span, the latest."""


def place_of(span: SpanRecorded) -> Place:
    """Where the span is."""
    return span.trace_id, span.span_id


def parent_of(span: SpanRecorded) -> Place | None:
    """Where its parent is; None for a root."""
    return (span.trace_id, span.parent_span_id) if span.parent_span_id else None


class CallFields(Protocol):
    """The fields of a `ModelCallRecorded` that joins use."""

    @property
    def call_id(self) -> str: ...
    @property
    def response_id(self) -> str | None: ...
    @property
    def requested_model(self) -> str | None: ...
    @property
    def policy(self) -> str | None: ...
    @property
    def policy_version(self) -> int | None: ...
    @property
    def trace_id(self) -> str | None: ...
    @property
    def parent_span_id(self) -> str | None: ...
    @property
    def started_at(self) -> datetime: ...
    @property
    def latency_s(self) -> float: ...


def joinable_call(call: CallFields, replies: Sequence[str]) -> JoinableCall:
    """The call, with its `replies` (see `leyden.events.replies`)."""
    started = unix_nano(call.started_at)
    return JoinableCall(
        call_id=call.call_id,
        ids=frozenset(id_ for id_ in (call.response_id, call.call_id) if id_),
        names=call_names(call.requested_model, call.policy, call.policy_version),
        replies=replies,
        made_in=(call.trace_id, call.parent_span_id) if call.trace_id and call.parent_span_id else None,
        started_unix_nano=started,
        ended_unix_nano=started + round(call.latency_s * 1e9),
    )


def joinable_span(span: SpanRecorded) -> JoinableSpan:
    """The span."""
    return JoinableSpan(
        place=place_of(span),
        parent=parent_of(span),
        response_id=span.llm.response_id if span.llm is not None else None,
        replies=replies_of_span(span),
        told_by=parent_of(span) if span.derived else None,
        model=plain_name(span.model) if span.model else None,
        started_unix_nano=span.start_unix_nano,
        ended_unix_nano=span.end_unix_nano,
    )


def join(calls: Iterable[JoinableCall], spans: Iterable[JoinableSpan]) -> Joins:
    """Join `calls` to `spans`, both of one attempt. Their order changes nothing."""
    calls = sorted(calls, key=lambda call: (call.started_unix_nano, call.call_id))
    found = {span.place: span for span in sorted(spans, key=lambda span: (span.started_unix_nano, span.place))}
    parents = {span.place: span.parent for span in found.values() if span.parent is not None}
    agree = _Agreement(calls, found)
    by_id = _by_id(calls, found, agree)
    by_reply = same_replies(
        {call.call_id: call.replies for call in calls},
        [(span.told_by or span.place, span.replies) for span in found.values() if span.replies],
        parents,
        agree.in_time_and_model,
    )
    told: dict[str, list[Place]] = {call_id: list(places) for call_id, places in by_id.items()}
    owned = {place: call_id for call_id, places in by_id.items() for place in places}
    for call_id, place in by_reply.items():
        if owned.get(place, call_id) == call_id:
            told.setdefault(call_id, []).append(place)
    exact = {call.made_in: call.call_id for call in calls if call.made_in is not None}
    in_spans = {place: call_id for call_id, places in told.items() for place in places}
    ordered = {call.call_id: _ordered(call.made_in, told.get(call.call_id, ()), parents) for call in calls}
    return Joins(ordered, in_spans | exact)


def same_replies(
    calls: Mapping[Call, Sequence[str]],
    spans: Iterable[tuple[Span, Sequence[str]]],
    parents: Mapping[Span, Span] | None = None,
    agree: Callable[[Call, Span], bool] | None = None,
) -> dict[Call, Span]:
    """Map each call to the span with the same reply, where exactly one span fits it and it alone fits the span.

    Of spans inside each other that fit, the innermost counts. Pairs that do not `agree` do not fit.
    """
    tellers: dict[str, set[Span]] = {}
    for span, replies in spans:
        for reply in replies:
            tellers.setdefault(reply, set()).add(span)
    fitting = {
        call: _innermost(
            {
                span
                for reply in replies
                for span in tellers.get(reply, ())
                if agree is None or agree(call, span)
            },
            parents or {},
        )
        for call, replies in calls.items()
    }  # fmt: skip
    times = Counter(span for found in fitting.values() for span in found)
    joined = {call: next(iter(found)) for call, found in fitting.items() if len(found) == 1}
    return {call: span for call, span in joined.items() if times[span] == 1}


class _Agreement:
    """Whether a call and a span agree in model and time, and which spans other calls were made in."""

    def __init__(self, calls: Iterable[JoinableCall], spans: Mapping[Place, JoinableSpan]) -> None:
        self._calls = {call.call_id: call for call in calls}
        self._spans = spans
        self._served = frozenset(name for call in self._calls.values() for name in call.names)
        self._made_in: dict[Place, set[str]] = {}
        for call in self._calls.values():
            if call.made_in is not None:
                self._made_in.setdefault(call.made_in, set()).add(call.call_id)

    def in_model(self, call_id: str, place: Place) -> bool:
        """Whether the span says no other served model's name, and no other call was made in it."""
        others = self._made_in.get(place)
        if others is not None and call_id not in others:
            return False
        model = self._spans[place].model if place in self._spans else None
        return model is None or model not in self._served or model in self._calls[call_id].names

    def in_time(self, call_id: str, place: Place) -> bool:
        """Whether the span's interval contains the call's."""
        call, span = self._calls[call_id], self._spans.get(place)
        if span is None:
            return False
        began = span.started_unix_nano - CLOCK_SLACK_NANO <= call.started_unix_nano
        return began and call.ended_unix_nano <= span.ended_unix_nano + CLOCK_SLACK_NANO

    def in_time_and_model(self, call_id: str, place: Place) -> bool:
        """Both."""
        return self.in_time(call_id, place) and self.in_model(call_id, place)


def _by_id(
    calls: Sequence[JoinableCall], spans: Mapping[Place, JoinableSpan], agree: _Agreement
) -> dict[str, list[Place]]:
    """Call id → the spans with an id that only this call has; those that agree in time first."""
    owners = Counter(id_ for call in calls for id_ in call.ids)
    owned = {id_: call.call_id for call in calls for id_ in call.ids if owners[id_] == 1}
    found: dict[str, list[Place]] = {}
    for span in spans.values():
        call_id = owned.get(span.response_id or "")
        if call_id is not None and agree.in_model(call_id, span.place):
            found.setdefault(call_id, []).append(span.place)
    return {
        call_id: sorted(places, key=lambda place: not agree.in_time(call_id, place))
        for call_id, places in found.items()
    }


def _ordered(made_in: Place | None, told: Sequence[Place], parents: Mapping[Place, Place]) -> Sequence[Place]:
    """The spans that tell of the call and are inside the one that it was made in; that one; the others."""
    if made_in is None:
        return tuple(told)
    inner = [place for place in told if made_in in _around(place, parents)]
    return (*inner, made_in, *(place for place in told if place not in inner))


def _innermost(found: set[Span], parents: Mapping[Span, Span]) -> set[Span]:
    """`found` without spans around another one of them."""
    around = {outer for span in found for outer in _around(span, parents) if outer != span} if len(found) > 1 else set()
    return found - around


def _around(span: Span, parents: Mapping[Span, Span]) -> list[Span]:
    """The ancestors of `span`, the nearest first; stops if parents form a cycle."""
    seen: dict[Span, None] = {}
    at = parents.get(span)
    while at is not None and at not in seen:
        seen[at] = None
        at = parents.get(at)
    return list(seen)


_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


def unix_nano(at: datetime) -> int:
    """Nanoseconds since the epoch, as in spans."""
    return (at - _EPOCH) // timedelta(microseconds=1) * 1000
