"""Which attempt at which rollout a model call belongs to, without a change to the agent's code."""

from dataclasses import dataclass

from leyden.gateway.core.keys import Caller
from leyden.gateway.core.refusals import Refusal
from leyden.ids import AttemptRef, attempt_of_trace, parse_traceparent

SESSION_HEADER = "x-leyden-rollout"
"""Names a rollout (attempt 0) or an attempt's trace id: for clients that can add a header and nothing else."""
ANYBODY = Caller()


@dataclass(frozen=True, slots=True)
class Binding:
    """Where a call belongs. `attempt` None: it is served and recorded, and belongs to no rollout."""

    attempt: AttemptRef | None = None
    trace_id: str | None = None
    parent_span_id: str | None = None
    traceparent: str | None = None
    """The caller's header, where it had the right form."""
    caller: Caller = ANYBODY


def bind(path_id: str | None, caller: Caller, traceparent: str | None, session: str | None = None) -> Binding:
    """The URL's rollout, else the key's, else the session header's, else `traceparent`'s, else none.

    Where two disagree the earlier one counts, being the more deliberate: a `traceparent` is often only what surrounds
    the call. A per-rollout key never binds elsewhere, so a URL or a session header that would take its call to another
    attempt is refused (403) and not overruled. Raises a `Refusal`, 404 or 400, too for what names no rollout.
    """
    parsed = parse_traceparent(traceparent)
    asked = None
    if path_id is not None:
        asked = _attempt(path_id, 404, "the URL")
    elif session:
        asked = _attempt(session, 400, SESSION_HEADER)
    if asked is not None:
        caller.must_own(asked)
    attempt = asked or caller.attempt
    if attempt is None and parsed:
        attempt = attempt_of_trace(parsed[0])
    trace_id = parsed[0] if parsed else attempt.trace_id if attempt else None
    return Binding(attempt, trace_id, parsed[1] if parsed else None, traceparent if parsed else None, caller)


def _attempt(named: str, status: int, place: str) -> AttemptRef:
    if attempt := attempt_of_trace(named.strip()):
        return attempt
    message = f"{named[:64]!r} in {place} is neither a rollout id nor an attempt's trace id"
    raise Refusal(status, "rollout_not_found", message)
