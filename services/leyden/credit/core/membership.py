"""Turns a finished attempt into a member of its group: left out with a reason, or merged into training sequences."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from leyden.credit.core.actions import Action, Context, actions_of
from leyden.credit.core.assemble import Attempt
from leyden.credit.core.member import Member, PendingTransition, TokenSequence, Trajectory
from leyden.credit.core.merge import Lineage, merge
from leyden.credit.core.overlong import fit
from leyden.credit.core.reasons import Reason, reason_text
from leyden.credit.core.section import CreditSection
from leyden.credit.core.shares import ActionStep, Key, is_estimate, parts_of, total_of
from leyden.events import RewardAssigned, unpack_floats
from leyden.events.base import in_reward_range


def member_of(attempt: Attempt, section: CreditSection) -> Member:
    """The member for an attempt in state COMPLETE, INCOMPLETE or FAILED."""
    ended = attempt.ended
    assert ended is not None
    actions: list[Action] = []
    calls: Counter[str] = Counter()
    for call in attempt.settled_calls():
        found = actions_of(call, section.policies, section.agents)
        if isinstance(found, Context):
            calls[found.value] += 1
        else:
            actions += found
    left_out = next((reason_text(*why) for why in reasons_to_leave_out(attempt, actions, section)), None)
    trajectories: list[Trajectory] = []
    if left_out is None:
        lineages, joined = merge(actions)
        pieces, fitted = fit(lineages, section.max_sequence_tokens, section.overlong)
        calls.update({how.value: count for how, count in (joined | fitted).items()})
        trajectories = _trajectories(actions, lineages, pieces, attempt.completed_rewards(), section)
        left_out = _without_values(trajectories)
    return Member(
        rollout_id=ended.rollout_id,
        attempt=ended.attempt,
        group_id=ended.group_id,
        group_size=ended.group_size,
        ended_at=ended.event_time,
        traceparent=attempt.traceparent,
        left_out=left_out,
        policies=sorted({action.policy for action in actions}),
        trajectories=trajectories if left_out is None else [],
        calls=dict(sorted(calls.items())),
    )


def reasons_to_leave_out(
    attempt: Attempt, actions: Sequence[Action], section: CreditSection
) -> Iterator[tuple[Reason, str]]:
    """Why the rollout is left out of training and of the baseline, with details; nothing if it is not.

    Credit names the first reason. The attempt may still wait for evidence: then only what is certain is given.
    """
    ended, completed = attempt.ended, attempt.completed
    if ended is None:
        return
    if ended.status == "failed":
        yield Reason.FAILED, ended.failure.failure_class.value if ended.failure else "unknown"
        return
    if ended.task is not None and ended.task.mode == "validation":
        yield Reason.VALIDATION, ""
    if attempt.settled is not None and not attempt.settled.complete and section.incomplete == "drop":
        yield Reason.INCOMPLETE, ""
    if completed is not None and completed.failed_rules:
        yield Reason.RULE_FAILED, "; ".join(sorted(completed.failed_rules))
    if attempt.missing is None:
        rewards = attempt.completed_rewards()
        if beyond := {reward.rule for reward in rewards if not in_reward_range(reward.value, reward.weight)}:
            yield Reason.REWARD_OUT_OF_RANGE, "; ".join(sorted(beyond))
        elif not in_reward_range(total := total_of(rewards)):
            yield Reason.REWARD_OUT_OF_RANGE, f"{total:g} in total"
        if all(is_estimate(reward) for reward in rewards):
            yield Reason.NO_REWARD, ""
        elif completed is not None and completed.outcome_missing:
            yield Reason.NO_OUTCOME, ""
        if not actions:
            yield Reason.NO_POLICY_CALL, ""


def _without_values(trajectories: Iterable[Trajectory]) -> str | None:
    """Why a strategy cannot credit the rollout; None if all can."""
    found = [part.strategy.missing(part.episode) for trajectory in trajectories for part in trajectory.parts]
    missing = [one for one in found if one is not None]
    return reason_text(Reason.NO_VALUE, "; ".join(missing)) if missing else None


def _trajectories(
    actions: Sequence[Action],
    lineages: Sequence[Lineage],
    pieces: Sequence[Lineage],
    rewards: Sequence[RewardAssigned],
    section: CreditSection,
) -> list[Trajectory]:
    """One per policy, each with all rewards of the rollout; `pieces` are the parts of `lineages` that are trained."""
    found: list[Trajectory] = []
    for policy in sorted({action.policy for action in actions}):
        acting = [action for action in actions if action.policy == policy]
        parts, steps = parts_of(acting, rewards, section.strategy)
        too_long = [one for one in lineages if one.policy == policy and one.length > section.max_sequence_tokens]
        found.append(
            Trajectory(
                policy=policy,
                total=parts[0].episode.total,
                parts=parts,
                sequences=[_sequence(piece, steps) for piece in pieces if piece.policy == policy],
                too_long=len(too_long),
            )
        )
    return found


def _sequence(lineage: Lineage, steps: Mapping[Key, ActionStep]) -> TokenSequence:
    """The lineage as a training sequence; behaviour logprobs are 0 for tokens that the policy did not generate."""
    logprobs_T = np.zeros(lineage.length, dtype="<f4")
    transitions: list[PendingTransition] = []
    for one in lineage.actions:
        action, step = one.action, steps[one.action.call_id, one.action.choice]
        logprobs_T[one.start : one.end] = unpack_floats(action.logprobs)
        transitions.append(
            PendingTransition(
                call_id=action.call_id,
                choice=action.choice,
                start=one.start,
                end=one.end,
                policy_version=action.policy_version,
                temperature=action.temperature,
                reward=step.reward,
                part=step.part,
                step=step.step,
                agent_name=action.agent_name,
                origin=action.origin,
            )
        )
    return TokenSequence(token_ids=lineage.tokens, behaviour_logprobs=logprobs_T.tobytes(), transitions=transitions)
