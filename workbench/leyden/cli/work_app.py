"""Commands of the task queue: cancel, pause and resume; and errors, the failed attempts."""

import asyncio
from datetime import UTC, datetime
from typing import Annotated

import typer

from leyden.analysis.failures import GroupBy
from leyden.cli.ids import rollout_named
from leyden.cli.shell import (
    STACK_DIR,
    ApiKey,
    AsJson,
    GatewayUrl,
    LogDir,
    StackDir,
    TopicPrefix,
    clear_errors,
    console,
    examples,
    progress,
    say,
)

work_app = typer.Typer()
Project = Annotated[str | None, typer.Option(help="Only tasks of this project. Default: the key's project, else all.")]
Reason = Annotated[str, typer.Option(help="Reason, recorded in the log.")]


@work_app.command()
@examples("leyden cancel 1e7de12d3ed09c7829d7c34190e1", "leyden cancel --tasks gsm8k:17 --reason 'wrong answer'")
def cancel(
    ids: Annotated[
        list[str], typer.Argument(metavar="ID…", help="Rollout ids or trace ids of attempts; with --tasks, task ids.")
    ],
    tasks: Annotated[bool, typer.Option("--tasks", help="Cancel all rollouts of the tasks with these ids.")] = False,
    reason: Reason = "",
    gateway: GatewayUrl = None,
    api_key: ApiKey = None,
    data_dir: StackDir = STACK_DIR,
) -> None:
    """Cancel rollouts: waiting ones never start, running ones end at their next call or heartbeat.

    Cancelled rollouts stay in the log with the class `cancelled`, and are not trained on.
    """
    from leyden.cli.gateway_requests import task_queue

    with clear_errors(), task_queue(gateway, api_key, data_dir) as queue:
        if tasks:
            for one in queue.post("tasks/cancel", {"task_ids": ids, "reason": reason})["tasks"]:
                say(f"{one['task_id']}: {one['cancelled']} of {one['rollouts']} rollouts cancelled")
            return
        for one in queue.post("rollouts/cancel", {"rollout_ids": rollouts_of(ids), "reason": reason})["rollouts"]:
            say(f"{one['rollout_id']}: {'cancelled' if one['cancelled'] else 'had already ended'}")


def rollouts_of(ids: list[str]) -> list[str]:
    """The rollouts of rollout ids and trace ids, each once. Raises StackError for another id."""
    return list(dict.fromkeys(rollout_named(one)[0] for one in ids))


@work_app.command()
def pause(
    project: Project = None,
    reason: Reason = "",
    gateway: GatewayUrl = None,
    api_key: ApiKey = None,
    data_dir: StackDir = STACK_DIR,
) -> None:
    """Stop handing out rollouts until `leyden resume`. Running rollouts continue."""
    from leyden.cli.gateway_requests import task_queue

    with clear_errors(), task_queue(gateway, api_key, data_dir) as queue:
        done = queue.post("queue/pause", {"project": project, "reason": reason})
        say(f"paused: {done['project'] or 'all projects'}")


@work_app.command()
def resume(
    project: Project = None, gateway: GatewayUrl = None, api_key: ApiKey = None, data_dir: StackDir = STACK_DIR
) -> None:
    """Hand out rollouts again after `leyden pause`."""
    from leyden.cli.gateway_requests import task_queue

    with clear_errors(), task_queue(gateway, api_key, data_dir) as queue:
        done = queue.post("queue/resume", {"project": project})
        say(f"resumed: {done['project'] or 'all projects'}")


@work_app.command()
@examples(
    "leyden errors --since 12h",
    "leyden errors --show 5d0c1f9e",
    "leyden errors --group-by policy_version --class timeout",
)
def errors(
    since: Annotated[
        str | None, typer.Option(help="Start time: 30m, 12h or 7d ago, or a date. Default: the beginning.")
    ] = None,
    group_by: Annotated[
        GroupBy, typer.Option(help="What the attempts of a group have in common, besides their class.")
    ] = (GroupBy.MESSAGE),
    kind: Annotated[str | None, typer.Option("--class", help="Only this failure class, such as timeout.")] = None,
    show: Annotated[
        str | None, typer.Option(help="Print the evidence of one group id, rollout id or trace id.")
    ] = None,
    as_json: AsJson = False,
    data_dir: LogDir = STACK_DIR,
    prefix: TopicPrefix = None,
) -> None:
    """Show failed attempts, grouped by failure class and message.

    Numbers, ids and paths in messages are masked, so that equal faults fall into one group.
    """
    from leyden.cli import failing

    with clear_errors():
        first = failing.since(since, datetime.now(UTC))
        plan = failing.ErrorsPlan(data_dir=data_dir, prefix=prefix, since=first, by=group_by, kind=kind, show=show)
        with progress() as tell:
            found = asyncio.run(failing.look_at_failures(plan, tell))
        if as_json:
            console.file.write(failing.as_json(found, plan) + "\n")
        else:
            failing.print_failures(found, plan, console)
