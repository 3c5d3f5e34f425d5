"""The interface of a dialect: how one instrumentation's spans are recognised and interpreted.

A dialect returns plain JSON values in the events' own form: building a pydantic model for each span would cost more
than the rest of ingest together. `fields` has one function for each record of `leyden.events`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from leyden.events import JsonObject, SpanKind
from leyden.ingest.core.raw import RawSpan


@dataclass(slots=True)
class Meaning:
    """A dialect's interpretation of a span. Attributes not named in `understood` are kept as attributes."""

    kind: SpanKind
    agent_name: str | None = None
    agent_id: str | None = None
    agent_description: str | None = None
    conversation_id: str | None = None
    model: str | None = None
    llm: JsonObject | None = None
    tool: JsonObject | None = None
    retrieval: JsonObject | None = None
    evaluation: JsonObject | None = None
    outcome: JsonObject | None = None
    error_type: str | None = None
    """Set if the dialect has the error type elsewhere than in `error.type` or the exception event."""
    error_message: str | None = None
    understood: set[str] = field(default_factory=set)
    """Attributes whose content is fully in the fields above."""
    repeated: set[str] = field(default_factory=set)
    """Attributes that repeat the fields above: dropped, with their size recorded."""
    events: frozenset[str] = frozenset()
    """Span events whose content is fully in the fields above."""


class Dialect(Protocol):
    """One instrumentation's conventions for spans. Recognise spans by their attributes, not by a product's name."""

    @property
    def name(self) -> str:
        """Written to `SpanRecorded.dialect`."""
        ...

    def recognises(self, span: RawSpan) -> bool:
        """Whether this dialect can interpret the span. Must be cheap and must not raise."""
        ...

    def meaning(self, span: RawSpan) -> Meaning:
        """Interpret a recognised span. Values that cannot be parsed stay among the attributes; never invent one."""
        ...

    def evaluations(self, span: RawSpan) -> Sequence[tuple[int, JsonObject]]:
        """Scores among the span's events, as (index of the event, score)."""
        ...
