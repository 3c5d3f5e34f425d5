"""Turns batches of events into group members: stores evidence, assembles attempts; `grouping` publishes the groups.

The order of writes makes a crash harmless at any point. An attempt's evidence is closed last, so a redelivered batch
finds what was not finished; finished work is recognised by its ids.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from leyden.clock import Clock
from leyden.credit.core.assemble import Attempt, State, assemble
from leyden.credit.core.evidence import Evidence, EvidenceEvent, pack, subject_of, unpack
from leyden.credit.core.groups import assign_group, in_time, select_rewards
from leyden.credit.core.member import Member
from leyden.credit.core.membership import member_of
from leyden.credit.core.section import CreditSection
from leyden.credit.grouping import Grouping, keep_or_close
from leyden.credit.metrics import ABANDONED, CALLS, LATE_REWARDS, TOO_LONG
from leyden.credit.ports import Publisher, Stores
from leyden.events import (
    Event,
    GroupClosed,
    RewardsCompleted,
    RolloutEnded,
    RolloutSettled,
    SpanRecorded,
)
from leyden.kafka import Delivered

FINISHED = (State.COMPLETE, State.INCOMPLETE, State.FAILED)
"""States in which an attempt becomes a member of its group."""
ENDED, SETTLED = (str(kind.model_fields["type"].default) for kind in (RolloutEnded, RolloutSettled))


@dataclass
class _Attempts:
    """Attempts of a batch, by what follows from their state."""

    members: list[Member] = field(default_factory=list)
    finished: dict[str, float] = field(default_factory=dict)
    """Attempts that became members → for how many seconds after their end a late reward may come."""
    abandoned: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)


class CreditHandlers:
    """The handlers of credit. `name` is this credit service's own, empty for the only one."""

    def __init__(
        self,
        stores: Stores,
        publisher: Publisher,
        section: CreditSection,
        clock: Clock,
        *,
        name: str = "",
    ) -> None:
        self._attempts = stores.attempts
        self._open = stores.open_attempts
        self._section = section
        self._clock = clock
        self._name = name
        self.grouping = Grouping(stores, publisher, section, clock, name=name)

    async def on_batch(self, batch: Sequence[Delivered[Event]]) -> None:
        """Handle a batch. When this returns, every group that it completes is in Kafka. Raises `Retry`."""
        items = list(_items(batch, self._section.needs_spans))
        records = [one.event for one in batch if isinstance(one.event, GroupClosed)]
        mine = [record for record in records if record.credit == self._name]
        closed = await self._attempts.add(items)
        decided = await self._decide(dict.fromkeys(subject for subject, _, _ in items), batch)
        _count_refused(batch, closed)
        await self.grouping.keep(decided.members, mine)
        newcomers: dict[str, set[str]] = {}
        for member in decided.members:
            newcomers.setdefault(member.group_id, set()).add(member.rollout_id)
        recorded = {record.group_id for record in mine}
        await self.grouping.advance(newcomers.keys() | recorded, newcomers=newcomers, recorded=recorded)
        await self._let_go(decided)

    async def _decide(self, subjects: Iterable[str], batch: Sequence[Delivered[Event]]) -> _Attempts:
        """Assemble the attempts of `subjects`. Loads only those that may be finished."""
        found = _Attempts()
        just_ended = {subject_of(one.event) for one in batch if isinstance(one.event, RolloutEnded)}
        names = await self._attempts.names(list(subjects))
        ready = {subject for subject, ids in names.items() if _may_be_finished(ids, subject in just_ended)}
        found.open = [subject for subject in names if subject not in ready]
        late = _late_rewards(batch)
        for subject, kept in (await self._attempts.load(list(ready))).items():
            assembled = assemble(map(unpack, kept.values()), self._section.needs_spans)
            attempt = select_rewards(assembled)
            _count_late_rewards(attempt, late.get(subject, ()))
            if attempt.state in FINISHED:
                found.members.append(assign_group(member_of(attempt, self._section), attempt, self._section))
                found.finished[subject] = attempt.late_horizon_s
            elif attempt.state is State.ABANDONED:
                found.abandoned.append(subject)
            else:
                found.open.append(subject)
        _count_members(found)
        return found

    async def _let_go(self, decided: _Attempts) -> None:
        """Close finished attempts; keep the evidence of those with a horizon for a late reward."""
        await keep_or_close(self._attempts, decided.finished | dict.fromkeys(decided.abandoned, 0.0))
        await self._open.seen(decided.open, self._clock.now())
        await self._open.gone([*decided.finished, *decided.abandoned])


def _items(batch: Sequence[Delivered[Event]], with_spans: bool) -> Iterable[tuple[str, str, bytes]]:
    for one in batch:
        subject = subject_of(one.event)
        if subject is not None and (with_spans or not isinstance(one.event, SpanRecorded)):
            assert isinstance(one.event, EvidenceEvent)
            item_id = f"{one.event.type}:{one.event.event_id}"
            yield subject, item_id, pack(Evidence(one.event, one.origin, one.traceparent or ""))


def _may_be_finished(item_ids: Iterable[str], just_ended: bool) -> bool:
    """Whether the attempt may be finished, by the event types of its items; an item's id begins with its type."""
    kinds = {item_id.partition(":")[0] for item_id in item_ids}
    return ENDED in kinds and (just_ended or SETTLED in kinds)


def _count_members(decided: _Attempts) -> None:
    ABANDONED.inc(len(decided.abandoned))
    for member in decided.members:
        if member.revision:
            continue
        for how, count in member.calls.items():
            CALLS.labels(how=how).inc(count)
        for trajectory in member.trajectories:
            TOO_LONG.labels(policy=trajectory.policy).inc(trajectory.too_long)


def _late_rewards(batch: Sequence[Delivered[Event]]) -> dict[str | None, list[RewardsCompleted]]:
    """Attempt → the late rewards in `batch`."""
    found: dict[str | None, list[RewardsCompleted]] = {}
    for one in batch:
        if isinstance(one.event, RewardsCompleted) and one.event.revision > 0:
            found.setdefault(subject_of(one.event), []).append(one.event)
    return found


def _count_late_rewards(attempt: Attempt, events: Iterable[RewardsCompleted]) -> None:
    for event in events:
        outcome = "revised" if in_time(attempt, event.revision) else "past_horizon"
        LATE_REWARDS.labels(outcome=outcome).inc()


def _count_refused(batch: Sequence[Delivered[Event]], closed: set[str]) -> None:
    refused = sum(len(events) for subject, events in _late_rewards(batch).items() if subject in closed)
    LATE_REWARDS.labels(outcome="past_horizon").inc(refused)
