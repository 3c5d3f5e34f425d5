"""Composition root of ingest."""

from leyden.clock import SystemClock
from leyden.ingest.core.limits import Limits
from leyden.ingest.dialects import known_dialects
from leyden.ingest.handlers import IngestHandlers
from leyden.ingest.settings import IngestSettings
from leyden.ingest.topology import PUBLISHES, subscriptions
from leyden.service import Runtime, Service


def build(runtime: Runtime) -> Service:
    """Build the service. ingest has no state, so handlers and a publisher are all it needs."""
    settings = IngestSettings()
    limits = Limits(settings.max_value_chars, settings.max_span_chars)
    handlers = IngestHandlers(runtime.publisher, known_dialects(), SystemClock(), limits)
    return Service(subscriptions=subscriptions(handlers, settings), publishes=PUBLISHES)
