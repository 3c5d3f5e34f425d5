"""Checks values against JSON Schemas that agents sent, in bounded time: both may be made to take for ever.

What is too costly has no result, always for the same schema and value: limits are counts of steps, not seconds, so a
replay gives the same rewards. Nothing is fetched.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend
from referencing import Registry
from referencing.exceptions import Unresolvable

from leyden.events import Json
from leyden.reward.core.pattern_cost import matching_ways

MAX_STEPS = 50_000
"""Keywords that are applied for one value, or for one schema."""
MAX_WAYS = 10_000_000
"""In how many ways a pattern may match the longest text of a value, at most."""
_NO_REMOTE: Registry[Any] = Registry()
_left: ContextVar[list[int]] = ContextVar("steps left")
Keyword = Callable[[Any, Any, Any, Any], Iterator[ValidationError] | None]


class _TooCostlyError(Exception):
    """The limit of steps is reached."""


@dataclass(frozen=True)
class Checker:
    """A schema that can be used."""

    validator: Draft202012Validator
    patterns: frozenset[str]

    @classmethod
    def of(cls, schema: Json) -> "Checker | None":
        """The checker for `schema`; None if it is not a valid schema or too costly to check."""
        try:
            errors = _counted(_BOUNDED(Draft202012Validator.META_SCHEMA), schema)
        except (_TooCostlyError, RecursionError):
            return None
        return None if errors else cls(_BOUNDED(schema, registry=_NO_REMOTE), frozenset(_patterns(schema)))

    def accepts(self, value: Json) -> bool | None:
        """Whether `value` matches; None if that is too costly to say or needs another document."""
        longest = max(map(len, _texts(value)), default=0) if self.patterns else 0
        if any(matching_ways(pattern, longest) > MAX_WAYS for pattern in self.patterns):
            return None
        try:
            return not _counted(self.validator, value)
        except (Unresolvable, _TooCostlyError, RecursionError):
            return None


def _counted(validator: Any, value: Json) -> bool:
    """Whether the validator finds an error, within the limit of steps."""
    token = _left.set([MAX_STEPS])
    try:
        return next(validator.iter_errors(value), None) is not None
    finally:
        _left.reset(token)


def _counting(keyword: Keyword) -> Keyword:
    def counted(validator: Any, wanted: Any, instance: Any, schema: Any) -> Iterator[ValidationError] | None:
        left = _left.get()
        left[0] -= 1
        if left[0] < 0:
            raise _TooCostlyError
        return keyword(validator, wanted, instance, schema)

    return counted


def _unique_items(validator: Any, wanted: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    """As jsonschema's, in linear time."""
    if wanted and isinstance(instance, list):
        seen = {json.dumps(_folded(item), sort_keys=True) for item in instance}
        if len(seen) < len(instance):
            yield ValidationError("has non-unique elements")


def _folded(value: Json) -> Json:
    """Equal for equal JSON values: 1.0 is 1."""
    if isinstance(value, dict):
        return {key: _folded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_folded(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


_KEYWORDS: Mapping[str, Keyword] = {**Draft202012Validator.VALIDATORS, "uniqueItems": _unique_items}
_BOUNDED: Any = extend(  # type: ignore[no-untyped-call]
    Draft202012Validator, {name: _counting(keyword) for name, keyword in _KEYWORDS.items()}
)


def _patterns(schema: Json) -> Iterator[str]:
    """Every pattern in the schema. What only looks like one, in an example, does no harm."""
    level: list[Json] = [schema]
    while level:
        at = level.pop()
        if isinstance(at, dict):
            if isinstance(pattern := at.get("pattern"), str):
                yield pattern
            if isinstance(named := at.get("patternProperties"), dict):
                yield from named
                yield "|".join(named)  # as additionalProperties joins them
            level += at.values()
        elif isinstance(at, list):
            level += at


def _texts(value: Json) -> Iterator[str]:
    """Every text in the value, keys included."""
    level: list[Json] = [value]
    while level:
        at = level.pop()
        if isinstance(at, dict):
            yield from at
            level += at.values()
        elif isinstance(at, list):
            level += at
        elif isinstance(at, str):
            yield at
