"""What one process shares: the gateway, the outbox of spans, the heart and the tracer. `init` makes it, once.

In a process that was started inside of a rollout (`leyden run`, a runner's program) it all belongs to that rollout.
HTTP client, protobuf and OpenTelemetry's SDK are loaded by `init`: code that only names us stays quick to import. Not
later, in a thread of ours: a fork in the midst of that would leave a child whose imports wait for ever.
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

from leyden.client.environment import SPAN_COUNTS, inherited
from leyden.client.errors import ConfigurationError
from leyden.client.farewells import Farewells
from leyden.client.heart import Heart
from leyden.client.semconv import SCHEMA_URL
from leyden.client.span_stats import SpanStats
from leyden.client.spanning import context_of

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

    from leyden.client.gateway import Gateway
    from leyden.client.outbox import Outbox

logger = logging.getLogger("leyden.client")

START_PATIENCE_S = 1.0
"""How long an agent that starts a rollout of its own accord waits for a gateway that is away."""
EXIT_PATIENCE_S = 5.0
"""How long the process's exit waits for the last spans."""


@dataclass(frozen=True)
class Session:
    """The parts, wired together."""

    gateway: "Gateway"
    outbox: "Outbox"
    heart: Heart
    farewells: Farewells
    tracer: trace.Tracer
    home: str | None = None
    """Trace id of the attempt that this process was started in."""
    start_patience_s: float = START_PATIENCE_S
    exit_patience_s: float = EXIT_PATIENCE_S

    def flush(self, timeout_s: float) -> bool:
        """Tell every end and send every ended span now; whether that was done in time."""
        deadline = time.monotonic() + timeout_s
        untold = self.farewells.drain(timeout_s)
        return self.outbox.force_flush(int(max(0.0, deadline - time.monotonic()) * 1000)) and not untold

    def close(self) -> None:
        """Send what is left, for at most `exit_patience_s`, and stop."""
        if not self.flush(self.exit_patience_s):
            untold, spans = self.farewells.pending(), self.outbox.stats()
            logger.error("the process ends with the ends of %d rollouts untold, and these spans: %s", untold, spans)
        self._note_spans()
        self.farewells.close()
        self.heart.close()
        self.outbox.shutdown()
        self.gateway.close()

    def after_fork(self) -> None:
        """In a forked child: threads, connections and whatever waits are the parent's."""
        self.gateway.after_fork()
        self.outbox.after_fork()
        self.heart.after_fork()
        self.farewells.after_fork()
        if self.home:
            self.outbox.open(self.home)

    def _note_spans(self) -> None:
        """Tell who started this process how many spans to wait for; short appends of several processes do not mix."""
        path = os.environ.get(SPAN_COUNTS)
        if self.home is None or path is None:
            return
        count = self.outbox.count(self.home)
        try:
            with Path(path).open("a") as file:
                file.write("unknown\n" if count is None else f"{count}\n")
        except OSError as error:
            logger.debug("nobody counts the spans any more: %s", error)


_lock = threading.Lock()
_session: Session | None = None


def init(
    gateway: str | None = None,
    api_key: str | None = None,
    *,
    tracer_provider: "TracerProvider | None" = None,
    patience_s: float = 60.0,
    start_patience_s: float = START_PATIENCE_S,
    exit_patience_s: float = EXIT_PATIENCE_S,
) -> Session:
    """Connect this process to a gateway. Calling it again with the same gateway and key, or without, changes nothing.

    `gateway` and `api_key` default to `LEYDEN_GATEWAY_URL` and `LEYDEN_API_KEY`. Spans come from `tracer_provider`,
    else from the global provider if it is the SDK's, else from one of our own, which becomes the global one.
    `patience_s` is how long a call to the gateway is tried behind the agent's back; `start_patience_s` what an agent's
    own rollout waits for to begin, `exit_patience_s` what the process's exit waits for what is left. Makes no request.
    Raises `ConfigurationError`.
    """
    global _session
    if _session and gateway is None and api_key is None:
        return _session
    url = (gateway or os.environ.get("LEYDEN_GATEWAY_URL", "")).rstrip("/")
    key = api_key or os.environ.get("LEYDEN_API_KEY") or None
    if not url.startswith(("http://", "https://")):
        raise ConfigurationError(
            f"no gateway ({url!r}): pass leyden.init(gateway='http://host:port') or set LEYDEN_GATEWAY_URL"
        )
    from leyden.client.gateway import Gateway

    with _lock:
        if _session and (_session.gateway.url, _session.gateway.api_key) == (url, key):
            return _session
        if _session:
            _session.close()
        gateway_ = Gateway(url, key, patience_s)
        _session = _build(gateway_, tracer_provider or _global_provider(), start_patience_s, exit_patience_s)
        return _session


def current_session() -> Session:
    """The session; made from the environment when `init` was not called. Raises `ConfigurationError`."""
    return _session or init()


def connected(url: str, key: str) -> Session:
    """The session with this gateway, whatever its key; else a new one, with this key."""
    return _session if _session and _session.gateway.url == url else init(url, key)


def flush(timeout_s: float = 30.0) -> bool:
    """Send every ended span, and the ends of rollouts, now; whether the gateway took all in time."""
    return _session.flush(timeout_s) if _session else True


def tracer() -> trace.Tracer:
    """Our tracer, or one that does nothing in a process that is not connected."""
    return _session.tracer if _session else trace.NoOpTracer()


def close() -> None:
    """Undo `init`: send what is left and stop. Called at exit."""
    global _session
    with _lock:
        session, _session = _session, None
    if session:
        session.close()


def stats() -> SpanStats:
    """What became of this process's spans: queued, sent, dropped, failed. All 0 when it is not connected."""
    return _session.outbox.stats() if _session else SpanStats(0, 0, 0, 0)


def _build(gateway: "Gateway", provider: "TracerProvider", start_patience_s: float, exit_patience_s: float) -> Session:
    from leyden.client.outbox import Outbox

    claim = inherited()
    home = claim.trace_id if claim else None
    outbox = Outbox(gateway.export, home=home)
    if claim:
        outbox.open(claim.trace_id)
        if not trace.get_current_span().get_span_context().is_valid:
            attach(context_of(claim.traceparent))  # for good: all that this thread does is part of the rollout
    provider.add_span_processor(outbox)
    tracer = provider.get_tracer("leyden.client", schema_url=SCHEMA_URL)
    return Session(
        gateway, outbox, Heart(gateway), Farewells(), tracer, home, start_patience_s, exit_patience_s
    )  # fmt: skip


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
