"""How a run of an agent came out: return value or exception → what the gateway is told. No IO."""

import json
import math
from dataclasses import dataclass
from typing import Any, Literal

MAX_MESSAGE = 2000
"""Characters of a failure's message that are sent."""

FailureClass = Literal["agent_exception", "timeout", "model_error", "infrastructure"]


@dataclass(frozen=True)
class Outcome:
    """An attempt's end, in the gateway's words."""

    status: Literal["succeeded", "failed"] = "succeeded"
    failure_class: FailureClass | None = None
    message: str = ""
    error_type: str | None = None
    reward: float | None = None
    output: Any = None

    def body(self, span_count: int | None) -> dict[str, Any]:
        """The JSON body of the end request."""
        body: dict[str, Any] = {"status": self.status, "span_count": span_count}
        if self.failure_class is not None:
            body["failure"] = {"failure_class": self.failure_class, "message": self.message}
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
    """`model_error` when the OpenAI client's error is the exception or one of its causes, else `agent_exception`."""
    failure: FailureClass = "model_error" if _is_model_error(error) else "agent_exception"
    return _failed(failure, f"{type(error).__name__}: {error}", type_name(error))


def timed_out(timeout_s: float) -> Outcome:
    """The agent did not end in time."""
    return _failed("timeout", f"the agent did not end in {timeout_s:g} s", "timeout")


def given_up(reason: str) -> Outcome:
    """The runner stopped before the agent did."""
    return _failed("infrastructure", reason, "infrastructure")


def jsonable(value: Any) -> Any:
    """`value` as JSON would return it; what JSON has no form for becomes its `str`."""
    try:
        return json.loads(json.dumps(value, default=str, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        return str(value)


def type_name(error: BaseException) -> str:
    """The exception's class as `error.type` wants it: qualified, builtins bare."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _failed(failure_class: FailureClass, message: str, error_type: str) -> Outcome:
    return Outcome("failed", failure_class, message[:MAX_MESSAGE], error_type)


def _is_model_error(error: BaseException) -> bool:
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        bases = type(cause).__mro__
        if any(base.__name__ == "APIError" and base.__module__.partition(".")[0] == "openai" for base in bases):
            return True
        cause = cause.__cause__
    return False
