"""JSON helpers for rules: parsing, comparing, validating. Schemas are never fetched."""

import json
from functools import lru_cache

import orjson

from leyden.events import Json, JsonObject
from leyden.reward.core.schema_check import Checker


def parsed(text: str) -> tuple[bool, Json]:
    """(whether `text` is JSON, its value)."""
    try:
        return True, orjson.loads(text)
    except orjson.JSONDecodeError:
        return False, None


def fits(value: Json, schema: JsonObject) -> bool | None:
    """Whether `value` matches the JSON Schema; None if the schema is unusable or too costly for this value."""
    if (checker := _checker(_dumped(schema))) is None:
        return None
    return checker.accepts(value)


def text_fits(text: str, schema: JsonObject) -> bool | None:
    """Whether `text` is JSON that matches the schema; None if the schema is unusable."""
    is_json, value = parsed(text)
    if is_json:
        return fits(value, schema)
    return None if _checker(_dumped(schema)) is None else False


def canonical(value: Json) -> str:
    """Canonical JSON: the same text for the same value, given as JSON text or parsed, in any key order."""
    if isinstance(value, str):
        is_json, inner = parsed(value)
        return _dumped(inner) if is_json else value.strip()
    return _dumped(value)


def _dumped(value: Json) -> str:
    """Uses `json`, because orjson rejects integers of more than 64 bits, which agents do send."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


@lru_cache(maxsize=512)
def _checker(schema: str) -> Checker | None:
    """A checker for the schema. Cached, because agents send the same few schemas with every call."""
    return Checker.of(json.loads(schema))
