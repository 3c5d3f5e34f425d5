"""The screen of `leyden watch`: tables updated in place on a terminal; elsewhere a line for each thing that is new."""

import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from leyden.analysis.loop_report import CurvePoint, LoopReport, Problem, StepLine
from leyden.analysis.rewards import VALIDATION
from leyden.cli.formatting import TABLE, facts_table, number, print_columns, safe
from leyden.cli.watching import StackView, reports
from leyden.stack.program import as_typed
from leyden.stack.progress import Progress

NEWEST = 8
"""Rows of a table of steps or versions on the screen; `--json` has all."""
_BAR = 20
_NUMBER = re.compile(r"\d+(\.\d+)?")


async def watching(data_dir: Path, prefix: str | None, tell: Progress, console: Console, every_s: float) -> None:
    """Show the loop until Ctrl-C."""
    view = WatchView(console)
    try:
        async for stack, report in reports(data_dir, prefix, tell, every_s):
            tell.close()
            view.show(stack, report)
    finally:
        view.close()


async def print_screen(data_dir: Path, prefix: str | None, tell: Progress, console: Console) -> None:
    """Print the loop once, as tables."""
    async for stack, report in reports(data_dir, prefix, tell, None):
        tell.close()
        console.print(screen(stack, report) if report is not None else Text(_unread(stack)))


async def print_json(
    data_dir: Path, prefix: str | None, tell: Progress, console: Console, down: StackView | None = None
) -> None:
    """Print the loop once, as JSON; of a stack that is `down`, its processes alone."""
    if down is not None:
        console.file.write(as_json(down, None) + "\n")
        return
    async for stack, report in reports(data_dir, prefix, tell, None):
        tell.close()
        console.file.write(as_json(stack, report) + "\n")


def as_json(view: StackView, report: LoopReport | None) -> str:
    """The whole state: the report, with the stack's state, its processes, and their problems before the others."""
    document: dict[str, Any] = report.model_dump(mode="json") if report is not None else {}
    document["stack"] = view.headline or None
    document["processes"] = [asdict(process) for process in view.processes]
    known = [*view.problems(), *(report.problems if report is not None else [])]
    document["problems"] = [problem.model_dump() for problem in known]
    return json.dumps(document, indent=2, ensure_ascii=False)


def print_processes(view: StackView, console: Console) -> None:
    """Print the stack's state, its processes and addresses."""
    state = view.state
    if state is None or not state.is_running:
        for problem in view.problems() or [Problem(what="No stack was started here.", do=f"`{as_typed()} up`")]:
            console.print(f"{problem.what} → {problem.do}", highlight=False, soft_wrap=True)
        return
    doing = f"  {state.doing}" if state.phase == "starting" else ""
    console.print(f"[bold]{safe(view.headline)}[/]{safe(doing)}", highlight=False)
    heads = ("process", "state", "pid", "restarts", "log")
    rows = [(one.name, one.state, one.pid or "-", one.restarts, one.log) for one in view.processes]
    print_columns(heads, rows, console, right=("pid", "restarts"))
    console.print(
        f"gateway {state.gateway_url}  kafka {state.kafka_servers}  redis {state.redis_url}",
        soft_wrap=True,
        highlight=False,
    )


class WatchView:
    """Shows reports. Without a terminal, prints what changed since the last one."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=4, transient=False) if console.is_terminal else None
        self._told: set[str] = set()
        self._open: set[str] = set()
        """What is wrong, without its numbers, which grow; forgotten when a report no longer has it."""
        if self._live:
            self._live.start()

    def show(self, view: StackView, report: LoopReport | None) -> None:
        """Draw `report`; None: the stack is starting, or Kafka does not answer."""
        if self._live:
            self._live.update(Text(_unread(view)) if report is None else screen(view, report))
            return
        known, self._open = self._open, self._open if report is None else set()
        for line in lines(view, report):
            if line.startswith("!") or report is None:
                subject = _NUMBER.sub("#", line)
                is_new = subject not in known
                self._open |= {subject}
            else:
                is_new = line not in self._told
                self._told.add(line)
            if is_new:
                self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Stop updating; the last tables stay."""
        if self._live:
            self._live.stop()


def screen(view: StackView, report: LoopReport) -> RenderableType:
    """The whole report as tables: the held-out curve first, then what to do, then the details."""
    parts: list[RenderableType] = [Text(_headline(view, report), style="bold")]
    known = [*view.problems(), *report.problems]
    parts += [Text(f"! {problem.what}\n  → {problem.do}", style="yellow") for problem in known]
    held_out = [point for point in report.curve if point.mode == VALIDATION]
    trained = [point for point in report.curve if point.mode != VALIDATION]
    parts += [_curve("reward on held-out tasks (validation), by version", held_out)] if held_out else []
    parts += [_curve("reward on training tasks, by version", trained)] if trained else []
    parts += [_steps(report.steps)] if report.steps else []
    parts += [_details(report)]
    return Group(*parts)


def lines(view: StackView, report: LoopReport | None) -> Iterator[str]:
    """The report as lines; a line that says nothing new is equal to one before."""
    if report is None:
        yield _unread(view)
        return
    for step in report.steps:
        yield step_text(step)
    for point in report.curve:
        if point.mode == VALIDATION and point.mean_reward is not None:
            yield f"held out {point.version}: reward {point.mean_reward:.3f} over {point.rewarded} rollouts"
    for problem in [*view.problems(), *report.problems]:
        yield f"! {problem.what} → {problem.do}"
    yield _headline(view, report)


