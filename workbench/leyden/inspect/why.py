"""Explains, from events alone, why part of a rollout is not trained, or not yet."""

from collections.abc import Iterable, Sequence

from leyden.credit.core.actions import Context, actions_of
from leyden.credit.core.assemble import RecordedCall
from leyden.events import (
    Event,
    GroupClosed,
    GroupCredited,
    ModelCallRecorded,
    RewardsCompleted,
    RolloutEnded,
    RolloutSettled,
    RolloutStarted,
)
from leyden.inspect.evidence import rollouts_of

CONTEXT_REASONS = {
    Context.ERROR: "it was answered by an error",
    Context.NO_POLICY: "its model is not trained",
    Context.OTHER_POLICY: "its policy is not among the configured ones",
    Context.NO_TRAINED_AGENT: "the agent that made it is not trained",
    Context.NO_VERSION: "the engine did not say which version answered",
    Context.GREEDY: "greedy: at temperature 0 the action had no probability",
    Context.NO_TOKENS: "its token ids are missing",
    Context.NO_LOGPROBS: "it has no logprob for each token",
}


def call_reason(call: ModelCallRecorded) -> str | None:
    """Why a call is context and not an action, as the credit service decides it; None for an action.

    Settings are not known here, so every policy and every agent counts as trained.
    """
    decided = actions_of(RecordedCall(call, origin=""), policies=None)
    return CONTEXT_REASONS[decided] if isinstance(decided, Context) else None


def attempt_notes(
    ended: RolloutEnded | None, settled: RolloutSettled | None, completed: RewardsCompleted | None
) -> list[str]:
    """What keeps the attempt itself from being trained, or what it waits for."""
    if ended is None:
        return ["It has not ended: nothing is decided before that."]
    if not ended.final:
        return ["This attempt will be, or was, tried again: nothing of it is ever trained."]
    if ended.status == "failed":
        failure = ended.failure
        said = f"{failure.failure_class.value}: {failure.message}" if failure else "unknown"
        return [f"It failed ({said}): it is left out of its group, which is no reward of 0."]
    notes = []
    if ended.task is not None and ended.task.mode == "validation":
        notes.append("A validation task: it measures the policy and is never trained.")
    if settled is None:
        spans = "" if ended.span_count is None else f" and {ended.span_count} spans"
        notes.append(f"Its evidence is not settled: reward waits for {len(ended.call_ids)} calls{spans}, or its grace.")
        return notes
    if not settled.complete:
        notes.append(f"Its evidence is incomplete, missing {', '.join(settled.missing)}.")
    if completed is None:
        notes.append("Its rewards are not complete: the reward service has not judged it yet.")
        return notes
    notes += [f"Rule failed, which is no reward of 0: {failure}" for failure in completed.failed_rules]
    if not completed.reward_ids:
        notes.append("Nothing judged it: there is no reward at all.")
    return notes


def group_notes(
    rollout_id: str, closed: Sequence[GroupClosed], credited: Iterable[GroupCredited], members: Sequence[Event]
) -> list[str]:
    """What became of the rollout in its group, or what the group waits for."""
    notes = [
        f"It came after its group was closed ({group.reason}): it is no member."
        for group in closed[:1]
        if rollout_id not in group.rollout_ids
    ]
    ends = list(credited)
    for end in ends:
        where = f"for policy {end.policy}" + (f" by credit:{end.credit}" if end.credit else "")
        if reason := end.left_out.get(rollout_id):
            notes.append(f"Left out {where}: {reason}.")
        elif end.zero_variance:
            notes.append(f"All members of the group have the same return {where}: every advantage is 0.")
    return notes if ends or not members else [*notes, *waiting_notes(members)]


def waiting_notes(members: Sequence[Event]) -> list[str]:
    """What a group that is not credited waits for, member by member."""
    states = {rollout_id: member_state(rollout_id, members) for rollout_id in rollouts_of(members)}
    sizes = [event.group_size for event in members if isinstance(event, RolloutStarted | RolloutEnded)]
    waiting = [f"{rollout_id} {state}" for rollout_id, state in states.items() if state]
    unknown = max([0, *sizes]) - len(states)
    if unknown > 0:
        waiting.append(f"{unknown} more that nothing is known of")
    if not waiting:
        return ["All members of its group are over: credit has not published the group yet."]
    return [f"Its group is not closed; it waits for {len(waiting)} of {max([len(states), *sizes])} members:"] + [
        f"  {line}" for line in waiting
    ]


def member_state(rollout_id: str, events: Sequence[Event]) -> str | None:
    """What a member has before it; None when it is over."""
    mine = [event for event in events if getattr(event, "rollout_id", None) == rollout_id]
    ends = [event for event in mine if isinstance(event, RolloutEnded)]
    final = next((event for event in ends if event.final), None)
    if final is None:
        starts = [event.attempt for event in mine if isinstance(event, RolloutStarted)]
        if not starts:
            return "has not started"
        tried = {event.attempt for event in ends}
        return f"waits for attempt {max(tried) + 1}" if max(starts) in tried else f"is running (attempt {max(starts)})"
    if final.status == "failed":
        return None
    if not any(isinstance(event, RolloutSettled) and event.attempt == final.attempt for event in mine):
        return "has ended; its evidence is not settled"
    if not any(isinstance(event, RewardsCompleted) and event.attempt == final.attempt for event in mine):
        return "has ended; its rewards are not complete"
    return None
