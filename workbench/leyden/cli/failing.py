"""`leyden errors`: reads failed attempts from the log and prints them, grouped, as a table or JSON."""

import json
import re
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rich.console import Console

from leyden.analysis.failed_rules import RuleFailures, read_rule_failures
from leyden.analysis.failures import FailedAttempt, FailureGroup, GroupBy, grouped
from leyden.cli.formatting import facts_table, print_columns, safe, short
from leyden.events import FailureClass, ModelCallRecorded, RolloutEnded
from leyden.events.codec import MODEL_CALLS, ROLLOUTS
from leyden.ids import AttemptRef, attempt_of_trace
from leyden.reading import Log, log_location
from leyden.reading.log import Tell
from leyden.stack.errors import StackError
from leyden.stack.program import as_typed

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
ENDED = b'{"type":"rollout-ended"'
FAILED = b'"status":"failed"'


@dataclass(frozen=True, kw_only=True)
class ErrorsPlan:
    """What the user chose."""

    data_dir: Path
    prefix: str | None
    since: datetime | None
    by: GroupBy = GroupBy.MESSAGE
    kind: str | None = None
    show: str | None = None


@dataclass(frozen=True)
class Failures:
    """Failed attempts in the log."""

    ended: int
    """All attempts that ended in that time, failed or not."""
    attempts: list[FailedAttempt]
    rules: RuleFailures = field(default_factory=RuleFailures)
    """Reward rules that failed on attempts which succeeded."""


def since(text: str | None, now: datetime) -> datetime | None:
    """`2h` (or s, m, d, w) ago, or an ISO date or time, in UTC unless it names a zone. Raises StackError."""
    if text is None:
        return None
    if match := re.fullmatch(r"(\d{1,6})([smhdw])", text.strip()):
        return now - timedelta(**{UNITS[match[2]]: int(match[1])})
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise StackError(f"--since {text}: use 30m, 12h, 7d, or a date such as 2026-01-31.") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


async def look_at_failures(plan: ErrorsPlan, tell: Tell) -> Failures:
    """The failed attempts. Raises StackError for an unknown failure class."""
    if plan.kind is not None and plan.kind not in list(FailureClass):
        raise StackError(f"--class {plan.kind}: use one of {', '.join(FailureClass)}.")
    with log_location(plan.data_dir) as location:
        async with Log(location, plan.prefix, tell) as log:
            found = await read_failures(log, plan)
            if plan.show is not None:
                return found
            return replace(found, rules=await read_rule_failures(log, plan.since))


async def read_failures(log: Log, plan: ErrorsPlan) -> Failures:
    """Read `rollouts.v1`, and the attempts' calls if agents or versions are needed."""
    seen = 0

    def wanted(_: bytes, value: bytes) -> bool:
        nonlocal seen
        if not value:  # too large for Kafka: known only after it is fetched
            return True
        seen += value.startswith(ENDED)
        return value.startswith(ENDED) and FAILED in value

    found: dict[AttemptRef, FailedAttempt] = {}
    begun: list[datetime] = []
    async for one in log.read(ROLLOUTS, wanted=wanted, start=plan.since):
        event = one.event
        if isinstance(event, RolloutEnded) and event.status == "failed" and event.ref not in found:
            attempt = failed_attempt(event)
            if plan.kind in (None, attempt.failure_class):
                found[event.ref] = attempt
                begun.append(event.started_at)
    if found and (plan.by in (GroupBy.AGENT, GroupBy.POLICY_VERSION) or plan.show):
        found = await _with_calls(log, found, min(begun))
    return Failures(seen, list(found.values()))


def failed_attempt(event: RolloutEnded) -> FailedAttempt:
    """The failure in an end; without one it is an `agent_exception`."""
    failure = event.failure
    return FailedAttempt(
        ref=event.ref,
        at=event.event_time,
        failure_class=failure.failure_class if failure else FailureClass.AGENT_EXCEPTION,
        message=failure.message if failure else "",
        evidence=failure.evidence if failure else None,
        final=event.final,
        task_id=event.task.task_id if event.task else None,
    )


async def _with_calls(
    log: Log, found: dict[AttemptRef, FailedAttempt], begun: datetime
) -> dict[AttemptRef, FailedAttempt]:
    agents: dict[AttemptRef, set[str]] = {}
    versions: dict[AttemptRef, set[str]] = {}
    async for one in log.read(MODEL_CALLS, keys={ref.rollout_id for ref in found}, start=begun):
        call = one.event
        if not isinstance(call, ModelCallRecorded) or call.rollout_id is None:
            continue
        ref = AttemptRef(call.rollout_id, call.attempt)
        if call.agent_name:
            agents.setdefault(ref, set()).add(call.agent_name)
        if call.policy is not None and call.policy_version is not None:
            versions.setdefault(ref, set()).add(f"{call.policy}@{call.policy_version}")
    return {
        ref: replace(
            attempt, agents=tuple(sorted(agents.get(ref, ()))), policy_versions=tuple(sorted(versions.get(ref, ())))
        )
        for ref, attempt in found.items()
    }


