"""Rollouts in the agent's own process: the root span, the current rollout, and its end.

`open_attempt` … `close_attempt` are the steps; `Rollout` and `@rollout` put them around an agent's code, and the runner
around a claimed task. A gateway that is away when an agent starts a rollout of its own accord does not stop the agent:
it runs unrecorded. A gateway that refuses (a wrong key) does: that is a mistake to be seen.
"""

import asyncio
import functools
import inspect
import logging
from collections.abc import Callable
from contextlib import ExitStack
from contextvars import ContextVar, Token
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, cast, overload

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from leyden.client import semconv
from leyden.client.claims import Claim
from leyden.client.errors import AttemptOverError, GatewayError, GatewayUnavailableError, NoRolloutError
from leyden.client.outcomes import Outcome, from_error, from_return, jsonable
from leyden.client.session import START_PATIENCE_S, Session, current_session
from leyden.ids import new_rollout_id

logger = logging.getLogger("leyden.client")
P = ParamSpec("P")
R = TypeVar("R")

_current: ContextVar[Claim | None] = ContextVar("leyden_rollout", default=None)


def current_rollout() -> Claim:
    """The rollout that this code runs in: `rollout_id`, `attempt`, `base_url`, `api_key`, … Raises `NoRolloutError`."""
    claim = _current.get()
    if claim is None:
        raise NoRolloutError("no current rollout: use @leyden.rollout, `with leyden.Rollout()` or leyden.Runner")
    return claim


def in_rollout() -> Claim | None:
    """The current rollout, if there is one."""
    return _current.get()


@dataclass
class OpenAttempt:
    """An attempt whose root span is open."""

    session: Session
    claim: Claim
    span: trace.Span

    def enter(self) -> ExitStack:
        """Make it current in this context; closing the stack, in the same context, undoes that."""
        stack = ExitStack()
        token: Token[Claim | None] = _current.set(self.claim)
        stack.callback(_current.reset, token)
        stack.enter_context(
            trace.use_span(self.span, end_on_exit=False, record_exception=False, set_status_on_exception=False)
        )
        return stack


def open_attempt(session: Session, claim: Claim, name: str, lost: Callable[[], None] = lambda: None) -> OpenAttempt:
    """Start the root span and the heartbeats; `lost` is called from another thread when the lease is lost."""
    context = TraceContextTextMapPropagator().extract({"traceparent": claim.traceparent}, Context())
    attributes: dict[str, str | int] = {
        semconv.GEN_AI_OPERATION_NAME: semconv.INVOKE_AGENT,
        semconv.GEN_AI_AGENT_NAME: name,
        semconv.LEYDEN_ROLLOUT_ID: claim.rollout_id,
        semconv.LEYDEN_ATTEMPT: claim.attempt,
        semconv.LEYDEN_MODE: claim.mode,
    }
    if claim.task_id is not None:
        attributes[semconv.LEYDEN_TASK_ID] = claim.task_id
    if claim.recorded:
        session.outbox.open(claim.trace_id)
        session.heart.keep(claim, lost)
    span = session.tracer.start_span(f"{semconv.INVOKE_AGENT} {name}", context=context, attributes=attributes)
    return OpenAttempt(session, claim, span)


def close_attempt(attempt: OpenAttempt, outcome: Outcome) -> None:
    """End the root span, wait for the spans' acknowledgement and tell the gateway. Blocks; raises nothing of it."""
    if outcome.error_type is not None:
        attempt.span.set_attribute(semconv.ERROR_TYPE, outcome.error_type)
        attempt.span.set_status(trace.Status(trace.StatusCode.ERROR, outcome.message))
    attempt.span.end()
    if not attempt.claim.recorded:
        return
    session = attempt.session
    span_count = session.outbox.settle(attempt.claim.trace_id, session.gateway.patience_s)
    try:
        session.gateway.end(attempt.claim, outcome.body(span_count))
    except AttemptOverError as error:
        logger.warning("rollout %s was over before its end was told: %s", attempt.claim.trace_id, error)
    except GatewayError as error:
        logger.error("the end of rollout %s could not be told: %s", attempt.claim.trace_id, error)  # noqa: TRY400
    finally:
        session.heart.release(attempt.claim)


