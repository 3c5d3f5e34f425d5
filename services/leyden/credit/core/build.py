"""A complete group as its events: every sequence with its advantages, then the group itself, per policy."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from leyden.credit.core.advantage import advantage_of
from leyden.credit.core.advantage.stats import mean, sample_std
from leyden.credit.core.member import Member, Span, TokenSequence, Trajectory
from leyden.credit.core.rules import UNKNOWN_POLICY, Reason, Rules, reason_text
from leyden.credit.core.strategies import Credited
from leyden.credit.core.worth import Worth, tells_nothing, worth_of
from leyden.events import GroupCredited, SequenceCredited, Transition
from leyden.ids import derive

PRODUCER = "credit"


@dataclass(frozen=True)
class CreditedGroup:
    """What a group gives for one policy. `traceparents` are those of the sequences' rollouts, in the same order."""

    sequences: list[SequenceCredited]
    traceparents: list[str]
    group: GroupCredited


@dataclass(frozen=True)
class _Credited:
    """A member with its trajectory of one policy and what the steps of that are worth."""

    member: Member
    trajectory: Trajectory
    worth: Worth


def build(members: Iterable[Member], rules: Rules) -> list[CreditedGroup]:
    """The events of a complete group, by policy; they depend on the set of members alone."""
    ordered = sorted(members, key=lambda member: member.rollout_id)
    acted = {policy for member in ordered for policy in member.policies}
    policies = sorted(acted or rules.policies or {UNKNOWN_POLICY})
    return [_of_policy(policy, ordered, rules) for policy in policies]


def _of_policy(policy: str, members: Sequence[Member], rules: Rules) -> CreditedGroup:
    acting = [(m, trajectory) for m in members for trajectory in m.trajectories if trajectory.policy == policy]
    returns_G = [trajectory.total for _, trajectory in acting]
    baseline = advantage_of(rules.advantage)
    worth_G = worth_of([trajectory for _, trajectory in acting], baseline)
    credited = [_Credited(m, t, worth) for (m, t), worth in zip(acting, worth_G, strict=True)]
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
        left_out=_left_out(policy, members, rules),
        reward_mean=mean(returns_G),
        reward_std=sample_std(returns_G),
        zero_variance=bool(credited) and tells_nothing(worth_G, baseline),
    )
    return CreditedGroup(
        sequences, [one.member.traceparent for one in credited for _ in one.trajectory.sequences], group
    )


def _left_out(policy: str, members: Sequence[Member], rules: Rules) -> dict[str, str]:
    """Rollout id → reason for every member that gives no sequence of `policy`."""
    found: dict[str, str] = {}
    for member in members:
        mine = next((trajectory for trajectory in member.trajectories if trajectory.policy == policy), None)
        if member.left_out is not None:
            found[member.rollout_id] = member.left_out
        elif mine is None:
            found[member.rollout_id] = reason_text(Reason.NO_POLICY_CALL)
        elif not mine.sequences:
            found[member.rollout_id] = reason_text(Reason.TOO_LONG, f"over {rules.max_sequence_tokens} tokens")
    return found


def _sequences(policy: str, credited: Sequence[_Credited], ended_at: datetime) -> list[SequenceCredited]:
    total = sum(len(one.trajectory.sequences) for one in credited)
    pairs = [(one, sequence) for one in credited for sequence in one.trajectory.sequences]
    return [_sequence(policy, one, sequence, (index, total), ended_at) for index, (one, sequence) in enumerate(pairs)]


def _sequence(
    policy: str, one: _Credited, sequence: TokenSequence, place: tuple[int, int], ended_at: datetime
) -> SequenceCredited:
    member, first = one.member, sequence.spans[0]
    return SequenceCredited(
        event_id=derive("sequence", policy, member.rollout_id, member.attempt, first.call_id, first.choice),
        event_time=ended_at,
        producer=PRODUCER,
        rollout_id=member.rollout_id,
        attempt=member.attempt,
        policy=policy,
        group_id=member.group_id,
        sequence_index=place[0],
        group_sequences=place[1],
        token_ids=sequence.token_ids,
        behaviour_logprobs=sequence.behaviour_logprobs,
        transitions=[_transition(span, one.worth[span.part][span.step]) for span in sequence.spans],
        rollout_reward=one.trajectory.total,
    )


def _transition(span: Span, worth: Credited) -> Transition:
    return Transition(
        call_id=span.call_id,
        choice=span.choice,
        start=span.start,
        end=span.end,
        policy_version=span.policy_version,
        temperature=span.temperature,
        reward=span.reward,
        return_=worth.return_,
        advantage=worth.advantage,
        agent_name=span.agent_name,
        value=worth.value,
        origin=span.origin,
    )