def _unread(view: StackView) -> str:
    """Why there is no report."""
    if view.starting:
        return view.starting
    if view.is_ending:
        return "the stack is being stopped"
    if view.has_ended:
        return " ".join(problem.what for problem in view.problems())
    return "Kafka does not answer; waiting for it."


def step_text(step: StepLine) -> str:
    """A step as one line."""
    result = f"version {step.version}" if step.changed else "no weight changed"
    dropped = "".join(f", {count} dropped ({reason})" for reason, count in step.dropped.items())
    return (
        f"step {step.step} of {step.policy}: {result}, reward {step.reward:.3f}, {step.groups} groups, "
        f"{step.rollouts} rollouts, {step.sequences} sequences, {step.trained_tokens} tokens, "
        f"staleness {step.staleness_mean:.1f}, {step.seconds:.1f} s{dropped}"
    )


def _headline(view: StackView, report: LoopReport) -> str:
    queue = report.queue
    live = ", ".join(
        f"{one.policy}@{'-' if one.live is None else one.live}"
        + (f" ({one.promoted} is loading)" if one.live is not None and one.promoted > one.live else "")
        for one in report.policies
    )
    parts = [
        view.headline,
        f"live {live}" if live else "no policy serves",
        f"{len(report.steps)} steps",
        f"{queue.queued} waiting, {queue.running} running, {queue.succeeded} done, {queue.failed} failed",
    ]
    parts += ["queue paused"] if queue.paused else []
    return "  ·  ".join(part for part in parts if part)


def _curve(title: str, points: list[CurvePoint]) -> Table:
    table = Table(box=TABLE, title=title, title_justify="left", pad_edge=False)
    for head in ("version", "reward", "", "rollouts", "failed", "no reward"):
        table.add_column(head, justify="left" if head in ("version", "") else "right")
    top = max((abs(point.mean_reward) for point in points if point.mean_reward is not None), default=0.0)
    for point in points[-NEWEST:]:
        reward = "-" if point.mean_reward is None else f"{point.mean_reward:.3f}"
        bar = "█" * round(_BAR * max(0.0, point.mean_reward or 0.0) / max(top, 1.0))
        missing = point.rollouts - point.failed - point.rewarded
        table.add_row(
            *map(safe, (point.version, reward, bar, point.rollouts, point.failed or "", max(0, missing) or ""))
        )
    return table


def _steps(steps: list[StepLine]) -> Table:
    table = Table(box=TABLE, title="steps", title_justify="left", pad_edge=False)
    for head in ("step", "version", "reward", "groups", "sequences", "tokens", "staleness", "seconds", "note"):
        table.add_column(head, justify="left" if head == "note" else "right", no_wrap=head != "note")
    for one in steps[-NEWEST:]:
        cells = (
            one.step, one.version, f"{one.reward:.3f}", one.groups, one.sequences, one.trained_tokens,
            f"{one.staleness_mean:.1f}", f"{one.seconds:.1f}", ", ".join(_notes(one)),
        )  # fmt: skip
        table.add_row(*map(safe, cells))
    return table


def _notes(step: StepLine) -> Iterator[str]:
    if not step.changed:
        yield "no weight changed"
    for reason, count in step.dropped.items():
        yield f"{count} {reason.replace('_', ' ')}"


def _details(report: LoopReport) -> Table:
    table = facts_table()
    for name, value in _facts(report):
        table.add_row(f"[bold]{name}[/]", safe(value))
    return table


def _facts(report: LoopReport) -> Iterator[tuple[str, str]]:
    queue, groups, speed = report.queue, report.groups, report.throughput
    running = f", the longest for {queue.longest_running_s:.0f} s" if queue.longest_running_s is not None else ""
    claimed = f"; last claim {queue.claimed_s_ago:.0f} s ago" if queue.claimed_s_ago is not None else ""
    yield (
        "queue",
        (
            f"{queue.queued} waiting, {queue.running} running{running}, {queue.retrying} to be retried, "
            f"{queue.succeeded} succeeded, {queue.failed} failed ({queue.validation} of all are held out){claimed}"
        ),
    )
    if report.model is not None and report.model.calls:
        yield "model", report.model.text
    step = f" (a step takes {groups.per_step})" if groups.per_step else ""
    yield (
        "groups",
        (
            f"{groups.waiting} waiting, {groups.credited} credited, {groups.ready} ready for the next step{step}, "
            f"{groups.flat} with equal rewards, {groups.empty} with nothing to train"
        ),
    )
    if groups.waits_for:
        yield "", "waiting for " + ", ".join(f"{what} ({count})" for what, count in groups.waits_for.items())
    for one in groups.examples[:3]:
        waits = ", ".join(f"{count} for {what}" for what, count in one.waits_for.items())
        yield "", f"{one.group_id}: {one.finished} of {one.size} finished; {waits}"
    for reason, count in groups.left_out.items():
        yield "", f"{count} rollouts left out: {reason}"
    if report.lag:
        yield "lag", "  ".join(f"{stage} {count}" for stage, count in report.lag.items())
    yield (
        "speed",
        (
            f"{number(speed.rollouts_per_minute)} rollouts/min, {number(speed.calls_per_minute)} calls/min, "
            f"{number(speed.tokens_per_second)} tokens/s"
        ),
    )
    for failure in report.failures[:3]:
        yield "failed", f"{failure.count} × {failure.failure_class}: {failure.message or '-'} (in {failure.example})"
    for rule in report.rule_failures[:3]:
        yield "rule failed", f"{rule.count} × {rule.message} (in {rule.example})"
