"""Makes tasks of rows, and batches of tasks. The same row is always the same task.

A task's id is the data's name plus the row's id, or plus a hash of the row.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from leyden.ids import derive
from leyden.stack.errors import StackError
from leyden.training.task_rows import Row, Source, jsonable, rows_of

BATCH_TASKS = 200
BATCH_BYTES = 1 << 20
MAX_TASK_BYTES = 4 << 20
"""Below the gateway's limit for one request (8 MiB by default)."""
MAX_ID = 256
INPUT, METADATA, TASK_ID = "input", "metadata", "task_id"
"""Default columns."""
ALL = "*"


@dataclass(frozen=True)
class TaskSource:
    """Which rows, and how they become tasks."""

    source: Source
    name: str | None = None
    input_columns: Sequence[str] = ()
    metadata_columns: Sequence[str] = ()
    id_column: str | None = None
    skip: int = 0
    limit: int | None = None
    shared: dict[str, Any] = field(default_factory=dict)
    """Fields of every task, as the gateway names them: samples, mode, max_attempts, …"""

    @property
    def columns(self) -> list[str] | None:
        """The columns to read; None for all."""
        if not self.input_columns or ALL in self.metadata_columns or not self.metadata_columns or not self.id_column:
            return None
        return list(dict.fromkeys([*self.input_columns, *self.metadata_columns, self.id_column]))


def columns_of(text: str | None) -> list[str]:
    """The column names in a list separated by commas."""
    return [column.strip() for column in (text or "").split(",") if column.strip()]


def tasks_of(plan: TaskSource) -> Iterator[dict[str, Any]]:
    """One task per row, in order, as the gateway takes them. Raises StackError, which names the row."""
    for where, row in rows_of(plan.source, plan.columns, plan.skip, plan.limit):
        yield task_of(plan, where, row)


def task_of(plan: TaskSource, where: str, row: Row) -> dict[str, Any]:
    """The task of one row, which stands at `where`. Raises StackError."""
    content = {"input": _input(plan, row, where), "metadata": _metadata(plan, row, where)}
    name = plan.name or plan.source.name
    return {"task_id": _task_id(plan, name, row, content, where), **content, **plan.shared}


def _input(plan: TaskSource, row: Row, where: str) -> Any:
    named = list(plan.input_columns) or [INPUT]
    found = {column: jsonable(_value(row, column, where), f"{where}, column {column},") for column in named}
    return found[named[0]] if len(named) == 1 else found


def _metadata(plan: TaskSource, row: Row, where: str) -> dict[str, Any]:
    if not plan.metadata_columns:
        held = row.get(METADATA)
        return jsonable(held, f"{where}, column {METADATA},") if isinstance(held, dict) else {}
    named: Iterable[str] = plan.metadata_columns
    if ALL in plan.metadata_columns:
        used = {*(plan.input_columns or [INPUT]), plan.id_column or TASK_ID}
        named = [column for column in row if column not in used]
    return {column: jsonable(_value(row, column, where), f"{where}, column {column},") for column in named}


def _value(row: Row, column: str, where: str) -> Any:
    if column not in row:
        hint = " Name the input column with --input-column." if column == INPUT else ""
        raise StackError(f"{where} has no column {column}; it has {', '.join(map(str, row)) or 'none'}.{hint}")
    return row[column]


def _task_id(plan: TaskSource, name: str, row: Row, content: dict[str, Any], where: str) -> str:
    if plan.id_column is None and TASK_ID not in row:
        return short_id(f"{name}:{content_id(content)}")
    own = _value(row, plan.id_column or TASK_ID, where)
    if not isinstance(own, str | int) or isinstance(own, bool) or own == "":
        raise StackError(f"{where}: an id must be a string or an integer, not {own!r}.")
    return short_id(f"{name}:{own}")


def content_id(content: dict[str, Any]) -> str:
    """An id of a task by its input and metadata."""
    return derive("task", json.dumps(content, sort_keys=True, ensure_ascii=False))[:20]


def short_id(task_id: str) -> str:
    """The id, or one of at most `MAX_ID` characters that begins like it."""
    return task_id if len(task_id) <= MAX_ID else f"{task_id[:200]}:{derive('task-id', task_id)}"


def batches(tasks: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Tasks in batches of one request each. Raises StackError for a task that is too large for a request."""
    batch: list[dict[str, Any]] = []
    size = 0
    for task in tasks:
        own = len(json.dumps(task, ensure_ascii=False).encode())
        if own > MAX_TASK_BYTES:
            raise StackError(f"Task {task['task_id']} has {own} bytes; the limit is {MAX_TASK_BYTES}.")
        if batch and (len(batch) >= BATCH_TASKS or size + own > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(task)
        size += own
    if batch:
        yield batch
