"""The state of one attempt, from its evidence: open → ended → complete | incomplete | failed | abandoned.

The state depends on the set of evidence alone: order and duplicates do not change it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from leyden.credit.core.agents import UNKNOWN_AGENT, Agent, SpanLink, agent_of
from leyden.credit.core.evidence import Evidence, KeptCall
from leyden.events import (
    ModelCallRecorded,
    RewardAssigned,
    RewardsCompleted,
    RolloutEnded,
    RolloutSettled,
    SpanRecorded,
)
from leyden.events.joins import Place, join, joinable_call


class State(StrEnum):
    """State of an attempt."""

    OPEN = "open"
    """It has not ended."""
    ENDED = "ended"
    """It has ended; evidence or rewards are still missing."""
    COMPLETE = "complete"
    """All its evidence and rewards are here."""
    INCOMPLETE = "incomplete"
    """As complete, but some calls or spans were lost, as the settlement says."""
    FAILED = "failed"
    """It failed and is not retried. Its settled calls are here; they tell its policy."""
    ABANDONED = "abandoned"
    """It will be retried; nothing of it is ever used."""


class Missing(StrEnum):
    """What an attempt that is open or ended waits for."""

    END = "end"
    """Its `RolloutEnded`."""
    SETTLEMENT = "settlement"
    """Its `RolloutSettled`, which names its calls and spans."""
    EVIDENCE = "evidence"
    """Calls or spans that the settlement names."""
    REWARDS = "rewards"
    """Its `RewardsCompleted`, or a reward that it names."""


@dataclass(frozen=True)
class RecordedCall:
    """A model call, where it was first recorded, and its agent."""

    event: ModelCallRecorded
    origin: str
    agent: Agent = UNKNOWN_AGENT


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """The evidence of one attempt, by kind."""

    ended: RolloutEnded | None = None
    settled: RolloutSettled | None = None
    completed: RewardsCompleted | None = None
    """The revision of its rewards that counts: the first, unless `at_revision` chose another."""
    calls: dict[str, RecordedCall] = field(default_factory=dict)
    """By call id, with calls that are not settled, which are never used."""
    rewards: dict[str, RewardAssigned] = field(default_factory=dict)
    """By event id, with rewards that `completed` does not name, which are never used."""
    traceparent: str = ""
    spans: dict[str, SpanLink] = field(default_factory=dict)
    """By event id, with spans that are not settled, which are never used."""
    needs_spans: bool = False
    """Whether spans tell its agents, so that it is complete only with them."""
    completions: dict[int, RewardsCompleted] = field(default_factory=dict)
    """Every revision of its rewards that is here, in ascending order."""

    @property
    def state(self) -> State:
        """The attempt's state."""
        if self.ended is None:
            return State.OPEN
        if not self.ended.final:
            return State.ABANDONED
        if self.settled is None or self.missing is not None:
            return State.ENDED
        if self.ended.status == "failed":
            return State.FAILED
        return State.COMPLETE if self.settled.complete else State.INCOMPLETE

    @property
    def missing(self) -> Missing | None:
        """What the attempt waits for; None if nothing more is needed. A failed attempt needs no rewards."""
        if self.ended is None:
            return Missing.END
        if not self.ended.final:
            return None
        if self.settled is None:
            return Missing.SETTLEMENT
        if not self._holds(self.settled):
            return Missing.EVIDENCE
        if self.ended.status == "failed":
            return None
        if self.completed is None or not self.rewards.keys() >= set(self.completed.reward_ids):
            return Missing.REWARDS
        return None

    def settled_calls(self) -> list[RecordedCall]:
        """The settled calls with their agents, in the order of their start, then by id."""
        wanted = set(self.settled.call_ids) if self.settled else set()
        trace = self._trace()
        settled = {call_id: call for call_id, call in self.calls.items() if call_id in wanted}
        places = self._places(settled.values(), trace) if trace else {}
        found = [replace(call, agent=agent_of(call.event, trace, places.get(id_, ()))) for id_, call in settled.items()]
        return sorted(found, key=lambda call: (call.event.started_at, call.event.call_id))

    def completed_rewards(self) -> list[RewardAssigned]:
        """The rewards that `completed` names, by event id."""
        wanted = set(self.completed.reward_ids) if self.completed else set()
        return [self.rewards[reward_id] for reward_id in sorted(wanted & self.rewards.keys())]

    @property
    def late_horizon_s(self) -> float:
        """How long after its end late rewards may come, in seconds, as its rewards say."""
        return max((one.late_horizon_s for one in self.completions.values()), default=0.0)

    def at_revision(self, revision: int) -> "Attempt":
        """The attempt with that revision of its rewards, which must be in `completions`."""
        return replace(self, completed=self.completions[revision])

    def _holds(self, settled: RolloutSettled) -> bool:
        """Whether everything that the settlement names is here."""
        return self.calls.keys() >= set(settled.call_ids) and (
            not self.needs_spans or self.spans.keys() >= set(settled.span_ids)
        )

    @staticmethod
    def _places(calls: Iterable[RecordedCall], trace: Mapping[Place, SpanLink]) -> Mapping[str, Sequence[Place]]:
        """Call id → its spans."""
        recorded = [call.event for call in calls]
        known = [joinable_call(call, call.replies if isinstance(call, KeptCall) else ()) for call in recorded]
        return join(known, [span.joinable for span in trace.values()]).spans

    def _trace(self) -> dict[Place, SpanLink]:
        """The settled spans by trace and span id; of two, the finished one, then that with the lower event id."""
        wanted = set(self.settled.span_ids) & self.spans.keys() if self.settled and self.needs_spans else set()
        found: dict[Place, SpanLink] = {}
        for span in sorted(map(self.spans.__getitem__, wanted), key=lambda span: (span.unfinished, span.event_id)):
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
    return Attempt(
        ended=ended,
        settled=settled,
        completed=completed,
        calls=calls,
        rewards=rewards,
        traceparent=traceparent,
        spans=spans,
        needs_spans=needs_spans,
        completions=completions,
    )
