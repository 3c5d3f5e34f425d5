"""Reading attribute values of any type without raising: what is not what it should be is None. Knows no names."""

import math
from collections.abc import Iterator

import orjson

from leyden.events import Json, JsonObject

MAX_DEPTH = 64
"""JSON that is nested deeper stays a text: its writer, not its reader, would give up."""


def text(value: Json) -> str | None:
    """A text that is not empty."""
    return value if isinstance(value, str) and value else None


def number(value: Json) -> float | None:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def integer(value: Json) -> int | None:
    """A whole number of at most 64 bits, or a text of one."""
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
    """JSON text as its value, anything else as it is: instrumentations send both.

    orjson refuses what could not be written again (lone surrogates, NaN); such a text stays a text.
    """
    if not isinstance(value, str) or value.lstrip()[:1] not in ("{", "[", '"'):
        return value
    try:
        found: Json = orjson.loads(value)
    except orjson.JSONDecodeError:
        return value
    if value.count("[") + value.count("{") > MAX_DEPTH and _depth(found) > MAX_DEPTH:
        return value
    return found


def mapping(value: Json) -> JsonObject:
    """An object, or the JSON text of one; else an empty one."""
    found = parsed(value)
    return found if isinstance(found, dict) else {}


def listed(value: Json) -> list[Json]:
    """A list, or the JSON text of one; else an empty one."""
    found = parsed(value)
    return found if isinstance(found, list) else []


def objects(value: Json) -> Iterator[JsonObject]:
    """The objects in a list (or the one object), each of which may be JSON text."""
    found = parsed(value)
    for item in found if isinstance(found, list) else [found]:
        inner = parsed(item)
        if isinstance(inner, dict):
            yield inner


def texts(value: Json) -> list[str]:
    """The texts in a list, or the one text."""
    found = parsed(value)
    return [item for item in (found if isinstance(found, list) else [found]) if isinstance(item, str) and item]


def first(attributes: JsonObject, *names: str) -> Json:
    """The value of the first of `names` that is there and says something."""
    for name in names:
        if (value := attributes.get(name)) is not None and value != "":
            return value
    return None


def written(value: Json) -> str:
    """The value as text; a text stays as it is."""
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def unflattened(attributes: JsonObject, prefix: str) -> tuple[list[JsonObject], list[str]]:
    """(`prefix.<i>.a.b` = v as a list of `{"a": {"b": v}}`, the names that it was made of). A gap is no element.

    A number in a path makes a list; a name that is a value and a path at once stays out.
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
    """A value in a tree of dicts: a value may be a dict too."""

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
