"""Filters of AIR rules in the run file: name patterns and steps."""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

_INDEX = re.compile(r"-?\d+")
_SLICE = re.compile(r"(-?\d+)?:(-?\d+)?")
_NAMED = {"first": 0, "last": -1}


def _listed(value: object) -> object:
    """Wrap a single entry in a list."""
    return (value,) if isinstance(value, str | int) and not isinstance(value, bool) else value


def _texts(value: object) -> object:
    listed = _listed(value)
    if not isinstance(listed, Sequence) or isinstance(listed, str):
        return listed
    return tuple(str(item) if isinstance(item, int) and not isinstance(item, bool) else item for item in listed)


def _are_steps(steps: tuple[str, ...]) -> tuple[str, ...]:
    for step in steps:
        if step not in _NAMED and not _INDEX.fullmatch(step) and not _SLICE.fullmatch(step):
            raise ValueError(f"invalid step {step!r}; use first, last, an index (2, -1) or a slice ('0:3')")
    return steps


Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]
"""Name patterns, case-sensitive: `*` any text, `?` any character, `[ab]` one of these."""
Steps = Annotated[tuple[str, ...], BeforeValidator(_texts), AfterValidator(_are_steps)]
"""`first`, `last`, an index, or a Python slice without a stride."""


def matches(patterns: Names, name: str | None) -> bool:
    """Whether a name matches any of `patterns`, or there are none. A missing name counts as an empty one."""
    return not patterns or any(fnmatchcase(name or "", pattern) for pattern in patterns)


def holds(steps: Steps, step: int | None, count: int) -> bool:
    """Whether `step` (of `count`) is among `steps`, or there are none. A call without a step is in no list."""
    return not steps or (step is not None and any(step in _range(text, count) for text in steps))


def _range(text: str, count: int) -> range:
    if (found := _SLICE.fullmatch(text)) is not None:
        start, stop = (int(part) if part else None for part in found.groups())
        return range(count)[start:stop]
    index = _NAMED[text] if text in _NAMED else int(text)
    at = index + count if index < 0 else index
    return range(at, at + 1)
