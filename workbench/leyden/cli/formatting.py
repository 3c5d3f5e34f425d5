"""Formats of tables and numbers."""

import json

from rich import box
from rich.markup import escape

TABLE = box.SIMPLE_HEAD
MAX_SHOWN = 60
"""Maximum characters of a value in a table."""


def number(value: float) -> str:
    """The number with four significant digits."""
    return f"{value:.4g}"


def safe(value: object) -> str:
    """Text of the log, escaped so that rich does not read it as markup."""
    return escape(str(value))


def short(value: object) -> str:
    """A value as text of at most `MAX_SHOWN` characters."""
    text = value if isinstance(value, str) else "-" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"