def abandon_attempt(attempt: OpenAttempt) -> None:
    """Let go of an attempt whose lease is lost: there is nobody to tell."""
    attempt.span.end()
    attempt.session.heart.release(attempt.claim)
    attempt.session.outbox.settle(attempt.claim.trace_id, 0.0)


def _unrecorded(session: Session) -> Claim:
    """A claim for an agent that runs though the gateway is away: no trace of it is kept."""
    gateway = session.gateway
    return Claim(
        new_rollout_id(), 0, "", "", base_url=f"{gateway.url}/v1", api_key=gateway.api_key or "", recorded=False
    )


class Rollout:
    """`with leyden.Rollout("solver") as rollout:` (or `async with`): what runs inside is one rollout of agent "solver".

    Within another rollout it only adds a span. An exception that leaves the block fails the rollout, and goes on.
    Set `output` (anything with a JSON form) to keep what the agent answered; rewards are `leyden.emit_reward`.
    """

    def __init__(
        self,
        name: str = "agent",
        *,
        task: dict[str, Any] | None = None,
        group_id: str | None = None,
        group_size: int | None = None,
    ) -> None:
        self.name = name
        self.output: Any = None
        self.claim: Claim | None = None
        asked = {"task": task, "group_id": group_id, "group_size": group_size}
        self._body = {key: value for key, value in asked.items() if value is not None}
        self._attempt: OpenAttempt | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Start at the gateway, unless within a rollout."""
        return self._enter(in_rollout() or self._start())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End at the gateway what was started there."""
        self._stack.__exit__(kind, error, traceback)
        if self._attempt:
            close_attempt(self._attempt, self._outcome(error))

    async def __aenter__(self) -> Self:
        """As `__enter__`, with the waiting off the event loop."""
        claim = in_rollout()
        return self._enter(claim if claim else await asyncio.to_thread(self._start))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """As `__exit__`, with the waiting off the event loop."""
        self._stack.__exit__(kind, error, traceback)
        if self._attempt:
            await asyncio.shield(asyncio.to_thread(close_attempt, self._attempt, self._outcome(error)))

    def _start(self) -> Claim:
        session = current_session()
        try:
            return session.gateway.start(self._body, START_PATIENCE_S)
        except GatewayUnavailableError as error:
            logger.error("this run of the agent is not recorded: %s", error)  # noqa: TRY400
            return _unrecorded(session)

    def _enter(self, claim: Claim) -> Self:
        self.claim = claim
        if in_rollout() is None:
            self._attempt = open_attempt(current_session(), claim, self.name)
            self._stack = self._attempt.enter()
        else:
            span = current_session().tracer.start_as_current_span(
                f"{semconv.INVOKE_AGENT} {self.name}",
                attributes={
                    semconv.GEN_AI_OPERATION_NAME: semconv.INVOKE_AGENT,
                    semconv.GEN_AI_AGENT_NAME: self.name,
                },
                record_exception=False,
            )
            self._stack.enter_context(span)
        return self

    def _outcome(self, error: BaseException | None) -> Outcome:
        if error is not None:
            return from_error(error)
        return from_return(None) if self.output is None else Outcome(output=jsonable(self.output))


@overload
def rollout(function: Callable[P, R], /) -> Callable[P, R]: ...


@overload
def rollout(*, name: str | None = None) -> Callable[[Callable[P, R]], Callable[P, R]]: ...


def rollout(
    function: Callable[P, R] | None = None, /, *, name: str | None = None
) -> Callable[P, R] | Callable[[Callable[P, R]], Callable[P, R]]:
    """Make each call of an agent's function (sync or async) a rollout; what it returns is kept as the output.

    A number is output too: rewards of a decorated function are `leyden.emit_reward`.
    """
    if function is None:
        return functools.partial(_wrap, name=name)
    return _wrap(function, name)


def _wrap(function: Callable[P, R], name: str | None) -> Callable[P, R]:
    agent = name or str(getattr(function, "__name__", "agent"))
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def run_async(*args: P.args, **kwargs: P.kwargs) -> Any:
            async with Rollout(agent) as current:
                current.output = await function(*args, **kwargs)
                return current.output

        return cast("Callable[P, R]", run_async)

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with Rollout(agent) as current:
            current.output = result = function(*args, **kwargs)
            return result

    return run
