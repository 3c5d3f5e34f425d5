"""Which attempt a span belongs to."""

from dataclasses import dataclass
from functools import lru_cache

from leyden.events import Json, JsonObject
from leyden.ids import MAX_ATTEMPTS, AttemptRef, attempt_of_trace, is_rollout_id

ROLLOUT_ID = ("leyden.rollout_id", "leyden.rollout.id")
"""The client library's name, and the spelling that the conventions would give it; either binds."""
ATTEMPT = "leyden.attempt"
_NAMES = frozenset(ROLLOUT_ID)
_of_trace = lru_cache(maxsize=4096)(attempt_of_trace)


@dataclass(frozen=True, slots=True)
class Door:
    """What the gateway knew of a request when it let it in."""

    project: str | None = None
    attempt: AttemptRef | None = None
    bound: bool = False
    """The key opens that attempt only: whatever a span says itself. Else the attempt is for what says nothing."""


NO_DOOR = Door()


def attempt_of(trace_id: str, attributes: JsonObject, resource: JsonObject, door: Door = NO_DOOR) -> AttemptRef | None:
    """By the door's key, else the span's attributes, its resource's, its trace id, the door's URL; None: of no rollout.

    Attributes that name no possible attempt are as good as absent: a span is never bound by a guess.
    """
    if door.bound and door.attempt is not None:
        return door.attempt
    in_trace = _of_trace(trace_id)
    for held in (attributes, resource):
        if _NAMES.isdisjoint(held):
            continue
        rollout = next((held[name] for name in ROLLOUT_ID if name in held), None)
        if (named := _named(rollout, held.get(ATTEMPT), in_trace)) is not None:
            return named
    return in_trace or door.attempt


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
