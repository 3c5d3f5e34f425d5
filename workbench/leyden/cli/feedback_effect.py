"""What the log says about a rollout that is given a late reward: its attempts, and whether the reward still counts."""

from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from leyden.events import RewardsCompleted, RolloutEnded, RolloutStarted
from leyden.events.codec import REWARDS, ROLLOUTS
from leyden.reading import Recorded


class _Log(Protocol):
    def read(self, topic: str, *, keys: Collection[str] | None = None) -> AsyncIterator[Recorded]: ...


@dataclass
class RolloutFacts:
    """What is recorded of one rollout, by attempt."""

    started: set[int] = field(default_factory=set)
    ended: dict[int, RolloutEnded] = field(default_factory=dict)
    completed: dict[int, RewardsCompleted] = field(default_factory=dict)

    @property
    def newest(self) -> int | None:
        """The newest attempt; None if the log has none."""
        return max(self.started | self.ended.keys(), default=None)


async def read_facts(log: _Log, rollout_id: str) -> RolloutFacts:
    """What the log has of the rollout."""
    facts = RolloutFacts()
    for topic in (ROLLOUTS, REWARDS):
        async for one in log.read(topic, keys={rollout_id}):
            match one.event:
                case RolloutStarted() as event:
                    facts.started.add(event.attempt)
                case RolloutEnded() as event:
                    facts.ended.setdefault(event.attempt, event)
                case RewardsCompleted() as event:
                    facts.completed.setdefault(event.attempt, event)
    return facts


def without_effect(facts: RolloutFacts, attempt: int, now: datetime) -> str | None:
    """Why a reward that is given now changes nothing; None if it counts, as far as rules and caps let it."""
    ended, completed = facts.ended.get(attempt), facts.completed.get(attempt)
    if ended is not None and not ended.final:
        return f"attempt {attempt} failed and was retried; only the last attempt of a rollout is trained"
    if ended is not None and ended.status == "failed":
        return f"attempt {attempt} failed; failed rollouts are not trained"
    if ended is None or completed is None:
        return None
    horizon_s = completed.late_horizon_s
    if horizon_s == 0:
        return (
            "its rewards are complete, and late rewards are off: `late_horizon_s` of the run file's section reward is 0"
        )
    late_s = (now - ended.event_time).total_seconds()
    if late_s > horizon_s:
        return f"it ended {late_s:,.0f} s ago, and late rewards count for {horizon_s:,.0f} s (`late_horizon_s`)"
    return None
