"""Calls an agent's function and turns its result or exception into the end request."""

import asyncio
import inspect
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from leyden.client.claims import Claim
from leyden.failures import MAX_TRACEBACK, FailureClass, classify, type_name
from leyden.scalar import as_number

MAX_MESSAGE = 2000
"""Maximum characters of a failure's message."""
MAX_OUTPUT_TAIL = 1900
"""Maximum characters of a program's output within it."""


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended."""

    status: Literal["succeeded", "failed"] = "succeeded"
    failure_class: FailureClass | None = None
    message: str = ""
    error_type: str | None = None
    evidence: dict[str, Any] | None = None
    """Facts that the failure class was derived from; kept in the log."""
    reward: float | None = None
    output: Any = None
    notice: str = field(default="", compare=False)
    """What the user should know of a success; not sent."""

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


def is_async(agent: Any) -> bool:
    """Whether calling the agent returns a coroutine."""
    return inspect.iscoroutinefunction(agent) or inspect.iscoroutinefunction(getattr(agent, "__call__", None))  # noqa: B004 - which kind it is


def call(agent: Callable[[Claim], Any], claim: Claim) -> Outcome:
    """Run the agent to its end in this thread; an async one on an event loop of its own. Raises nothing."""
    return asyncio.run(call_async(agent, claim)) if is_async(agent) else _call_sync(agent, claim)


async def call_async(agent: Callable[[Claim], Any], claim: Claim) -> Outcome:
    """Run an async agent to its end. Raises nothing; a cancelled agent is a failed one."""
    try:
        return from_return(await agent(claim))
    except BaseException as error:  # noqa: BLE001 - the boundary to the agent's code, its own cancellation included
        return from_error(error)


def _call_sync(agent: Callable[[Claim], Any], claim: Claim) -> Outcome:
    try:
        value = agent(claim)
        if inspect.isawaitable(value):
            raise TypeError("the agent returned an awaitable: make it an `async def` function")
        return from_return(value)
    except BaseException as error:  # noqa: BLE001 - the boundary to the agent's code; SystemExit ends an agent as well
        return from_error(error)


def from_return(value: Any) -> Outcome:
    """The outcome of an agent that returned `value`.

    None: no reward, no output. A finite number or bool, of any class (`np.float32`): the reward. NaN or infinity: a
    failure. Anything else: the output, as JSON.
    """
    if value is None:
        return Outcome()
    if (number := as_number(value)) is not None:
        reward = float(number)
        if not math.isfinite(reward):
            return _failed("agent_exception", f"the agent returned {value!r} as its reward", "ValueError")
        return Outcome(reward=reward)
    return Outcome(output=jsonable(value))


def from_error(error: BaseException) -> Outcome:
    """A failure of the class of the exception or of one of its causes (`leyden.failures.classify`)."""
    found = classify(error)
    message = f"{type(error).__name__}: {error}"[:MAX_MESSAGE]
    return Outcome("failed", found.failure_class, message, type_name(error), found.evidence)


def timed_out(timeout_s: float, output_tail: str = "") -> Outcome:
    """A timeout; `output_tail` is the end of the program's output."""
    message = f"the agent did not end in {timeout_s:g} s"
    return _failed("timeout", f"{message}\n{output_tail[-MAX_OUTPUT_TAIL:]}" if output_tail else message, "timeout")


def process_failed(message: str, error_type: str, stderr: str = "") -> Outcome:
    """A failure of the agent's program or process, with the end of its stderr as evidence."""
    evidence = {"error_type": error_type} | ({"traceback": stderr[-MAX_TRACEBACK:]} if stderr else {})
    return Outcome("failed", "agent_exception", message[:MAX_MESSAGE], error_type, evidence)


def stopped(reason: str) -> Outcome:
    """The runner, or `leyden run`, was stopped: an `interrupted` failure, which does not count as an attempt."""
    return _failed("interrupted", reason, "interrupted")


def infrastructure_failed(reason: str) -> Outcome:
    """The machine failed, not the agent: an `infrastructure` failure."""
    return _failed("infrastructure", reason, "infrastructure")


def jsonable(value: Any) -> Any:
    """`value` after a round trip through JSON. Numbers of any class stay numbers; other objects become their `str`."""
    try:
        return json.loads(json.dumps(value, default=plain, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        return str(value)


def plain(value: Any) -> Any:
    """For `json.dumps(default=)`: a number as a number, anything else as its `str`."""
    number = as_number(value)
    return str(value) if number is None else number


def _failed(failure_class: FailureClass, message: str, error_type: str) -> Outcome:
    return Outcome("failed", failure_class, message[:MAX_MESSAGE], error_type)
