"""Format of the records of `otlp.v1`: an OTLP export request as received by the gateway.

value    an `ExportTraceServiceRequest` or `ExportLogsServiceRequest`, encoded as `content-type` says. The gateway
         checks only where each span or log record begins and ends, so their content may be invalid. A request larger
         than the gateway's record size is split into several records, each a valid request.
key      the trace id of the attempt if the gateway knows it, else of the first span or log record, else empty. A
         request that is sent again has the same key, and so goes to the same partition.
headers  `content-type`        `application/x-protobuf` or `application/json` (ids in hex, 64-bit numbers as strings).
         `leyden-signal`       `traces` or `logs`.
         `leyden-project`      project of the API key; absent if it has none.
         `leyden-attempt`      32-hex trace id of the attempt; absent if the gateway does not know it.
         `leyden-attempt-by`   how the gateway knows it. `url` (per-rollout base URL, or `x-leyden-rollout`): a default
                               for spans that name no attempt. `key` (per-rollout key): overrides what spans say.

A record without headers, written by early versions, is a protobuf trace request.
"""

from enum import StrEnum

CONTENT_TYPE_HEADER = "content-type"
SIGNAL_HEADER = "leyden-signal"
PROJECT_HEADER = "leyden-project"
ATTEMPT_HEADER = "leyden-attempt"
ATTEMPT_BY_HEADER = "leyden-attempt-by"

PROTOBUF = "application/x-protobuf"
JSON = "application/json"


class Signal(StrEnum):
    """The type of an export request."""

    TRACES = "traces"
    LOGS = "logs"
    METRICS = "metrics"
    """Accepted by the gateway and dropped; never in `otlp.v1`."""


class AttemptBy(StrEnum):
    """How the gateway knows the attempt."""

    URL = "url"
    KEY = "key"
