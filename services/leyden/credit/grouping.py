"""Groups, from their first member to their events: stored, closed by a record, built from it, published.

Any replica may do any step, and twice: the first record in the log counts, and its events always have the same bytes.
Members are stored before the record is published, and events are published before a group is closed in the store.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field

from leyden.clock import Clock
from leyden.credit.core.group_events import CreditedGroup, group_events
from leyden.credit.core.groups import (
    RECORD,
    GroupSummary,
    MemberSummary,
    apply_group_limits,
    closing_record,
    published_id,
    revision_of,
    with_revision,
)
from leyden.credit.core.member import Member
from leyden.credit.core.reasons import Reason
from leyden.credit.core.section import CreditSection
from leyden.credit.metrics import CLOSED, GROUPS, LATE_MEMBERS, LEFT_OUT, SEQUENCES, ZERO_VARIANCE
from leyden.credit.ports import EvidenceStore, Publisher, Stores
from leyden.events import GroupClosed
from leyden.events.codec import GROUPS as GROUPS_TOPIC
from leyden.events.codec import TRANSITIONS
from leyden.kafka import Outgoing

KEPT_LONGER_S = 86_400
"""Seconds by which a credited group is kept longer than the horizon: a reward given in time may be read late."""


@dataclass
class _Next:
    """What comes next for some groups."""

    closings: list[GroupClosed] = field(default_factory=list)
    ready: dict[str, tuple[GroupClosed, list[MemberSummary]]] = field(default_factory=dict)
    open: set[str] = field(default_factory=set)
    """Not published yet."""
    waiting: set[str] = field(default_factory=set)
    """Open groups that nothing has closed, so that their deadline still runs."""


@dataclass(frozen=True)
class _Built:
    """What is published of a group."""

    revision: int
    credited: list[CreditedGroup]
    late_horizon_s: float
    """The longest of its members'."""


async def keep_or_close(store: EvidenceStore, horizons: Mapping[str, float]) -> None:
    """Keep each subject for its horizon (seconds) and `KEPT_LONGER_S`; close those with a horizon of 0."""
    by_horizon: dict[float, list[str]] = {}
    for subject, horizon_s in horizons.items():
        by_horizon.setdefault(horizon_s, []).append(subject)
    await store.close(by_horizon.pop(0.0, []))
    for horizon_s, subjects in by_horizon.items():
        await store.keep(subjects, horizon_s + KEPT_LONGER_S)


