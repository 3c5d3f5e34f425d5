"""What one process shares: the gateway, the outbox of spans, the heart and the tracer. `init` makes it, once."""

import atexit
import logging
import os
import threading
from dataclasses import dataclass

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider

from leyden.client.errors import ConfigurationError
from leyden.client.gateway import Gateway
from leyden.client.heart import Heart
from leyden.client.outbox import Outbox
from leyden.client.semconv import SCHEMA_URL

logger = logging.getLogger("leyden.client")

START_PATIENCE_S = 5.0
"""How long an agent that starts a rollout of its own accord waits for a gateway that is away."""
EXIT_PATIENCE_S = 5.0
"""How long the process's exit waits for the last spans."""


@dataclass(frozen=True)
class Session:
    """The parts, wired together."""

    gateway: Gateway
    outbox: Outbox
    heart: Heart
    tracer: trace.Tracer

    def flush(self, timeout_s: float) -> bool:
        """Send every ended span now; whether that was done in time."""
        return self.outbox.force_flush(int(timeout_s * 1000))

    def close(self, timeout_s: float = EXIT_PATIENCE_S) -> None:
        """Send what is left, for at most `timeout_s`, and stop."""
        self.heart.close()
        if not self.flush(timeout_s):
            logger.error("the process ends with spans that the gateway has not taken")
        self.outbox.shutdown()
        self.gateway.close()


_lock = threading.Lock()
_session: Session | None = None


def init(
    gateway: str | None = None,
    api_key: str | None = None,
    *,
    tracer_provider: TracerProvider | None = None,
    patience_s: float = 60.0,
) -> Session:
    """Connect this process to a gateway. Calling it again with the same gateway and key changes nothing.

    `gateway` and `api_key` default to `LEYDEN_GATEWAY_URL` and `LEYDEN_API_KEY`. Spans come from `tracer_provider`,
    else from the global provider if it is the SDK's, else from one of our own, which becomes the global one.
    `patience_s` is how long a call to the gateway is tried. Makes no request. Raises `ConfigurationError`.
    """
    global _session
    url = (gateway or os.environ.get("LEYDEN_GATEWAY_URL", "")).rstrip("/")
    key = api_key or os.environ.get("LEYDEN_API_KEY") or None
    if not url.startswith(("http://", "https://")):
        raise ConfigurationError(
            f"no gateway ({url!r}): pass leyden.init(gateway='http://host:port') or set LEYDEN_GATEWAY_URL"
        )
    with _lock:
        if _session and (_session.gateway.url, _session.gateway.api_key) == (url, key):
            return _session
        if _session:
            _session.close()
        _session = _build(Gateway(url, key, patience_s), tracer_provider or _global_provider())
        return _session


def current_session() -> Session:
    """The session; made from the environment when `init` was not called. Raises `ConfigurationError`."""
    return _session or init()


def flush(timeout_s: float = 30.0) -> bool:
    """Send every ended span now; whether the gateway took what there was in time. True when there is nothing to do."""
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


def _build(gateway: Gateway, provider: TracerProvider) -> Session:
    outbox = Outbox(gateway.export)
    provider.add_span_processor(outbox)
    return Session(gateway, outbox, Heart(gateway), provider.get_tracer("leyden.client", schema_url=SCHEMA_URL))


def _global_provider() -> TracerProvider:
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        provider = TracerProvider(resource=Resource.create(), shutdown_on_exit=False)
        trace.set_tracer_provider(provider)
    return provider


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()
    if _session:
        _session.gateway.after_fork()
        _session.outbox.after_fork()
        _session.heart.after_fork()


atexit.register(close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
