"""How tables and numbers of the commands look."""

import json

from rich import box
from rich.markup import escape

TABLE = box.SIMPLE_HEAD
MAX_SHOWN = 60
"""Characters of a value in a table; `--json` has all of it."""


def number(value: float) -> str:
    """Four digits are enough to see."""
    return f"{value:.4g}"


def safe(value: object) -> str:
    """Text of the log must not be taken for markup."""
    return escape(str(value))


def short(value: object) -> str:
    """A value as text of at most `MAX_SHOWN` characters."""
    text = value if isinstance(value, str) else "-" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"
