"""Reads judged rollouts from `rewards.v1`, and their policy versions from `transitions.v1` if asked."""

from dataclasses import dataclass, field
from datetime import datetime

from leyden.analysis.rewards import JudgedRollout
from leyden.events import RewardAssigned, RewardsCompleted, SequenceCredited
from leyden.events.codec import REWARDS, TRANSITIONS
from leyden.ids import AttemptRef
from leyden.reading import Log

UNKNOWN = "-"
OUTCOME = "outcome"
"""Signal that counts as the outcome even if an agent emits it on a span."""


@dataclass
class _Attempt:
    rewards: dict[str, tuple[str, float]] = field(default_factory=dict)
    """Event id → rule, contribution."""
    revision: int = -1
    named: frozenset[str] = frozenset()
    ended_at: datetime | None = None


@dataclass(frozen=True)
class Judgement:
    """Every judged rollout, and the rules that only judge whole rollouts, not single calls or spans.

    A signal whose name is not its rule's is listed as `rule/name`.
    """

    rollouts: list[JudgedRollout]
    whole_rollout_rules: frozenset[str]


async def read_judged(
    log: Log, with_versions: bool, start: datetime | None = None, end: datetime | None = None
) -> Judgement:
    """Rollouts with complete rewards, each with the rewards that its newest revision names."""
    attempts: dict[AttemptRef, _Attempt] = {}
    rules: dict[str, bool] = {}
    async for one in log.read(REWARDS, start=start, end=end):
        event = one.event
        if isinstance(event, RewardAssigned):
            held = attempts.setdefault(event.ref, _Attempt())
            rule = event.rule if event.name == event.rule else f"{event.rule}/{event.name}"
            held.rewards[event.event_id] = (rule, event.value * event.weight)
            whole = event.evidence.kind == "rollout" and event.call_id is None
            rules[rule] = rules.get(rule, True) and (whole or event.name == OUTCOME)
        elif isinstance(event, RewardsCompleted):
            held = attempts.setdefault(event.ref, _Attempt())
            if event.revision > held.revision:
                held.revision, held.named = event.revision, frozenset(event.reward_ids)
                held.ended_at = event.event_time
    versions = await _versions(log, start) if with_versions else {}
    found = [_judged(ref, held, versions.get(ref, UNKNOWN)) for ref, held in attempts.items()]
    return Judgement([one for one in found if one is not None], frozenset(r for r, whole in rules.items() if whole))


def _judged(ref: AttemptRef, held: _Attempt, version: str) -> JudgedRollout | None:
    if held.ended_at is None or not held.named:
        return None
    gives: dict[str, list[float]] = {}
    for event_id in sorted(held.named & held.rewards.keys()):
        rule, contribution = held.rewards[event_id]
        gives.setdefault(rule, []).append(contribution)
    return JudgedRollout(held.ended_at, ref.rollout_id, version, gives)


async def _versions(log: Log, start: datetime | None) -> dict[AttemptRef, str]:
    """The newest version that acted in each attempt."""
    found: dict[AttemptRef, tuple[int, str]] = {}
    async for one in log.read(TRANSITIONS, start=start):
        event = one.event
        if isinstance(event, SequenceCredited) and event.transitions:
            newest = max(transition.policy_version for transition in event.transitions)
            found[event.ref] = max(found.get(event.ref, (-1, "")), (newest, f"{event.policy}@{newest}"))
    return {ref: name for ref, (_, name) in found.items()}
