"""Takes the current rollout into other threads and processes, which know nothing of their starter's context."""

import inspect
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any, Generic, ParamSpec, TypeVar

from opentelemetry import trace

from leyden.client import session as sessions
from leyden.client.claims import Claim
from leyden.client.rollouts import enter_claim, in_rollout
from leyden.client.spanning import context_of, traceparent_of
from leyden.client.wrapping import in_context

P = ParamSpec("P")
R = TypeVar("R")

FLUSH_S = 2.0
"""What a call in another process waits at its end for its spans to be sent: the process may be ended any time."""


class Carried(Generic[P, R]):
    """A function bound to the rollout in which it was wrapped; it can be pickled when the function can."""

    def __init__(self, function: Callable[P, R]) -> None:
        self._function = function
        self._context: Context | None = copy_context()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function inside the rollout."""
        if self._context is None:
            return self._call_elsewhere(*args, **kwargs)
        context = self._context.copy()  # one context cannot be entered twice at a time
        if inspect.iscoroutinefunction(self._function):
            return in_context(context, self._function(*args, **kwargs))  # type: ignore[return-value]
        return context.run(self._function, *args, **kwargs)

    def _call_elsewhere(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if self._claim is None:
            return self._function(*args, **kwargs)
        session = sessions.connected(self._url, self._claim.api_key)
        parent = trace.get_current_span(context_of(self._traceparent))
        try:
            with enter_claim(self._claim, parent):
                return self._function(*args, **kwargs)
        finally:
            session.flush(FLUSH_S)

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
            return claim, traceparent, sessions.current_session().gateway.url

        return self._context.copy().run(here)


def carry(function: Callable[P, R]) -> Callable[P, R]:
    """`function`, which when called in any thread or process works inside the rollout that is current now.

    `pool.submit(leyden.carry(work), x)` for threads and for processes (fork, spawn, forkserver) alike.
    """
    return Carried(function)
