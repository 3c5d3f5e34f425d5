"""The state of one attempt, from the evidence at hand: open → ended → complete | incomplete | failed | abandoned.

The state depends on the set of evidence alone: order and duplicates do not change it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum

from leyden.credit.core.agents import UNKNOWN_AGENT, Agent, SpanLink, agent_of, by_response
from leyden.credit.core.evidence import Evidence, KeptCall
from leyden.events import (
    ModelCallRecorded,
    RewardAssigned,
    RewardsCompleted,
    RolloutEnded,
    RolloutSettled,
    SpanRecorded,
)
from leyden.events.replies import same_replies


class State(StrEnum):
    """How far an attempt has come."""

    OPEN = "open"
    """Its end is not known."""
    ENDED = "ended"
    """Its end is known; evidence or rewards are still missing."""
    COMPLETE = "complete"
    """Everything that will be used of it is here."""
    INCOMPLETE = "incomplete"
    """The same, and it is known that something was lost: calls or spans that never came."""
    FAILED = "failed"
    """It failed for good, and its settled calls are here: they say whose group it is left out of."""
    ABANDONED = "abandoned"
    """It will be tried again: nothing of it is ever used."""


@dataclass(frozen=True)
class RecordedCall:
    """A model call, where it was first recorded, and the agent that made it."""

    event: ModelCallRecorded
    origin: str
    agent: Agent = UNKNOWN_AGENT


@dataclass(frozen=True)
class Attempt:
    """The evidence of one attempt, sorted out."""

    ended: RolloutEnded | None = None
    settled: RolloutSettled | None = None
    completed: RewardsCompleted | None = None
    """The revision of its rewards that is looked at; of all that are here the first, until `at_revision` chooses."""
    calls: dict[str, RecordedCall] = field(default_factory=dict)
    """By call id; those that were not settled are here too, and are never used."""
    rewards: dict[str, RewardAssigned] = field(default_factory=dict)
    """By event id; those that were not named complete are here too, and are never used."""
    traceparent: str = ""
    spans: dict[str, SpanLink] = field(default_factory=dict)
    """By event id; those that were not settled are here too, and are never used."""
    needs_spans: bool = False
    """Whether agents are told by the rollout's spans, so that it is not complete without them."""
    completions: dict[int, RewardsCompleted] = field(default_factory=dict)
    """Every revision of its rewards that is here, ascending."""

    @property
    def state(self) -> State:
        """How far the attempt has come."""
        if self.ended is None:
            return State.OPEN
        if not self.ended.final:
            return State.ABANDONED
        if self.settled is None or not self._holds(self.settled):
            return State.ENDED
        if self.ended.status == "failed":
            return State.FAILED
        if self.completed is None or not self.rewards.keys() >= set(self.completed.reward_ids):
            return State.ENDED
        return State.COMPLETE if self.settled.complete else State.INCOMPLETE

    def settled_calls(self) -> list[RecordedCall]:
        """Exactly the settled calls with their agents, by the time they started, then by id."""
        wanted = set(self.settled.call_ids) if self.settled else set()
        trace = self._trace()
        replies = by_response(trace)
        settled = {call_id: call for call_id, call in self.calls.items() if call_id in wanted}
        same = same_replies(
            {id_: call.event.replies for id_, call in settled.items() if isinstance(call.event, KeptCall)},
            ((span, span.reply) for span in trace.values() if span.reply is not None),
        )
        found = [
            replace(call, agent=agent_of(call.event, trace, replies, same.get(call_id)))
            for call_id, call in settled.items()
        ]
        return sorted(found, key=lambda call: (call.event.started_at, call.event.call_id))

    def completed_rewards(self) -> list[RewardAssigned]:
        """Exactly the rewards that were named complete, by event id."""
        wanted = set(self.completed.reward_ids) if self.completed else set()
        return [self.rewards[reward_id] for reward_id in sorted(wanted & self.rewards.keys())]

    def at_revision(self, revision: int) -> "Attempt":
        """The same with that revision of its rewards, which must be among `completions`."""
        return replace(self, completed=self.completions[revision])

    def _holds(self, settled: RolloutSettled) -> bool:
        """Whether everything that the settlement names is here."""
        return self.calls.keys() >= set(settled.call_ids) and (
            not self.needs_spans or self.spans.keys() >= set(settled.span_ids)
        )

    def _trace(self) -> dict[tuple[str, str], SpanLink]:
        """The settled spans by their place; of two in one place the one with the lower event id."""
        wanted = sorted(set(self.settled.span_ids) & self.spans.keys()) if self.settled and self.needs_spans else []
        found: dict[tuple[str, str], SpanLink] = {}
        for span in (self.spans[event_id] for event_id in wanted):
            found.setdefault((span.trace_id, span.span_id), span)
        return found


def assemble(evidence: Iterable[Evidence], needs_spans: bool = False) -> Attempt:
    """The attempt that `evidence` is about; of two events with one meaning, the one with the lower event id counts."""
    ended, settled, traceparent = None, None, ""
    completions: dict[int, RewardsCompleted] = {}
    calls: dict[str, RecordedCall] = {}
    rewards: dict[str, RewardAssigned] = {}
    spans: dict[str, SpanLink] = {}
    for one in sorted(evidence, key=lambda one: one.event.event_id):
        match one.event:
            case RolloutEnded() as event if ended is None:
                ended, traceparent = event, one.traceparent
            case RolloutSettled() as event:
                settled = settled or event
            case RewardsCompleted() as event:
                completions.setdefault(event.revision, event)
            case RewardAssigned() as event:
                rewards.setdefault(event.event_id, event)
            case ModelCallRecorded() as event:
                calls.setdefault(event.call_id, RecordedCall(event, one.origin))
            case SpanRecorded() as event:
                spans.setdefault(event.event_id, SpanLink.of(event))
            case SpanLink() as event:
                spans.setdefault(event.event_id, event)
    completions = dict(sorted(completions.items()))
    completed = next(iter(completions.values()), None)
    return Attempt(ended, settled, completed, calls, rewards, traceparent, spans, needs_spans, completions)
