"""OTLP/JSON writes ids in hex, protobuf's own JSON mapping in base64: this converts them."""

import base64
import re
from typing import Any

IDS = ("traceId", "spanId", "parentSpanId")
HEX = re.compile(r"(?:[0-9a-fA-F]{2})*")


def with_bytes_for_hex(item: Any) -> Any:
    """Copy of a span or log record with its (and its links') ids in base64. Raises ValueError if one is not hex."""
    if not isinstance(item, dict):
        raise ValueError(f"{type(item).__name__} where an object should be")
    changed = {**item, **_ids(item)}
    if isinstance(links := item.get("links"), list):
        changed["links"] = [{**link, **_ids(link)} if isinstance(link, dict) else link for link in links]
    return changed


def _ids(holder: dict[str, Any]) -> dict[str, str]:
    return {name: _base64(name, holder[name]) for name in IDS if holder.get(name)}


def _base64(name: str, value: object) -> str:
    if not isinstance(value, str) or not HEX.fullmatch(value):
        raise ValueError(f"{name} {str(value)[:64]!r} is not hex")
    return base64.b64encode(bytes.fromhex(value)).decode()
