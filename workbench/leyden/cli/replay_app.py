"""`leyden replay` and `leyden replay diff`."""

import asyncio
from datetime import datetime
from typing import Annotated

import typer

from leyden.cli.shell import DEMO_DIR, DataDir, LogDir, RunFile, clear_errors, console, progress, say

replay_app = typer.Typer(invoke_without_command=True, add_completion=False)


@replay_app.callback()
def replay(
    context: typer.Context,
    name: Annotated[str, typer.Option(help="Of the experiment (required); becomes the prefix of its topics.")] = "",
    settings: RunFile = None,
    start: Annotated[datetime | None, typer.Option("--from", help="First record's time; default: all.")] = None,
    end: Annotated[datetime | None, typer.Option("--to", help="Time after the last record; default: now.")] = None,
    data_dir: DataDir = DEMO_DIR,
    source_prefix: Annotated[str | None, typer.Option(help="Of the topics to replay; default: the stack's.")] = None,
    train: Annotated[bool, typer.Option(help="Train a candidate version on the replayed transitions.")] = True,
) -> None:
    """Run reward, credit and trainer over recorded topics again, with the same settings or others.

    `leyden replay diff A B` compares what came of it.
    """
    if context.invoked_subcommand is not None:
        return
    if not name:
        raise typer.BadParameter("missing; every replay has a name", param_hint="--name")
    from leyden.replay.run import ReplayPlan, run_replay

    plan = ReplayPlan(name, settings, start, end, data_dir, source_prefix, train)
    with clear_errors():
        with progress() as tell:
            done = asyncio.run(run_replay(plan, tell, say))
        raise typer.Exit(done)


SET_HELP = "live, the name of a replay, or credit:NAME for a named credit service."


@replay_app.command("diff")
def replay_diff(
    a: Annotated[str, typer.Argument(help=SET_HELP)],
    b: Annotated[str, typer.Argument(help=SET_HELP)],
    policy: Annotated[str | None, typer.Option(help="Only transitions of this policy.")] = None,
    top: Annotated[int, typer.Option(min=1, help="Groups and rollouts to list.")] = 10,
    data_dir: LogDir = DEMO_DIR,
) -> None:
    """Compare two sets of transitions: what is the same, how advantages moved, where their signs turned."""
    from leyden.cli.differing import compare_sets, print_difference

    with clear_errors():
        with progress() as tell:
            found = asyncio.run(compare_sets(a, b, policy, top, data_dir, tell))
        print_difference(a, b, found, console)
