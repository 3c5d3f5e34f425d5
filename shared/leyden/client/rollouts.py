"""The current rollout, and rollouts that an agent starts by itself: `Rollout`, `@rollout`, `carry`.

If the gateway is unreachable when such a rollout starts, the agent runs unrecorded. If it refuses the request (a wrong
key), the error is raised.
"""

import asyncio
import inspect
import logging
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from contextlib import ExitStack
from contextvars import Context as ContextVars
from contextvars import ContextVar, copy_context
from types import TracebackType
from typing import Any, Generic, ParamSpec, Self, TypeVar, overload

from opentelemetry import trace
from opentelemetry.context import Context

from leyden.client import semconv
from leyden.client.attempts import END_WAIT_S, OpenAttempt, end_span, open_attempt, send_end
from leyden.client.claims import Claim, context_of, inherited, traceparent_of
from leyden.client.decorators import in_context, name_of, wrap
from leyden.client.errors import GatewayUnavailableError, NoRolloutError
from leyden.client.outcomes import Outcome, from_error, from_return, jsonable
from leyden.client.session import Session, connected, current_session
from leyden.ids import new_rollout_id

logger = logging.getLogger("leyden.client")
T = TypeVar("T")
P = ParamSpec("P")
R = TypeVar("R")

CARRIED_FLUSH_S = 2.0
"""How long a carried call in another process waits for its spans to be sent, as that process may end at any time."""

_current: ContextVar[Claim | None] = ContextVar("leyden_rollout", default=None)
_root: ContextVar[trace.Span | None] = ContextVar("leyden_root_span", default=None)


def current_rollout() -> Claim:
    """The rollout that this code runs in. Raises `NoRolloutError`."""
    claim = in_rollout()
    if claim is None:
        raise NoRolloutError("no current rollout: use @leyden.rollout, `with leyden.Rollout()` or leyden.Runner")
    return claim


def in_rollout() -> Claim | None:
    """The rollout of this context, else the one that the process was started in, else None."""
    return _current.get() or inherited()


def root_span() -> trace.Span | None:
    """The root span of the current rollout; None in a process that did not open it."""
    return _root.get()


def parent_context() -> Context | None:
    """The parent context of a new span; None means the current context."""
    if trace.get_current_span().get_span_context().is_valid:
        return None
    claim = in_rollout()
    return context_of(claim.traceparent) if claim and claim.traceparent else None


def enter_claim(claim: Claim, span: trace.Span, root: trace.Span | None = None) -> ExitStack:
    """Make the rollout and its span current, until the stack is closed in the same context."""
    stack = ExitStack()
    stack.callback(_current.reset, _current.set(claim))
    stack.callback(_root.reset, _root.set(root))
    stack.enter_context(
        trace.use_span(span, end_on_exit=False, record_exception=False, set_status_on_exception=False)
    )  # fmt: skip
    return stack


def enter_attempt(attempt: OpenAttempt) -> ExitStack:
    """`enter_claim` for the process that opened the attempt."""
    return enter_claim(attempt.claim, attempt.span, attempt.span)


def _unrecorded(session: Session) -> Claim:
    """The claim of an agent that runs unrecorded, as the gateway is unreachable."""
    gateway = session.gateway
    return Claim(
        new_rollout_id(), 0, "", "", base_url=f"{gateway.url}/v1", api_key=gateway.api_key or "", recorded=False
    )


