"""Defines how an attempt's events are stored as items, and reads them back as `AttemptEvidence`.

An item's id has its type, so completeness can be checked without decoding calls and spans.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from leyden.events import (
    Event,
    ModelCallRecorded,
    RolloutEnded,
    RolloutSettled,
    SpanKind,
    SpanRecorded,
    VerdictRecorded,
    without_replaced,
)
from leyden.events.codec import MODEL_CALLS, ROLLOUTS, SPANS, VERDICTS, decode_batch, encode
from leyden.ids import AttemptRef

ENDED = "ended"
SETTLED = "settled"
CALL = "call:"
SPAN = "span:"
DERIVED = "derived:"
"""A span made from an event inside another span, or an unfinished one; not included in the exporter's count."""
VERDICT = "verdict:"
"""Followed by the hash of the judge's settings and its rule. The first verdict counts."""
ARRIVED = "arrived:"
"""Followed by an evaluation's event id; the value is its offset. Late rewards are revised in log order."""


@dataclass(frozen=True)
class StoredItem:
    """The stored form of one event."""

    subject: str
    item_id: str
    value: bytes


def subject_of(ref: AttemptRef) -> str:
    """The key under which an attempt's evidence is stored."""
    return f"{ref.rollout_id}:{ref.attempt}"


def stored_item(event: Event) -> StoredItem | None:
    """The item to store for `event`; None if it belongs to no rollout or is not needed for rewards.

    The ids of the end and the settlement are constants, so that the first of each is kept.
    """
    match event:
        case RolloutEnded():
            return StoredItem(subject_of(event.ref), ENDED, encode(event))
        case RolloutSettled():
            return StoredItem(subject_of(event.ref), SETTLED, encode(event))
        case ModelCallRecorded(rollout_id=str(rollout_id)):
            subject = subject_of(AttemptRef(rollout_id, event.attempt))
            return StoredItem(subject, CALL + event.call_id, encode(_without_tokens(event)))
        case SpanRecorded(rollout_id=str(rollout_id)):
            subject = subject_of(AttemptRef(rollout_id, event.attempt))
            return StoredItem(subject, _span_prefix(event) + event.event_id, encode(event))
        case VerdictRecorded():
            item_id = f"{VERDICT}{event.settings_hash}:{event.rule}"
            return StoredItem(subject_of(event.ref), item_id, encode(event))
    return None


def _span_prefix(span: SpanRecorded) -> str:
    return DERIVED if span.derived or span.unfinished else SPAN


def is_late_span(event: Event, closed: Collection[str]) -> bool:
    """Whether `event` is a span, other than an evaluation, of an attempt in `closed`."""
    if not isinstance(event, SpanRecorded) or event.rollout_id is None or event.kind is SpanKind.EVALUATION:
        return False
    return subject_of(AttemptRef(event.rollout_id, event.attempt)) in closed


def evaluation_of(event: Event) -> SpanRecorded | None:
    """`event` if it is a finished evaluation of a rollout, else None. It can give a reward after the settlement."""
    if not isinstance(event, SpanRecorded) or event.rollout_id is None or event.unfinished:
        return None
    return event if event.kind is SpanKind.EVALUATION else None


def arrival_item(evaluation: SpanRecorded, offset: int) -> StoredItem:
    """Item with the offset of `evaluation`. All spans of a rollout are in one partition, so offsets order them."""
    assert evaluation.rollout_id is not None
    subject = subject_of(AttemptRef(evaluation.rollout_id, evaluation.attempt))
    return StoredItem(subject, ARRIVED + evaluation.event_id, str(offset).encode())


def _without_tokens(call: ModelCallRecorded) -> ModelCallRecorded:
    """The call without token ids and logprobs, which are most of its bytes; rewards need only text and times."""
    choices = [choice.model_copy(update={"token_ids": b"", "logprobs": b""}) for choice in call.choices]
    return call.model_copy(update={"prompt_token_ids": b"", "choices": choices})


@dataclass(frozen=True)
class AttemptEvidence:
    """The stored evidence of one attempt."""

    ended: RolloutEnded | None
    settled: RolloutSettled | None
    calls: Mapping[str, bytes]
    """Call id → encoded event."""
    spans: Mapping[str, bytes]
    """Span event id → encoded event."""
    exported_spans: int
    """Number of `spans` that are included in the exporter's count."""
    verdicts: Mapping[tuple[str, str], VerdictRecorded] = field(default_factory=dict)
    """(rule, hash of its settings) → the judge's first verdict."""
    arrivals: Mapping[str, int] = field(default_factory=dict)
    """Event id of an evaluation → its offset; empty if late rewards are off."""

    @classmethod
    def of(cls, items: Mapping[str, bytes]) -> "AttemptEvidence":
        """Read stored items. Decodes only the end, the settlement and the verdicts."""
        ended = decode_batch(ROLLOUTS, [items[ENDED]])[0] if ENDED in items else None
        settled = decode_batch(ROLLOUTS, [items[SETTLED]])[0] if SETTLED in items else None
        assert ended is None or isinstance(ended, RolloutEnded)
        assert settled is None or isinstance(settled, RolloutSettled)
        exported = {i.removeprefix(SPAN): value for i, value in items.items() if i.startswith(SPAN)}
        derived = {i.removeprefix(DERIVED): value for i, value in items.items() if i.startswith(DERIVED)}
        calls = {i.removeprefix(CALL): value for i, value in items.items() if i.startswith(CALL)}
        said = decode_batch(VERDICTS, [items[i] for i in sorted(items) if i.startswith(VERDICT)])
        verdicts = {(v.rule, v.settings_hash): v for v in said if isinstance(v, VerdictRecorded)}
        arrivals = {i.removeprefix(ARRIVED): int(value) for i, value in items.items() if i.startswith(ARRIVED)}
        return cls(ended, settled, calls, exported | derived, len(exported), verdicts, arrivals)

    def has(self, settled: RolloutSettled) -> bool:
        """Whether all evidence named by the settlement is present."""
        return self.calls.keys() >= set(settled.call_ids) and self.spans.keys() >= set(settled.span_ids)

    def named_calls(self, call_ids: Iterable[str]) -> list[ModelCallRecorded]:
        """The calls with these ids, by start time, then id."""
        events = decode_batch(MODEL_CALLS, [self.calls[i] for i in sorted(set(call_ids))])
        calls = [event for event in events if isinstance(event, ModelCallRecorded)]
        return sorted(calls, key=lambda call: (call.started_at, call.call_id))

    def late_evaluations(self, settled: RolloutSettled) -> list[SpanRecorded]:
        """The evaluations that arrived too late for `settled`, in log order."""
        late = sorted(self.arrivals.keys() & (self.spans.keys() - set(settled.span_ids)), key=self.arrivals.__getitem__)
        events = decode_batch(SPANS, [self.spans[i] for i in late])
        return [event for event in events if isinstance(event, SpanRecorded)]

    def named_spans(self, span_ids: Iterable[str]) -> list[SpanRecorded]:
        """The spans with these event ids, by start time, then span id, without replaced ones (`without_replaced`)."""
        events = decode_batch(SPANS, [self.spans[i] for i in sorted(set(span_ids))])
        spans = without_replaced(event for event in events if isinstance(event, SpanRecorded))
        return sorted(spans, key=lambda span: (span.start_unix_nano, span.span_id, span.trace_id))


@dataclass(frozen=True)
class SettledAttempt:
    """An attempt with its end, its settlement and all evidence that the settlement names."""

    subject: str
    ended: RolloutEnded
    settled: RolloutSettled
    evidence: AttemptEvidence
