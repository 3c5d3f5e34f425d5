"""`leyden rewards`: what each rule gave over time or by version, and a warning where that looks like reward hacking."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from leyden.analysis.hacking import MIN_WINDOWS, Suspicion, suspicions
from leyden.analysis.judged import read_judged
from leyden.analysis.rewards import JudgedRollout, Window, statistics, versions_of, windows_of
from leyden.cli.formatting import TABLE, number, safe
from leyden.reading import Log, place_of
from leyden.reading.log import Tell
from leyden.stack.errors import StackError
from leyden.stack.program import as_typed


@dataclass(frozen=True)
class RewardsPlan:
    """What the user chose."""

    data_dir: Path
    prefix: str | None
    window: int | None
    by_version: bool
    outcomes: tuple[str, ...]
    start: datetime | None
    end: datetime | None


@dataclass(frozen=True)
class RewardsReport:
    """What is shown. Suspicions are looked for over windows of time, however the table is cut."""

    windows: list[Window]
    outcomes: list[str]
    suspicions: list[Suspicion]
    looked_over: int
    """Windows that the trend was looked for in."""


async def look_at_rewards(plan: RewardsPlan, tell: Tell) -> RewardsReport:
    """Read and count; raises StackError when there is nothing judged."""
    with place_of(plan.data_dir) as place:
        async with Log(place, plan.prefix, tell) as log:
            judged = await read_judged(log, plan.by_version, plan.start, plan.end)
    if not judged.rollouts:
        raise StackError("No rollout has rewards there.")
    outcomes = sorted(plan.outcomes or judged.whole_rollout_rules)
    timed = windows_of(judged.rollouts, plan.window)
    lots = versions_of(judged.rollouts) if plan.by_version else timed
    shown = [statistics(_name(lot, plan.by_version), lot) for lot in lots]
    return RewardsReport(shown, outcomes, suspicions(timed, outcomes), len(timed))


def _name(lot: Sequence[JudgedRollout], by_version: bool) -> str:
    return lot[0].version if by_version else f"{lot[0].ended_at:%m-%d %H:%M:%S}"


def print_rewards(report: RewardsReport, console: Console) -> None:
    """One line for each rule of each window, the outcome's first; then warnings."""
    table = Table(box=TABLE, collapse_padding=True, pad_edge=False)
    for head in ("from", "rollouts", "rule", "n", "mean", "sd", "range", "a rollout", "share"):
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
    console.print("value × weight of single rewards; a rollout: of all of them together; * the outcome", soft_wrap=True)
    if not report.outcomes:
        console.print("No rule judges whole rollouts: name the outcome's with --outcome to have trends compared.")
    elif report.looked_over < MIN_WINDOWS:
        console.print(f"{report.looked_over} windows are too few for a trend: it takes {MIN_WINDOWS} (see --window).")
    for suspicion in report.suspicions:
        console.print(_warning(suspicion, report.looked_over), soft_wrap=True, highlight=False)


def _warning(suspicion: Suspicion, windows: int) -> str:
    rule, outcome = suspicion.trend, suspicion.outcome
    return (
        f"[bold red]WARNING[/] {safe(suspicion.rule)} rises by {rule.change:.3g} a rollout ({rule.effect:+.1f} sd) "
        f"over {windows} windows while the outcome falls by {-outcome.change:.3g} ({outcome.effect:+.1f} sd): "
        f"this looks like reward hacking. Look at rollouts with `{as_typed()} inspect`; lower its weight or its cap."
    )
