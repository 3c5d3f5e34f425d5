"""The events of a closed group, per policy: its sequences with their advantages, then the group itself."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from leyden.credit.core.advantage import advantage_of
from leyden.credit.core.advantage.stats import mean, sample_std
from leyden.credit.core.assignment import TrajectoryCredit, credit_trajectories, is_zero_variance
from leyden.credit.core.member import Member, PendingTransition, TokenSequence, Trajectory
from leyden.credit.core.reasons import Reason, reason_text
from leyden.credit.core.section import CreditSection
from leyden.credit.core.strategies import StepCredit
from leyden.events import GroupCredited, SequenceCredited, Transition
from leyden.ids import derive

PRODUCER = "credit"
UNKNOWN_POLICY = "unknown"
"""Policy of a group whose policy nothing tells: all its members failed, and none is configured."""


@dataclass(frozen=True)
class CreditedGroup:
    """A group's events for one policy. `traceparents[i]` is that of the rollout of `sequences[i]`."""

    sequences: list[SequenceCredited]
    traceparents: list[str]
    group: GroupCredited


@dataclass(frozen=True)
class _CreditedMember:
    """A member, its trajectory of one policy, and the credit of that trajectory's steps."""

    member: Member
    trajectory: Trajectory
    credit: TrajectoryCredit


def group_events(members: Iterable[Member], section: CreditSection) -> list[CreditedGroup]:
    """The events of a closed group, by policy; they depend on the set of members alone."""
    ordered = sorted(members, key=lambda member: member.rollout_id)
    acted = {policy for member in ordered for policy in member.policies}
    policies = sorted(acted or set(section.policies or [UNKNOWN_POLICY]))
    return [_of_policy(policy, ordered, section) for policy in policies]


def _of_policy(policy: str, members: Sequence[Member], section: CreditSection) -> CreditedGroup:
    """The group's events for `policy`. A group whose arithmetic overflows is published with all members left out."""
    try:
        return _credited(policy, members, section)
    except ArithmeticError as error:
        reason = reason_text(Reason.NOT_FINITE, f"{section.strategy.name}, {section.advantage}: {error}")
        return _credited(policy, [m if m.left_out else m.without_training(reason) for m in members], section)


def _credited(policy: str, members: Sequence[Member], section: CreditSection) -> CreditedGroup:
    acting = [(m, trajectory) for m in members for trajectory in m.trajectories if trajectory.policy == policy]
    returns_G = [trajectory.total for _, trajectory in acting]
    estimator = advantage_of(section.advantage)
    credits_G = credit_trajectories([trajectory for _, trajectory in acting], estimator)
    _check_finite(credits_G)
    credited = [_CreditedMember(m, t, credit) for (m, t), credit in zip(acting, credits_G, strict=True)]
    ended_at = max(member.ended_at for member in members)
    sequences = _sequences(policy, credited, ended_at)
    group_id = members[0].group_id
    group = GroupCredited(
        event_id=derive("group-credited", policy, group_id),
        event_time=ended_at,
        producer=PRODUCER,
        policy=policy,
        group_id=group_id,
        sequences=len(sequences),
        members=len(credited),
        left_out=_left_out(policy, members, section),
        reward_mean=mean(returns_G),
        reward_std=sample_std(returns_G),
        zero_variance=bool(credited) and is_zero_variance(credits_G, estimator),
    )
    return CreditedGroup(
        sequences, [one.member.traceparent for one in credited for _ in one.trajectory.sequences], group
    )


def _check_finite(credits_G: Sequence[TrajectoryCredit]) -> None:
    """Raises OverflowError for a credit that is infinite or not a number: events cannot hold it."""
    steps = [step for parts in credits_G for steps in parts for step in steps]
    if not all(math.isfinite(number) for step in steps for number in (step.return_, step.advantage, step.value or 0.0)):
        raise OverflowError("a return or an advantage is not a finite number")


def _left_out(policy: str, members: Sequence[Member], section: CreditSection) -> dict[str, str]:
    """Rollout id → reason for every member that gives no sequence of `policy`."""
    found: dict[str, str] = {}
    for member in members:
        mine = next((trajectory for trajectory in member.trajectories if trajectory.policy == policy), None)
        if member.left_out is not None:
            found[member.rollout_id] = member.left_out
        elif mine is None:
            found[member.rollout_id] = reason_text(Reason.NO_POLICY_CALL)
        elif not mine.sequences:
            found[member.rollout_id] = reason_text(Reason.TOO_LONG, f"over {section.max_sequence_tokens} tokens")
    return found


def _sequences(policy: str, credited: Sequence[_CreditedMember], ended_at: datetime) -> list[SequenceCredited]:
    total = sum(len(one.trajectory.sequences) for one in credited)
    pairs = [(one, sequence) for one in credited for sequence in one.trajectory.sequences]
    return [_sequence(policy, one, sequence, (index, total), ended_at) for index, (one, sequence) in enumerate(pairs)]


def _sequence(
    policy: str, one: _CreditedMember, sequence: TokenSequence, index: tuple[int, int], ended_at: datetime
) -> SequenceCredited:
    member, first = one.member, sequence.transitions[0]
    return SequenceCredited(
        event_id=derive("sequence", policy, member.rollout_id, member.attempt, first.call_id, first.choice),
        event_time=ended_at,
        producer=PRODUCER,
        rollout_id=member.rollout_id,
        attempt=member.attempt,
        policy=policy,
        group_id=member.group_id,
        sequence_index=index[0],
        group_sequences=index[1],
        token_ids=sequence.token_ids,
        behaviour_logprobs=sequence.behaviour_logprobs,
        transitions=[_transition(pending, one.credit[pending.part][pending.step]) for pending in sequence.transitions],
        rollout_reward=one.trajectory.total,
    )


def _transition(pending: PendingTransition, credit: StepCredit) -> Transition:
    return Transition(
        call_id=pending.call_id,
        choice=pending.choice,
        start=pending.start,
        end=pending.end,
        policy_version=pending.policy_version,
        temperature=pending.temperature,
        reward=pending.reward,
        return_=credit.return_,
        advantage=credit.advantage,
        agent_name=pending.agent_name,
        value=credit.value,
        origin=pending.origin,
    )
