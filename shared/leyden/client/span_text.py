"""Repairs the texts of spans that cannot be encoded: half an emoji costs one character, not the batch."""

from collections.abc import Mapping
from typing import Any

from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.trace import Status


def encodable(span: ReadableSpan) -> ReadableSpan:
    """`span` itself, or a copy whose texts have U+FFFD for each half of a surrogate pair."""
    texts = [span.name, span.status.description or "", *_texts(span.attributes)]
    texts += [text for event in span.events for text in (event.name, *_texts(event.attributes))]
    if all(map(_is_encodable, texts)):
        return span
    description = span.status.description
    return ReadableSpan(
        name=_repaired(span.name),
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=_repaired(dict(span.attributes or {})),
        events=[Event(_repaired(e.name), _repaired(dict(e.attributes or {})), e.timestamp) for e in span.events],
        links=span.links,
        kind=span.kind,
        status=Status(span.status.status_code, description and _repaired(description)),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _texts(attributes: Mapping[str, Any] | None) -> list[str]:
    found: list[str] = []
    for name, value in (attributes or {}).items():
        values = value if isinstance(value, tuple | list) else (value,)
        found += [name, *(item for item in values if isinstance(item, str))]
    return found


def _is_encodable(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _repaired(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_repaired(name): _repaired(item) for name, item in value.items()}
    return [_repaired(item) for item in value] if isinstance(value, tuple | list) else value