def chosen(failures: Failures, plan: ErrorsPlan) -> list[FailedAttempt]:
    """The attempts of `--show`: of a group id, rollout id or trace id. Raises StackError if there are none."""
    assert plan.show is not None
    if ref := attempt_of_trace(plan.show):
        whole = len(plan.show) == len(ref.rollout_id)
        found = [a for a in failures.attempts if (a.ref.rollout_id == ref.rollout_id if whole else a.ref == ref)]
    else:
        groups = {group.group: group for group in grouped(failures.attempts, plan.by)}
        names = set(groups[plan.show].examples) if plan.show in groups else set()
        found = [attempt for attempt in failures.attempts if attempt.ref.trace_id in names]
    if not found:
        raise StackError(
            f"No failed attempt matches --show {plan.show}: use a group id of this report, a rollout id or a trace id."
        )
    return sorted(found, key=lambda attempt: attempt.at, reverse=True)


def as_json(failures: Failures, plan: ErrorsPlan) -> str:
    """The full report."""
    if plan.show is not None:
        document: Any = [_shown(attempt) for attempt in chosen(failures, plan)]
    else:
        groups = [asdict(group) | {"newest": _shown(group.newest)} for group in grouped(failures.attempts, plan.by)]
        document = {"ended": failures.ended, "failed": len(failures.attempts), "groups": groups}
        document["failed_rules"] = [asdict(rule) for rule in failures.rules.failed]
        document["without_outcome"] = failures.rules.without_outcome
    return json.dumps(document, indent=2, ensure_ascii=False, default=_plain)


def _shown(attempt: FailedAttempt) -> dict[str, Any]:
    evidence = attempt.evidence.model_dump(mode="json", exclude_none=True) if attempt.evidence else {}
    whole = asdict(replace(attempt, evidence=None)) | {"evidence": evidence}
    del whole["ref"]
    return {"rollout_id": attempt.ref.rollout_id, "attempt": attempt.ref.attempt, **whole}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def print_failures(failures: Failures, plan: ErrorsPlan, console: Console) -> None:
    """Print the groups as a table, or the attempts of `--show` in full."""
    if plan.show is not None:
        for attempt in chosen(failures, plan):
            _print_attempt(attempt, console)
        return
    failed = len(failures.attempts)
    share = f" ({failed / failures.ended:.1%})" if failures.ended else ""
    console.print(f"{failed} of {failures.ended} attempts failed{share}", highlight=False)
    for line in failures.rules.lines():
        console.print(line, style="bold red", markup=False, highlight=False, soft_wrap=True)
    if not failed:
        return
    about = plan.by.value if plan.by is not GroupBy.CLASS else "newest message"
    counts = ("attempts", "rollouts", "final")
    heads = ("group", "class", about, *counts, "first", "last", "example")
    rows = [_row(group, plan.by) for group in grouped(failures.attempts, plan.by)]
    print_columns(heads, rows, console, right=counts)
    console.print(f"evidence: `{as_typed()} errors --show GROUP`; the whole rollout: `{as_typed()} inspect EXAMPLE`")


def _row(group: FailureGroup, by: GroupBy) -> list[str]:
    about = short(group.newest.shape) if by is GroupBy.CLASS else group.about
    times = [f"{moment.astimezone(UTC):%m-%d %H:%M:%S}" for moment in (group.first, group.last)]
    numbers = [str(group.count), str(group.rollouts), str(group.final)]
    return [group.group, group.failure_class.value, short(about or "-"), *numbers, *times, group.examples[0]]


def _print_attempt(attempt: FailedAttempt, console: Console) -> None:
    table = facts_table()
    evidence = attempt.evidence.model_dump(mode="json", exclude_none=True) if attempt.evidence else {}
    traceback = evidence.pop("traceback", None)
    rows = {
        "rollout": attempt.ref.rollout_id,
        "attempt": f"{attempt.ref.attempt}{'' if attempt.final else ' (retried)'}",
        "at": f"{attempt.at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC",
        "task": attempt.task_id or "-",
        "class": attempt.failure_class.value,
        "message": attempt.message or "-",
        "agents": ", ".join(attempt.agents) or "-",
        "policies": ", ".join(attempt.policy_versions) or "-",
        **{name.replace("_", " "): value for name, value in evidence.items()},
    }
    for name, value in rows.items():
        table.add_row(f"[bold]{name}[/]", safe(value))
    console.print(table)
    if traceback:
        console.print(traceback, highlight=False, markup=False)
    console.print()
