"""Reward rules that failed: which, how often, with which message, and an example. From `RewardsCompleted` events."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from leyden.analysis.failures import masked
from leyden.events import RewardsCompleted
from leyden.events.codec import REWARDS
from leyden.ids import AttemptRef
from leyden.reading import Log
from leyden.stack.program import as_typed

COMPLETED = b'{"type":"rewards-completed"'
NOTHING_FAILED = b'"failed_rules":[]'
OUTCOME_THERE = b'"outcome_missing":false'


@dataclass(frozen=True)
class FailedRule:
    """One rule, failed in one way: by its kind and its message without numbers, ids and paths."""

    rule: str
    kind: str
    """A `FailureKind`: exception, timeout, malformed, …"""
    message: str
    """Of the newest such failure."""
    rollouts: int
    first: datetime
    last: datetime
    example: str
    """Trace id of the newest attempt."""

    def line(self) -> str:
        """One line: the rule, how often, the message, and the command that shows the example."""
        return (
            f"reward rule {self.rule} failed on {self.rollouts} {'rollouts' if self.rollouts > 1 else 'rollout'}: "
            f"{self.kind}: {self.message} (example: `{as_typed()} inspect {self.example}`)"
        )


@dataclass(frozen=True)
class RuleFailures:
    """The failed rules of a part of the log. A rollout with a failed rule is not trained."""

    completed: int = 0
    """Rollouts that reward rules have judged, or tried to."""
    failed: tuple[FailedRule, ...] = ()
    """The most frequent first."""
    without_outcome: int = 0
    """Rollouts without an outcome although no rule failed: every rule for it returned None. They are not trained."""

    def lines(self) -> list[str]:
        """What to tell the user: one line for each way of failing; empty if all is well."""
        told = [one.line() for one in self.failed]
        if self.without_outcome:
            told.append(
                f"{self.without_outcome} of {self.completed} judged rollouts have no outcome: "
                "every rule for it returned None"
            )
        return told


def rule_failures(events: Iterable[RewardsCompleted], completed: int | None = None) -> RuleFailures:
    """Group the failures of the attempts' newest revisions. `completed` counts rollouts, also those not in `events`."""
    newest: dict[AttemptRef, RewardsCompleted] = {}
    for event in events:
        if event.ref not in newest or event.revision > newest[event.ref].revision:
            newest[event.ref] = event
    lots: dict[tuple[str, str, str], list[tuple[RewardsCompleted, str]]] = {}
    for event in newest.values():
        for text in event.failed_rules:
            rule, kind, message = _parts(text)
            lots.setdefault((rule, kind, masked(message)), []).append((event, message))
    failed = [_failed_rule(rule, kind, lot) for (rule, kind, _), lot in lots.items()]
    failed.sort(key=lambda one: (-one.rollouts, one.rule, one.kind, one.message))
    silent = sum(event.outcome_missing and not event.failed_rules for event in newest.values())
    return RuleFailures(len(newest) if completed is None else completed, tuple(failed), silent)


async def read_rule_failures(log: Log, start: datetime | None = None, end: datetime | None = None) -> RuleFailures:
    """Read `rewards.v1`; decodes only the rollouts for which something failed. `start` and `end`: times of writing."""
    rollouts: set[bytes] = set()

    def wanted(key: bytes, value: bytes) -> bool:
        if not value.startswith(COMPLETED):
            return False
        rollouts.add(key)
        return NOTHING_FAILED not in value or OUTCOME_THERE not in value

    events = [one.event async for one in log.read(REWARDS, wanted=wanted, start=start, end=end)]
    return rule_failures((event for event in events if isinstance(event, RewardsCompleted)), len(rollouts))


def _parts(text: str) -> tuple[str, str, str]:
    """Of `rule: kind: message`, as reward records it; on one line."""
    rule, _, reason = " ".join(text.split()).partition(": ")
    kind, _, message = reason.partition(": ")
    return rule, kind, message


def _failed_rule(rule: str, kind: str, lot: list[tuple[RewardsCompleted, str]]) -> FailedRule:
    lot = sorted(lot, key=lambda one: (one[0].event_time, one[0].ref))
    event, message = lot[-1]
    return FailedRule(
        rule=rule,
        kind=kind,
        message=message,
        rollouts=len({one.rollout_id for one, _ in lot}),
        first=lot[0][0].event_time,
        last=event.event_time,
        example=event.ref.trace_id,
    )
