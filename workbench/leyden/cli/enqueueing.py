"""`leyden enqueue`: rows become tasks and go to the gateway in batches; running it again changes nothing.

A task's id is the data's name and the row's id, or a digest of what the row says: the same row is the same task, and
the gateway knows it. So a run that was cut off is gone on with by running it again.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from leyden.cli.gateway_requests import TaskQueue
from leyden.cli.task_rows import Row, Source, jsonable, rows_of
from leyden.ids import derive
from leyden.reading.log import Tell
from leyden.stack.errors import StackError

BATCH_TASKS = 200
BATCH_BYTES = 1 << 20
MAX_TASK_BYTES = 4 << 20
"""Below what a gateway takes in one request (8 MiB by default)."""
MAX_ID = 256
INPUT, METADATA, TASK_ID = "input", "metadata", "task_id"
"""Columns that are taken where none are named."""
ALL = "*"


@dataclass(frozen=True)
class EnqueuePlan:
    """Which rows, and what they become."""

    source: Source
    name: str | None = None
    input_columns: Sequence[str] = ()
    metadata_columns: Sequence[str] = ()
    id_column: str | None = None
    skip: int = 0
    limit: int | None = None
    shared: dict[str, Any] = field(default_factory=dict)
    """What all tasks have alike, in the gateway's words: samples, mode, max_attempts, …"""

    @property
    def columns(self) -> list[str] | None:
        """Those that are needed, where all are named."""
        if not self.input_columns or ALL in self.metadata_columns or not self.metadata_columns or not self.id_column:
            return None
        return list(dict.fromkeys([*self.input_columns, *self.metadata_columns, self.id_column]))


@dataclass
class Enqueued:
    """What came of it."""

    tasks: int = 0
    rollouts: int = 0
    known: int = 0
    """Tasks that were there before."""
    otherwise: int = 0
    """Of these: with another number of rollouts than was asked for now."""


def tasks_of(plan: EnqueuePlan) -> Iterator[dict[str, Any]]:
    """The tasks in the gateway's words, one a row, in order; raises StackError that names the row."""
    for number, row in rows_of(plan.source, plan.columns, plan.skip, plan.limit):
        yield task_of(plan, number, row)


def task_of(plan: EnqueuePlan, number: int, row: Row) -> dict[str, Any]:
    """The task that a row is."""
    where = f"Row {number}"
    content = {"input": _input(plan, row, where), "metadata": _metadata(plan, row, where)}
    name = plan.name or plan.source.name
    return {"task_id": _task_id(plan, name, row, content, where), **content, **plan.shared}


def _input(plan: EnqueuePlan, row: Row, where: str) -> Any:
    named = list(plan.input_columns) or [INPUT]
    found = {column: jsonable(_value(row, column, where), f"{where}, column {column},") for column in named}
    return found[named[0]] if len(named) == 1 else found


def _metadata(plan: EnqueuePlan, row: Row, where: str) -> dict[str, Any]:
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
        hint = " Name the input's column with --input-column." if column == INPUT else ""
        raise StackError(f"{where} has no column {column}; it has {', '.join(map(str, row)) or 'none'}.{hint}")
    return row[column]


def _task_id(plan: EnqueuePlan, name: str, row: Row, content: dict[str, Any], where: str) -> str:
    if plan.id_column is None and TASK_ID not in row:
        canonical = json.dumps(content, sort_keys=True, ensure_ascii=False)
        return _short(f"{name}:{derive('task', canonical)[:20]}")
    own = _value(row, plan.id_column or TASK_ID, where)
    if not isinstance(own, str | int) or isinstance(own, bool) or own == "":
        raise StackError(f"{where}: an id is a text or a whole number, not {own!r}.")
    return _short(f"{name}:{own}")


def _short(task_id: str) -> str:
    return task_id if len(task_id) <= MAX_ID else f"{task_id[:200]}:{derive('task-id', task_id)}"


def batches(tasks: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Tasks in lots of one request each; raises StackError for one that is too big for any."""
    batch: list[dict[str, Any]] = []
    size = 0
    for task in tasks:
        own = len(json.dumps(task, ensure_ascii=False).encode())
        if own > MAX_TASK_BYTES:
            raise StackError(f"Task {task['task_id']} has {own} bytes; {MAX_TASK_BYTES} is the most.")
        if batch and (len(batch) >= BATCH_TASKS or size + own > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(task)
        size += own
    if batch:
        yield batch


def enqueue(plan: EnqueuePlan, queue: TaskQueue, tell: Tell) -> Enqueued:
    """Send them all; each batch is in Kafka when the next one is sent. Raises StackError: what was sent stays sent."""
    done = Enqueued()
    for batch in batches(tasks_of(plan)):
        try:
            answers = queue.post("tasks", {"tasks": batch})["tasks"]
        except StackError as error:
            raise StackError(f"{error} {done.tasks} tasks were taken before.") from error
        for task, answer in zip(batch, answers, strict=True):
            done.tasks += 1
            done.rollouts += len(answer["rollout_ids"])
            done.known += not answer["new"]
            done.otherwise += len(answer["rollout_ids"]) != task.get("samples", 1)
        tell(f"{done.tasks} tasks, {done.rollouts} rollouts")
    return done


def told(done: Enqueued) -> str:
    """The result in one line."""
    line = f"{done.tasks} tasks, {done.rollouts} rollouts; {done.tasks - done.known} tasks are new"
    if done.otherwise:
        line += f"; {done.otherwise} were there before with another number of samples: --name makes new ones"
    return line
