"""`leyden inspect`: finds a rollout in the log and prints a report on it."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from leyden.cli.formatting import TABLE, facts_table, number, safe, short
from leyden.cli.ids import rollout_named
from leyden.ids import AttemptRef
from leyden.inspect.evidence import RolloutEvidence, gather
from leyden.inspect.report import CallLine, CreditLine, RewardLine, RolloutReport, Said, ToolLine
from leyden.inspect.tell import report_on
from leyden.reading import Log, log_location
from leyden.reading.log import Tell
from leyden.reading.model_wait import read_model_wait
from leyden.stack.errors import StackError

RUNNING = "running"


async def find_rollout(
    name: str, *, attempt: int | None, data_dir: Path, prefix: str | None, tell: Tell
) -> RolloutReport:
    """The report on rollout `name` (its id, or the trace id of one attempt). Raises StackError if there is none."""
    rollout_id, asked = rollout_named(name, attempt)
    with log_location(data_dir) as location:
        async with Log(location, prefix, tell) as log:
            evidence = await gather(log, rollout_id)
    if evidence is None:
        raise StackError(f"No rollout {rollout_id} in the log. Check the id, --data-dir and --prefix.")
    report = report_on(evidence, _attempt(evidence, asked))
    if report.status != RUNNING:
        return report
    model = await asyncio.to_thread(read_model_wait, location, log.prefix, data_dir)
    waits_s = model.attempts.get(AttemptRef(rollout_id, report.attempt).trace_id) if model is not None else None
    if waits_s is None:
        return report
    note = f"It waits for the model, not the agent: a call has had no answer for {waits_s:.0f} s."
    return report.model_copy(update={"notes": [note, *report.notes]})


def _attempt(evidence: RolloutEvidence, asked: int | None) -> int:
    """The attempt asked for, else the last one."""
    if asked is None:
        return evidence.attempts[-1]
    if asked not in evidence.attempts:
        known = ", ".join(map(str, evidence.attempts))
        raise StackError(f"Rollout {evidence.rollout_id} has no attempt {asked}; the log has {known}.")
    return asked


def print_report(report: RolloutReport, console: Console) -> None:
    """Print the report as tables, without empty ones."""
    console.print(_header(report))
    if report.notes:
        console.print("\n[bold]not trained, or waiting[/]")
    for note in report.notes:
        console.print(f"  {note}", highlight=False, markup=False)
    for call in report.calls:
        _print_said(call, console)
    for title, table in (
        ("calls", _calls(report.calls)),
        ("tools", _tools(report.tools)),
        ("rewards", _rewards(report)),
        ("trained", _trained(report.calls)),
        ("credit", _credits(report.credits)),
    ):
        if table.row_count:
            console.print(f"\n[bold]{title}[/]")
            console.print(table)


def _print_said(call: CallLine, console: Console) -> None:
    """What the call's prompt has beyond the call before, its answers, and what of it is trained."""
    who = f", agent {safe(call.agent)}" if call.agent else ""
    console.print(f"\n[bold]call {call.index}[/]{who}")
    if call.new_from:
        console.print(f"  … {call.new_from} messages as before", highlight=False)
    for message in call.prompt[call.new_from :]:
        _print_message(message.role, message, console)
    for choice, answer in enumerate(call.answers):
        _print_message("answer" if len(call.answers) == 1 else f"answer {choice}", answer, console)
    if call.error:
        console.print(f"  error: {call.error}", markup=False, highlight=False)
    for t in call.trained:
        console.print(f"  → {t.tokens} tokens trained, advantage {number(t.advantage)}", highlight=False)
    if not call.trained:
        console.print(f"  → not trained: {call.left_out or 'not decided yet'}", markup=False, highlight=False)


def _print_message(name: str, said: Said, console: Console) -> None:
    indent = " " * (len(name) + 4)
    texts = [f"(thinks) {said.reasoning}"] if said.reasoning else []
    texts += [said.text] if said.text else []
    texts += [f"calls {call.name}({call.arguments})" for call in said.tool_calls]
    text = "\n".join(texts) or "(nothing)"
    console.print(f"  {name}: " + text.replace("\n", f"\n{indent}"), markup=False, highlight=False, soft_wrap=True)


