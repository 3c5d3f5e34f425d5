"""OpenTelemetry contexts of a rollout: small helpers around `traceparent`. No state."""

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_PROPAGATOR = TraceContextTextMapPropagator()


def context_of(traceparent: str) -> Context:
    """A context whose current span is the remote one that `traceparent` names."""
    return _PROPAGATOR.extract({"traceparent": traceparent}, Context())


def traceparent_of(span: trace.Span) -> str:
    """The header that names `span`; empty for none."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier, trace.set_span_in_context(span, Context()))
    return carrier.get("traceparent", "")
