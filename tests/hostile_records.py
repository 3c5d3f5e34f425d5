"""Records that are valid by their schema and still hard to handle: each value of an event at its extremes."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import ValidationError

from fakes import TOPIC_OF
from leyden.events import Event
from leyden.events.codec import decode, encode

NUMBERS = (0, -1, 2**31, 2**63, 10**30, 1e-320, 1e308, -1e308, "NaN", "-Infinity")
TEXTS = (
    "", "a|b:c/d@e", "\x00\n", "\U0010ffff" * 3, "x" * 70_000, "-1", "%s{}", "../..", "AAA=", "AAAAAA==",
    "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59",
)  # fmt: skip
OTHERS: tuple[Any, ...] = (None, True, [], {}, [[]] * 3, {"": {"": []}}, ["x", "x"])
DEEPEST = 3
"""Places further inside an event are left alone: there is only what requests and messages hold."""
Place = tuple[str | int, ...]


def hostile(events: Sequence[Event]) -> Iterator[tuple[str, list[Event]]]:
    """`events` with one value changed, in all ways that their schemas allow: (what was changed, the events).

    First in one place at a time, a list also given twice over; then each text that occurs in several places (an id) in
    all of them.
    """
    wholes = [json.loads(encode(event)) for event in events]
    for at, whole in enumerate(wholes):
        for place, found in _places(whole):
            twice = [found * 2] if isinstance(found, list) and found else []
            for value in (*NUMBERS, *TEXTS, *OTHERS, *twice):
                if (changed := _decoded(type(events[at]), _with(whole, place, value))) not in (None, events[at]):
                    where = f"{type(events[at]).__name__}.{'.'.join(map(str, place))}"
                    yield f"{where} = {str(value)[:40]!r}", [*events[:at], changed, *events[at + 1 :]]
    texts = Counter(found for whole in wholes for _, found in _places(whole) if isinstance(found, str))
    for text in [text for text, count in texts.items() if count > 1]:
        for value in TEXTS:
            renamed = [
                _decoded(type(event), _renamed(whole, text, value)) for event, whole in zip(events, wholes, strict=True)
            ]
            if None not in renamed:
                yield f"every {text[:40]!r} = {value[:40]!r}", [one for one in renamed if one is not None]


def _decoded(kind: type[Event], whole: Any) -> Event | None:
    try:
        return decode(TOPIC_OF[kind], json.dumps(whole).encode())
    except ValidationError:
        return None


def _places(value: Any, at: Place = ()) -> Iterator[tuple[Place, Any]]:
    if at and at != ("type",):
        yield at, value
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, one in inside if len(at) < DEEPEST else ():
        yield from _places(one, (*at, name))


def _with(whole: Any, place: Place, value: Any) -> Any:
    """A copy of `whole` with `value` in the place that `place` leads to."""
    if not place:
        return value
    copy = dict(whole) if isinstance(whole, dict) else list(whole)
    copy[place[0]] = _with(copy[place[0]], place[1:], value)
    return copy


def _renamed(value: Any, old: str, new: str) -> Any:
    if isinstance(value, dict):
        return {name: _renamed(one, old, new) if name != "type" else one for name, one in value.items()}
    if isinstance(value, list):
        return [_renamed(one, old, new) for one in value]
    return new if value == old else value
