"""Ids as people type them."""

from leyden.ids import AttemptRef, attempt_of_trace
from leyden.stack.errors import StackError


def attempt_named(text: str) -> tuple[AttemptRef, bool]:
    """The attempt of a rollout id (attempt 0) or a trace id, and whether it is a trace id. Raises StackError."""
    ref = attempt_of_trace(text)
    if ref is None:
        raise StackError(f"{text} is neither a rollout id (28 hex digits) nor an attempt's trace id (32 hex digits).")
    return ref, len(text) > len(ref.rollout_id)
