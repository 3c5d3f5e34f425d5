"""One attempt's evidence as stored items: which events are kept, under which ids, and what they add up to.

An item's id says what it is, so that completeness is decided without decoding a single call.
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
)
from leyden.events.codec import MODEL_CALLS, ROLLOUTS, SPANS, VERDICTS, decode_batch, encode
from leyden.ids import AttemptRef

ENDED = "ended"
SETTLED = "settled"
CALL = "call:"
SPAN = "span:"
DERIVED = "derived:"
"""A span made of an event inside another: evidence, but not counted by its exporter."""
VERDICT = "verdict:"
"""With the rule and the hash of its settings: the first verdict of a judge is the one that counts."""
ARRIVED = "arrived:"
"""With an evaluation's event id: its offset, because late rewards are revised in the order of the log."""


@dataclass(frozen=True)
class StoredItem:
    """What is kept of one event."""

    subject: str
    item_id: str
    value: bytes


def subject_of(ref: AttemptRef) -> str:
    """The name under which an attempt's evidence is kept."""
    return f"{ref.rollout_id}:{ref.attempt}"


def stored_item(event: Event) -> StoredItem | None:
    """The item to keep for `event`; None for one that belongs to no rollout or that no reward depends on.

    An attempt has one end and one settlement: their ids are fixed, so that the first one consumed stays.
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
            return StoredItem(subject, (DERIVED if event.derived else SPAN) + event.event_id, encode(event))
        case VerdictRecorded():
            item_id = f"{VERDICT}{event.settings_hash}:{event.rule}"
            return StoredItem(subject_of(event.ref), item_id, encode(event))
    return None


def is_late_span(event: Event, closed: Collection[str]) -> bool:
    """Whether `event` is a span, but no evaluation, of an attempt that is among `closed`."""
    if not isinstance(event, SpanRecorded) or event.rollout_id is None or event.kind is SpanKind.EVALUATION:
        return False
    return subject_of(AttemptRef(event.rollout_id, event.attempt)) in closed


def evaluation_of(event: Event) -> SpanRecorded | None:
    """`event` when it is an evaluation of a rollout: what may still earn a reward after the settlement."""
    if isinstance(event, SpanRecorded) and event.kind is SpanKind.EVALUATION and event.rollout_id is not None:
        return event
    return None


def arrival_item(evaluation: SpanRecorded, offset: int) -> StoredItem:
    """Where the log has `evaluation`; its rollout's spans are all in one partition."""
    assert evaluation.rollout_id is not None
    subject = subject_of(AttemptRef(evaluation.rollout_id, evaluation.attempt))
    return StoredItem(subject, ARRIVED + evaluation.event_id, str(offset).encode())


def _without_tokens(call: ModelCallRecorded) -> ModelCallRecorded:
    """Rewards look at text and time; token ids and logprobs are most of a call's bytes, and credit's business."""
    choices = [choice.model_copy(update={"token_ids": b"", "logprobs": b""}) for choice in call.choices]
    return call.model_copy(update={"prompt_token_ids": b"", "choices": choices})


@dataclass(frozen=True)
class AttemptEvidence:
    """What is known of one attempt."""

    ended: RolloutEnded | None
    settled: RolloutSettled | None
    calls: Mapping[str, bytes]
    """Call id → encoded event."""
    spans: Mapping[str, bytes]
    """Span event id → encoded event."""
    exported_spans: int
    """How many of `spans` an exporter counted."""
    verdicts: Mapping[tuple[str, str], VerdictRecorded] = field(default_factory=dict)
    """(Rule, hash of its settings) → what its judge said first."""
    arrivals: Mapping[str, int] = field(default_factory=dict)
    """Event id of an evaluation → its offset; only where late rewards count."""

    @classmethod
    def of(cls, items: Mapping[str, bytes]) -> "AttemptEvidence":
        """Read stored items; only the end, the settlement and verdicts are decoded."""
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
        """Whether everything that the settlement names is here."""
        return self.calls.keys() >= set(settled.call_ids) and self.spans.keys() >= set(settled.span_ids)

    def named_calls(self, call_ids: Iterable[str]) -> list[ModelCallRecorded]:
        """The calls of these ids, in the order in which they started; ids break ties."""
        events = decode_batch(MODEL_CALLS, [self.calls[i] for i in sorted(set(call_ids))])
        calls = [event for event in events if isinstance(event, ModelCallRecorded)]
        return sorted(calls, key=lambda call: (call.started_at, call.call_id))

    def late_evaluations(self, settled: RolloutSettled) -> list[SpanRecorded]:
        """The evaluations that came too late for `settled`, in the order in which the log has them."""
        late = sorted(self.arrivals.keys() & (self.spans.keys() - set(settled.span_ids)), key=self.arrivals.__getitem__)
        events = decode_batch(SPANS, [self.spans[i] for i in late])
        return [event for event in events if isinstance(event, SpanRecorded)]

    def named_spans(self, span_ids: Iterable[str]) -> list[SpanRecorded]:
        """The spans of these event ids, in the order in which they started; span ids break ties."""
        events = decode_batch(SPANS, [self.spans[i] for i in sorted(set(span_ids))])
        spans = [event for event in events if isinstance(event, SpanRecorded)]
        return sorted(spans, key=lambda span: (span.start_unix_nano, span.span_id, span.trace_id))


@dataclass(frozen=True)
class SettledAttempt:
    """An attempt that is over, with its settlement and all the evidence that this names."""

    subject: str
    ended: RolloutEnded
    settled: RolloutSettled
    evidence: AttemptEvidence
