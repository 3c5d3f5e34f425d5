"""Checks BACKWARD compatibility: a reader with the new schema must accept every event the old schema allows. No IO.

Replay depends on it, because a topic holds events written years ago. Fields may be removed, or added with a default;
types and bounds may be widened.
"""

from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]
_LOWER_BOUNDS = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_UPPER_BOUNDS = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_EXACT = ("format", "pattern", "multipleOf", "uniqueItems")


def breaks(old: Schema, new: Schema) -> list[str]:
    """One message for each incompatibility; empty if `new` accepts every event that `old` allows.

    Both are complete JSON Schemas as pydantic exports them. A `$ref` is resolved in its own schema's `$defs`.
    """
    return list(_Comparison(old, new).compare("", old, new))


class _Comparison:
    """Walks two schemas in parallel."""

    def __init__(self, old: Schema, new: Schema) -> None:
        self._old = old.get("$defs", {})
        self._new = new.get("$defs", {})

    def compare(self, path: str, old: Schema, new: Schema) -> Iterator[str]:
        """Yield the incompatibilities at `path`."""
        old, new = _resolve(old, self._old), _resolve(new, self._new)
        if "anyOf" in old or "anyOf" in new:
            yield from self._alternatives(path, old, new)
            return
        yield from _type_breaks(path, old, new)
        yield from _value_breaks(path, old, new)
        yield from _bound_breaks(path, old, new)
        yield from self._object_breaks(path, old, new)
        for part in ("items", "additionalProperties"):
            if isinstance(new.get(part), Mapping):
                was = old.get(part, {})
                yield from self.compare(f"{path}[]", was if isinstance(was, Mapping) else {}, new[part])

    def _alternatives(self, path: str, old: Schema, new: Schema) -> Iterator[str]:
        """Each old alternative must be accepted by one of the new ones."""
        choices = new.get("anyOf", [new])
        for was in old.get("anyOf", [old]):
            refusals = [list(self.compare(path, was, now)) for now in choices]
            if all(refusals):
                yield min(refusals, key=len)[0]

    def _object_breaks(self, path: str, old: Schema, new: Schema) -> Iterator[str]:
        if new.get("additionalProperties") is False and old.get("additionalProperties") is not False:
            yield f"{path or 'the event'}: unknown fields are no longer accepted"
        for name in sorted(set(new.get("required", ())) - set(old.get("required", ()))):
            yield f"{path}/{name}: now required, but old events may lack it"
        properties = old.get("properties", {})
        for name, now in new.get("properties", {}).items():
            if name in properties:
                yield from self.compare(f"{path}/{name}", properties[name], now)


def _resolve(schema: Schema, definitions: Mapping[str, Schema]) -> Schema:
    while "$ref" in schema:
        schema = definitions[schema["$ref"].rsplit("/", 1)[1]]
    return schema


def _type_breaks(path: str, old: Schema, new: Schema) -> Iterator[str]:
    if "type" not in new:
        return
    if "type" not in old:
        yield f"{path}: any type was allowed, now only {new['type']}"
    elif old["type"] != new["type"] and (old["type"], new["type"]) != ("integer", "number"):
        yield f"{path}: was {old['type']}, is {new['type']}"


def _value_breaks(path: str, old: Schema, new: Schema) -> Iterator[str]:
    now = _values(new)
    if now is None:
        return
    was = _values(old)
    if was is None:
        yield f"{path}: any value was allowed, now only {', '.join(map(repr, now))}"
    elif gone := [value for value in was if value not in now]:
        yield f"{path}: the value {gone[0]!r} is no longer allowed"


def _values(schema: Schema) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    return list(schema["enum"]) if "enum" in schema else None


def _bound_breaks(path: str, old: Schema, new: Schema) -> Iterator[str]:
    for name in _LOWER_BOUNDS:
        if name in new and (name not in old or new[name] > old[name]):
            yield f"{path}: {name} is {new[name]} now, was {old.get(name, 'absent')}"
    for name in _UPPER_BOUNDS:
        if name in new and (name not in old or new[name] < old[name]):
            yield f"{path}: {name} is {new[name]} now, was {old.get(name, 'absent')}"
    for name in _EXACT:
        if name in new and new[name] != old.get(name):
            yield f"{path}: {name} is {new[name]} now, was {old.get(name, 'absent')}"
