"""Reads judged rollouts: rewards, mode, and the policy version that answered.

The version of a trained rollout is in `transitions.v1`; that of validation rollouts, and of others that are not
trained, is in their model calls.
"""

from collections.abc import Set
from dataclasses import dataclass, field, replace
from datetime import datetime

from leyden.analysis.failed_rules import RuleFailures, rule_failures
from leyden.analysis.rewards import VALIDATION, JudgedRollout
from leyden.events import ModelCallRecorded, RewardAssigned, RewardsCompleted, RolloutEnded, SequenceCredited
from leyden.events.codec import MODEL_CALLS, REWARDS, ROLLOUTS, TRANSITIONS
from leyden.ids import AttemptRef
from leyden.reading import Log

UNKNOWN = "-"
ENDED = b'{"type":"rollout-ended"'
MODE = b'"mode":"validation"'
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
    failures: RuleFailures = field(default_factory=RuleFailures)


async def read_judged(
    log: Log, with_versions: bool, start: datetime | None = None, end: datetime | None = None
) -> Judgement:
    """Rollouts with complete rewards, each with the rewards that its newest revision names.

    Validation rollouts always have their version, others only with `with_versions`.
    """
    attempts: dict[AttemptRef, _Attempt] = {}
    rules: dict[str, bool] = {}
    completed: list[RewardsCompleted] = []
    async for one in log.read(REWARDS, start=start, end=end):
        event = one.event
        if isinstance(event, RewardAssigned):
            held = attempts.setdefault(event.ref, _Attempt())
            rule = event.rule if event.name == event.rule else f"{event.rule}/{event.name}"
            held.rewards[event.event_id] = (rule, event.value * event.weight)
            whole = event.evidence.kind == "rollout" and event.call_id is None
            rules[rule] = rules.get(rule, True) and (whole or event.name == OUTCOME)
        elif isinstance(event, RewardsCompleted):
            completed.append(event)
            held = attempts.setdefault(event.ref, _Attempt())
            if event.revision > held.revision:
                held.revision, held.named = event.revision, frozenset(event.reward_ids)
                held.ended_at = event.event_time
    found = {ref: done for ref, held in attempts.items() if (done := _judged(ref, held)) is not None}
    validation = await _validation(log, start)
    found = {ref: replace(one, mode=VALIDATION) if ref in validation else one for ref, one in found.items()}
    wanted = {ref for ref, one in found.items() if with_versions or one.mode == VALIDATION}
    versions = await _versions(log, wanted, validation, start)
    rollouts = [replace(one, version=versions.get(ref, UNKNOWN)) for ref, one in found.items()]
    failed = [event for event in completed if event.failed_rules or event.outcome_missing]
    failures = rule_failures(failed, len({event.rollout_id for event in completed}))
    return Judgement(rollouts, frozenset(rule for rule, whole in rules.items() if whole), failures)


def _judged(ref: AttemptRef, held: _Attempt) -> JudgedRollout | None:
    if held.ended_at is None or not held.named:
        return None
    gives: dict[str, list[float]] = {}
    for event_id in sorted(held.named & held.rewards.keys()):
        rule, contribution = held.rewards[event_id]
        gives.setdefault(rule, []).append(contribution)
    return JudgedRollout(held.ended_at, ref.rollout_id, UNKNOWN, gives)


async def _validation(log: Log, start: datetime | None) -> set[AttemptRef]:
    """Attempts at validation tasks."""
    ends = log.read(ROLLOUTS, wanted=lambda _, value: MODE in value and value.startswith(ENDED), start=start)
    return {
        one.event.ref
        async for one in ends
        if isinstance(one.event, RolloutEnded) and one.event.task is not None and one.event.task.mode == VALIDATION
    }


async def _versions(
    log: Log, wanted: Set[AttemptRef], validation: Set[AttemptRef], start: datetime | None
) -> dict[AttemptRef, str]:
    """The newest version that acted in each attempt: of its transitions, else of its calls.

    Attempts at validation tasks have no transitions.
    """
    found = await _versions_trained(log, wanted - validation, start)
    if missing := wanted - found.keys():
        found |= await _versions_called(log, missing)
    return {ref: name for ref, (_, name) in found.items()}


async def _versions_trained(
    log: Log, wanted: Set[AttemptRef], start: datetime | None
) -> dict[AttemptRef, tuple[int, str]]:
    """Number and name of the newest version in the transitions of each attempt that has some."""
    found: dict[AttemptRef, tuple[int, str]] = {}
    if not wanted:
        return found
    async for one in log.read(TRANSITIONS, start=start):
        event = one.event
        if isinstance(event, SequenceCredited) and event.transitions and event.ref in wanted:
            newest = max(transition.policy_version for transition in event.transitions)
            found[event.ref] = max(found.get(event.ref, (-1, "")), (newest, f"{event.policy}@{newest}"))
    return found


async def _versions_called(log: Log, missing: Set[AttemptRef]) -> dict[AttemptRef, tuple[int, str]]:
    """The same of their calls, which are written before the rewards: the start of the rewards' range does not hold."""
    found: dict[AttemptRef, tuple[int, str]] = {}
    async for one in log.read(MODEL_CALLS, keys={ref.rollout_id for ref in missing}):
        call = one.event
        if not isinstance(call, ModelCallRecorded) or call.rollout_id is None or call.policy_version is None:
            continue
        ref = AttemptRef(call.rollout_id, call.attempt)
        if ref in missing and call.policy is not None and call.error is None:
            acted = (call.policy_version, f"{call.policy}@{call.policy_version}")
            found[ref] = max(found.get(ref, (-1, "")), acted)
    return found
