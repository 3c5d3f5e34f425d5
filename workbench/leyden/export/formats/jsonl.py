"""Tuples as JSON Lines: the columns of the Parquet format, with messages as JSON instead of text."""

from collections.abc import Sequence
from pathlib import Path

from leyden.export.formats.base import JsonLines, credit_columns, token_columns
from leyden.export.rows import Row


class JsonlWriter:
    """One line per transition."""

    def __init__(self, path: Path) -> None:
        self.written = self.skipped = 0
        self._lines = JsonLines(path)

    def write(self, rows: Sequence[Row]) -> None:
        for row in rows:
            text = {"state_messages": row.prompt, "action_message": row.response, "tools": row.tools}
            self._lines.add(credit_columns(row) | token_columns(row) | text)
        self.written += len(rows)

    def close(self) -> None:
        self._lines.close()
