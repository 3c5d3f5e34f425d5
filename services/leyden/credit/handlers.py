"""From batches of events to published groups: keep, assemble, credit; `grouping` compares, publishes, and lets go.

The order of the writes makes a crash harmless anywhere. An attempt's evidence is closed last, so that whatever was not
finished is found again when the batch comes again; what was finished is recognised by its ids.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from leyden.clock import Clock
from leyden.credit.core.assemble import Attempt, State, assemble
from leyden.credit.core.credit import credit
from leyden.credit.core.evidence import EvidenceEvent, Exhibit, pack, subject_of, unpack
from leyden.credit.core.groups import admitted, in_time, placed
from leyden.credit.core.member import Member
from leyden.credit.core.rules import Rules
from leyden.credit.grouping import KEPT_LONGER_S, Grouping
from leyden.credit.metrics import ABANDONED, CALLS, LATE_REWARDS, TOO_LONG
from leyden.credit.ports import Publisher, Stores
from leyden.events import (
    Event,
    GroupClosed,
    ModelCallRecorded,
    RewardsCompleted,
    RolloutEnded,
    RolloutSettled,
    SpanRecorded,
)
from leyden.kafka import Delivered

OVER = (State.COMPLETE, State.INCOMPLETE, State.FAILED)
"""States of an attempt that is a member of its group."""
ENDED, SETTLED = (str(kind.model_fields["type"].default) for kind in (RolloutEnded, RolloutSettled))


@dataclass
class _Decided:
    """What some attempts came to."""

    members: list[Member] = field(default_factory=list)
    over: list[str] = field(default_factory=list)
    """Attempts that are members; a late reward may still come."""
    abandoned: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)


class CreditHandlers:
    """The handlers of credit. `backlog_s`: gateway's records older than this say that a backlog is being read."""

    def __init__(
        self, stores: Stores, publisher: Publisher, rules: Rules, clock: Clock, backlog_s: float = 30.0
    ) -> None:
        self._attempts = stores.attempts
        self._open = stores.open_attempts
        self._backlog = stores.backlog
        self._rules = rules
        self._clock = clock
        self._backlog_s = backlog_s
        self.grouping = Grouping(stores, publisher, rules, clock)

    async def on_batch(self, batch: Sequence[Delivered[Event]]) -> None:
        """Use every event of `batch`; when this returns, all that they complete is in Kafka."""
        await self._hold_off(batch)
        items = list(_items(batch, self._rules.needs_spans))
        records = [one.event for one in batch if isinstance(one.event, GroupClosed)]
        mine = [record for record in records if record.credit == self._rules.credit]
        closed = await self._attempts.add(items)
        decided = await self._decide(dict.fromkeys(subject for subject, _, _ in items), batch)
        _count_refused(batch, closed)
        await self.grouping.keep(decided.members, mine)
        newcomers: dict[str, set[str]] = {}
        for member in decided.members:
            newcomers.setdefault(member.group_id, set()).add(member.rollout_id)
        recorded = {record.group_id for record in mine}
        await self.grouping.advance(newcomers.keys() | recorded, newcomers, recorded)
        await self._let_go(decided)

    async def _hold_off(self, batch: Sequence[Delivered[Event]]) -> None:
        """Say that a backlog is being read. By the gateway's records alone: rewards have their rollout's time."""
        if self._rules.group.deadline_s is None or not self._rules.group.decides:
            return
        old = self._clock.now() - timedelta(seconds=self._backlog_s)
        if any(isinstance(e.event, ModelCallRecorded | RolloutEnded) and e.event.event_time < old for e in batch):
            await self._backlog.mark_behind(self._backlog_s)

    async def _decide(self, subjects: Iterable[str], batch: Sequence[Delivered[Event]]) -> _Decided:
        """What the attempts of `subjects` come to. Only those are loaded of which something may have changed."""
        found = _Decided()
        just_ended = {subject_of(one.event) for one in batch if isinstance(one.event, RolloutEnded)}
        names = await self._attempts.names(list(subjects))
        worth = {subject for subject, ids in names.items() if _worth_loading(ids, subject in just_ended)}
        found.open = [subject for subject in names if subject not in worth]
        late = _late_rewards(batch)
        for subject, kept in (await self._attempts.load(list(worth))).items():
            assembled = assemble(map(unpack, kept.values()), self._rules.needs_spans)
            attempt = admitted(assembled, self._rules.late_horizon_s)
            _count_late_rewards(attempt, late.get(subject, ()), self._rules.late_horizon_s)
            if attempt.state in OVER:
                found.members.append(placed(credit(attempt, self._rules), attempt, self._rules))
                found.over.append(subject)
            elif attempt.state is State.ABANDONED:
                found.abandoned.append(subject)
            else:
                found.open.append(subject)
        _count_members(found)
        return found

    async def _let_go(self, decided: _Decided) -> None:
        """Close what is over; with a horizon, keep its evidence for a late reward."""
        if self._rules.late_horizon_s > 0:
            await self._attempts.keep(decided.over, self._rules.late_horizon_s + KEPT_LONGER_S)
            await self._attempts.close(decided.abandoned)
        else:
            await self._attempts.close([*decided.over, *decided.abandoned])
        await self._open.seen(decided.open, self._clock.now())
        await self._open.gone([*decided.over, *decided.abandoned])


def _items(batch: Sequence[Delivered[Event]], with_spans: bool) -> Iterable[tuple[str, str, bytes]]:
    for one in batch:
        subject = subject_of(one.event)
        if subject is not None and (with_spans or not isinstance(one.event, SpanRecorded)):
            assert isinstance(one.event, EvidenceEvent)
            item_id = f"{one.event.type}:{one.event.event_id}"
            yield subject, item_id, pack(Exhibit(one.event, one.origin, one.traceparent or ""))


def _worth_loading(item_ids: Iterable[str], just_ended: bool) -> bool:
    """Whether the attempt may be over: by the kinds of what is here, which the items' ids begin with."""
    kinds = {item_id.partition(":")[0] for item_id in item_ids}
    return ENDED in kinds and (just_ended or SETTLED in kinds)


def _count_members(decided: _Decided) -> None:
    ABANDONED.inc(len(decided.abandoned))
    for member in decided.members:
        if member.revision:
            continue
        for how, count in member.calls.items():
            CALLS.labels(how=how).inc(count)
        for trajectory in member.trajectories:
            TOO_LONG.labels(policy=trajectory.policy).inc(trajectory.too_long)


def _late_rewards(batch: Sequence[Delivered[Event]]) -> dict[str | None, list[RewardsCompleted]]:
    """By attempt the revisions of rewards that `batch` holds."""
    found: dict[str | None, list[RewardsCompleted]] = {}
    for one in batch:
        if isinstance(one.event, RewardsCompleted) and one.event.revision > 0:
            found.setdefault(subject_of(one.event), []).append(one.event)
    return found


def _count_late_rewards(attempt: Attempt, events: Iterable[RewardsCompleted], horizon_s: float) -> None:
    for event in events:
        outcome = "revised" if in_time(attempt, event.revision, horizon_s) else "past_horizon"
        LATE_REWARDS.labels(outcome=outcome).inc()


def _count_refused(batch: Sequence[Delivered[Event]], closed: set[str]) -> None:
    refused = sum(len(events) for subject, events in _late_rewards(batch).items() if subject in closed)
    LATE_REWARDS.labels(outcome="past_horizon").inc(refused)
