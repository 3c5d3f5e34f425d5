"""Commands for RL engineers: inspect, rewards, export and feedback."""

import asyncio
from contextlib import closing
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

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

engineer_app = typer.Typer()


class By(StrEnum):
    """How `leyden rewards` groups rollouts."""

    WINDOW = "window"
    VERSION = "version"


class Mode(StrEnum):
    """What rollouts were for."""

    TRAIN = "train"
    VALIDATION = "validation"


RolloutId = Annotated[
    str, typer.Argument(metavar="ROLLOUT", help="Rollout id (28 hex digits), or an attempt's trace id (32).")
]
From = Annotated[datetime | None, typer.Option("--from", help="Start time, included; UTC. Default: the beginning.")]
To = Annotated[datetime | None, typer.Option("--to", help="End time, not included; UTC. Default: now.")]


@engineer_app.command()
@examples("leyden inspect 1e7de12d3ed09c7829d7c34190e1", "leyden inspect 1e7de12d3ed09c7829d7c34190e1 --json")
def inspect(
    rollout: RolloutId,
    attempt: Annotated[int | None, typer.Option(min=0, help="Attempt number, from 0. Default: the last one.")] = None,
    data_dir: LogDir = STACK_DIR,
    prefix: TopicPrefix = None,
    as_json: AsJson = False,
) -> None:
    """Show one rollout: calls, tools, rewards, return, advantage and trained tokens.

    Also says why a call or the whole rollout is not trained, and what an unfinished one is waiting for.
    """
    from leyden.cli.inspecting import find_rollout, print_report

    with clear_errors():
        with progress() as tell:
            report = asyncio.run(find_rollout(rollout, attempt=attempt, data_dir=data_dir, prefix=prefix, tell=tell))
        if as_json:
            console.file.write(report.model_dump_json(indent=2) + "\n")
        else:
            print_report(report, console)


@engineer_app.command()
@examples(
    "leyden export --format trl --out trl.jsonl",
    "leyden export --out best.parquet --min-reward 0.9 --from 2026-01-31T12:00:00",
)
def export(
    out: Annotated[Path, typer.Option(dir_okay=False, help="Output file; an existing file is replaced.")],
    export_format: Annotated[
        str, typer.Option("--format", help="parquet, jsonl, trl, verl or llama-factory.")
    ] = "parquet",
    of: Annotated[str, typer.Option(help="Which transitions: live, the name of a replay, or credit:NAME.")] = "live",
    policy: Annotated[str | None, typer.Option(help="Only transitions of this policy.")] = None,
    group: Annotated[str | None, typer.Option(help="Only this group id.")] = None,
    start: From = None,
    end: To = None,
    min_reward: Annotated[float | None, typer.Option(help="Only rollouts with at least this total reward.")] = None,
    ground_truth: Annotated[
        str, typer.Option(help="verl only: task metadata field to write as ground_truth.")
    ] = "answer",
    data_dir: LogDir = STACK_DIR,
) -> None:
    """Write transitions to a file: Parquet, JSON Lines, or the format of TRL, verl or LLaMA-Factory.

    One row is one action, with its state, reward, return, advantage and policy version. Token ids and logprobs are the
    engine's; text is the recorded messages. Only complete groups are written, each at its newest revision.
    """
    from leyden.cli.exporting import run_export_command

    filters = (policy, group, start, end)
    with clear_errors():
        with progress() as tell:
            lines = run_export_command(
                name=export_format,
                out=out,
                of=of,
                filters=filters,
                min_reward=min_reward,
                ground_truth=ground_truth,
                data_dir=data_dir,
                tell=tell,
            )
        for line in lines:
            say(line)


@engineer_app.command()
@examples("leyden rewards", "leyden rewards --by version --mode validation")
def rewards(
    window: Annotated[int | None, typer.Option(min=1, help="Rollouts per window. Default: a tenth of all.")] = None,
    by: Annotated[By, typer.Option(help="Group by time window or by policy version.")] = By.WINDOW,
    mode: Annotated[Mode | None, typer.Option(help="Rollouts in the table. Default: train, if there are any.")] = None,
    outcome: Annotated[
        list[str] | None,
        typer.Option(help="Rule that measures the outcome; repeatable. Default: rules that judge whole rollouts."),
    ] = None,
    start: From = None,
    end: To = None,
    data_dir: LogDir = STACK_DIR,
    prefix: TopicPrefix = None,
) -> None:
    """Show the held-out curve, what each reward rule gave over time, and warn of possible reward hacking.

    The held-out curve is the mean reward of validation rollouts by the version that answered. In the table numbers are
    contributions: value × weight. The warning means that a rule's rewards rise while the outcome falls.
    """
    from leyden.cli.exporting import as_utc
    from leyden.cli.rewarding import RewardsPlan, look_at_rewards, print_rewards

    named = tuple(outcome or ())
    plan = RewardsPlan(
        data_dir=data_dir,
        prefix=prefix,
        window=window,
        by_version=by is By.VERSION,
        mode=mode.value if mode else None,
        outcomes=named,
        start=as_utc(start),
        end=as_utc(end),
    )
    with clear_errors():
        with progress() as tell:
            report = asyncio.run(look_at_rewards(plan, tell))
        print_rewards(report, console)


@engineer_app.command()
@examples(
    "leyden feedback 1e7de12d3ed09c7829d7c34190e1 --name thumbs_up --value 1",
    "leyden feedback 1e7de12d3ed09c7829d7c34190e1 --name ticket --value -1 --comment 'opened again'",
)
def feedback(
    rollout: RolloutId,
    name: Annotated[str, typer.Option(help="Name of the signal, such as thumbs_up.")],
    value: Annotated[float, typer.Option(help="Reward value; the run file's `emitted` section sets its weight.")],
    attempt: Annotated[
        int | None, typer.Option(min=0, max=0xFFFF, help="Attempt number. Default: the trace id's, else the newest.")
    ] = None,
    comment: Annotated[str | None, typer.Option(help="Reason, stored with the reward.")] = None,
    gateway: GatewayUrl = None,
    api_key: ApiKey = None,
    data_dir: StackDir = STACK_DIR,
) -> None:
    """Give a rollout a reward, during the run or after its end.

    A late reward counts within `late_horizon_s` of the run file's section reward; the rollout's group is then credited
    again. One that changes nothing is recorded all the same, and the command says why. An unknown rollout is an error;
    a key that may not look at the rollout sends the reward unchecked.
    """
    from leyden.cli.feedback import Asked, give_feedback, reads_log
    from leyden.cli.gateway_requests import gateway_of

    with clear_errors():
        asked = Asked(
            rollout=rollout,
            attempt=attempt,
            name=name,
            value=value,
            comment=comment,
            data_dir=data_dir,
            reads_log=reads_log(gateway, data_dir),
        )
        with closing(gateway_of(gateway, api_key, data_dir)) as client, progress() as tell:
            for line in give_feedback(asked, client, tell):
                say(line)
