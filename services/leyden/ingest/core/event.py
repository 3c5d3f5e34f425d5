"""Encodes `SpanRecorded` events directly as JSON bytes, identical to those of the pydantic model.

tests/unit/ingest/test_dialects.py and tests/golden compare both encodings on random and on recorded spans.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import blake2b

import orjson

from leyden.events import JsonObject, SpanKind, SpanRecorded
from leyden.ids import AttemptRef, derive
from leyden.ingest.core.binding import Admission
from leyden.ingest.core.dialect import Meaning
from leyden.ingest.core.raw import RawSpan

PRODUCER = "ingest"
_ID_HEAD = (4).to_bytes(4, "little") + b"span" + (32).to_bytes(4, "little")
_ID_MIDDLE = (16).to_bytes(4, "little")


@dataclass(slots=True)
class Normalised:
    """An encoded span event, with what metrics need to know about it."""

    event_id: str
    key: str
    """Kafka key: the rollout id, or the trace id of a span without a rollout."""
    kind: SpanKind
    dialect: str
    bound: bool
    value: bytes
    odd: Sequence[str] = ()
    """Anomalies that were corrected or marked in the event."""
    ended_unix_nano: int = 0
    span_id: str = ""
    parent_span_id: str | None = None
    finished_id: str | None = None
    """For an unfinished span: the event id of the finished one, which replaces it."""

    def event(self) -> SpanRecorded:
        """The event, decoded."""
        return SpanRecorded.model_validate_json(self.value)


def unfinished_id_of(finished_id: str) -> str:
    """Event id of a span that was exported before its end; that of the finished span is `finished_id`."""
    return derive("unfinished-span", finished_id)


def event_id_of(trace_id: str, span_id: str, project: str | None) -> str:
    """Deterministic event id. Spans of two projects with equal ids get different event ids."""
    if project is not None:
        return derive("span", project, trace_id, span_id)
    parts = _ID_HEAD + trace_id.encode() + _ID_MIDDLE + span_id.encode()
    return blake2b(parts, digest_size=16).hexdigest()


def time_of(unix_nano: int) -> str:
    """RFC 3339 time in microseconds, as pydantic writes it."""
    seconds, nanos = divmod(unix_nano, 1_000_000_000)
    micros = nanos // 1000
    return f"{_second(seconds)}.{micros:06d}Z" if micros else f"{_second(seconds)}Z"


@lru_cache(maxsize=4096)
def _second(unix_seconds: int) -> str:
    return datetime.fromtimestamp(unix_seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def written(
    span: RawSpan,
    meaning: Meaning,
    attributes: JsonObject,
    *,
    attempt: AttemptRef | None,
    dialect: str,
    admission: Admission,
    derived: bool = False,
    odd: Sequence[str] = (),
) -> Normalised:
    """Encode the event of `span`. Its end must not be before its start."""
    event_id = event_id_of(span.trace_id, span.span_id, admission.project)
    finished_id = None
    if span.unfinished and not derived:
        finished_id, event_id, odd = event_id, unfinished_id_of(event_id), (*odd, "unfinished")
    value = orjson.dumps({
        **_head(span, event_id, attempt, derived),
        **_fields(span, meaning, attributes, dialect),
        "project": admission.project,
        "unfinished": finished_id is not None,
    })  # fmt: skip
    key = attempt.rollout_id if attempt else span.trace_id
    bound = attempt is not None
    ids = (span.span_id, span.parent_span_id, finished_id)
    return Normalised(event_id, key, meaning.kind, dialect, bound, value, odd, span.end_unix_nano, *ids)


def _head(span: RawSpan, event_id: str, attempt: AttemptRef | None, derived: bool) -> dict[str, object]:
    """The first fields of the event, in the model's order: what it is about."""
    return {
        "type": "span-recorded",
        "event_id": event_id,
        "event_time": time_of(span.end_unix_nano),
        "schema_version": 1,
        "producer": PRODUCER,
        "trace_id": span.trace_id,
        "span_id": span.span_id,
        "parent_span_id": span.parent_span_id,
        "rollout_id": attempt.rollout_id if attempt else None,
        "attempt": attempt.attempt if attempt else 0,
        "derived": derived,
    }


def _fields(span: RawSpan, meaning: Meaning, attributes: JsonObject, dialect: str) -> dict[str, object]:
    """The fields that a dialect reads, in the model's order."""
    return {
        "kind": meaning.kind.value,
        "dialect": dialect,
        "name": span.name,
        "status": span.status,
        "error_type": meaning.error_type,
        "error_message": meaning.error_message,
        "start_unix_nano": span.start_unix_nano,
        "end_unix_nano": span.end_unix_nano,
        "agent_name": meaning.agent_name,
        "model": meaning.model,
        "tool": meaning.tool,
        "evaluation": meaning.evaluation,
        "attributes": attributes,
        "agent_id": meaning.agent_id,
        "agent_description": meaning.agent_description,
        "conversation_id": meaning.conversation_id,
        "llm": meaning.llm,
        "retrieval": meaning.retrieval,
        "outcome": meaning.outcome,
    }
