"""What ingest consumes."""

from leyden.events.codec import OTLP, SPANS
from leyden.ingest.handlers import IngestHandlers
from leyden.ingest.settings import IngestSettings
from leyden.kafka.subscriber import Subscription

PUBLISHES = frozenset({SPANS})


def subscriptions(handlers: IngestHandlers, settings: IngestSettings) -> list[Subscription]:
    """One consumer group on the raw OTLP requests."""
    return [Subscription((OTLP,), handlers.on_otlp, group="ingest", max_records=settings.max_records)]
