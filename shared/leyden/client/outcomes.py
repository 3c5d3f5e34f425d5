"""How a run of an agent came out: return value or exception → what the gateway is told. No IO."""

import json
import math
from dataclasses import dataclass
from typing import Any, Literal

from leyden.failures import MAX_TRACEBACK, FailureClass, classify, type_name

MAX_MESSAGE = 2000
"""Characters of a failure's message that are sent."""
LAST_WORDS = 1900
"""Of these, what a program wrote last may take."""


@dataclass(frozen=True)
class Outcome:
    """An attempt's end, in the gateway's words."""

    status: Literal["succeeded", "failed"] = "succeeded"
    failure_class: FailureClass | None = None
    message: str = ""
    error_type: str | None = None
    evidence: dict[str, Any] | None = None
    """What shows the failure's class, as the log keeps it."""
    reward: float | None = None
    output: Any = None

    def body(self, span_count: int | None) -> dict[str, Any]:
        """The JSON body of the end request."""
        body: dict[str, Any] = {"status": self.status, "span_count": span_count}
        if self.failure_class is not None:
            body["failure"] = {"failure_class": self.failure_class, "message": self.message}
            if self.evidence:
                body["failure"]["evidence"] = self.evidence
        if self.reward is not None:
            body["reward"] = self.reward
        if self.output is not None:
            body["output"] = self.output
        return body


def from_return(value: Any) -> Outcome:
    """None → neither; a finite number or bool → the reward; anything else → the output, as JSON (`str` of what is not).

    A number that is not finite is a failure of the agent: it is no reward.
    """
    if value is None:
        return Outcome()
    if isinstance(value, int | float):
        reward = float(value)
        if not math.isfinite(reward):
            return _failed("agent_exception", f"the agent returned {value!r} as its reward", "ValueError")
        return Outcome(reward=reward)
    return Outcome(output=jsonable(value))


def from_error(error: BaseException) -> Outcome:
    """The class of the exception or of one of its causes (`leyden.failures`), with the traceback's end."""
    found = classify(error)
    message = f"{type(error).__name__}: {error}"[:MAX_MESSAGE]
    return Outcome("failed", found.failure_class, message, type_name(error), found.evidence)


def timed_out(timeout_s: float, last_words: str = "") -> Outcome:
    """The agent did not end in time; `last_words` is what it had said."""
    message = f"the agent did not end in {timeout_s:g} s"
    return _failed("timeout", f"{message}\n{last_words[-LAST_WORDS:]}" if last_words else message, "timeout")


def ended_badly(message: str, error_type: str, stderr: str = "") -> Outcome:
    """The agent's program or process failed; the end of its stderr, where a traceback is, is the evidence."""
    evidence = {"error_type": error_type} | ({"traceback": stderr[-MAX_TRACEBACK:]} if stderr else {})
    return Outcome("failed", "agent_exception", message[:MAX_MESSAGE], error_type, evidence)


def given_up(reason: str) -> Outcome:
    """The runner stopped before the agent did."""
    return _failed("infrastructure", reason, "infrastructure")


def jsonable(value: Any) -> Any:
    """`value` as JSON would return it; what JSON has no form for becomes its `str`."""
    try:
        return json.loads(json.dumps(value, default=str, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        return str(value)


def _failed(failure_class: FailureClass, message: str, error_type: str) -> Outcome:
    return Outcome("failed", failure_class, message[:MAX_MESSAGE], error_type)
