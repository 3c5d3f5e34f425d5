"""Refines an attempt's failure class with what the gateway saw: its last model calls. No IO.

The runner's class is kept unless the calls show another cause: behind an exit status or a framework's exception, a
model's error looks like the agent's own, and a repetition loop is not visible to the agent.
"""

from collections.abc import Sequence

from leyden.events import Failure, FailureClass, FailureEvidence
from leyden.failures import is_context_overflow
from leyden.gateway.core.reply import CALLER_LEFT, INTERNAL, LastCall

MAX_MESSAGE = 2000
MAX_TRACEBACK = 4000
MAX_NAME = 256
"""Maximum characters of each text that is stored."""
LOOPS_BEHIND = frozenset(
    {
        FailureClass.AGENT_EXCEPTION,
        FailureClass.TIMEOUT,
        FailureClass.TOOL_ERROR,
        FailureClass.MALFORMED_OUTPUT,
        FailureClass.CONTEXT_OVERFLOW,
    }
)
"""Failure classes that may be the end of a repetition loop."""


def classified(
    reported: Failure | None, last: LastCall | None, loop_calls: int, waited_s: Sequence[float] = ()
) -> Failure:
    """The failure for the log: truncated, with the last call, and with the class that this call shows.

    `waited_s`: for each call without an answer, how long it has waited for the model. It is said in the message: an
    agent that waits for a slow model is not to blame.
    """
    failure = _bounded(reported or Failure(failure_class=FailureClass.AGENT_EXCEPTION))
    if waited_s:
        failure = _waiting(failure, waited_s)
    if last is None:
        return failure
    shown = _shown_class(failure.failure_class, last, loop_calls)
    evidence = (failure.evidence or FailureEvidence()).model_copy(
        update={
            "call_id": last.call_id,
            "call_error": last.note.error or None,
            "finish_reason": last.note.finish_reason or None,
            "repeats": last.repeats if last.repeats > 1 else None,
            "reported_class": failure.failure_class if shown is not failure.failure_class else None,
        }
    )
    return failure.model_copy(update={"failure_class": shown, "evidence": evidence})


def _waiting(failure: Failure, waited_s: Sequence[float]) -> Failure:
    first, newline, rest = failure.message.partition("\n")
    calls = "1 model call was" if len(waited_s) == 1 else f"{len(waited_s)} model calls were"
    first = f"{first or 'it failed'}; {calls} still unanswered after {max(waited_s):.0f} s"
    evidence = (failure.evidence or FailureEvidence()).model_copy(
        update={"unanswered_calls": len(waited_s), "waited_s": round(max(waited_s), 3)}
    )
    message = f"{first}{newline}{rest}"[:MAX_MESSAGE]
    return failure.model_copy(update={"message": message, "evidence": evidence})


def _shown_class(reported: FailureClass, last: LastCall, loop_calls: int) -> FailureClass:
    if reported in LOOPS_BEHIND and last.repeats >= loop_calls:
        return FailureClass.REPETITION_LOOP
    unsure = reported in (FailureClass.AGENT_EXCEPTION, FailureClass.MODEL_ERROR)
    error = last.note.error
    if not unsure or not error or error.startswith((CALLER_LEFT, INTERNAL)):
        return reported
    return FailureClass.CONTEXT_OVERFLOW if is_context_overflow(error) else FailureClass.MODEL_ERROR


def _bounded(failure: Failure) -> Failure:
    evidence = failure.evidence
    if evidence is not None:
        evidence = FailureEvidence(
            error_type=_cut(evidence.error_type, MAX_NAME),
            traceback=evidence.traceback[-MAX_TRACEBACK:] if evidence.traceback else None,
            tool=_cut(evidence.tool, MAX_NAME),
        )
    return failure.model_copy(update={"message": failure.message[:MAX_MESSAGE], "evidence": evidence})


def _cut(text: str | None, length: int) -> str | None:
    return text[:length] if text else None
