"""The session of a process: gateway client, span processor, heartbeats, end queue and tracer. `init` makes it once.

In a process that was started inside a rollout (`leyden run`, a runner's program) it belongs to that rollout.
`init` imports the HTTP client, protobuf and OpenTelemetry's SDK, so that `import leyden` stays fast. Importing them
later in a thread is not safe: a fork during an import leaves a child that waits for the import lock forever.
"""

import atexit
import logging
import os
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.context import attach

from leyden.client.attempts import EndQueue, LeaseHeartbeats
from leyden.client.claims import SPAN_COUNTS, context_of, inherited
from leyden.client.errors import ConfigurationError
from leyden.client.semconv import SCHEMA_URL

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

    from leyden.client.gateway import GatewayClient
    from leyden.client.span_processor import RolloutSpanProcessor

logger = logging.getLogger("leyden.client")

START_TIMEOUT_S = 1.0
"""How long an agent that starts a rollout by itself waits for an unreachable gateway."""
EXIT_TIMEOUT_S = 5.0
"""How long the process waits at exit for the last spans and ends."""


@dataclass(frozen=True)
class SpanStats:
    """Counts of this process's rollout spans."""

    queued: int
    """Waiting to be sent."""
    sent: int
    """Acknowledged by the gateway."""
    dropped: int
    """Not queued: the queue was full or closed."""
    failed: int
    """Not delivered before the retry timeout, or rejected by the gateway."""


@dataclass(frozen=True, kw_only=True)
class Session:
    """The parts of the library in this process."""

    gateway: "GatewayClient"
    spans: "RolloutSpanProcessor"
    heartbeats: LeaseHeartbeats
    ends: EndQueue
    tracer: trace.Tracer
    inherited_trace: str | None = None
    """Trace id of the attempt that this process was started in."""
    start_timeout_s: float = START_TIMEOUT_S
    exit_timeout_s: float = EXIT_TIMEOUT_S

    def flush(self, timeout_s: float) -> bool:
        """Send every queued end and span now. Returns whether all were sent in time."""
        deadline = time.monotonic() + timeout_s
        unsent = self.ends.drain(timeout_s)
        return self.spans.force_flush(int(max(0.0, deadline - time.monotonic()) * 1000)) and not unsent

    def close(self) -> None:
        """Send what is left, for at most `exit_timeout_s`, and stop."""
        if not self.flush(self.exit_timeout_s):
            ends, spans = self.ends.pending(), self.spans.stats()
            logger.error("exiting with %d rollout ends unsent and these spans: %s", ends, spans)
        self._note_spans()
        self.ends.close()
        self.heartbeats.close()
        self.spans.shutdown()
        self.gateway.close()

    def after_fork(self) -> None:
        """In a forked child: leave threads, connections and queues to the parent."""
        self.gateway.after_fork()
        self.spans.after_fork()
        self.heartbeats.after_fork()
        self.ends.after_fork()
        if self.inherited_trace:
            self.spans.track(self.inherited_trace)

    def _note_spans(self) -> None:
        """Append our span count to the parent's file; appends this short are atomic."""
        path = os.environ.get(SPAN_COUNTS)
        if self.inherited_trace is None or path is None:
            return
        count = self.spans.count(self.inherited_trace)
        try:
            with Path(path).open("a") as file:
                file.write("unknown\n" if count is None else f"{count}\n")
        except OSError as error:
            logger.debug("cannot write the span count: %s", error)


_lock = threading.Lock()
_session: Session | None = None


