"""Between the rollout store's scripts and our values: arguments there, answers back. No IO."""

from datetime import datetime
from typing import Any

from leyden.gateway.adapters.scripts import PRIORITY_STEP
from leyden.gateway.core.restoring import Restored
from leyden.gateway.core.rollouts import RolloutSpec
from leyden.gateway.ports import EndOutcome, EndResult

EVERYONE = "*"


def ms(moment: datetime) -> int:
    """Milliseconds since the epoch."""
    return int(moment.timestamp() * 1000)


def offset(spec: RolloutSpec) -> int:
    """How far ahead of its turn a rollout's priority puts it."""
    return spec.priority * PRIORITY_STEP


def row(one: Restored) -> list[str | int | bytes]:
    """What RESTORE is told of a rollout."""
    spec, ref = one.spec, one.ref
    started = one.started_at.isoformat() if one.started_at else ""
    ready = ms(one.retry_at) if one.retry_at else 0
    ended = ms(one.ended_at) if one.ended_at else 0
    what: list[str | int | bytes] = [ref.rollout_id, ref.trace_id, spec.model_dump_json(), spec.mode, spec.lane]
    what += [offset(spec), ref.attempt, one.state, one.status or "", started, one.runner or "", ready]
    return [*what, one.end, ended]


def whose(project: str | None) -> str:
    """A project, so that its name cannot stand for all."""
    return EVERYONE if project is None else f"={project}"


def outcome(answer: Any) -> EndOutcome:
    """What END and WITHDRAW answer."""
    result = EndResult(answer[0].decode())
    return EndOutcome(result, answer[1], ids(answer[2])) if len(answer) > 1 else EndOutcome(result)


def ids(members: Any) -> tuple[str, ...]:
    """The members of a set, in order."""
    return tuple(sorted(member.decode() for member in members))
