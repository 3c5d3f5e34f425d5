"""Composition root of ingest."""

from leyden.ingest.dialects import DIALECTS
from leyden.ingest.handlers import IngestHandlers
from leyden.ingest.settings import IngestSettings
from leyden.ingest.topology import subscriptions
from leyden.service import Runtime, Service


def build(runtime: Runtime) -> Service:
    """The service, ready to run; ingest keeps no state, so there is nothing else to build."""
    handlers = IngestHandlers(runtime.publisher, DIALECTS)
    return Service(subscriptions=subscriptions(handlers, IngestSettings()))
