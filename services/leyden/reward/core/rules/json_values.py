"""JSON as rules need it: parsed, told apart, and held against schemas. A schema from an agent is never fetched."""

import json
from functools import lru_cache
from typing import Any

import orjson
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from referencing import Registry
from referencing.exceptions import Unresolvable

from leyden.events import Json, JsonObject

NO_REMOTE: Registry[Any] = Registry()
"""Knows no document and fetches none: a schema that an agent sends must not make the service call anybody."""


def parsed(text: str) -> tuple[bool, Json]:
    """Whether `text` is JSON, and its value."""
    try:
        return True, orjson.loads(text)
    except orjson.JSONDecodeError:
        return False, None


def fits(value: Json, schema: JsonObject) -> bool | None:
    """Whether `value` fits the JSON Schema; None when the schema cannot be used."""
    if (validator := _validator(_dumped(schema))) is None:
        return None
    try:
        validator.validate(value)
    except ValidationError:
        return False
    except Unresolvable:
        return None
    return True


def text_fits(text: str, schema: JsonObject) -> bool | None:
    """Whether `text` is JSON that fits the schema; None when the schema cannot be used."""
    is_json, value = parsed(text)
    if is_json:
        return fits(value, schema)
    return None if _validator(_dumped(schema)) is None else False


def canonical(value: Json) -> str:
    """The same text for the same value, whether it came as JSON text or parsed, in whatever order of keys."""
    if isinstance(value, str):
        is_json, inner = parsed(value)
        return _dumped(inner) if is_json else value.strip()
    return _dumped(value)


def _dumped(value: Json) -> str:
    """Not orjson: it refuses integers over 64 bits, which agents do send."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


@lru_cache(maxsize=512)
def _validator(schema: str) -> Draft202012Validator | None:
    """The schema ready to use: agents send the same few with every call, and checking one is slow."""
    loaded = json.loads(schema)
    try:
        Draft202012Validator.check_schema(loaded)
    except SchemaError:
        return None
    return Draft202012Validator(loaded, registry=NO_REMOTE)
