"""OTLP requests → decoded → normalised → published. No meaning is decided here."""

import logging
from collections.abc import Sequence

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from leyden.events import SpanRecorded
from leyden.events.codec import OTLP, SPANS
from leyden.ingest import metrics
from leyden.ingest.core.dialect import Dialect
from leyden.ingest.core.normalise import Refused, normalise_request
from leyden.kafka.delivered import ERROR_HEADER, ORIGIN_HEADER, Delivered, Outgoing, Poison, Publisher
from leyden.kafka.topics import DEAD_LETTER_SUFFIX

log = logging.getLogger(__name__)


class IngestHandlers:
    """Stateless: called again with the same requests, it publishes the same events."""

    def __init__(self, publisher: Publisher, dialects: Sequence[Dialect]) -> None:
        self._publisher = publisher
        self._dialects = dialects

    async def on_otlp(self, batch: Sequence[Delivered[bytes]]) -> None:
        """Publish every span of `batch` once; raises `Poison`, before publishing, when a request is not OTLP."""
        requests = [_parsed(one) for one in batch]
        found: dict[str, Outgoing] = {}
        refused: list[tuple[Delivered[bytes], Refused]] = []
        for delivered, request in zip(batch, requests, strict=True):
            for span in normalise_request(request, self._dialects):
                if isinstance(span, Refused):
                    refused.append((delivered, span))
                elif span.event_id in found:
                    metrics.DUPLICATE_SPANS.inc()
                else:
                    found[span.event_id] = _outgoing(span, delivered.traceparent)
        for delivered, bad in refused:
            await self._dead_letter(delivered, bad)
        await self._publisher.publish_all(list(found.values()))

    async def _dead_letter(self, delivered: Delivered[bytes], bad: Refused) -> None:
        """One span alone, as a request of its own that can be driven again."""
        metrics.BAD_SPANS.inc()
        log.error("a span of %s goes to the dead letters: %s", delivered.origin, bad.reason)
        headers = {ORIGIN_HEADER: delivered.origin, ERROR_HEADER: f"bad span: {bad.reason}"[:2000]}
        await self._publisher.publish_raw(OTLP + DEAD_LETTER_SUFFIX, delivered.key, bad.request, headers)


def _parsed(delivered: Delivered[bytes]) -> ExportTraceServiceRequest:
    try:
        return ExportTraceServiceRequest.FromString(delivered.event)
    except DecodeError as error:
        raise Poison(f"not an OTLP trace request: {error}") from error


def _outgoing(span: SpanRecorded, traceparent: str | None) -> Outgoing:
    metrics.SPANS.labels(kind=span.kind, dialect=span.dialect).inc()
    if span.rollout_id is None:
        metrics.UNBOUND_SPANS.inc()
    return Outgoing(SPANS, span.rollout_id or span.trace_id, span, traceparent)
