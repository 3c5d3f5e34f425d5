"""Ids as people type them."""

from leyden.ids import attempt_of_trace
from leyden.stack.errors import StackError


def rollout_named(text: str, attempt: int | None = None) -> tuple[str, int | None]:
    """The rollout of a rollout id or trace id, and its attempt: `attempt`, else the trace id's, else None.

    Raises StackError for another text.
    """
    ref = attempt_of_trace(text)
    if ref is None:
        raise StackError(f"{text} is neither a rollout id (28 hex digits) nor an attempt's trace id (32 hex digits).")
    own = ref.attempt if len(text) > len(ref.rollout_id) else None
    return ref.rollout_id, own if attempt is None else attempt
