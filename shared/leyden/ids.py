"""Identifiers. Event ids are derived from what the event is about, so duplicates can be recognised. No IO, no clock.

A rollout id followed by the attempt number *is* the W3C trace id of that attempt. So every span and every
`traceparent` of an attempt identifies its rollout without a lookup.
"""

import hashlib
import re
import secrets
from typing import NamedTuple

ROLLOUT_MARK = "1e7de"
"""First hex digits of every rollout id. One in 2**20 random trace ids of other systems has them too."""
_ROLLOUT = re.compile(rf"{ROLLOUT_MARK}[0-9a-f]{{23}}")
_TRACE = re.compile(rf"({ROLLOUT_MARK}[0-9a-f]{{23}})([0-9a-f]{{4}})")
_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
MAX_ATTEMPTS = 0xFFFF


class AttemptRef(NamedTuple):
    """One attempt at one rollout."""

    rollout_id: str
    attempt: int

    @property
    def trace_id(self) -> str:
        """The attempt's W3C trace id: 28 hex digits of the rollout, 4 of the attempt."""
        return f"{self.rollout_id}{self.attempt:04x}"


def derive(*parts: object) -> str:
    """A hash of `parts`, 32 hex digits. Parts are length-prefixed, so ("ab", "c") differs from ("a", "bc")."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        encoded = str(part).encode()
        digest.update(len(encoded).to_bytes(4, "little"))
        digest.update(encoded)
    return digest.hexdigest()


def rollout_id_of(task_id: str, sample_index: int, owner: str = "") -> str:
    """The id of a task's n-th rollout. Enqueuing a task twice gives the same ids.

    `owner` is a project's secret, so that no other project can know its ids beforehand.
    """
    whose = (owner,) if owner else ()
    return ROLLOUT_MARK + derive("rollout", *whose, task_id, sample_index)[:23]


def new_rollout_id() -> str:
    """A random id for a rollout without a task."""
    return ROLLOUT_MARK + secrets.token_hex(12)[:23]


def is_rollout_id(text: str) -> bool:
    """Whether `text` has the format of a rollout id."""
    return _ROLLOUT.fullmatch(text) is not None


def attempt_of_trace(trace_id: str) -> AttemptRef | None:
    """The attempt of a trace id (of a rollout id: attempt 0); None for a trace id that is not Leyden's."""
    if match := _TRACE.fullmatch(trace_id):
        return AttemptRef(match[1], int(match[2], 16))
    return AttemptRef(trace_id, 0) if is_rollout_id(trace_id) else None


def parse_traceparent(header: str | None) -> tuple[str, str] | None:
    """(trace id, parent span id) of a W3C `traceparent` of version 00; None if absent or malformed."""
    match = _TRACEPARENT.fullmatch(header.strip()) if header else None
    return (match[1], match[2]) if match else None
