"""Identifiers: what an event is about decides its id, so that a duplicate is recognised anywhere. No IO, no clock.

A rollout's id carries its binding: with the attempt appended it *is* the W3C trace id of that attempt, so that every
span and every `traceparent` of the attempt names its rollout without a look-up.
"""

import hashlib
import re
import secrets
from typing import NamedTuple

ROLLOUT_MARK = "1e7de"
"""First hex digits of every rollout id; a foreign random trace id has them once in 2**20."""
_ROLLOUT = re.compile(rf"{ROLLOUT_MARK}[0-9a-f]{{23}}")
_TRACE = re.compile(rf"({ROLLOUT_MARK}[0-9a-f]{{23}})([0-9a-f]{{4}})")
_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
MAX_ATTEMPTS = 0xFFFF


class AttemptRef(NamedTuple):
    """One attempt at one rollout; the unit that everything of a rollout is keyed by."""

    rollout_id: str
    attempt: int

    @property
    def trace_id(self) -> str:
        """The attempt's W3C trace id: 28 hex digits of the rollout, 4 of the attempt."""
        return f"{self.rollout_id}{self.attempt:04x}"


def derive(*parts: object) -> str:
    """32 hex digits that depend on `parts` alone; length-prefixed, so ("ab", "c") differs from ("a", "bc")."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        encoded = str(part).encode()
        digest.update(len(encoded).to_bytes(4, "little"))
        digest.update(encoded)
    return digest.hexdigest()


def rollout_id_of(task_id: str, sample_index: int) -> str:
    """The id of a task's n-th rollout: the same task enqueued twice gives the same rollouts."""
    return ROLLOUT_MARK + derive("rollout", task_id, sample_index)[:23]


def new_rollout_id() -> str:
    """The id of a rollout that belongs to no task."""
    return ROLLOUT_MARK + secrets.token_hex(12)[:23]


def is_rollout_id(text: str) -> bool:
    """Whether `text` has the form of a rollout id."""
    return _ROLLOUT.fullmatch(text) is not None


def attempt_of_trace(trace_id: str) -> AttemptRef | None:
    """The attempt that a trace id (or a rollout id, meaning attempt 0) names, or None for a foreign trace."""
    if match := _TRACE.fullmatch(trace_id):
        return AttemptRef(match[1], int(match[2], 16))
    return AttemptRef(trace_id, 0) if is_rollout_id(trace_id) else None


def parse_traceparent(header: str | None) -> tuple[str, str] | None:
    """(trace id, parent span id) of a W3C `traceparent` of version 00, or None when absent or malformed."""
    match = _TRACEPARENT.fullmatch(header.strip()) if header else None
    return (match[1], match[2]) if match else None
