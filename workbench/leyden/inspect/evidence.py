"""Reads one rollout and its group from the log: only the partitions and times that can hold them."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeVar

from leyden.events import (
    Event,
    GroupClosed,
    GroupCredited,
    ModelCallRecorded,
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
"""Largest assumed difference between the clocks of two producers."""


@dataclass(frozen=True)
class RolloutEvidence:
    """Events of one rollout, of all its attempts, in log order; and those of its group that the report needs."""

    rollout_id: str
    own: list[Event]
    """Events of the rollout itself."""
    credited: list[SequenceCredited | GroupCredited] = field(default_factory=list)
    """The rollout's sequences and its group's `GroupCredited`s, of every credit service, policy and revision."""
    closed: list[GroupClosed] = field(default_factory=list)
    members: list[Event] = field(default_factory=list)
    """Events of all rollouts of the group and its task; read only if the group is not published. Calls lack texts."""

    def of(self, kind: type[EventT], attempt: int) -> list[EventT]:
        """The rollout's events of one type and attempt, without duplicates."""
        found = {e.event_id: e for e in self.own if isinstance(e, kind) and getattr(e, "attempt", 0) == attempt}
        return list(found.values())

    @property
    def attempts(self) -> list[int]:
        """Attempts with at least one event."""
        return sorted({attempt for e in self.own if isinstance(attempt := getattr(e, "attempt", None), int)})

    @property
    def group_id(self) -> str | None:
        """The group; None before the rollout has started."""
        return next((e.group_id for e in self.own if isinstance(e, RolloutStarted | RolloutEnded)), None)


async def gather(log: Log, rollout_id: str) -> RolloutEvidence | None:
    """Everything that the log has of `rollout_id`; None if it has nothing."""
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
    """The rollout's sequences and its group's `GroupCredited`s.

    Their key starts with the policy, which only the run file knows. So every partition is read, and only records with
    the group in their key are decoded.
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
    """The group's task, and what credit needs of its rollouts; calls without their texts."""
    text = group_id.encode()
    found: list[Event] = []
    for topic in (TASKS, ROLLOUTS):
        found += [one.event async for one in log.read(topic, wanted=lambda _, value: text in value)]
    found = [event for event in found if getattr(event, "group_id", group_id) == group_id]
    ids = rollouts_of(found)
    if not ids:
        return found
    async for one in log.read(ROLLOUTS, keys=ids):
        if isinstance(one.event, RolloutSettled):
            found.append(one.event)
    async for one in log.read(MODEL_CALLS, keys=ids):
        if isinstance(one.event, ModelCallRecorded):
            found.append(one.event.model_copy(update={"request": {}, "choices": []}))
    async for one in log.read(REWARDS, keys=ids):
        found.append(one.event)
    return found


def rollouts_of(events: Iterable[Event]) -> list[str]:
    """Rollouts that a task names or that have started."""
    ids: set[str] = set()
    for event in events:
        if isinstance(event, TaskEnqueued):
            ids |= set(event.rollout_ids)
        elif isinstance(event, RolloutStarted | RolloutEnded):
            ids.add(event.rollout_id)
    return sorted(ids)
