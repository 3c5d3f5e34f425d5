"""Open attempts: the root span, heartbeats for the lease, and the end request to the gateway.

Call `open_attempt`, then `close_attempt`, or `abandon_attempt` after a lost lease. A rollout that an agent starts by
itself is ended through the `EndQueue`, so that a slow gateway does not delay the agent.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from opentelemetry import trace

from leyden.client import semconv
from leyden.client.claims import Claim, context_of
from leyden.client.errors import AttemptOverError, GatewayError, GatewayUnavailableError
from leyden.client.outcomes import Outcome

if TYPE_CHECKING:
    from leyden.client.gateway import GatewayClient
    from leyden.client.session import Session

logger = logging.getLogger("leyden.client")

HEARTBEATS_PER_LEASE = 3
HEARTBEAT_RETRY_S = 1.0
"""Interval after a failed heartbeat: shorter, as the lease is running out."""
END_WAIT_S = 2.0
"""How long an agent waits for the end of its rollout to be acknowledged."""
END_THREADS = 4
MAX_QUEUED_ENDS = 1024
"""Maximum queued ends. Further ones are dropped, and the gateway ends those rollouts when their leases expire."""


@dataclass(frozen=True)
class OpenAttempt:
    """An attempt with an open root span and, when it is recorded, heartbeats."""

    session: "Session"
    claim: Claim
    span: trace.Span
    lost: "Future[None]" = field(default_factory=Future)
    """Done when the lease is lost: the gateway has ended the attempt."""


def open_attempt(session: "Session", claim: Claim, name: str) -> OpenAttempt:
    """Start the root span of agent `name`, the counting of its spans, and heartbeats."""
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
        session.spans.track(claim.trace_id)
    span = session.tracer.start_span(
        f"{semconv.INVOKE_AGENT} {name}", context=context_of(claim.traceparent), attributes=attributes
    )
    attempt = OpenAttempt(session, claim, span)
    if claim.recorded:
        session.heartbeats.add(claim, lambda: attempt.lost.set_result(None))
    return attempt


def close_attempt(attempt: OpenAttempt, outcome: Outcome, other_spans: int | None = 0) -> None:
    """End the root span, wait until the spans are acknowledged, then send the end. Blocks; logs errors, raises none.

    `other_spans` is the number of spans that other processes sent for the attempt; None if unknown.
    """
    end_span(attempt, outcome)
    if attempt.claim.recorded:
        send_end(attempt, outcome, other_spans)


def end_span(attempt: OpenAttempt, outcome: Outcome) -> None:
    """End the root span, with the error if there was one."""
    if outcome.error_type is not None:
        attempt.span.set_attribute(semconv.ERROR_TYPE, outcome.error_type)
        attempt.span.set_status(trace.Status(trace.StatusCode.ERROR, outcome.message))
    attempt.span.end()


def send_end(attempt: OpenAttempt, outcome: Outcome, other_spans: int | None = 0) -> None:
    """Send the end with the number of acknowledged spans. Blocks until both are known; logs errors, raises none."""
    session, trace_id = attempt.session, attempt.claim.trace_id
    own_spans = session.spans.settle(trace_id, session.gateway.retry_timeout_s)
    span_count = None if own_spans is None or other_spans is None else own_spans + other_spans
    try:
        session.gateway.end(attempt.claim, outcome.body(span_count))
    except AttemptOverError as error:
        logger.warning("rollout %s had already ended: %s", trace_id, error)
    except GatewayError as error:
        logger.error("cannot send the end of rollout %s: %s", trace_id, error)  # noqa: TRY400
    finally:
        session.heartbeats.remove(attempt.claim)


def abandon_attempt(attempt: OpenAttempt) -> None:
    """Close an attempt whose lease is lost: the gateway expects no end."""
    attempt.span.end()
    attempt.session.heartbeats.remove(attempt.claim)
    attempt.session.spans.settle(attempt.claim.trace_id, 0.0)


@dataclass(frozen=True)
class _Lease:
    claim: Claim
    on_lost: Callable[[], None]
    due: float


class LeaseHeartbeats:
    """Sends the heartbeats of all open attempts from one daemon thread."""

    def __init__(self, gateway: "GatewayClient") -> None:
        self._gateway = gateway
        self._reset()

    def _reset(self) -> None:
        self._changed = threading.Condition()
        self._leases: dict[str, _Lease] = {}
        self._closed = False
        self._thread: threading.Thread | None = None

    def add(self, claim: Claim, on_lost: Callable[[], None]) -> None:
        """Send heartbeats for the claim. `on_lost` is called at most once, in the thread, when the lease is lost."""
        with self._changed:
            self._leases[claim.trace_id] = _Lease(claim, on_lost, time.monotonic() + _interval(claim.lease_s))
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="leyden-heartbeat", daemon=True)
                self._thread.start()
            self._changed.notify()

    def remove(self, claim: Claim) -> None:
        """Stop the heartbeats of a claim."""
        with self._changed:
            self._leases.pop(claim.trace_id, None)

    def close(self) -> None:
        """Stop all heartbeats."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def after_fork(self) -> None:
        """In a forked child: forget the leases, which the parent keeps."""
        self._reset()

    def _work(self) -> None:
        while lease := self._next():
            wait_s = self._beat(lease)
            with self._changed:
                if self._leases.get(lease.claim.trace_id) is not lease:
                    continue  # removed meanwhile
                if wait_s is not None:
                    self._leases[lease.claim.trace_id] = replace(lease, due=time.monotonic() + wait_s)
                    continue
                del self._leases[lease.claim.trace_id]
            lease.on_lost()

    def _beat(self, lease: _Lease) -> float | None:
        """Send a heartbeat. Returns the seconds until the next one; None if the lease is lost."""
        interval_s = _interval(lease.claim.lease_s)
        try:
            return _interval(self._gateway.heartbeat(lease.claim))
        except AttemptOverError as error:
            logger.warning("lost the lease of rollout %s: %s", lease.claim.trace_id, error)
            return None
        except GatewayUnavailableError as error:
            logger.debug("heartbeat of rollout %s failed: %s", lease.claim.trace_id, error)
            return min(HEARTBEAT_RETRY_S, interval_s)
        except GatewayError as error:
            logger.warning("heartbeat of rollout %s was refused: %s", lease.claim.trace_id, error)
            return interval_s

    def _next(self) -> _Lease | None:
        """Wait for the next lease that is due; None when closed."""
        with self._changed:
            while not self._closed:
                lease = min(self._leases.values(), key=lambda lease: lease.due, default=None)
                wait_s = None if lease is None else lease.due - time.monotonic()
                if lease is not None and wait_s is not None and wait_s <= 0:
                    return lease
                self._changed.wait(wait_s)
            return None


