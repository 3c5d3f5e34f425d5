"""Reads attribute values without raising: a value of the wrong type is None (or empty)."""

import math
from collections.abc import Iterator

import orjson

from leyden.events import Json, JsonObject
from leyden.events.base import in_reward_range
from leyden.events.masked import is_masked
from leyden.events.wellformed import well_formed_json

MAX_COUNT = 10**12
"""The largest count of tokens or rows that is taken for one."""
MAX_DEPTH = 64
"""JSON that is nested deeper stays a text: its writer, not its reader, would give up."""


def text(value: Json) -> str | None:
    """The value if it is a non-empty string."""
    return value if isinstance(value, str) and value else None


def number(value: Json) -> float | None:
    """The value if it is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def score(value: Json) -> float | None:
    """The value if it is a number in the range of rewards."""
    found = number(value)
    return found if found is not None and in_reward_range(found) else None


def count(value: Json) -> int | None:
    """The value if it is an integer from 0 to `MAX_COUNT`, or a string of one."""
    found = integer(value)
    return found if found is not None and 0 <= found <= MAX_COUNT else None


def integer(value: Json) -> int | None:
    """The value if it is an integer of at most 64 bits, or a string of one."""
    if isinstance(value, str):
        if not value.isascii() or len(value) > 20 or not value.removeprefix("-").isdigit():
            return None
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if -(2**63) <= value < 2**63 else None


def parsed(value: Json) -> Json:
    """Decode a string that holds JSON; return anything else unchanged. Instrumentations send both.

    A string that is not valid JSON stays a string, except that half an emoji in it is replaced.
    """
    if not isinstance(value, str) or value.lstrip()[:1] not in ("{", "[", '"'):
        return value
    try:
        found: Json = orjson.loads(value)
    except orjson.JSONDecodeError:
        if "\\u" not in value:
            return value
        try:
            found = orjson.loads(well_formed_json(value.encode()))
        except orjson.JSONDecodeError:
            return value
    if value.count("[") + value.count("{") > MAX_DEPTH and _depth(found) > MAX_DEPTH:
        return value
    return found


def mapping(value: Json) -> JsonObject:
    """The value as an object (decoded from JSON text if needed); empty if it is not one."""
    found = parsed(value)
    return found if isinstance(found, dict) else {}


def listed(value: Json) -> list[Json]:
    """The value as a list (decoded from JSON text if needed); empty if it is not one."""
    found = parsed(value)
    return found if isinstance(found, list) else []


def objects(value: Json) -> Iterator[JsonObject]:
    """The objects of a list, or a single object as a list; each may be JSON text."""
    found = parsed(value)
    for item in found if isinstance(found, list) else [found]:
        inner = parsed(item)
        if isinstance(inner, dict):
            yield inner


def texts(value: Json) -> list[str]:
    """The strings of a list, or a single string as a list."""
    found = parsed(value)
    return [item for item in (found if isinstance(found, list) else [found]) if isinstance(item, str) and item]


def first(attributes: JsonObject, *names: str) -> Json:
    """The value of the first of `names` that is present and not empty."""
    for name in names:
        if (value := attributes.get(name)) is not None and value != "":
            return value
    return None


def is_empty(value: Json) -> bool:
    """Whether `value` is missing, or an empty text, list or object."""
    return value in (None, "", [], {})


def said(attributes: JsonObject, *names: str) -> Json:
    """The decoded value of the first of `names` that says something; None if none does.

    Placeholders for content say nothing. Empty texts, lists and objects say something only where no other name does.
    """
    empty: Json = None
    for name in names:
        value = parsed(attributes.get(name))
        if value is None or is_masked(value):
            continue
        if not is_empty(value):
            return value
        empty = value if empty in (None, "") else empty
    return empty


def written(value: Json) -> str:
    """The value as a string: strings unchanged, others as JSON."""
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def unflattened(attributes: JsonObject, prefix: str) -> tuple[list[JsonObject], list[str]]:
    """Unflatten `prefix.<i>.a.b` = v into a list of `{"a": {"b": v}}`; also returns the attribute names used.

    Numbers in a path make lists, without gaps. A name that is both a value and the prefix of another is left out.
    """
    tree: dict[str, object] = {}
    used: list[str] = []
    start = len(prefix)
    for name, value in attributes.items():
        if name.startswith(prefix) and _planted(tree, name[start:].split("."), value):
            used.append(name)
    found = _harvested(tree)
    if not isinstance(found, list):
        return [], []
    return [item for item in found if isinstance(item, dict)], used


def _planted(tree: dict[str, object], path: list[str], value: Json) -> bool:
    if len(path) < 2 or len(path) > MAX_DEPTH // 2 or not _is_index(path[0]):
        return False
    at: dict[str, object] = tree
    for step in path[:-1]:
        inner = at.setdefault(step, {})
        if type(inner) is not dict:
            return False
        at = inner
    if path[-1] in at:
        return False
    at[path[-1]] = _Leaf(value)
    return True


class _Leaf:
    """Wraps a leaf of the tree, since a leaf may itself be a dict."""

    __slots__ = ("value",)

    def __init__(self, value: Json) -> None:
        self.value = value


def _harvested(node: object) -> Json:
    if isinstance(node, _Leaf):
        return node.value
    assert isinstance(node, dict)
    if node and all(map(_is_index, node)):
        return [_harvested(node[key]) for key in sorted(node, key=int)]
    return {key: _harvested(inner) for key, inner in node.items()}


def _is_index(step: str) -> bool:
    return step.isascii() and step.isdigit() and len(step) < 10


def _depth(value: Json) -> int:
    level: list[Json] = [value]
    depth = 0
    while level and depth <= MAX_DEPTH:
        depth += 1
        inner: list[Json] = []
        for item in level:
            if isinstance(item, dict):
                inner += item.values()
            elif isinstance(item, list):
                inner += item
        level = inner
    return depth
