"""Rollouts in the agent's own process: the root span, the current rollout, and its end.

`open_attempt` … `close_attempt` are the steps; `Rollout` and `@rollout` put them around an agent's code, and the runner
around a claimed task. A gateway that is away when an agent starts a rollout of its own accord does not stop the agent:
it runs unrecorded. A gateway that refuses (a wrong key) does: that is a mistake to be seen.
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from contextlib import ExitStack, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from opentelemetry import trace
from opentelemetry.context import Context

from leyden.client import farewells, semconv
from leyden.client.claims import Claim
from leyden.client.environment import inherited
from leyden.client.errors import AttemptOverError, GatewayError, GatewayUnavailableError, NoRolloutError
from leyden.client.looping import call_soon
from leyden.client.outcomes import Outcome, from_error, from_return, jsonable
from leyden.client.session import Session, current_session
from leyden.client.spanning import context_of
from leyden.client.wrapping import name_of, wrap
from leyden.ids import new_rollout_id

logger = logging.getLogger("leyden.client")
T = TypeVar("T")

_current: ContextVar[Claim | None] = ContextVar("leyden_rollout", default=None)
_root: ContextVar[trace.Span | None] = ContextVar("leyden_root_span", default=None)


def current_rollout() -> Claim:
    """The rollout that this code runs in: `rollout_id`, `attempt`, `base_url`, `api_key`, … Raises `NoRolloutError`."""
    claim = in_rollout()
    if claim is None:
        raise NoRolloutError("no current rollout: use @leyden.rollout, `with leyden.Rollout()` or leyden.Runner")
    return claim


def in_rollout() -> Claim | None:
    """The current rollout: this context's, else the one that the process was started in."""
    return _current.get() or inherited()


def root_span() -> trace.Span | None:
    """The current rollout's own span, in the process that opened it."""
    return _root.get()


def parent_context() -> Context | None:
    """Where a new span belongs: None is the current context, else below the span that this process was started in."""
    if trace.get_current_span().get_span_context().is_valid:
        return None
    claim = in_rollout()
    return context_of(claim.traceparent) if claim and claim.traceparent else None


def enter_claim(claim: Claim, span: trace.Span, root: trace.Span | None = None) -> ExitStack:
    """Make the rollout and its span current in this context; closing the stack, in the same context, undoes that."""
    stack = ExitStack()
    stack.callback(_current.reset, _current.set(claim))
    stack.callback(_root.reset, _root.set(root))
    stack.enter_context(
        trace.use_span(span, end_on_exit=False, record_exception=False, set_status_on_exception=False)
    )  # fmt: skip
    return stack


@dataclass
class OpenAttempt:
    """An attempt whose root span is open."""

    session: Session
    claim: Claim
    span: trace.Span

    def enter(self) -> ExitStack:
        """Make it current in this context; closing the stack, in the same context, undoes that."""
        return enter_claim(self.claim, self.span, self.span)


def open_attempt(session: Session, claim: Claim, name: str, lost: Callable[[], None] = lambda: None) -> OpenAttempt:
    """Start the root span and the heartbeats; `lost` is called from another thread when the lease is lost."""
    context = context_of(claim.traceparent)
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


def close_attempt(attempt: OpenAttempt, outcome: Outcome, others: Callable[[], int | None] = lambda: 0) -> None:
    """End the root span, wait for the spans' acknowledgement and tell the gateway. Blocks; raises nothing of it.

    `others` counts the spans that other processes have sent for the attempt; None when that is not known.
    """
    end_span(attempt, outcome)
    if attempt.claim.recorded:
        tell_end(attempt, outcome, others)


def end_span(attempt: OpenAttempt, outcome: Outcome) -> None:
    """End the root span, with the error if there was one."""
    if outcome.error_type is not None:
        attempt.span.set_attribute(semconv.ERROR_TYPE, outcome.error_type)
        attempt.span.set_status(trace.Status(trace.StatusCode.ERROR, outcome.message))
    attempt.span.end()


def tell_end(attempt: OpenAttempt, outcome: Outcome, others: Callable[[], int | None] = lambda: 0) -> None:
    """Tell the gateway, once the fate of the spans is known. Blocks; raises nothing of it."""
    session = attempt.session
    own, more = session.outbox.settle(attempt.claim.trace_id, session.gateway.patience_s), others()
    span_count = None if own is None or more is None else own + more
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
        told, wait_s = self._farewell(error)
        if told is not None and wait_s:
            try:
                told.result(wait_s)
            except NotYet:
                logger.debug("the end of rollout %s is told later", self.claim)

    async def __aenter__(self) -> Self:
        """As `__enter__`, with the waiting off the event loop."""
        claim = in_rollout()
        return self._enter(claim if claim else await asyncio.to_thread(self._start))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """As `__exit__`, with the waiting off the event loop."""
        self._stack.__exit__(kind, error, traceback)
        told, wait_s = self._farewell(error)
        if told is not None and wait_s:
            loop, done = asyncio.get_running_loop(), asyncio.Event()
            told.add_done_callback(lambda _: call_soon(loop, done.set))
            with suppress(TimeoutError):
                await asyncio.wait_for(done.wait(), wait_s)

    def _farewell(self, error: BaseException | None) -> "tuple[Future[None] | None, float]":
        """Have the end told, and how long to wait for that: not at all while the gateway is in trouble."""
        if self._attempt is None:
            return None, 0.0
        attempt, outcome, session = self._attempt, self._outcome(error), self._attempt.session
        end_span(attempt, outcome)
        if not attempt.claim.recorded:
            return None, 0.0
        late = session.farewells.is_stuck() or (session.farewells.pending() and session.gateway.failing)
        told = session.farewells.submit(lambda: tell_end(attempt, outcome))
        return told, 0.0 if late else farewells.WAIT_S

    def _start(self) -> Claim:
        session = current_session()
        try:
            return session.gateway.start(self._body, session.start_patience_s, hurry=True)
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
                context=parent_context(),
                attributes={
                    semconv.GEN_AI_OPERATION_NAME: semconv.INVOKE_AGENT,
                    semconv.GEN_AI_AGENT_NAME: self.name,
                },
                record_exception=False,
            )
            self._stack.enter_context(span)
        return self

    def keep(self, result: Any) -> None:
        """What a decorated agent returned is its output."""
        self.output = result

    def _outcome(self, error: BaseException | None) -> Outcome:
        if error is not None:
            return from_error(error)
        return from_return(None) if self.output is None else Outcome(output=jsonable(self.output))


@overload
def rollout(function: T, /) -> T: ...


@overload
def rollout(
    *, name: str | None = None, group_id: str | None = None, group_size: int | None = None
) -> Callable[[T], T]: ...


def rollout(
    function: Any = None, /, *, name: str | None = None, group_id: str | None = None, group_size: int | None = None
) -> Any:
    """Make each call of an agent a rollout; what it returns is kept as the output.

    Takes a function (sync, async, generator or async generator), a method, or a class with `__call__`. A streaming
    agent's rollout ends with its generator, and its output is what it yielded: texts joined, else the list. A number is
    output too: rewards of a decorated agent are `leyden.emit_reward`.
    """

    def decorate(agent: T) -> T:
        called = name or name_of(getattr(agent, "__func__", agent), "agent")
        return wrap(agent, lambda args, kwargs: Rollout(called, group_id=group_id, group_size=group_size))

    return decorate if function is None else decorate(function)
