"""Runs one SELECT on a small SQLite database. It is limited by steps, not time, so results do not depend on speed."""

import sqlite3
from pathlib import Path
from urllib.parse import quote

_ALLOWED = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE}
_FORBIDDEN_FUNCTIONS = {"load_extension", "random", "randomblob", "readfile", "writefile", "fts3_tokenizer"}
"""Functions that access anything outside the database or are not deterministic."""
_STEPS_AT_A_TIME = 1000
_HEAP_BYTES = 256 << 20
_VALUE_BYTES = 16 << 20

Row = tuple[object, ...]


class Database:
    """An in-memory database created by `script`, or a file opened read-only. Use it in a `with` block."""

    def __init__(self, script: str | None, file: Path | None) -> None:
        if file is not None:
            self._connection = sqlite3.connect(f"file:{quote(str(file))}?mode=ro&immutable=1", uri=True)
        else:
            self._connection = sqlite3.connect(":memory:")
            self._connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
            self._connection.executescript(script or "")
        self._connection.execute(f"PRAGMA hard_heap_limit={_HEAP_BYTES}")
        self._connection.execute("PRAGMA query_only=ON")
        self._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _VALUE_BYTES)
        self._connection.set_authorizer(_authorize)

    def __enter__(self) -> "Database":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def rows(self, query: str, max_rows: int, max_steps: int) -> list[Row]:
        """The query's rows. Raises `sqlite3.Error` or `MemoryError` if it is invalid, forbidden or exceeds a limit."""
        left = max_steps // _STEPS_AT_A_TIME

        def used_up() -> bool:
            nonlocal left
            left -= 1
            return left < 0

        self._connection.set_progress_handler(used_up, _STEPS_AT_A_TIME)
        try:
            rows = self._connection.execute(query).fetchmany(max_rows + 1)
        except sqlite3.Warning as error:  # more than one statement
            raise sqlite3.ProgrammingError(str(error)) from error
        if len(rows) > max_rows:
            raise sqlite3.DataError(f"more than {max_rows} rows")
        return rows


def _authorize(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    if action == sqlite3.SQLITE_FUNCTION:
        return sqlite3.SQLITE_DENY if (second or "").lower() in _FORBIDDEN_FUNCTIONS else sqlite3.SQLITE_OK
    return sqlite3.SQLITE_OK if action in _ALLOWED else sqlite3.SQLITE_DENY
