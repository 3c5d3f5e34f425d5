"""Which attempt a span belongs to."""

from leyden.events import Json
from leyden.ids import MAX_ATTEMPTS, AttemptRef, attempt_of_trace, is_rollout_id
from leyden.ingest.core.raw import RawSpan

ROLLOUT_ID = ("leyden.rollout_id", "leyden.rollout.id")
"""The client library's name, and the spelling that the conventions would give it; either binds."""
ATTEMPT = "leyden.attempt"


def attempt_of(span: RawSpan) -> AttemptRef | None:
    """By the span's attributes, else its resource's, else its trace id; None for a span of no rollout.

    Attributes that name no possible attempt are as good as absent: a span is never bound by a guess.
    """
    in_trace = attempt_of_trace(span.trace_id)
    for attributes in (span.attributes, span.resource):
        rollout = next((attributes[name] for name in ROLLOUT_ID if name in attributes), None)
        if (named := _named(rollout, attributes.get(ATTEMPT), in_trace)) is not None:
            return named
    return in_trace


def _named(rollout: Json, attempt: Json, in_trace: AttemptRef | None) -> AttemptRef | None:
    if not isinstance(rollout, str):
        return None
    if not is_rollout_id(rollout):
        return attempt_of_trace(rollout)
    if attempt is None:
        return in_trace if in_trace and in_trace.rollout_id == rollout else AttemptRef(rollout, 0)
    number = int(attempt) if isinstance(attempt, str) and attempt.isdecimal() else attempt
    if isinstance(number, int) and not isinstance(number, bool) and 0 <= number <= MAX_ATTEMPTS:
        return AttemptRef(rollout, number)
    return None
