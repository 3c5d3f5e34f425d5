"""What the log has of one rollout and its group, and how it is read from there: few partitions, from the right time."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeVar

from leyden.events import (
    Event,
    GroupClosed,
    GroupCredited,
    RewardsCompleted,
    RolloutEnded,
    RolloutSettled,
    RolloutStarted,
    SequenceCredited,
    TaskEnqueued,
)
from leyden.events.codec import GROUPS, MODEL_CALLS, REWARDS, ROLLOUTS, SPANS, TASKS, TRANSITIONS
from leyden.reading import Log

EventT = TypeVar("EventT", bound=Event)
SLACK = timedelta(minutes=5)
"""How far the clocks of two writers may be apart."""


@dataclass(frozen=True)
class RolloutEvidence:
    """Events of one rollout, of all its attempts, in the order of the log; and of its group, as far as it is needed."""

    rollout_id: str
    own: list[Event]
    """Of the rollout itself."""
    credited: list[SequenceCredited | GroupCredited] = field(default_factory=list)
    """The rollout's sequences and its group's ends, of every credit service, policy and revision."""
    closed: list[GroupClosed] = field(default_factory=list)
    members: list[Event] = field(default_factory=list)
    """Of the group's other rollouts and its task; read only while nothing says that the group was credited."""

    def of(self, kind: type[EventT], attempt: int) -> list[EventT]:
        """The rollout's events of one kind and attempt, each once."""
        found = {e.event_id: e for e in self.own if isinstance(e, kind) and getattr(e, "attempt", 0) == attempt}
        return list(found.values())

    @property
    def attempts(self) -> list[int]:
        """The attempts that anything is known of."""
        return sorted({attempt for e in self.own if isinstance(attempt := getattr(e, "attempt", None), int)})

    @property
    def group_id(self) -> str | None:
        """The group, once the rollout has started."""
        return next((e.group_id for e in self.own if isinstance(e, RolloutStarted | RolloutEnded)), None)


async def gather(log: Log, rollout_id: str) -> RolloutEvidence | None:
    """Everything of `rollout_id` that the log holds; None when it holds nothing of it."""
    life = [one async for one in log.read(ROLLOUTS, keys=[rollout_id])]
    start = min(one.at for one in life) - SLACK if life else None
    own: list[Event] = [one.event for one in life]
    for topic in (MODEL_CALLS, SPANS, REWARDS):
        own += [one.event async for one in log.read(topic, keys=[rollout_id], start=start)]
    if not own:
        return None
    evidence = RolloutEvidence(rollout_id, own)
    ended = [one.at for one in life if isinstance(one.event, RolloutEnded)]
    group_id = evidence.group_id
    if group_id is None or not ended:
        return evidence
    evidence.credited.extend(await _credited(log, rollout_id, group_id, min(ended) - SLACK))
    async for one in log.read(GROUPS, keys=[group_id]):
        if isinstance(one.event, GroupClosed):
            evidence.closed.append(one.event)
    if not any(isinstance(event, GroupCredited) for event in evidence.credited):
        evidence.members.extend(await _members(log, group_id))
    return evidence


async def _credited(
    log: Log, rollout_id: str, group_id: str, start: datetime
) -> list[SequenceCredited | GroupCredited]:
    """The rollout's sequences and its group's ends.

    Their key names the policy too, and only the run file knows which policies a call is trained as: so every partition
    is read, and only what has the group in its key is decoded.
    """
    suffix = f"/{group_id}".encode()
    read = log.read(TRANSITIONS, wanted=lambda key, _: key.endswith(suffix) or key == suffix[1:], start=start)
    found = [one.event async for one in read]
    return [
        event
        for event in found
        if (isinstance(event, GroupCredited) and event.group_id == group_id)
        or (isinstance(event, SequenceCredited) and event.rollout_id == rollout_id)
    ]


async def _members(log: Log, group_id: str) -> list[Event]:
    """The group's task, and what is known of the lives and rewards of its rollouts."""
    text = group_id.encode()
    found: list[Event] = []
    for topic in (TASKS, ROLLOUTS):
        found += [one.event async for one in log.read(topic, wanted=lambda _, value: text in value)]
    found = [event for event in found if getattr(event, "group_id", group_id) == group_id]
    ids = rollouts_of(found)
    settled = [one.event async for one in log.read(ROLLOUTS, keys=ids)] if ids else []
    judged = [one.event async for one in log.read(REWARDS, keys=ids)] if ids else []
    found += [event for event in settled if isinstance(event, RolloutSettled)]
    return found + [event for event in judged if isinstance(event, RewardsCompleted)]


def rollouts_of(events: Iterable[Event]) -> list[str]:
    """The rollouts that tasks name or that have begun."""
    ids: set[str] = set()
    for event in events:
        if isinstance(event, TaskEnqueued):
            ids |= set(event.rollout_ids)
        elif isinstance(event, RolloutStarted | RolloutEnded):
            ids.add(event.rollout_id)
    return sorted(ids)
