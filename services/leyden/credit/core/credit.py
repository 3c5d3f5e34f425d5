"""From an attempt that is over to a member of its group: left out with a reason, or merged and credited."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from leyden.credit.core.actions import Action, Context, actions_of
from leyden.credit.core.assemble import Attempt
from leyden.credit.core.member import Member, Span, TokenSequence, Trajectory
from leyden.credit.core.merge import Lineage, merge
from leyden.credit.core.rules import Reason, Rules, reason_text
from leyden.credit.core.strategies import STRATEGIES, Episode
from leyden.events import RewardAssigned, RolloutEnded, unpack_floats

Key = tuple[str, int]
"""An action: call id and choice."""


def credit(attempt: Attempt, rules: Rules) -> Member:
    """The member that an attempt in state COMPLETE or FAILED is."""
    ended = attempt.ended
    assert ended is not None
    actions: list[Action] = []
    calls: Counter[str] = Counter()
    for call in attempt.settled_calls() if ended.status != "failed" else ():
        found = actions_of(call, rules.policies)
        if isinstance(found, Context):
            calls[found.value] += 1
        else:
            actions += found
    left_out = _left_out(attempt, ended, actions, rules)
    trajectories: list[Trajectory] = []
    if left_out is None:
        lineages, joined = merge(actions)
        calls.update({how.value: count for how, count in joined.items()})
        trajectories = _trajectories(actions, lineages, attempt.completed_rewards(), rules)
    return Member(
        rollout_id=ended.rollout_id,
        attempt=ended.attempt,
        group_id=ended.group_id,
        group_size=ended.group_size,
        ended_at=ended.event_time,
        traceparent=attempt.traceparent,
        left_out=left_out,
        policies=sorted({action.policy for action in actions}),
        trajectories=trajectories,
        calls=dict(sorted(calls.items())),
    )


def _left_out(attempt: Attempt, ended: RolloutEnded, actions: Sequence[Action], rules: Rules) -> str | None:
    """Why the rollout enters neither training nor baseline; None when it does."""
    if ended.status == "failed":
        return reason_text(Reason.FAILED, ended.failure.failure_class.value if ended.failure else "unknown")
    if ended.task is not None and ended.task.mode == "validation":
        return reason_text(Reason.VALIDATION)
    if attempt.settled is not None and not attempt.settled.complete and rules.incomplete == "drop":
        return reason_text(Reason.INCOMPLETE)
    if attempt.completed is not None and attempt.completed.failed_rules:
        return reason_text(Reason.RULE_FAILED, "; ".join(sorted(attempt.completed.failed_rules)))
    if not attempt.completed_rewards():
        return reason_text(Reason.NO_REWARD)
    return None if actions else reason_text(Reason.NO_POLICY_CALL)


def _trajectories(
    actions: Sequence[Action], lineages: Sequence[Lineage], rewards: Sequence[RewardAssigned], rules: Rules
) -> list[Trajectory]:
    """One per policy, each credited with the whole rollout's rewards."""
    total = math.fsum(reward.value * reward.weight for reward in rewards)
    found: list[Trajectory] = []
    for policy in sorted({action.policy for action in actions}):
        immediate = _immediate([action for action in actions if action.policy == policy], rewards)
        returns = STRATEGIES[rules.strategy](Episode(tuple(immediate.values()), total))
        credited = dict(zip(immediate, zip(immediate.values(), returns, strict=True), strict=True))
        mine = [lineage for lineage in lineages if lineage.policy == policy]
        fitting = [lineage for lineage in mine if lineage.length <= rules.max_sequence_tokens]
        found.append(
            Trajectory(
                policy=policy,
                total=total,
                sequences=[_sequence(lineage, credited) for lineage in fitting],
                too_long=len(mine) - len(fitting),
            )
        )
    return found


def _immediate(actions: Sequence[Action], rewards: Sequence[RewardAssigned]) -> dict[Key, float]:
    """The reward of each action itself, in the actions' order: they add up to all that the rollout was given.

    A call's rewards go to its first choice. Rewards of no action (the outcome, or a call that is context) fall where
    they become known: on the last call.
    """
    earned: dict[Key, list[float]] = {(action.call_id, action.choice): [] for action in actions}
    first_choice = {call_id: (call_id, choice) for call_id, choice in reversed(earned)}
    last = first_choice[actions[-1].call_id]
    for reward in rewards:
        earned[first_choice.get(reward.call_id or "", last)].append(reward.value * reward.weight)
    return {key: math.fsum(values) for key, values in earned.items()}


def _sequence(lineage: Lineage, credited: dict[Key, tuple[float, float]]) -> TokenSequence:
    """The lineage with its spans; behaviour logprobs are 0 wherever the policy did not write."""
    logprobs_T = np.zeros(lineage.length, dtype="<f4")
    spans: list[Span] = []
    for placed in lineage.placed:
        action = placed.action
        logprobs_T[placed.start : placed.end] = unpack_floats(action.logprobs)
        reward, return_ = credited[action.call_id, action.choice]
        spans.append(
            Span(
                call_id=action.call_id,
                choice=action.choice,
                start=placed.start,
                end=placed.end,
                policy_version=action.policy_version,
                temperature=action.temperature,
                reward=reward,
                return_=return_,
                origin=action.origin,
            )
        )
    return TokenSequence(token_ids=lineage.tokens, behaviour_logprobs=logprobs_T.tobytes(), spans=spans)
