"""Grader `sql_result`: does the answer's query return the reference query's rows on the task's SQLite database?"""

import re
import sqlite3
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import Field

from leyden.reward.core.view import RolloutView
from leyden.reward.graders.base import BrokenReferenceError, Grader, at, code_in
from leyden.reward.graders.sqlite import Database, Row

_NESTED = re.compile(r"\([^()]*\)|'[^']*'")


class SqlResult(Grader):
    """1.0 if the answer's query returns the reference query's rows, else 0.0.

    A query that does not parse, writes, or exceeds the limits is wrong. Columns are compared by position, not by name.
    """

    grader: Literal["sql_result"] = "sql_result"
    answer: str = "metadata.sql"
    """Path of the reference query."""
    schema_: str = Field(default="metadata.schema", alias="schema")
    """Path of the SQL that creates the database: DDL and inserts."""
    database: str = "metadata.database"
    """Path of the name of a SQLite file in `folder`. If there is none, `schema` creates the database."""
    folder: Path | None = None
    """Folder with the database files, which are opened read-only. Names outside the folder are rejected."""
    order: Literal["auto", "ordered", "multiset"] = "auto"
    """Whether rows must have the reference's order; `auto`: if the reference has an outermost ORDER BY."""
    digits: int = Field(default=9, ge=1, le=17)
    """Number of significant digits in which two numbers must agree."""
    max_rows: int = Field(default=10_000, ge=1)
    max_steps: int = Field(default=20_000_000, ge=1000)
    """Limit on the query's SQLite VM steps: about a second, and independent of the machine's speed."""

    def __call__(self, view: RolloutView) -> float | None:
        reference = at(view, self.answer)
        if not isinstance(reference, str):
            return None
        with self._database(view) as database:
            try:
                expected = database.rows(reference, self.max_rows, self.max_steps)
            except (sqlite3.Error, MemoryError) as error:
                raise BrokenReferenceError(f"the reference query: {error}") from error
            try:
                found = database.rows(self._query(view), self.max_rows, self.max_steps)
            except (sqlite3.Error, MemoryError, ValueError):
                return 0.0
        ordered = self.order == "ordered" or (self.order == "auto" and is_ordered(reference))
        return float(self._same(found, expected, ordered))

    def _database(self, view: RolloutView) -> Database:
        name, script = at(view, self.database), at(view, self.schema_)
        try:
            if isinstance(name, str):
                return Database(None, self._file(name))
            if isinstance(script, str):
                return Database(script, None)
        except (sqlite3.Error, OSError) as error:
            raise BrokenReferenceError(f"the task's database: {error}") from error
        raise BrokenReferenceError(f"the task has no database: neither {self.database} nor {self.schema_}")

    def _file(self, name: str) -> Path:
        if self.folder is None:
            raise BrokenReferenceError("the task names a database file, but the grader has no `folder`")
        folder = self.folder.resolve()
        if not (file := (folder / name).resolve()).is_relative_to(folder) or not file.is_file():
            raise BrokenReferenceError(f"there is no database {name!r} in the grader's folder")
        return file

    def _query(self, view: RolloutView) -> str:
        given = at(view, self.given)
        return code_in(given) if isinstance(given, str) else ""

    def _same(self, found: list[Row], expected: list[Row], ordered: bool) -> bool:
        one, other = self._comparable(found), self._comparable(expected)
        return one == other if ordered else Counter(one) == Counter(other)

    def _comparable(self, rows: Iterable[Row]) -> list[Row]:
        """The rows with floats rounded to `digits`; whole numbers stay exact, also those that are written as floats."""
        return [tuple(self._rounded(v) if isinstance(v, float) else v for v in row) for row in rows]

    def _rounded(self, value: float) -> float | int:
        if value.is_integer() and abs(value) < 2.0**53:
            return int(value)
        return float(f"{value:.{self.digits - 1}e}")


def is_ordered(query: str) -> bool:
    """Whether the query's outermost SELECT has an ORDER BY."""
    flat, count = query, 1
    while count:
        flat, count = _NESTED.subn(" ", flat)
    return re.search(r"\border\s+by\b", flat, re.IGNORECASE) is not None
