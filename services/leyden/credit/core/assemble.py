"""The state of one attempt, from the evidence at hand: open → ended → settled → complete, or fenced off on the way.

The state depends on the set of exhibits alone: neither their order nor duplicates change it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from leyden.credit.core.evidence import Exhibit
from leyden.events import ModelCallRecorded, RewardAssigned, RewardsCompleted, RolloutEnded, RolloutSettled


class State(StrEnum):
    """How far an attempt has come."""

    OPEN = "open"
    """Its end is not known."""
    ENDED = "ended"
    """Its end is known; evidence or rewards are still missing."""
    COMPLETE = "complete"
    """Everything that will be used of it is here."""
    FAILED = "failed"
    """It failed for good: nothing more is needed to leave it out."""
    ABANDONED = "abandoned"
    """It will be tried again: nothing of it is ever used."""


@dataclass(frozen=True)
class RecordedCall:
    """A model call and where it was first recorded."""

    event: ModelCallRecorded
    origin: str


@dataclass(frozen=True)
class Attempt:
    """The evidence of one attempt, sorted out."""

    ended: RolloutEnded | None = None
    settled: RolloutSettled | None = None
    completed: RewardsCompleted | None = None
    calls: dict[str, RecordedCall] = field(default_factory=dict)
    """By call id; those that were not settled are here too, and are never used."""
    rewards: dict[str, RewardAssigned] = field(default_factory=dict)
    """By event id; those that were not named complete are here too, and are never used."""
    traceparent: str = ""

    @property
    def state(self) -> State:
        """How far the attempt has come."""
        if self.ended is None:
            return State.OPEN
        if not self.ended.final:
            return State.ABANDONED
        if self.ended.status == "failed":
            return State.FAILED
        if self.settled is None or self.completed is None:
            return State.ENDED
        here = set(self.settled.call_ids) <= self.calls.keys() and set(self.completed.reward_ids) <= self.rewards.keys()
        return State.COMPLETE if here else State.ENDED

    def settled_calls(self) -> list[RecordedCall]:
        """Exactly the settled calls, by the time they started, then by id."""
        wanted = set(self.settled.call_ids) if self.settled else set()
        found = [call for call_id, call in self.calls.items() if call_id in wanted]
        return sorted(found, key=lambda call: (call.event.started_at, call.event.call_id))

    def completed_rewards(self) -> list[RewardAssigned]:
        """Exactly the rewards that were named complete, by event id."""
        wanted = set(self.completed.reward_ids) if self.completed else set()
        return [self.rewards[reward_id] for reward_id in sorted(wanted & self.rewards.keys())]


def assemble(exhibits: Iterable[Exhibit]) -> Attempt:
    """The attempt that `exhibits` are about; of two for the same place the one with the lower event id stays."""
    ended, settled, completed, traceparent = None, None, None, ""
    calls: dict[str, RecordedCall] = {}
    rewards: dict[str, RewardAssigned] = {}
    for exhibit in sorted(exhibits, key=lambda one: one.event.event_id):
        match exhibit.event:
            case RolloutEnded() as event if ended is None:
                ended, traceparent = event, exhibit.traceparent
            case RolloutSettled() as event:
                settled = settled or event
            case RewardsCompleted() as event:
                completed = completed or event
            case RewardAssigned() as event:
                rewards.setdefault(event.event_id, event)
            case ModelCallRecorded() as event:
                calls.setdefault(event.call_id, RecordedCall(event, exhibit.origin))
    return Attempt(ended, settled, completed, calls, rewards, traceparent)
