"""Size limits of a span. Larger values are truncated and marked, so that no span can stop a partition."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import orjson
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

from leyden.events import Json, JsonObject
from leyden.ingest.core.raw import plain_value

CUT = "otel.cut"
"""Attribute that maps the name of each truncated attribute to its original length in characters."""
DROPPED = "otel.dropped"
"""Attribute with the number of attributes dropped because the span had reached its limit."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one span, in characters."""

    value_chars: int = 1_048_576
    """One attribute's value; for a value that is not a string, its JSON text."""
    span_chars: int = 4_194_304
    """All attributes of the span and its events together, names included."""


@dataclass(slots=True)
class Bounded:
    """Converts the attributes of one span within its limits, and records what was truncated."""

    limits: Limits
    left: int = field(init=False)
    cut: dict[str, int] = field(default_factory=dict)
    dropped: int = 0

    def __post_init__(self) -> None:
        self.left = self.limits.span_chars

    def __call__(self, attributes: Iterable[KeyValue]) -> JsonObject:
        """Like `plain_attributes`, but truncates long values and drops attributes beyond the span's limit."""
        found: JsonObject = {}
        for item in attributes:
            self.left -= len(item.key)
            if self.left <= 0:
                self.dropped += 1
                continue
            found[item.key] = self.fit(item.key, plain_value(item.value))
        return found

    def marks(self) -> JsonObject:
        """Attributes that record what was truncated and dropped; empty if nothing was."""
        marks: JsonObject = {}
        if self.cut:
            marks[CUT] = dict(self.cut)
        if self.dropped:
            marks[DROPPED] = self.dropped
        return marks

    def fit(self, name: str, value: Json) -> Json:
        """`value`, or the first characters of its text if it is too long."""
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
