"""Posts one span and one log record with the official Python JSON exporters, to the endpoint in argv[1].

Needs opentelemetry-exporter-otlp-json-http, in an environment of its own.
"""

import sys
from typing import Any

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.json.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.json.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import RandomIdGenerator, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace import set_span_in_context as within

endpoint = sys.argv[1]
resource = Resource({"service.name": "golden"})
trace_id = int("1e7de" + "b" * 23 + "0001", 16)


class Ids(RandomIdGenerator):
    def generate_span_id(self) -> int:
        return 0x00F067AA0BA902B7


spans = TracerProvider(resource=resource, id_generator=Ids())
spans.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f"{endpoint}/v1/traces")))
parent = SpanContext(trace_id, 0x00F067AA0BA902B8, is_remote=True, trace_flags=TraceFlags(1))
attributes: dict[str, Any] = {
    "gen_ai.operation.name": "chat", "gen_ai.request.model": "policy", "gen_ai.usage.input_tokens": 12,
    "big": 9007199254740991, "share": 0.5, "yes": True, "list": ["a", "b"], "unicode": "Grüße, 世界",
}  # fmt: skip
start = 1_700_000_000_123_456_789
span = spans.get_tracer("golden", "1").start_span(
    "chat policy", within(NonRecordingSpan(parent)), SpanKind.CLIENT, attributes, start_time=start
)
span.add_event("gen_ai.choice", {"index": 0}, 1_700_000_000_200_000_000)
span.set_status(Status(StatusCode.ERROR, "it broke"))
span.end(1_700_000_001_987_654_321)

logs = LoggerProvider(resource=resource)
logs.add_log_record_processor(SimpleLogRecordProcessor(OTLPLogExporter(f"{endpoint}/v1/logs")))
evaluation: dict[str, Any] = {"gen_ai.evaluation.name": "quality", "gen_ai.evaluation.score.value": 0.75}
logs.get_logger("golden", "1").emit(
    LogRecord(
        timestamp=start,
        observed_timestamp=start,
        context=within(span),
        severity_number=SeverityNumber.INFO,
        body={"why": "good"},
        attributes=evaluation,
        event_name="gen_ai.evaluation.result",
    )
)
spans.shutdown()
logs.shutdown()
