"""`leyden replay` and `leyden replay diff`: options only."""

import asyncio
from datetime import datetime
from typing import Annotated

import typer

from leyden.cli.shell import STACK_DIR, LogDir, RunFile, StackDir, clear_errors, console, examples, progress, say
from leyden.stack.program import as_typed

replay_app = typer.Typer(invoke_without_command=True, add_completion=False)


@replay_app.callback()
@examples(
    "leyden replay --name again",
    "leyden replay --name shaped --settings examples/calculator/shaped.yaml",
    "leyden replay diff live shaped",
)
def replay(
    context: typer.Context,
    name: Annotated[
        str, typer.Option(help="Name of this replay (required), new for each; its topics have the prefix `NAME.`.")
    ] = "",
    settings: RunFile = None,
    start: Annotated[
        datetime | None, typer.Option("--from", help="Start time, included; UTC. Default: the beginning.")
    ] = None,
    end: Annotated[datetime | None, typer.Option("--to", help="End time, not included; UTC. Default: now.")] = None,
    data_dir: StackDir = STACK_DIR,
    source_prefix: Annotated[
        str | None, typer.Option(help="Prefix of the topics to replay. Default: the stack's.")
    ] = None,
    train: Annotated[
        bool, typer.Option(help="Train a candidate version on the replayed transitions, or stop after credit.")
    ] = True,
) -> None:
    """Run reward, credit and training again on recorded rollouts, with the same or other settings.

    Live topics and consumer groups are not touched. With the same settings the transitions must be the same bytes; the
    exit status is 1 if they are not. `leyden replay diff A B` compares two results.
    """
    if context.invoked_subcommand is not None:
        return
    if not name:
        raise typer.BadParameter("give this replay a name, such as --name again", param_hint="--name")
    from leyden.replay.run import ReplayPlan, run_replay

    plan = ReplayPlan(
        name=name, settings=settings, start=start, end=end, data_dir=data_dir, source_prefix=source_prefix, train=train
    )
    with clear_errors():
        with progress() as tell:
            done = asyncio.run(run_replay(plan, tell, say))
        raise typer.Exit(done)


SET_HELP = "live, the name of a replay, or credit:NAME (a named credit service)."


@replay_app.command("diff")
@examples("leyden replay diff live shaped", "leyden replay diff live credit:dense --policy policy --top 20")
def replay_diff(
    a: Annotated[str, typer.Argument(help=SET_HELP)],
    b: Annotated[str, typer.Argument(help=SET_HELP)],
    policy: Annotated[str | None, typer.Option(help="Only transitions of this policy.")] = None,
    top: Annotated[int, typer.Option(min=1, help="How many groups and rollouts to list.")] = 10,
    data_dir: LogDir = STACK_DIR,
) -> None:
    """Compare two sets of transitions: what is equal, and how advantages changed."""
    from leyden.cli.differing import compare_sets, print_difference

    with clear_errors():
        with progress() as tell:
            found = asyncio.run(compare_sets(a, b, policy=policy, top=top, data_dir=data_dir, tell=tell))
        print_difference(a, b, found, console)


@replay_app.command("list")
def replay_list(data_dir: LogDir = STACK_DIR) -> None:
    """List the replays of a stack: when, their settings, and whether they gave the same as the live run."""
    from leyden.cli.formatting import print_columns
    from leyden.replay.past import past_replays

    with clear_errors():
        found = past_replays(data_dir)
        if not found:
            say(f"no replays yet; `{as_typed()} replay --name again` makes one")
            return
        rows = [
            (one.name, f"{one.ended:%m-%d %H:%M}" if one.ended else "-", one.result, one.events or "-",
             one.candidate or "-", one.folder)
            for one in found
        ]  # fmt: skip
        heads = ("name", "ended", "result", "events", "candidate", "folder")
        print_columns(heads, rows, console, right=("events",))
