"""Recognises what instrumentations write instead of content that they may not, or cannot, export."""

import re

from leyden.events.base import Json

_WORDS = r"redacted|masked|elided|scrubbed|filtered|hidden|omitted|not specified|not serializable|not captured"
_MASK = re.compile(
    rf"(?:__|\[|<|\(|\*+)[\w ]{{0,20}}?(?:{_WORDS})(?![a-z0-9])[^\n]{{0,80}}(?:__|\]|>|\)|\*+)"
    r"|redacted(?:-by-\w+)?|masked|\*{3,}|N/A",
    re.IGNORECASE,
)
MAX_DEPTH = 64


def is_masked(value: Json) -> bool:
    """Whether `value` is a placeholder: `__REDACTED__`, `[REDACTED]`, `<elided>`, `<not specified>`, `N/A`, `***`."""
    return isinstance(value, str) and len(value) < 200 and _MASK.fullmatch(value.strip()) is not None


def has_mask(value: Json, depth: int = 0) -> bool:
    """Whether `value` is a placeholder, or has one inside."""
    if isinstance(value, dict):
        return depth < MAX_DEPTH and any(has_mask(item, depth + 1) for item in value.values())
    if isinstance(value, list):
        return depth < MAX_DEPTH and any(has_mask(item, depth + 1) for item in value)
    return is_masked(value)
