"""`leyden rewards`: what each rule gave, by time or policy version, with a warning of possible reward hacking."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from leyden.analysis.bars import bar
from leyden.analysis.failed_rules import RuleFailures
from leyden.analysis.hacking import MIN_WINDOWS, Suspicion, suspicions
from leyden.analysis.judged import read_judged
from leyden.analysis.rewards import (
    TRAIN,
    HeldOutPoint,
    JudgedRollout,
    Window,
    held_out_curve,
    statistics,
    versions_of,
    windows_of,
)
from leyden.cli.formatting import TABLE, number, safe
from leyden.reading import Log, log_location
from leyden.reading.log import Tell
from leyden.stack.errors import StackError
from leyden.stack.program import as_typed


@dataclass(frozen=True, kw_only=True)
class RewardsPlan:
    """What the user chose."""

    data_dir: Path
    prefix: str | None
    window: int | None
    by_version: bool
    mode: str | None
    """`train` or `validation`; None: train, or validation if there is nothing else."""
    outcomes: tuple[str, ...]
    start: datetime | None
    end: datetime | None


@dataclass(frozen=True, kw_only=True)
class RewardsReport:
    """What is printed. `suspicions` always come from time windows, also in a table by version."""

    held_out: list[HeldOutPoint]
    windows: list[Window]
    outcomes: list[str]
    suspicions: list[Suspicion]
    looked_over: int
    """Number of time windows behind `suspicions`."""
    failures: RuleFailures


async def look_at_rewards(plan: RewardsPlan, tell: Tell) -> RewardsReport:
    """Read the log and compute the report. Raises StackError if no rollout has rewards."""
    with log_location(plan.data_dir) as location:
        async with Log(location, plan.prefix, tell) as log:
            judged = await read_judged(log, plan.by_version, plan.start, plan.end)
    if not judged.rollouts:
        raise StackError("\n".join(["No rollout has rewards in this log and time range.", *judged.failures.lines()]))
    outcomes = sorted(plan.outcomes or judged.whole_rollout_rules)
    held_out = held_out_curve(judged.rollouts)
    chosen = _of_mode(judged.rollouts, plan.mode)
    timed = windows_of(chosen, plan.window)
    lots = versions_of(chosen) if plan.by_version else timed
    shown = [statistics(_name(lot, plan.by_version), lot) for lot in lots]
    return RewardsReport(
        held_out=held_out,
        windows=shown,
        outcomes=outcomes,
        suspicions=suspicions(timed, outcomes),
        looked_over=len(timed),
        failures=judged.failures,
    )


def _of_mode(judged: Sequence[JudgedRollout], mode: str | None) -> list[JudgedRollout]:
    """Raises StackError if there are none of a mode that was asked for."""
    found = [one for one in judged if one.mode == (mode or TRAIN)]
    if not found and mode is not None:
        raise StackError(f"No {mode} rollout has rewards in this log and time range.")
    return found or list(judged)


def _name(lot: Sequence[JudgedRollout], by_version: bool) -> str:
    return lot[0].version if by_version else f"{lot[0].ended_at:%m-%d %H:%M:%S}"


def print_rewards(report: RewardsReport, console: Console) -> None:
    """Print rules that failed; one row per window and rule, the outcome first; then warnings."""
    for line in report.failures.lines():
        console.print(line, style="bold red", markup=False, highlight=False, soft_wrap=True)
    if report.held_out:
        _print_held_out(report.held_out, console)
    table = Table(box=TABLE, collapse_padding=True, pad_edge=False)
    for head in ("from", "rollouts", "rule", "n", "mean", "sd", "range", "per rollout", "share"):
        table.add_column(head, justify="left" if head in ("from", "rule") else "right", no_wrap=head != "rule")
    for window in report.windows:
        cells = (window.name, str(window.rollouts))
        for rule in sorted(window.rules, key=lambda name: (name not in report.outcomes, name)):
            s = window.rules[rule]
            named = f"{rule} *" if rule in report.outcomes else rule
            numbers = (number(s.mean), number(s.sd), f"{number(s.min)}…{number(s.max)}", number(s.per_rollout))
            table.add_row(*map(safe, (*cells, named, s.count, *numbers, f"{s.share:.0%}")))
            cells = ("", "")
    console.print(table)
    console.print(
        "n, mean, sd, range: of single rewards (value × weight); per rollout: their mean sum; *: the outcome",
        soft_wrap=True,
    )
    if not report.outcomes:
        console.print(
            "No rule judges whole rollouts, so trends are not compared: name the outcome's rule with --outcome."
        )
    elif report.looked_over < MIN_WINDOWS:
        console.print(f"{report.looked_over} windows are too few for a trend: {MIN_WINDOWS} are needed (see --window).")
    for suspicion in report.suspicions:
        console.print(_warning(suspicion, report.looked_over), soft_wrap=True, highlight=False)


def _print_held_out(points: Sequence[HeldOutPoint], console: Console) -> None:
    """Print the curve of the validation rollouts."""
    table = Table(box=TABLE, pad_edge=False, title="held-out tasks (validation)", title_justify="left")
    for head in ("version", "rollouts", "mean reward", "sd", ""):
        table.add_column(head, justify="left" if head in ("version", "") else "right")
    low = min([0.0, *(one.mean for one in points)])
    high = max([1.0, *(one.mean for one in points)])
    for one in points:
        level = bar(one.mean, (low, high))
        table.add_row(*map(safe, (one.version, one.rollouts, number(one.mean), number(one.sd), level)))
    console.print(table)


def _warning(suspicion: Suspicion, windows: int) -> str:
    rule, outcome = suspicion.trend, suspicion.outcome
    return (
        f"[bold red]WARNING[/] {safe(suspicion.rule)} rises by {rule.change:.3g} per rollout ({rule.effect:+.1f} sd) "
        f"over {windows} windows while the outcome falls by {-outcome.change:.3g} ({outcome.effect:+.1f} sd): "
        f"possible reward hacking. Look at rollouts with `{as_typed()} inspect`; then lower the rule's weight or cap."
    )
