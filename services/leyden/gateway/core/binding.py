"""Which attempt at which rollout a model call belongs to, without a change to the agent's code."""

from dataclasses import dataclass

from leyden.gateway.core.keys import Caller
from leyden.gateway.core.refusals import Refusal
from leyden.ids import AttemptRef, attempt_of_trace, parse_traceparent


@dataclass(frozen=True, slots=True)
class Binding:
    """Where a call belongs. `attempt` None: it is served and recorded, and belongs to no rollout."""

    attempt: AttemptRef | None = None
    trace_id: str | None = None
    parent_span_id: str | None = None
    traceparent: str | None = None
    """The caller's header, where it had the right form."""


def bind(path_id: str | None, caller: Caller, traceparent: str | None) -> Binding:
    """The URL's rollout, else the key's, else the one that `traceparent` names, else none.

    Raises `Refusal`: 404 for a path id that is no rollout id, 403 when the key belongs to another rollout.
    """
    parsed = parse_traceparent(traceparent)
    attempt = caller.attempt
    if path_id is not None:
        attempt = attempt_of_trace(path_id)
        if attempt is None:
            raise Refusal(
                404, "rollout_not_found", f"{path_id[:64]!r} is neither a rollout id nor an attempt's trace id"
            )
        caller.must_own(attempt)
    if attempt is None and parsed:
        attempt = attempt_of_trace(parsed[0])
    trace_id = parsed[0] if parsed else attempt.trace_id if attempt else None
    return Binding(attempt, trace_id, parsed[1] if parsed else None, traceparent if parsed else None)