def _interval(lease_s: float) -> float:
    return lease_s / HEARTBEATS_PER_LEASE


class EndQueue:
    """A bounded queue of rollout ends, sent by a few daemon threads that are started on demand."""

    def __init__(self, capacity: int = MAX_QUEUED_ENDS, threads: int = END_THREADS) -> None:
        self._capacity = capacity
        self._max_threads = threads
        self._reset()

    def _reset(self) -> None:
        self._changed = threading.Condition()
        self._queue: deque[tuple[Callable[[], None], Future[None]]] = deque()
        self._unsent: dict[Future[None], float] = {}
        """Submission times of ends that are queued or being sent."""
        self._threads = 0
        self._closed = False

    def submit(self, send: Callable[[], None]) -> "Future[None]":
        """Call `send`, which must not raise, in a thread. The future is done afterwards, or if the queue is full."""
        done: Future[None] = Future()
        with self._changed:
            if self._closed or len(self._queue) >= self._capacity:
                logger.error("a rollout end was dropped: %d ends are already queued", len(self._queue))
                done.set_result(None)
                return done
            self._queue.append((send, done))
            self._unsent[done] = time.monotonic()
            if self._threads < min(self._max_threads, len(self._unsent)):
                self._threads += 1
                threading.Thread(target=self._work, name="leyden-ends", daemon=True).start()
            self._changed.notify()
        return done

    def pending(self) -> int:
        """Number of ends not sent yet."""
        with self._changed:
            return len(self._unsent)

    def is_stuck(self) -> bool:
        """Whether an end has waited longer than `END_WAIT_S`."""
        with self._changed:
            oldest = min(self._unsent.values(), default=None)
        return oldest is not None and time.monotonic() - oldest >= END_WAIT_S

    def drain(self, timeout_s: float) -> int:
        """Wait until all ends are sent. Returns how many were not sent in time."""
        with self._changed:
            self._changed.wait_for(lambda: not self._unsent, timeout_s)
            return len(self._unsent)

    def close(self) -> None:
        """Accept no more, and stop the threads once the queue is empty."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def after_fork(self) -> None:
        """In a forked child: the parent sends what is queued."""
        self._reset()

    def _work(self) -> None:
        while taken := self._next():
            send, done = taken
            try:
                send()
            except Exception:
                logger.exception("a bug in the client library lost the end of a rollout")
            finally:
                with self._changed:
                    self._unsent.pop(done, None)
                    self._changed.notify_all()
                done.set_result(None)

    def _next(self) -> tuple[Callable[[], None], "Future[None]"] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closed)
            return self._queue.popleft() if self._queue else None
