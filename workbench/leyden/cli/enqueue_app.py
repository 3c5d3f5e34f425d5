"""`leyden enqueue`: options, and how they become a plan."""

import json
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leyden.cli.shell import STACK_DIR, ApiKey, GatewayUrl, StackDir, clear_errors, examples, progress, say

if TYPE_CHECKING:
    from leyden.training.tasks import TaskSource

DRY_RUN_TASKS = 3
ROWS, TASKS = "Rows", "Tasks"
"""Sections of the help text."""


class Mode(StrEnum):
    """What the tasks are for."""

    TRAIN = "train"
    VALIDATION = "validation"


SourceFile = Annotated[str, typer.Argument(metavar="FILE", help="A .jsonl or .parquet file, or hf:DATASET.")]
InputColumn = Annotated[
    list[str] | None,
    typer.Option(
        rich_help_panel=ROWS, help="Column that the agent gets; repeat it to pass an object. Default: `input`."
    ),
]
MetadataColumns = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=ROWS,
        metavar="A,B,…",
        help="Columns for rewards, hidden from the agent; * for all others. Default: `metadata`.",
    ),
]
IdColumn = Annotated[
    str | None,
    typer.Option(rich_help_panel=ROWS, help="Column with the row's id. Default: `task_id`, else a hash of the row."),
]
Split = Annotated[str, typer.Option(rich_help_panel=ROWS, help="Split of the data set (hf: only).")]
DatasetConfig = Annotated[
    str | None, typer.Option("--config", rich_help_panel=ROWS, help="Configuration of the data set (hf: only).")
]
Skip = Annotated[int, typer.Option(min=0, rich_help_panel=ROWS, help="Number of rows to skip.")]
Limit = Annotated[int | None, typer.Option(min=1, rich_help_panel=ROWS, help="Maximum number of rows. Default: all.")]

Name = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=TASKS,
        help="Prefix of the task ids; a new name makes new tasks. Default: the name of the file or data set.",
    ),
]
Samples = Annotated[
    int, typer.Option(min=1, max=1024, rich_help_panel=TASKS, help="Rollouts per task; together they form a group.")
]
TaskMode = Annotated[Mode, typer.Option(rich_help_panel=TASKS, help="Whether to train on the rollouts.")]
Priority = Annotated[
    int, typer.Option(min=-1000, max=1000, rich_help_panel=TASKS, help="Tasks with a higher priority run first.")
]
MaxAttempts = Annotated[int, typer.Option(min=1, rich_help_panel=TASKS, help="Attempts per rollout.")]
Backoff = Annotated[
    float,
    typer.Option(min=0, rich_help_panel=TASKS, help="Seconds before the first retry; doubled for each further one."),
]
RetryOn = Annotated[
    list[str] | None,
    typer.Option(rich_help_panel=TASKS, help="Failure class to retry; repeatable. Default: all classes."),
]
Timeout = Annotated[float, typer.Option(min=0.001, rich_help_panel=TASKS, help="Time limit of an attempt, in seconds.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the first tasks as JSON and send nothing.")]


@examples(
    "leyden enqueue gsm8k.parquet --input-column question --metadata-columns answer --samples 8",
    "leyden enqueue tasks.jsonl --dry-run",
    "leyden enqueue hf:openai/gsm8k --config main --split test --input-column question --mode validation",
)
def enqueue(
    source: SourceFile,
    input_column: InputColumn = None,
    metadata_columns: MetadataColumns = None,
    id_column: IdColumn = None,
    split: Split = "train",
    config: DatasetConfig = None,
    skip: Skip = 0,
    limit: Limit = None,
    name: Name = None,
    samples: Samples = 1,
    mode: TaskMode = Mode.TRAIN,
    priority: Priority = 0,
    max_attempts: MaxAttempts = 3,
    backoff: Backoff = 1.0,
    retry_on: RetryOn = None,
    timeout: Timeout = 600.0,
    dry_run: DryRun = False,
    gateway: GatewayUrl = None,
    api_key: ApiKey = None,
    data_dir: StackDir = STACK_DIR,
) -> None:
    """Make a task of each row of a file or data set, and enqueue it.

    The same row is the same task, so after an interruption run the command again: it enqueues only what is missing.
    """
    from leyden.training.task_rows import Source
    from leyden.training.tasks import TaskSource, columns_of, tasks_of

    retry: dict[str, Any] = {"backoff_s": backoff} | ({"on": retry_on} if retry_on else {})
    shared = {"samples": samples, "mode": mode.value, "priority": priority, "max_attempts": max_attempts}
    plan = TaskSource(
        source=Source(source, config, split),
        name=name,
        input_columns=input_column or [],
        metadata_columns=columns_of(metadata_columns),
        id_column=id_column,
        skip=skip,
        limit=limit,
        shared=shared | {"timeout_s": timeout, "retry": retry},
    )
    with clear_errors():
        if dry_run:
            for task in islice(tasks_of(plan), DRY_RUN_TASKS):
                say(json.dumps(task, ensure_ascii=False))
        else:
            _send(plan, gateway, api_key, data_dir)


def _send(plan: "TaskSource", gateway: str | None, api_key: str | None, data_dir: Path) -> None:
    """Enqueue the tasks and print how many there were. Raises StackError."""
    from leyden.cli.enqueueing import enqueue as enqueue_tasks
    from leyden.cli.enqueueing import told
    from leyden.cli.gateway_requests import task_queue

    with task_queue(gateway, api_key, data_dir) as queue:
        with progress() as tell:
            done = enqueue_tasks(plan, queue, tell)
        say(told(done))
