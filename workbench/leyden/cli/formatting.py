"""Formats of tables and numbers."""

import json
from collections.abc import Collection, Iterable, Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

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


def print_columns(
    heads: Sequence[str], rows: Iterable[Sequence[object]], console: Console, right: Collection[str] = ()
) -> None:
    """Print rows in aligned columns; those named in `right` are right-aligned.

    Nothing is cut or folded, so that ids can be copied: a line longer than the terminal goes on below.
    """
    table = [[*map(str, heads)], *([*map(str, row)] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for number, row in enumerate(table):
        sides = zip(heads, row, widths, strict=True)
        cells = [cell.rjust(width) if head in right else cell.ljust(width) for head, cell, width in sides]
        style = "bold" if number == 0 else None
        console.print("  ".join(cells).rstrip(), style=style, markup=False, highlight=False, soft_wrap=True)


def facts_table() -> Table:
    """A table of two columns without lines: a name and its value, which is folded and never cut."""
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(overflow="fold")
    return table
