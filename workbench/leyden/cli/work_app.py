"""The commands of the work that agents do: tasks in, called off, paused and resumed; and what failed."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leyden.analysis.failures import GroupBy
from leyden.cli.shell import STACK_DIR, DataDir, LogDir, TopicPrefix, clear_errors, console, progress, say

if TYPE_CHECKING:
    from leyden.cli.gateway_requests import TaskQueue

work_app = typer.Typer()
GatewayUrl = Annotated[str | None, typer.Option("--gateway", help="Default: LEYDEN_GATEWAY_URL, else the stack's.")]
ApiKey = Annotated[str | None, typer.Option(help="Default: LEYDEN_API_KEY, else the stack's.")]
Project = Annotated[str | None, typer.Option(help="Only this project's tasks; default: all, or the key's project.")]
Reason = Annotated[str, typer.Option(help="Why; it stays in the log.")]
DRY_RUN_TASKS = 3


class Mode(StrEnum):
    """What tasks are for, as the option takes it."""

    TRAIN = "train"
    VALIDATION = "validation"


@contextmanager
def _task_queue(gateway: str | None, api_key: str | None, data_dir: Path) -> Iterator["TaskQueue"]:
    from leyden.cli.feedback import gateway_of
    from leyden.cli.gateway_requests import TaskQueue

    with closing(gateway_of(gateway, api_key, data_dir)) as found:
        yield TaskQueue(found)


@work_app.command()
def enqueue(
    source: Annotated[str, typer.Argument(metavar="FILE", help="A .jsonl or .parquet file, or hf:DATASET.")],
    input_column: Annotated[
        list[str] | None, typer.Option(help="What the agent is shown; several become an object. Default: input.")
    ] = None,
    metadata_columns: Annotated[
        str | None, typer.Option(help="a,b,c, kept for rewards and not shown; * for all others. Default: metadata.")
    ] = None,
    id_column: Annotated[str | None, typer.Option(help="Default: task_id, else the row's content.")] = None,
    name: Annotated[str | None, typer.Option(help="Begins every task id; another one makes new tasks.")] = None,
    samples: Annotated[int, typer.Option(min=1, max=1024, help="Rollouts of each task: one group.")] = 1,
    mode: Annotated[Mode, typer.Option(help="train or validation.")] = Mode.TRAIN,
    priority: Annotated[int, typer.Option(min=-1000, max=1000, help="Higher ones first.")] = 0,
    max_attempts: Annotated[int, typer.Option(min=1, help="Tries of each rollout.")] = 3,
    backoff: Annotated[float, typer.Option(min=0, help="Seconds before the first retry; doubled for each.")] = 1.0,
    retry_on: Annotated[
        list[str] | None, typer.Option(help="Class of failure that is tried again; default: all.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds for one attempt.")] = 600.0,
    split: Annotated[str, typer.Option(help="Of a data set.")] = "train",
    config: Annotated[str | None, typer.Option(help="Configuration of a data set.")] = None,
    skip: Annotated[int, typer.Option(min=0, help="Rows at the beginning.")] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="Rows at most.")] = None,
    dry_run: Annotated[bool, typer.Option(help="Print the first tasks as JSON and send nothing.")] = False,
    gateway: GatewayUrl = None,
    api_key: ApiKey = None,
    data_dir: DataDir = STACK_DIR,
) -> None:
    """Make a task of each row and queue it. Running it again changes nothing: it goes on where it was cut off."""
    from leyden.cli.enqueueing import EnqueuePlan, tasks_of, told
    from leyden.cli.enqueueing import enqueue as send
    from leyden.cli.task_rows import Source

    retry: dict[str, Any] = {"backoff_s": backoff} | ({"on": retry_on} if retry_on else {})
    shared = {
        "samples": samples, "mode": mode.value, "priority": priority, "max_attempts": max_attempts,
        "timeout_s": timeout, "retry": retry,
    }  # fmt: skip
    columns = [column.strip() for column in (metadata_columns or "").split(",") if column.strip()]
    plan = EnqueuePlan(
        source=Source(source, config, split),
        name=name,
        input_columns=input_column or [],
        metadata_columns=columns,
        id_column=id_column,
        skip=skip,
        limit=limit,
        shared=shared,
    )
    with clear_errors():
        if dry_run:
            for task in islice(tasks_of(plan), DRY_RUN_TASKS):
                say(json.dumps(task, ensure_ascii=False))
            return
        with _task_queue(gateway, api_key, data_dir) as queue:
            with progress() as tell:
                done = send(plan, queue, tell)
            say(told(done))


@work_app.command()
def cancel(
    ids: Annotated[list[str], typer.Argument(metavar="ID…", help="Rollout ids; with --tasks, task ids.")],
    tasks: Annotated[bool, typer.Option("--tasks", help="The ids are tasks': all their rollouts.")] = False,
    reason: Reason = "",
    gateway: GatewayUrl = None,
    api_key: ApiKey = None,
    data_dir: DataDir = STACK_DIR,
) -> None:
    """Call rollouts off: what waits never starts, what runs is over. The log keeps it; nothing of it is trained."""
    with clear_errors(), _task_queue(gateway, api_key, data_dir) as queue:
        if tasks:
            for one in queue.post("tasks/cancel", {"task_ids": ids, "reason": reason})["tasks"]:
                say(f"{one['task_id']}: {one['cancelled']} of {one['rollouts']} rollouts cancelled")
            return
        for one in queue.post("rollouts/cancel", {"rollout_ids": ids, "reason": reason})["rollouts"]:
            say(f"{one['rollout_id']}: {'cancelled' if one['cancelled'] else 'had ended before'}")


@work_app.command()
def pause(
    project: Project = None,
    reason: Reason = "",
    gateway: GatewayUrl = None,
    api_key: ApiKey = None,
    data_dir: DataDir = STACK_DIR,
) -> None:
    """Hand out no more rollouts until `leyden resume`; what runs goes on."""
    with clear_errors(), _task_queue(gateway, api_key, data_dir) as queue:
        done = queue.post("queue/pause", {"project": project, "reason": reason})
        say(f"paused: {done['project'] or 'all projects'}")


@work_app.command()
def resume(
    project: Project = None, gateway: GatewayUrl = None, api_key: ApiKey = None, data_dir: DataDir = STACK_DIR
) -> None:
    """Hand out rollouts again."""
    with clear_errors(), _task_queue(gateway, api_key, data_dir) as queue:
        done = queue.post("queue/resume", {"project": project})
        say(f"resumed: {done['project'] or 'all projects'}")


@work_app.command()
def errors(
    since: Annotated[str | None, typer.Option(help="30m, 12h, 7d, or a date; default: all there is.")] = None,
    group_by: Annotated[GroupBy, typer.Option(help="What the attempts of a group share, beside their class.")] = (
        GroupBy.MESSAGE
    ),
    kind: Annotated[str | None, typer.Option("--class", help="Only this class of failure.")] = None,
    show: Annotated[str | None, typer.Option(help="A group's id, a rollout's or a trace id: its evidence.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The report as JSON, nothing shortened.")] = False,
    data_dir: LogDir = STACK_DIR,
    prefix: TopicPrefix = None,
) -> None:
    """Show failed attempts in groups: class, message without its numbers, how many, since when, and an example."""
    from leyden.cli import failing

    with clear_errors():
        first = failing.since(since, datetime.now(UTC))
        plan = failing.ErrorsPlan(data_dir, prefix, first, group_by, kind, show)
        with progress() as tell:
            found = asyncio.run(failing.look_at_failures(plan, tell))
        if as_json:
            console.file.write(failing.as_json(found, plan) + "\n")
        else:
            failing.print_failures(found, plan, console)
