"""What an exporter is answered, in its own encoding: OTLP's success, its partial success, and `google.rpc.Status`."""

import orjson
from google.rpc.code_pb2 import Code  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsPartialSuccess,
    ExportMetricsServiceResponse,
)

from leyden.events.otlp import JSON, Signal
from leyden.gateway.core.refusals import Refusal

NO_METRICS = "metrics are not kept here; OTEL_METRICS_EXPORTER=none stops sending them"
"""A warning and no failure: who sets one endpoint for all signals must not see an exporter retry or fail."""
_WARNING = ExportMetricsServiceResponse(partial_success=ExportMetricsPartialSuccess(error_message=NO_METRICS))
_METRICS = {False: _WARNING.SerializeToString(), True: orjson.dumps({"partialSuccess": {"errorMessage": NO_METRICS}})}
INTERNAL: int = Code.INTERNAL
_CODES: dict[int, int] = {
    400: Code.INVALID_ARGUMENT,
    401: Code.UNAUTHENTICATED,
    403: Code.PERMISSION_DENIED,
    404: Code.NOT_FOUND,
    405: Code.UNIMPLEMENTED,
    413: Code.RESOURCE_EXHAUSTED,
    415: Code.UNIMPLEMENTED,
    429: Code.UNAVAILABLE,
    503: Code.UNAVAILABLE,
}


def success(signal: Signal, content_type: str) -> bytes:
    """The answer to a request that was taken: nothing is ever rejected in part, so it is empty, save for metrics."""
    in_json = content_type == JSON
    if signal is Signal.METRICS:
        return _METRICS[in_json]
    return b"{}" if in_json else b""


def status_code(refusal: Refusal) -> int:
    """The `google.rpc.Code` of a refusal; for gRPC it says, too, whether the request may be sent again."""
    return _CODES.get(refusal.status, INTERNAL)


def failure(refusal: Refusal, content_type: str) -> bytes:
    """A `google.rpc.Status`."""
    if content_type == JSON:
        return orjson.dumps({"code": status_code(refusal), "message": refusal.message})
    status: bytes = Status(code=status_code(refusal), message=refusal.message).SerializeToString()
    return status