class Grouping:
    """The groups of one credit service."""

    def __init__(
        self, stores: Stores, publisher: Publisher, section: CreditSection, clock: Clock, *, name: str = ""
    ) -> None:
        self._groups = stores.groups
        self._open = stores.open_groups
        self._deadlines = stores.deadlines
        self._publisher = publisher
        self._section = section
        self._clock = clock
        self._name = name

    async def keep(self, members: Iterable[Member], records: Iterable[GroupClosed]) -> None:
        """Add members and records to their groups; of several records of a group the first stays."""
        items = [(m.group_id, MemberSummary.of(m).item_id, m.model_dump_json().encode()) for m in members]
        items += [(record.group_id, RECORD, record.model_dump_json().encode()) for record in records]
        await self._groups.add(items)

    async def advance(
        self,
        group_ids: Iterable[str],
        *,
        newcomers: Mapping[str, Set[str]],
        recorded: Set[str] = frozenset(),
        overdue: bool = False,
    ) -> None:
        """Take each group as far as it can go: close it, publish it, or publish it again after a late reward.

        `newcomers` are the members and `recorded` the groups with a record in this batch; they count the late ones.
        """
        distinct = sorted(set(group_ids))
        # First, so that a group that another replica closes meanwhile is not marked open after that.
        await self._open.seen(distinct, self._clock.now())
        await self._deadlines.seen(distinct, self._clock.now())
        groups = {g: GroupSummary.of(g, ids) for g, ids in (await self._groups.names(distinct)).items()}
        records = await self._records(groups.values())
        todo = _Next()
        for group_id, group in groups.items():
            self._sort(group, records.get(group_id), overdue, todo)
        _count_late(groups, records, newcomers, recorded)
        await self._publish(todo)
        await self._open.gone([group_id for group_id in distinct if group_id not in todo.open])
        await self._deadlines.gone([group_id for group_id in distinct if group_id not in todo.waiting])

    def _sort(self, group: GroupSummary, record: GroupClosed | None, overdue: bool, todo: _Next) -> None:
        if record is None:
            todo.open.add(group.group_id)
            if (closed := closing_record(group, self._section, name=self._name, overdue=overdue)) is not None:
                todo.closings.append(closed)
            else:
                todo.waiting.add(group.group_id)
        elif (members := group.named_by(record)) is None:
            todo.open.add(group.group_id)
        elif revision_of(members) > group.published:
            todo.ready[group.group_id] = record, members

    async def _records(self, groups: Iterable[GroupSummary]) -> dict[str, GroupClosed]:
        picked = await self._groups.pick({group.group_id: [RECORD] for group in groups if group.recorded})
        return {g: GroupClosed.model_validate_json(items[RECORD]) for g, items in picked.items()}

    async def _publish(self, todo: _Next) -> None:
        """Publish records and sequences, then the groups, then close the groups or keep them for their horizon."""
        built = await self._build(todo.ready)
        credited = [one for group in built.values() for one in group.credited]
        closings = [Outgoing(GROUPS_TOPIC, closed.group_id, closed) for closed in todo.closings]
        await self._publisher.publish_all([*closings, *(out for one in credited for out in _sequences(one))])
        await self._publisher.publish_all([Outgoing(TRANSITIONS, _key(one), one.group) for one in credited])
        _count_groups(todo.closings, credited)
        kept = {group_id: group for group_id, group in built.items() if group.late_horizon_s > 0}
        if kept:
            await self._groups.add((group_id, published_id(group.revision), b"") for group_id, group in kept.items())
        await keep_or_close(self._groups, {group_id: group.late_horizon_s for group_id, group in built.items()})

    async def _build(self, ready: Mapping[str, tuple[GroupClosed, Sequence[MemberSummary]]]) -> dict[str, _Built]:
        """By group; without groups that another replica closed meanwhile."""
        wanted = {group_id: [member.item_id for member in members] for group_id, (_, members) in ready.items()}
        picked = await self._groups.pick(wanted)
        built: dict[str, _Built] = {}
        for group_id, (record, members) in ready.items():
            values = picked.get(group_id, {})
            if len(values) == len(members):
                named = [Member.model_validate_json(value) for value in values.values()]
                events = group_events(apply_group_limits(named, record, self._section), self._section)
                revision = revision_of(members)
                horizon_s = max((member.late_horizon_s for member in named), default=0.0)
                built[group_id] = _Built(revision, [with_revision(one, record, revision) for one in events], horizon_s)
        return built


def _key(one: CreditedGroup) -> str:
    """One key for all events of a group and policy, so that they stay in order."""
    return f"{one.group.policy}/{one.group.group_id}"


def _sequences(one: CreditedGroup) -> Iterable[Outgoing]:
    for sequence, traceparent in zip(one.sequences, one.traceparents, strict=True):
        yield Outgoing(TRANSITIONS, _key(one), sequence, traceparent or None)


def _count_late(
    groups: Mapping[str, GroupSummary],
    records: Mapping[str, GroupClosed],
    newcomers: Mapping[str, Set[str]],
    recorded: Set[str],
) -> None:
    """Count members that came after their group was closed: in this batch, or before its record was read."""
    late = sum(len(rollouts) for group_id, rollouts in newcomers.items() if group_id not in groups)
    for group_id, record in records.items():
        unnamed = groups[group_id].too_late_for(record)
        late += len(unnamed if group_id in recorded else unnamed & newcomers.get(group_id, frozenset()))
    LATE_MEMBERS.inc(late)
    LEFT_OUT.labels(reason=Reason.GROUP_CLOSED.value).inc(late)


def _count_groups(closings: Iterable[GroupClosed], credited: Iterable[CreditedGroup]) -> None:
    for closed in closings:
        CLOSED.labels(by=closed.reason.value).inc()
    for one in credited:
        GROUPS.labels(policy=one.group.policy).inc()
        SEQUENCES.labels(policy=one.group.policy).inc(len(one.sequences))
        ZERO_VARIANCE.labels(policy=one.group.policy).inc(int(one.group.zero_variance))
        for reason in one.group.left_out.values():
            LEFT_OUT.labels(reason=reason.split(":", 1)[0]).inc()