def init(
    gateway: str | None = None,
    api_key: str | None = None,
    *,
    tracer_provider: "TracerProvider | None" = None,
    retry_timeout_s: float = 60.0,
    start_timeout_s: float = START_TIMEOUT_S,
    exit_timeout_s: float = EXIT_TIMEOUT_S,
) -> Session:
    """Connect this process to a gateway. Calling it again with the same gateway and key, or with none, changes nothing.

    `gateway` and `api_key` default to `LEYDEN_GATEWAY_URL` and `LEYDEN_API_KEY`. Spans come from `tracer_provider`,
    else from the global provider if it is the SDK's, else from one of our own, which becomes the global one.
    `retry_timeout_s` is how long requests in the background are retried, `start_timeout_s` how long an agent's own
    rollout waits for the gateway before it runs unrecorded, `exit_timeout_s` how long the process waits at exit for
    unsent spans and ends. Makes no request. Raises `ConfigurationError`.
    """
    global _session
    if _session and gateway is None and api_key is None:
        return _session
    url = (gateway or os.environ.get("LEYDEN_GATEWAY_URL", "")).rstrip("/")
    key = api_key or os.environ.get("LEYDEN_API_KEY") or None
    if not url.startswith(("http://", "https://")):
        raise ConfigurationError(
            f"no gateway ({url!r}): call leyden.init(gateway='http://host:port') or set LEYDEN_GATEWAY_URL"
        )
    from leyden.client.gateway import GatewayClient

    with _lock:
        if _session and (_session.gateway.url, _session.gateway.api_key) == (url, key):
            return _session
        if _session:
            _session.close()
        gateway_ = GatewayClient(url, key, retry_timeout_s)
        _session = _build(gateway_, tracer_provider or _global_provider(), start_timeout_s, exit_timeout_s)
        return _session


def current_session() -> Session:
    """The session; calls `init` if there is none. Raises `ConfigurationError`."""
    return _session or init()


def connected(url: str, key: str) -> Session:
    """The session if it has this gateway, whatever its key; else a new one with this key."""
    return _session if _session and _session.gateway.url == url else init(url, key)


def flush(timeout_s: float = 30.0) -> bool:
    """Send every ended span and rollout end now. Returns whether the gateway acknowledged all in time."""
    return _session.flush(timeout_s) if _session else True


def tracer() -> trace.Tracer:
    """The session's tracer; without a session one that does nothing."""
    return _session.tracer if _session else trace.NoOpTracer()


def close() -> None:
    """Undo `init`: send what is left and stop. Registered as an exit hook."""
    global _session
    with _lock:
        session, _session = _session, None
    if session:
        session.close()


def stats() -> SpanStats:
    """Counts of this process's spans; all zero without a session."""
    return _session.spans.stats() if _session else SpanStats(0, 0, 0, 0)


def _build(
    gateway: "GatewayClient", provider: "TracerProvider", start_timeout_s: float, exit_timeout_s: float
) -> Session:
    from leyden.client.span_processor import RolloutSpanProcessor

    claim = inherited()
    inherited_trace = claim.trace_id if claim else None
    spans = RolloutSpanProcessor(send=gateway.export, inherited_trace=inherited_trace)
    if claim:
        spans.track(claim.trace_id)
        if not trace.get_current_span().get_span_context().is_valid:
            attach(context_of(claim.traceparent))  # never detached: all that this thread does is part of the rollout
    provider.add_span_processor(spans)
    tracer = provider.get_tracer("leyden.client", schema_url=SCHEMA_URL)
    return Session(
        gateway=gateway,
        spans=spans,
        heartbeats=LeaseHeartbeats(gateway),
        ends=EndQueue(),
        tracer=tracer,
        inherited_trace=inherited_trace,
        start_timeout_s=start_timeout_s,
        exit_timeout_s=exit_timeout_s,
    )


def _global_provider() -> "TracerProvider":
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        provider = TracerProvider(resource=Resource.create(), shutdown_on_exit=False)
        trace.set_tracer_provider(provider)
    return provider


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()
    if _session is None:
        return
    _session.after_fork()
    if multiprocessing := sys.modules.get("multiprocessing.util"):
        # A child of multiprocessing runs no atexit hooks, and forgets its parent's finalizers once it has begun.
        multiprocessing.register_after_fork(
            _session, lambda _: multiprocessing.Finalize(None, close, exitpriority=0)
        )  # fmt: skip


atexit.register(close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
