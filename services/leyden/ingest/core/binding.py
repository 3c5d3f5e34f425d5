"""Decides which attempt of which rollout a span belongs to."""

from dataclasses import dataclass
from functools import lru_cache

from leyden.events import Json, JsonObject
from leyden.ids import MAX_ATTEMPTS, AttemptRef, attempt_of_trace, is_rollout_id

ROLLOUT_ID = ("leyden.rollout_id", "leyden.rollout.id")
"""The client library's name, and the same in the semantic conventions' spelling. Both are accepted."""
ATTEMPT = "leyden.attempt"
_NAMES = frozenset(ROLLOUT_ID)
_of_trace = lru_cache(maxsize=4096)(attempt_of_trace)


@dataclass(frozen=True, slots=True)
class Admission:
    """What the gateway established about a request when it accepted it."""

    project: str | None = None
    attempt: AttemptRef | None = None
    bound: bool = False
    """True: the API key is for `attempt` only, which overrides what spans say. False: `attempt` is a default."""


NOT_ADMITTED = Admission()


def attempt_of(
    trace_id: str, attributes: JsonObject, resource: JsonObject, admission: Admission = NOT_ADMITTED
) -> AttemptRef | None:
    """The attempt of a span, or None if it belongs to no rollout.

    In order: the request's API key, the span's attributes, the resource's attributes, the trace id, the request's URL.
    Attributes with an impossible rollout id or attempt number are ignored.
    """
    if admission.bound and admission.attempt is not None:
        return admission.attempt
    in_trace = _of_trace(trace_id)
    for held in (attributes, resource):
        if _NAMES.isdisjoint(held):
            continue
        rollout = next((held[name] for name in ROLLOUT_ID if name in held), None)
        if (named := _named(rollout, held.get(ATTEMPT), in_trace)) is not None:
            return named
    return in_trace or admission.attempt


def _named(rollout: Json, attempt: Json, in_trace: AttemptRef | None) -> AttemptRef | None:
    if not isinstance(rollout, str):
        return None
    if not is_rollout_id(rollout):
        return attempt_of_trace(rollout)
    if attempt is None:
        return in_trace if in_trace and in_trace.rollout_id == rollout else AttemptRef(rollout, 0)
    number = int(attempt) if isinstance(attempt, str) and attempt.isdecimal() and len(attempt) < 10 else attempt
    if isinstance(number, int) and not isinstance(number, bool) and 0 <= number <= MAX_ATTEMPTS:
        return AttemptRef(rollout, number)
    return None
