"""How large a span may be: what is larger is cut, with a mark, and never stops a partition."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import orjson
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

from leyden.events import Json, JsonObject
from leyden.ingest.core.raw import plain_value

CUT = "otel.cut"
"""Attribute: name → how many characters the value had, of which only the beginning is kept."""
DROPPED = "otel.dropped"
"""Attribute: how many attributes were left out because the span was full."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one span may hold."""

    value_chars: int = 1_048_576
    """Of one attribute; the JSON text of one that is no text counts."""
    span_chars: int = 4_194_304
    """Of all attributes of the span and of its events together, names included."""


@dataclass(slots=True)
class Bounded:
    """Attributes within limits, for one span: it remembers what was cut."""

    limits: Limits
    left: int = field(init=False)
    cut: dict[str, int] = field(default_factory=dict)
    dropped: int = 0

    def __post_init__(self) -> None:
        self.left = self.limits.span_chars

    def __call__(self, attributes: Iterable[KeyValue]) -> JsonObject:
        """As `plain_attributes`, until the span is full; a value that is too long keeps its beginning."""
        found: JsonObject = {}
        for item in attributes:
            self.left -= len(item.key)
            if self.left <= 0:
                self.dropped += 1
                continue
            found[item.key] = self.fit(item.key, plain_value(item.value))
        return found

    def marks(self) -> JsonObject:
        """What the span says of what is missing."""
        marks: JsonObject = {}
        if self.cut:
            marks[CUT] = dict(self.cut)
        if self.dropped:
            marks[DROPPED] = self.dropped
        return marks

    def fit(self, name: str, value: Json) -> Json:
        """`value`, or the beginning of its text where it is too long."""
        said = value if isinstance(value, str) else None
        if said is None and isinstance(value, list | dict):
            said = orjson.dumps(value).decode()
        if said is None:
            return value
        room = min(self.limits.value_chars, self.left)
        self.left -= min(len(said), room)
        if len(said) <= room:
            return value
        self.cut[name[:200]] = len(said)
        return said[:room]
