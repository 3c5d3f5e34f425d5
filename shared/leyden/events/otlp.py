"""The records of `otlp.v1`: an OTLP export request as it came, and in its headers all that the door knows of it.

value    an `ExportTraceServiceRequest` or `ExportLogsServiceRequest`, in the encoding that `content-type` names. The
         door looked no deeper than where each span or log record begins and ends: what is inside may be unreadable.
         A request larger than the door's record size comes as several records, each a request of its own.
key      the trace id of the attempt that the door knows, else of the first span or log record, else empty. The same
         request sent again has the same key, and so the same partition.
headers  `content-type`     `application/x-protobuf` or `application/json` (ids in hex, 64-bit numbers as strings).
         `leyden-signal`    `traces` or `logs`.
         `leyden-project`   the project of the key that opened the door; absent where it has none.
         `leyden-attempt`   the 32-hex trace id of an attempt, and `leyden-attempt-by`, how the door knows it:
                            `url` (a per-rollout base URL, or `x-leyden-rollout`): for what does not say itself;
                            `key` (a per-rollout key, which opens one attempt only): whatever it says itself.

A record without headers is a protobuf trace request: all were, before there were headers.
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
    """What an export request carries."""

    TRACES = "traces"
    LOGS = "logs"
    METRICS = "metrics"
    """Answered, and not kept: no record of `otlp.v1` carries it."""


class AttemptBy(StrEnum):
    """How the door knows the attempt."""

    URL = "url"
    KEY = "key"
