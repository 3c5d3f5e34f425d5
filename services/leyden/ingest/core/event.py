"""`SpanRecorded` as bytes, without an object for each span: the same bytes that the model would give.

tests/unit/ingest/test_dialects.py and tests/golden hold them against `leyden.events`, on random and on recorded spans.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import blake2b

import orjson

from leyden.events import JsonObject, SpanKind, SpanRecorded
from leyden.ids import AttemptRef, derive
from leyden.ingest.core.binding import Door
from leyden.ingest.core.dialect import Meaning
from leyden.ingest.core.raw import RawSpan

PRODUCER = "ingest"
_ID_HEAD = (4).to_bytes(4, "little") + b"span" + (32).to_bytes(4, "little")
_ID_MIDDLE = (16).to_bytes(4, "little")


@dataclass(slots=True)
class Normalised:
    """One span event, ready to be published, and what is counted of it."""

    event_id: str
    key: str
    """The rollout's id, else the trace id."""
    kind: SpanKind
    dialect: str
    bound: bool
    value: bytes
    odd: Sequence[str] = ()
    """What was wrong with the span and is mended or marked in the event."""
    ended_unix_nano: int = 0
    span_id: str = ""
    parent_span_id: str | None = None

    def event(self) -> SpanRecorded:
        """The event that the bytes are."""
        return SpanRecorded.model_validate_json(self.value)


def event_id_of(trace_id: str, span_id: str, project: str | None) -> str:
    """The same for the same span, however often it comes; of two projects' spans with one id each has its own."""
    if project is not None:
        return derive("span", project, trace_id, span_id)
    parts = _ID_HEAD + trace_id.encode() + _ID_MIDDLE + span_id.encode()
    return blake2b(parts, digest_size=16).hexdigest()


def time_of(unix_nano: int) -> str:
    """The time to the microsecond, as the model writes it."""
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
    attempt: AttemptRef | None,
    dialect: str,
    door: Door,
    *,
    derived: bool = False,
    odd: Sequence[str] = (),
) -> Normalised:
    """The event of `span`, whose times are in order."""
    event_id = event_id_of(span.trace_id, span.span_id, door.project)
    value = orjson.dumps({
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
        "project": door.project,
    })  # fmt: skip
    key = attempt.rollout_id if attempt else span.trace_id
    bound = attempt is not None
    ids = (span.span_id, span.parent_span_id)
    return Normalised(event_id, key, meaning.kind, dialect, bound, value, odd, span.end_unix_nano, *ids)
