"""What a dialect is: it says whether a span is in it, and what the span then means. No dialect is here.

What a dialect says is in plain values, in the form in which events are written: building an event of each span would
cost more than all the rest of ingest. `fields` has one function for each record of `leyden.events`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from leyden.events import JsonObject, SpanKind
from leyden.ingest.core.raw import RawSpan


@dataclass(slots=True)
class Meaning:
    """What a dialect understood of a span. Whatever is not in `understood` stays among the span's attributes."""

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
    """Where the dialect names the error elsewhere than the conventions do."""
    error_message: str | None = None
    understood: set[str] = field(default_factory=set)
    """Names of the attributes that the fields above carry in full."""
    repeated: set[str] = field(default_factory=set)
    """Names of attributes that say a second time what the fields above say: left out, with a mark of their size."""
    events: frozenset[str] = frozenset()
    """Names of the span's events that the fields above carry in full."""


class Dialect(Protocol):
    """One instrumentation's way to say what happened. Recognise by meaning, not by a product's name."""

    @property
    def name(self) -> str:
        """Written to `SpanRecorded.dialect`."""
        ...

    def recognises(self, span: RawSpan) -> bool:
        """Whether the span is in this dialect; must be cheap, and must not raise."""
        ...

    def meaning(self, span: RawSpan) -> Meaning:
        """What a recognised span says. What cannot be read is left among the attributes; a value is never made up."""
        ...

    def evaluations(self, span: RawSpan) -> Sequence[tuple[int, JsonObject]]:
        """Scores that the span carries as events: (index of the event, score)."""
        ...
