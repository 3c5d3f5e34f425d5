"""Admission: limits on requests of a kind and on their bytes, on a key's concurrent calls, requests and tokens.

Nothing waits here: what exceeds a limit is refused at once. Also the list of the calls that wait for a model.
"""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Container, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from leyden.clock import Clock
from leyden.events import KeyLimits, ModelCallRecorded
from leyden.gateway.core.keys import Caller, KeyRing, limit_headers, rate_limited
from leyden.gateway.core.refusals import Refusal, Reserve
from leyden.gateway.metrics import BODY_BYTES, IN_FLIGHT, LATE_CALLS, REFUSED, labelled
from leyden.gateway.ports import CallInFlight, Rates
from leyden.ids import AttemptRef


class Limiter:
    """At most `limit` requests of a kind at a time; one more is refused with `status`."""

    def __init__(self, kind: str, limit: int, status: int, retry_after_s: float) -> None:
        self._kind = kind
        self._limit = limit
        self._status = status
        self._retry_after_s = retry_after_s
        self._now = 0

    def must_have_room(self) -> None:
        """Raise `Refusal` if every slot is taken: asked before a body is read, which may take long."""
        if self._now >= self._limit:
            message = f"{self._limit} {self._kind} are being served already"
            raise Refusal(self._status, "overloaded", message, retry_after_s=self._retry_after_s)

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Hold one slot. Raises `Refusal` if there is none."""
        self.must_have_room()
        self._now += 1
        labelled(IN_FLIGHT, self._kind).set(self._now)
        try:
            yield
        finally:
            self._now -= 1
            labelled(IN_FLIGHT, self._kind).set(self._now)


class Budget:
    """A limit on bytes of requests in memory; more are refused, never queued. Threads may share it."""

    def __init__(self, kind: str, limit: int, retry_after_s: float) -> None:
        self._kind = kind
        self._limit = limit
        self._retry_after_s = retry_after_s
        self.held = 0
        self._lock = threading.Lock()

    @contextmanager
    def open(self) -> Iterator[Reserve]:
        """A function that takes bytes from the budget or raises a 503 `Refusal`; all are returned at the end."""
        taken = 0

        def reserve(size: int) -> None:
            nonlocal taken
            with self._lock:
                if self.held + size > self._limit:
                    message = f"the bodies of {self._kind} requests that are being served take too much memory already"
                    raise Refusal(503, "overloaded", message, retry_after_s=self._retry_after_s)
                self.held += size
                taken += size
            labelled(BODY_BYTES, self._kind).set(self.held)

        try:
            yield reserve
        finally:
            with self._lock:
                self.held -= taken
            labelled(BODY_BYTES, self._kind).set(self.held)


class KeyLimiter:
    """The limits of keys; a key without limits costs nothing."""

    def __init__(self, ring: KeyRing, rates: Rates, clock: Clock, retry_after_s: float = 1.0) -> None:
        self._ring = ring
        self._rates = rates
        self._clock = clock
        self._retry_after_s = retry_after_s
        self._in_flight: Counter[str] = Counter()

    async def enter(self, caller: Caller, held: ExitStack, headers: dict[str, str]) -> None:
        """Count a call and hold one of its key's slots until `held` is closed; put what is left into `headers`.

        Raises a 429 `Refusal`, or `Retry` if the store is unavailable.
        """
        limits = caller.limits
        if caller.key_id is None:
            return
        if limits.concurrency is not None:
            held.enter_context(self._slot(caller.key_id, limits.concurrency))
        if limits.requests_per_minute is None and limits.tokens_per_minute is None:
            return
        level = await self._rates.take(caller.key_id, limits, self._clock.now())
        headers |= limit_headers(limits, level)
        if not level.admitted:
            raise rate_limited(limits, level)

    @contextmanager
    def _slot(self, key_id: str, limit: int) -> Iterator[None]:
        if self._in_flight[key_id] >= limit:
            message = f"{limit} calls of this key are being served already"
            raise Refusal(429, "key_concurrency", message, retry_after_s=self._retry_after_s)
        self._in_flight[key_id] += 1
        try:
            yield
        finally:
            self._in_flight[key_id] -= 1
            if not self._in_flight[key_id]:
                del self._in_flight[key_id]

    def charges(self, call: ModelCallRecorded) -> bool:
        """Whether the call's tokens count for its key."""
        return call.key_id is not None and self._limits(call.key_id).tokens_per_minute is not None

    async def charge(self, call: ModelCallRecorded) -> None:
        """Subtract a recorded call's tokens from its key's limit. Raises `Retry` if the store is unavailable."""
        used = call.usage.prompt_tokens + call.usage.completion_tokens
        if call.key_id is not None and used:
            await self._rates.charge(call.key_id, self._limits(call.key_id), used, self._clock.now())

    def _limits(self, key_id: str) -> KeyLimits:
        return self._ring.limits_of(key_id)


@dataclass(slots=True, eq=False)
class WaitingCall:
    """A call to a model, and the task that serves it."""

    call_id: str
    ref: AttemptRef | None
    model: str
    project: str | None
    since: float
    serving: "asyncio.Task[Any]"
    has_begun: bool = False
    is_over: bool = False

    def begin(self) -> None:
        """Its reply has begun: the call no longer waits, but can still be cancelled."""
        self.has_begun = True

    def cancel(self) -> None:
        """Cancel it, because its attempt is over: the connection to the engine is closed, which ends its work there."""
        if not self.is_over:
            self.is_over = True
            self.serving.cancel()

    def refusal(self) -> Refusal | None:
        """The 409 for the caller, if a `CancelledError` came from `cancel` alone."""
        if not self.is_over or self.ref is None or self.serving.uncancel() > 0:
            return None
        return attempt_over(self.ref)


class CallsInFlight:
    """The calls of this replica to models; those whose reply has not begun wait for the model."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._calls: set[WaitingCall] = set()

    @contextmanager
    def listed(self, call_id: str, ref: AttemptRef | None, model: str, project: str | None) -> Iterator[WaitingCall]:
        """List a call, served by the current task, for the time of the block."""
        serving = asyncio.current_task()
        assert serving is not None
        call = WaitingCall(call_id, ref, model, project, self._now(), serving)
        self._calls.add(call)
        try:
            yield call
        finally:
            self._calls.discard(call)

    def waiting_for(self, seconds: float) -> list[CallInFlight]:
        """The calls that have waited at least that long."""
        now = self._now()
        return [
            CallInFlight(call_id=c.call_id, ref=c.ref, model=c.model, project=c.project, seconds=now - c.since)
            for c in self._calls
            if now - c.since >= seconds and not c.has_begun
        ]

    def attempts(self, seconds: float) -> list[AttemptRef]:
        """The attempts with calls at least that old, in order."""
        now = self._now()
        return sorted({c.ref for c in self._calls if c.ref is not None and now - c.since >= seconds})

    def cancel(self, over: Container[AttemptRef]) -> None:
        """Cancel the calls of these attempts."""
        for call in list(self._calls):
            if call.ref in over:
                call.cancel()


def counted(refusal: Refusal) -> Refusal:
    """Count a refusal and return it."""
    REFUSED.labels(code=refusal.code).inc()
    return refusal


def attempt_over(ref: AttemptRef) -> Refusal:
    """The 409 of a call for an attempt that is not running."""
    LATE_CALLS.inc()
    message = f"attempt {ref.attempt} of rollout {ref.rollout_id} is not under way: its calls are no longer taken"
    return Refusal(409, "attempt_over", message)
