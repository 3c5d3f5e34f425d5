"""The commands of the one who runs the training: looking into the log, taking data out, judging from outside."""

import asyncio
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from leyden.cli.shell import STACK_DIR, DataDir, LogDir, TopicPrefix, clear_errors, console, progress, say

engineer_app = typer.Typer()


@engineer_app.command()
def inspect(
    rollout: Annotated[str, typer.Argument(help="Rollout id (28 hex digits) or the trace id of one attempt (32).")],
    attempt: Annotated[int | None, typer.Option(min=0, help="Default: the last one.")] = None,
    data_dir: LogDir = STACK_DIR,
    prefix: TopicPrefix = None,
    as_json: Annotated[bool, typer.Option("--json", help="The whole report as JSON, nothing shortened.")] = False,
) -> None:
    """Print one rollout: calls, tools, rewards by rule, return, advantage, tokens trained, and why anything is not."""
    from leyden.cli.inspecting import find_rollout, print_report

    with clear_errors():
        with progress() as tell:
            report = asyncio.run(find_rollout(rollout, attempt, data_dir, prefix, tell))
        if as_json:
            console.file.write(report.model_dump_json(indent=2) + "\n")
        else:
            print_report(report, console)


@engineer_app.command()
def export(
    out: Annotated[Path, typer.Option(dir_okay=False, help="File to write; one that is there is replaced.")],
    export_format: Annotated[
        str, typer.Option("--format", help="parquet or jsonl (every column), trl, verl or llama-factory.")
    ] = "parquet",
    of: Annotated[str, typer.Option(help="live, the name of a replay, or credit:NAME.")] = "live",
    policy: Annotated[str | None, typer.Option(help="Only transitions of this policy.")] = None,
    group: Annotated[str | None, typer.Option(help="Only this group.")] = None,
    start: Annotated[datetime | None, typer.Option("--from", help="Groups published from then on; UTC.")] = None,
    end: Annotated[datetime | None, typer.Option("--to", help="Groups published before then; UTC.")] = None,
    min_reward: Annotated[float | None, typer.Option(help="Only rollouts with at least this return.")] = None,
    ground_truth: Annotated[
        str, typer.Option(help="Field of the task's metadata that becomes verl's ground_truth.")
    ] = "answer",
    data_dir: LogDir = STACK_DIR,
) -> None:
    """Write transitions as tuples: state, action, reward, next state, return, advantage, tokens, version, lineage.

    One row is one action. Token ids and logprobs are the engine's, from the transitions; text is the recorded messages
    of the call. Only whole groups are written, each at its newest revision.
    """
    from leyden.cli.exporting import run_export_command

    filters = (policy, group, start, end)
    with clear_errors():
        with progress() as tell:
            lines = run_export_command(export_format, out, of, filters, min_reward, ground_truth, data_dir, tell)
        for line in lines:
            say(line)


@engineer_app.command()
def rewards(
    window: Annotated[int | None, typer.Option(min=1, help="Rollouts a window; default: a tenth of them all.")] = None,
    by: Annotated[str, typer.Option(help="window (of time) or version (of the policy).")] = "window",
    outcome: Annotated[
        list[str] | None, typer.Option(help="Rule that is the outcome; default: those that judge whole rollouts.")
    ] = None,
    start: Annotated[datetime | None, typer.Option("--from", help="Rewards given from then on; UTC.")] = None,
    end: Annotated[datetime | None, typer.Option("--to", help="Rewards given before then; UTC.")] = None,
    data_dir: LogDir = STACK_DIR,
    prefix: TopicPrefix = None,
) -> None:
    """Show what each reward rule gave (value × weight), and warn when one rises while the outcome falls."""
    from leyden.cli.exporting import as_utc
    from leyden.cli.rewarding import RewardsPlan, look_at_rewards, print_rewards

    if by not in ("window", "version"):
        raise typer.BadParameter("choose window or version", param_hint="--by")
    named = tuple(outcome or ())
    plan = RewardsPlan(data_dir, prefix, window, by == "version", named, as_utc(start), as_utc(end))
    with clear_errors():
        with progress() as tell:
            report = asyncio.run(look_at_rewards(plan, tell))
        print_rewards(report, console)


@engineer_app.command()
def feedback(
    rollout: Annotated[str, typer.Argument(help="Rollout id (28 hex digits) or the trace id of one attempt (32).")],
    name: Annotated[str, typer.Option(help="Of the reward's signal, such as thumbs_up.")],
    value: Annotated[float, typer.Option(help="The reward; the run file's `emitted` weighs it.")],
    attempt: Annotated[int | None, typer.Option(min=0, max=0xFFFF, help="Default: the trace id's, else 0.")] = None,
    comment: Annotated[str | None, typer.Option(help="Why; kept with the reward's evidence.")] = None,
    gateway: Annotated[str | None, typer.Option(help="Default: LEYDEN_GATEWAY_URL, else the stack's.")] = None,
    api_key: Annotated[str | None, typer.Option(help="Default: LEYDEN_API_KEY, else the stack's.")] = None,
    data_dir: DataDir = STACK_DIR,
) -> None:
    """Give a rollout a reward from outside, also after its end: an evaluation in its trace, through the gateway.

    After the rollout was settled it counts within the run file's `late_horizon_s`, as a new revision.
    """
    from leyden.cli.feedback import Feedback, gateway_of, send_feedback

    with clear_errors():
        given = Feedback(rollout, attempt, name, value, comment)
        about = given.subject()
        with closing(gateway_of(gateway, api_key, data_dir)) as door:
            send_feedback(given, door)
        say(f"{name} = {value:g} for rollout {about.rollout_id}, attempt {about.attempt}")
