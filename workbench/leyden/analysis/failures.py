"""Groups failed attempts by class and message, ignoring numbers, ids and paths in the message. No IO."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import lru_cache

from leyden.events import FailureClass, FailureEvidence
from leyden.ids import AttemptRef, derive

MAX_EXAMPLES = 5
MAX_SHAPE = 300
"""Characters of a message that distinguish groups."""
_MASKS = (
    (re.compile(r"\bhttps?://[^\s'\"<>)]+"), "<url>"),
    (re.compile(r"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b"), "<id>"),
    (re.compile(r"(?<![\w/.~])(?:~|\.{1,2})?(?:/[\w.@+-]+){2,}/?"), "<path>"),
    (re.compile(r"\b[A-Za-z]:\\[^\s'\"]+"), "<path>"),
    (re.compile(r"\b0x[0-9a-fA-F]+\b"), "<id>"),
    (re.compile(r"\b(?=[0-9a-fA-F]*\d)(?=\d*[a-fA-F])[0-9a-fA-F]{8,}\b"), "<id>"),
    (re.compile(r"\b(?:[A-Za-z]+[-_])(?=[A-Za-z0-9]*\d)[A-Za-z0-9]{8,}\b"), "<id>"),
    (re.compile(r"(?<![A-Za-z])[-+]?\d+(?:[.,:]\d+)*(?:[eE][-+]?\d+)?"), "<n>"),
)


class GroupBy(StrEnum):
    """What attempts of a group have in common, besides their class."""

    MESSAGE = "message"
    CLASS = "class"
    AGENT = "agent"
    TASK = "task"
    POLICY_VERSION = "policy_version"


@dataclass(frozen=True)
class FailedAttempt:
    """One failed attempt."""

    ref: AttemptRef
    at: datetime
    failure_class: FailureClass
    message: str
    evidence: FailureEvidence | None = None
    final: bool = True
    task_id: str | None = None
    agents: tuple[str, ...] = ()
    policy_versions: tuple[str, ...] = ()

    @property
    def shape(self) -> str:
        """The first line of the message, with numbers, ids, paths and addresses masked."""
        return masked(self.message)


@dataclass(frozen=True)
class FailureGroup:
    """Failed attempts with the same cause, as far as their messages tell."""

    group: str
    """Its id, the same in every report."""
    failure_class: FailureClass
    about: str
    """The masked message, or the agent, task or version; "" for a whole class."""
    count: int
    rollouts: int
    final: int
    """Attempts that were not retried."""
    first: datetime
    last: datetime
    examples: tuple[str, ...]
    """Trace ids of the newest attempts."""
    newest: FailedAttempt
    reported: dict[str, int] = field(default_factory=dict)
    """Failure classes reported by runners, where the gateway recorded another."""


@lru_cache(4096)
def masked(message: str) -> str:
    """The first line of a message, with numbers, ids, paths and addresses masked."""
    text = next((line.strip() for line in message.splitlines() if line.strip()), "")
    for pattern, stand_in in _MASKS:
        text = pattern.sub(stand_in, text)
    return text[:MAX_SHAPE]


def grouped(attempts: Iterable[FailedAttempt], by: GroupBy) -> list[FailureGroup]:
    """Groups, the largest first; of equal ones the newest first."""
    lots: dict[tuple[FailureClass, str], list[FailedAttempt]] = {}
    for attempt in attempts:
        for about in _abouts(attempt, by):
            lots.setdefault((attempt.failure_class, about), []).append(attempt)
    found = [_group(kind, about, lot) for (kind, about), lot in lots.items()]
    return sorted(found, key=lambda group: (-group.count, -group.last.timestamp(), group.group))


def _abouts(attempt: FailedAttempt, by: GroupBy) -> Sequence[str]:
    """What an attempt is grouped by; with two agents it is in both groups."""
    match by:
        case GroupBy.CLASS:
            return [""]
        case GroupBy.MESSAGE:
            return [attempt.shape]
        case GroupBy.TASK:
            return [attempt.task_id or "-"]
        case GroupBy.AGENT:
            return attempt.agents or ["-"]
        case GroupBy.POLICY_VERSION:
            return attempt.policy_versions or ["-"]


def _group(kind: FailureClass, about: str, lot: list[FailedAttempt]) -> FailureGroup:
    lot = sorted(lot, key=lambda attempt: (attempt.at, attempt.ref))
    said = [a.evidence.reported_class for a in lot if a.evidence is not None and a.evidence.reported_class]
    return FailureGroup(
        group=derive("failure-group", kind.value, about)[:8],
        failure_class=kind,
        about=about,
        count=len(lot),
        rollouts=len({attempt.ref.rollout_id for attempt in lot}),
        final=sum(attempt.final for attempt in lot),
        first=lot[0].at,
        last=lot[-1].at,
        examples=tuple(attempt.ref.trace_id for attempt in reversed(lot[-MAX_EXAMPLES:])),
        newest=lot[-1],
        reported={name.value: said.count(name) for name in sorted(set(said))},
    )