class Rollout:
    """`with leyden.Rollout("solver") as rollout:` (or `async with`): the block is one rollout of agent "solver".

    Inside another rollout it only adds a span. An exception that leaves the block fails the rollout and propagates.
    Set `output` (any JSON value) to record the agent's answer; use `leyden.emit_reward` for rewards.
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
        """Start the rollout; inside another one, only a span."""
        return self._enter(in_rollout() or self._start())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the rollout or the span."""
        self._stack.__exit__(kind, error, traceback)
        sent, wait_s = self._end(error)
        if sent is not None and wait_s:
            try:
                sent.result(wait_s)
            except NotYet:
                logger.debug("the end of rollout %s will be sent later", self.claim.trace_id if self.claim else "")

    async def __aenter__(self) -> Self:
        """As `__enter__`, with the waiting off the event loop."""
        claim = in_rollout()
        return self._enter(claim if claim else await asyncio.to_thread(self._start))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """As `__exit__`, with the waiting off the event loop."""
        self._stack.__exit__(kind, error, traceback)
        sent, wait_s = self._end(error)
        if sent is not None and wait_s:
            await asyncio.wait({asyncio.wrap_future(sent)}, timeout=wait_s)

    def _end(self, error: BaseException | None) -> "tuple[Future[None] | None, float]":
        """Queue the end. Returns the seconds to wait for it: 0 while the gateway is failing."""
        if self._attempt is None:
            return None, 0.0
        attempt, outcome, session = self._attempt, self._outcome(error), self._attempt.session
        end_span(attempt, outcome)
        if not attempt.claim.recorded:
            return None, 0.0
        slow = session.ends.is_stuck() or (session.ends.pending() and session.gateway.failing)
        sent = session.ends.submit(lambda: send_end(attempt, outcome))
        return sent, 0.0 if slow else END_WAIT_S

    def _start(self) -> Claim:
        session = current_session()
        try:
            return session.gateway.start_now(self._body, session.start_timeout_s)
        except GatewayUnavailableError as error:
            logger.error("this rollout is not recorded: %s", error)  # noqa: TRY400
            return _unrecorded(session)

    def _enter(self, claim: Claim) -> Self:
        self.claim = claim
        if in_rollout() is None:
            self._attempt = open_attempt(current_session(), claim, self.name)
            self._stack = enter_attempt(self._attempt)
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
        """Store the decorated agent's return value as the output."""
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
    """Make each call of an agent a rollout; the return value, a number too, is its output.

    Takes a function (sync, async, generator or async generator), a method, or a class with `__call__`. The rollout of a
    generator ends with the generator; its output is what it yielded: strings joined, else the list. Use
    `leyden.emit_reward` for rewards.
    """

    def decorate(agent: T) -> T:
        called = name or name_of(getattr(agent, "__func__", agent), "agent")
        return wrap(agent, lambda args, kwargs: Rollout(called, group_id=group_id, group_size=group_size))

    return decorate if function is None else decorate(function)


class Carried(Generic[P, R]):
    """A function bound to the rollout that was current when it was wrapped. Can be pickled if the function can."""

    def __init__(self, function: Callable[P, R]) -> None:
        self._function = function
        self._context: ContextVars | None = copy_context()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function inside the rollout."""
        if self._context is None:
            return self._call_elsewhere(*args, **kwargs)
        context = self._context.copy()  # a context cannot be entered twice at once
        if inspect.iscoroutinefunction(self._function):
            return in_context(context, self._function(*args, **kwargs))  # type: ignore[return-value]
        return context.run(self._function, *args, **kwargs)

    def _call_elsewhere(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if self._claim is None:
            return self._function(*args, **kwargs)
        session = connected(self._url, self._claim.api_key)
        parent = trace.get_current_span(context_of(self._traceparent))
        try:
            with enter_claim(self._claim, parent):
                return self._function(*args, **kwargs)
        finally:
            session.flush(CARRIED_FLUSH_S)

    def __getstate__(self) -> dict[str, Any]:
        """The function, and the rollout as data."""
        claim, traceparent, url = self._where()
        where = {"_claim": claim, "_traceparent": traceparent, "_url": url}
        return {"_function": self._function, "_context": None, **where}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """In another process."""
        self._claim: Claim | None = state["_claim"]
        self._traceparent: str = state["_traceparent"]
        self._url: str = state["_url"]
        self._function, self._context = state["_function"], state["_context"]

    def _where(self) -> tuple[Claim | None, str, str]:
        if self._context is None:
            return self._claim, self._traceparent, self._url

        def here() -> tuple[Claim | None, str, str]:
            claim = in_rollout()
            if claim is None or not claim.recorded:
                return None, "", ""
            traceparent = traceparent_of(trace.get_current_span()) or claim.traceparent
            return claim, traceparent, current_session().gateway.url

        return self._context.copy().run(here)


def carry(function: Callable[P, R]) -> Callable[P, R]:
    """Bind `function` to the current rollout, for calls in other threads and processes.

    `pool.submit(leyden.carry(work), x)` for threads and for processes (fork, spawn, forkserver) alike.
    """
    return Carried(function)