def _header(report: RolloutReport) -> Table:
    seconds = "" if report.seconds is None else f" in {report.seconds:.1f} s"
    others = f" of {len(report.attempts)} ({', '.join(map(str, report.attempts))})" if len(report.attempts) > 1 else ""
    lineages = sorted({credit.lineages for credit in report.credits})
    table = facts_table()
    rows = {
        "rollout": report.rollout_id,
        "attempt": f"{report.attempt}{others}: {report.status}{seconds}",
        "task": f"{report.task_id or '-'}{'' if report.mode in (None, 'train') else f' ({report.mode})'}",
        "input": short(report.task_input),
        "group": f"{report.group_id or '-'} of {report.group_size or '?'}",
        "policies": ", ".join(report.policy_versions) or "-",
        "lineages": ", ".join(map(str, lineages)) or "-",
        "return": "-" if report.total_reward is None else f"{report.total_reward:.4g}",
    }
    for name, value in rows.items():
        table.add_row(f"[bold]{name}[/]", safe(value))
    return table


def _calls(calls: Sequence[CallLine]) -> Table:
    table = Table(box=TABLE)
    for head in ("call", "agent", "version", "prompt", "response", "finish", "s"):
        table.add_column(head, justify="left" if head in ("agent", "version", "finish") else "right")
    for call in calls:
        version = f"{call.policy}@{call.policy_version}" if call.policy else "-"
        finish = ",".join(reason or "-" for reason in call.finish) or "-"
        tokens = "+".join(map(str, call.response_tokens)) or "-"
        cells = (call.index, call.agent or "-", version, call.prompt_tokens, tokens, call.error or finish)
        table.add_row(*map(safe, (*cells, f"{call.latency_s:.2f}")))
    return table


def _trained(calls: Sequence[CallLine]) -> Table:
    """One row per call, credit service, policy and choice; or the reason why there is none."""
    table = Table(box=TABLE)
    for head in ("call", "lineage", "tokens", "reward", "return", "advantage", "value", "why not"):
        table.add_column(head, justify="left" if head == "why not" else "right", overflow="fold")
    for call in calls:
        for t in call.trained:
            numbers = map(number, (t.reward, t.return_, t.advantage))
            value = "-" if t.value is None else number(t.value)
            table.add_row(*map(safe, (call.index, _named(t.credit, str(t.lineage)), t.tokens, *numbers, value, "")))
        if not call.trained:
            table.add_row(str(call.index), "-", "0", "-", "-", "-", "-", safe(call.left_out or "not decided yet"))
    return table


def _tools(tools: Sequence[ToolLine]) -> Table:
    table = Table("tool", "status", "asked by", "s", "arguments", "result or error", box=TABLE)
    for tool in tools:
        asked = "-" if tool.asked_by is None else f"call {tool.asked_by}"
        shown = (tool.name, tool.status, asked, f"{tool.seconds:.2f}", short(tool.arguments))
        table.add_row(*map(safe, (*shown, tool.error or short(tool.result))))
    return table


def _rewards(report: RolloutReport) -> Table:
    table = Table("rule", "signal", "value", "weight", "gives", "for", "call", "counts", box=TABLE)
    for reward in report.rewards:
        table.add_row(*map(safe, _reward_cells(reward, report.rewards_revision)))
    return table


def _reward_cells(reward: RewardLine, revision: int | None) -> tuple[str, ...]:
    call = "-" if reward.call is None else str(reward.call)
    numbers = (number(reward.value), number(reward.weight), number(reward.contribution))
    counts = f"rev {revision}" if reward.counted else "no"
    return (reward.rule, "" if reward.name == reward.rule else reward.name, *numbers, reward.evidence, call, counts)


def _credits(credits_: Sequence[CreditLine]) -> Table:
    table = Table("credit", "policy", "rev", "lineages", "trained", "group", "members", "closed", box=TABLE)
    for one in credits_:
        tokens = f"{one.tokens_trained} of {one.tokens}"
        cells = (one.credit or "live", one.policy, one.revision, one.lineages, tokens)
        spread = f"{one.group_mean:.3g} ± {one.group_std:.2g}"
        table.add_row(*map(safe, (*cells, spread, one.group_members, one.closed_by)))
    return table


def _named(credit: str, text: str) -> str:
    return f"{credit}:{text}" if credit else text
