"""Explains why part of a rollout is not trained, or not yet. The rules are credit's own, from its core.

Run files are not known here, so credit's defaults are assumed: every policy and every agent is trained.
"""

from collections.abc import Iterable, Sequence

from leyden.credit.core.actions import Context, actions_of
from leyden.credit.core.assemble import Attempt, Missing, RecordedCall, State, assemble
from leyden.credit.core.evidence import Evidence, EvidenceEvent, subject_of
from leyden.credit.core.membership import reasons_to_leave_out
from leyden.credit.core.reasons import Reason
from leyden.credit.core.section import CreditSection
from leyden.events import Event, GroupClosed, GroupCredited, ModelCallRecorded, RolloutEnded, RolloutStarted
from leyden.ids import AttemptRef
from leyden.inspect.evidence import rollouts_of

CONTEXT_REASONS = {
    Context.ERROR: "the engine answered with an error",
    Context.NO_POLICY: "its model is not trained",
    Context.OTHER_POLICY: "its policy is not one of the configured ones",
    Context.NO_TRAINED_AGENT: "its agent is not trained",
    Context.NO_VERSION: "the engine did not say which version answered",
    Context.GREEDY: "greedy: at temperature 0 the action has no probability",
    Context.SHAPED: "more than the temperature shaped what was sampled (truncation, penalties, a forced format, …)",
    Context.UNSEEN_INPUT: "the model saw content that token ids do not carry, such as an image",
    Context.NO_TOKENS: "its token ids are missing",
    Context.NO_LOGPROBS: "it does not have one logprob per token",
    Context.LOST_TOKENS: "the engine counted other numbers of tokens than were recorded",
}
LEFT_OUT = {
    Reason.FAILED: "It failed ({}), so it is left out of its group. It does not get a reward of 0.",
    Reason.VALIDATION: "A validation task: it measures the policy and is never trained.",
    Reason.INCOMPLETE: "Its evidence is incomplete, missing {}.",
    Reason.RULE_FAILED: "A reward rule failed, so its return is unknown: {}.",
    Reason.NO_REWARD: "It has no reward: nothing judged it.",
    Reason.NO_OUTCOME: "No rule for the outcome gave it a reward. Its intermediate rewards alone are not trained.",
    Reason.REWARD_OUT_OF_RANGE: "A reward, or its value times its weight, is not within ±1e9; given by {}.",
    Reason.NO_POLICY_CALL: "It has no call that can be trained.",
}
"""What `reasons_to_leave_out` says of one attempt; the other reasons are only known with its group."""
WAITS = {
    Missing.END: "has not ended",
    Missing.SETTLEMENT: "has ended; its evidence is not settled",
    Missing.EVIDENCE: "has ended; some of its settled calls are not in the log",
    Missing.REWARDS: "has ended; its rewards are not complete",
}


def call_reason(call: ModelCallRecorded) -> str | None:
    """Why a call is context and not an action; None for an action."""
    decided = actions_of(RecordedCall(call, origin=""), policies=None)
    return CONTEXT_REASONS[decided] if isinstance(decided, Context) else None


def attempt_of(events: Iterable[Event], ref: AttemptRef) -> Attempt:
    """The attempt as credit assembles it from `events`, with the newest revision of its rewards."""
    subject = f"{ref.rollout_id}:{ref.attempt}"
    mine = (event for event in events if isinstance(event, EvidenceEvent) and subject_of(event) == subject)
    found = assemble(Evidence(event, origin="") for event in mine)
    return found.at_revision(max(found.completions)) if found.completions else found


def attempt_notes(attempt: Attempt) -> list[str]:
    """Why the attempt is not trained, and what it waits for."""
    if attempt.state is State.OPEN:
        return ["It has not ended; nothing is decided before that."]
    if attempt.state is State.ABANDONED:
        return ["This attempt was retried, or will be; nothing of it is ever trained."]
    decided = [actions_of(call, policies=None) for call in attempt.settled_calls()]
    actions = [action for found in decided if not isinstance(found, Context) for action in found]
    found = reasons_to_leave_out(attempt, actions, CreditSection())
    notes = [LEFT_OUT[reason].format(_detail(attempt, reason, detail)) for reason, detail in found]
    return notes + _waiting(attempt)


def _detail(attempt: Attempt, reason: Reason, detail: str) -> str:
    """`detail` of a reason, with what the events say beside it."""
    if reason is Reason.FAILED and attempt.ended is not None and attempt.ended.failure is not None:
        return f"{detail}: {attempt.ended.failure.message}"
    if reason is Reason.INCOMPLETE and attempt.settled is not None:
        return ", ".join(attempt.settled.missing)
    return detail


def _waiting(attempt: Attempt) -> list[str]:
    ended, settled = attempt.ended, attempt.settled
    match attempt.missing:
        case Missing.SETTLEMENT if ended is not None:
            spans = "" if ended.span_count is None else f" and {ended.span_count} spans"
            waits = f"reward waits for {len(ended.call_ids)} calls{spans}, or for the end of its grace period"
            return [f"Its evidence is not settled: {waits}."]
        case Missing.EVIDENCE if settled is not None:
            lost = set(settled.call_ids) - attempt.calls.keys()
            return [f"{len(lost)} of its {len(settled.call_ids)} settled calls are not in the log."]
        case Missing.REWARDS:
            return ["Its rewards are not complete: the reward service has not published all of them."]
    return []


def group_notes(
    rollout_id: str, closed: Sequence[GroupClosed], credited: Iterable[GroupCredited], members: Sequence[Event]
) -> list[str]:
    """What became of the rollout in its group, or what the group waits for."""
    notes = [
        f"It came after its group was closed ({group.reason}), so it is not a member."
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
    """What a group that is not published waits for, by member."""
    states = {rollout_id: member_state(rollout_id, members) for rollout_id in rollouts_of(members)}
    sizes = [event.group_size for event in members if isinstance(event, RolloutStarted | RolloutEnded)]
    waiting = [f"{rollout_id} {state}" for rollout_id, state in states.items() if state]
    unknown = max([0, *sizes]) - len(states)
    if unknown > 0:
        waiting.append(f"{unknown} more with no events yet")
    if not waiting:
        return ["All members of its group have finished; credit has not published the group yet."]
    return [f"Its group is not closed. It waits for {len(waiting)} of {max([len(states), *sizes])} members:"] + [
        f"  {line}" for line in waiting
    ]


def member_state(rollout_id: str, events: Sequence[Event]) -> str | None:
    """What a member waits for before credit can use it; None if it has finished."""
    mine = [event for event in events if getattr(event, "rollout_id", None) == rollout_id]
    ends = [event for event in mine if isinstance(event, RolloutEnded)]
    final = next((event for event in ends if event.final), None)
    if final is not None:
        missing = attempt_of(mine, final.ref).missing
        return WAITS[missing] if missing is not None else None
    starts = [event.attempt for event in mine if isinstance(event, RolloutStarted)]
    if not starts:
        return "has not started"
    tried = {event.attempt for event in ends}
    return f"waits for attempt {max(tried) + 1}" if max(starts) in tried else f"is running (attempt {max(starts)})"
