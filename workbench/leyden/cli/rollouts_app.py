"""`leyden rollouts` and `leyden models list`: options only."""

import asyncio
from typing import Annotated, Literal

import typer

from leyden.analysis.rollouts import RolloutStatus
from leyden.cli.shell import STACK_DIR, LogDir, TopicPrefix, clear_errors, console, examples, progress

rollouts_app = typer.Typer()
models_app = typer.Typer(no_args_is_help=True, help="The versions of the policies.")


@rollouts_app.command()
@examples(
    "leyden rollouts --status failed --limit 5",
    "leyden rollouts --mode validation --version policy@4 --max-reward 0.5",
    "leyden rollouts --follow --error timeout",
)
def rollouts(
    mode: Annotated[Literal["train", "validation"] | None, typer.Option(help="Only rollouts of this mode.")] = None,
    status: Annotated[list[RolloutStatus] | None, typer.Option(help="Only these statuses; repeatable.")] = None,
    version: Annotated[str | None, typer.Option(help="Only those that this version answered: 4, or policy@4.")] = None,
    min_reward: Annotated[float | None, typer.Option(help="Only those with at least this reward.")] = None,
    max_reward: Annotated[float | None, typer.Option(help="Only those with at most this reward.")] = None,
    error: Annotated[
        str | None, typer.Option(help="Only failures with this class, or this text in the message.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="Only rollouts of this task or group id.")] = None,
    limit: Annotated[int, typer.Option(min=0, help="Only the newest so many; 0: all.")] = 20,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Print each rollout as it ends, until Ctrl-C.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
    data_dir: LogDir = STACK_DIR,
    prefix: TopicPrefix = None,
) -> None:
    """List rollouts, oldest first: status, mode, version, reward, time, task, and why one failed.

    The id is the trace id of the newest attempt. `leyden inspect`, `errors --show`, `feedback` and `cancel` take it.
    """
    from leyden.cli.listing import Filter, follow_rollouts, list_rollouts

    wanted = Filter(
        mode=mode,
        statuses=frozenset(status or ()),
        version=version,
        min_reward=min_reward,
        max_reward=max_reward,
        error=error,
        task=task,
    )
    with clear_errors(), progress() as tell:
        if follow:
            asyncio.run(follow_rollouts(data_dir, prefix, tell, wanted, as_json, console))
        else:
            asyncio.run(list_rollouts(data_dir, prefix, tell, wanted, limit, as_json, console))


@models_app.command("list")
@examples("leyden models list", "leyden models list --json")
def list_models(
    as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False,
    data_dir: LogDir = STACK_DIR,
    prefix: TopicPrefix = None,
) -> None:
    """List the versions of each policy: which are live, their rewards, and where their weights are."""
    from leyden.cli.listing import list_versions

    with clear_errors(), progress() as tell:
        asyncio.run(list_versions(data_dir, prefix, tell, as_json, console))
