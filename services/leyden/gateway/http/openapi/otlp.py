"""OTLP/HTTP: spans, logs and metrics in. What an empty body of each is, OTLP's own schemas say."""

from leyden.events.otlp import JSON, PROTOBUF, Signal
from leyden.gateway.http.openapi.operation import JsonDict, Operation

EITHER: JsonDict = {
    PROTOBUF: {"schema": {"type": "string", "format": "binary"}},
    JSON: {"schema": {"type": "object"}},
}
ERRORS = (400, 401, 403, 404, 413, 415, 503)
OPERATIONS = [
    Operation(
        "post", f"/v1/{signal}", f"OTLP {signal}, as it comes into the log.", "OTLP", {200: EITHER}, ERRORS, EITHER,
        body=EITHER, bound=True, body_required=False,
    )
    for signal in Signal
]  # fmt: skip
