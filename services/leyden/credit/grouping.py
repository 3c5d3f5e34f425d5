"""Groups from their first member to their events: kept, closed by a record, built from it, published, let go.

Any replica may do any of it, and twice: the record that is first in the log counts, and what is built from it is the
same bytes. Members are kept before the record is published, and events are published before a group is let go.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field

from leyden.clock import Clock
from leyden.credit.core.build import CreditedGroup, build
from leyden.credit.core.groups import RECORD, Roster, Seat, closing, published_id, revision_of, stamped, standing
from leyden.credit.core.member import Member
from leyden.credit.core.rules import Reason, Rules
from leyden.credit.metrics import CLOSED, GROUPS, LATE_MEMBERS, LEFT_OUT, SEQUENCES, ZERO_VARIANCE
from leyden.credit.ports import Publisher, Stores
from leyden.events import GroupClosed
from leyden.events.codec import GROUPS as GROUPS_TOPIC
from leyden.events.codec import TRANSITIONS
from leyden.kafka import Outgoing

KEPT_LONGER_S = 86_400
"""How much longer than the horizon a credited group is kept: a reward that was given in time may be read late."""


@dataclass
class _Look:
    """What one look at some groups finds."""

    closings: list[GroupClosed] = field(default_factory=list)
    ready: dict[str, tuple[GroupClosed, list[Seat]]] = field(default_factory=dict)
    open: set[str] = field(default_factory=set)
    """Not published yet, and not gone."""
    waiting: set[str] = field(default_factory=set)
    """Those of them that nothing has closed. A record that was published is safe: nothing is left to be timed."""


class Grouping:
    """The groups of one credit service."""

    def __init__(self, stores: Stores, publisher: Publisher, rules: Rules, clock: Clock) -> None:
        self._groups = stores.groups
        self._open = stores.open_groups
        self._deadlines = stores.deadlines
        self._publisher = publisher
        self._rules = rules
        self._clock = clock

    async def keep(self, members: Iterable[Member], records: Iterable[GroupClosed]) -> None:
        """Add members and records to their groups; of several records of a group the first one stays."""
        items = [(m.group_id, Seat.of(m).item_id, m.model_dump_json().encode()) for m in members]
        items += [(record.group_id, RECORD, record.model_dump_json().encode()) for record in records]
        await self._groups.add(items)

    async def advance(
        self,
        group_ids: Iterable[str],
        newcomers: Mapping[str, Set[str]],
        recorded: Set[str] = frozenset(),
        overdue: bool = False,
    ) -> None:
        """Take every group as far as it can go: close it, build it, or build it anew after a late reward.

        `newcomers` are the members that came just now and `recorded` the groups whose record did, to count the late.
        """
        distinct = sorted(set(group_ids))
        # Before the look: a group that another replica lets go meanwhile is not said to be open after that.
        await self._open.seen(distinct, self._clock.now())
        await self._deadlines.seen(distinct, self._clock.now())
        rosters = {g: Roster.of(g, ids) for g, ids in (await self._groups.names(distinct)).items()}
        records = await self._records(rosters.values())
        look = _Look()
        for group_id, roster in rosters.items():
            self._see(roster, records.get(group_id), overdue, look)
        _count_late(rosters, records, newcomers, recorded)
        await self._publish(look)
        await self._open.gone([group_id for group_id in distinct if group_id not in look.open])
        await self._deadlines.gone([group_id for group_id in distinct if group_id not in look.waiting])

    def _see(self, roster: Roster, record: GroupClosed | None, overdue: bool, look: _Look) -> None:
        if record is None:
            look.open.add(roster.group_id)
            if (closed := closing(roster, self._rules, overdue)) is not None:
                look.closings.append(closed)
            else:
                look.waiting.add(roster.group_id)
        elif (seats := roster.named(record)) is None:
            look.open.add(roster.group_id)
        elif revision_of(seats) > roster.published:
            look.ready[roster.group_id] = record, seats

    async def _records(self, rosters: Iterable[Roster]) -> dict[str, GroupClosed]:
        picked = await self._groups.pick({roster.group_id: [RECORD] for roster in rosters if roster.recorded})
        return {g: GroupClosed.model_validate_json(items[RECORD]) for g, items in picked.items()}

    async def _publish(self, look: _Look) -> None:
        """Records and sequences first; a group itself once its sequences are safe. Then let go, or keep for a while."""
        built = await self._build(look.ready)
        credited = [one for _, ones in built.values() for one in ones]
        closings = [Outgoing(GROUPS_TOPIC, closed.group_id, closed) for closed in look.closings]
        await self._publisher.publish_all([*closings, *(out for one in credited for out in _sequences(one))])
        await self._publisher.publish_all([Outgoing(TRANSITIONS, _key(one), one.group) for one in credited])
        _count_groups(look.closings, credited)
        if self._rules.late_horizon_s > 0:
            await self._groups.add((g, published_id(revision), b"") for g, (revision, _) in built.items())
            await self._groups.keep(list(built), self._rules.late_horizon_s + KEPT_LONGER_S)
        else:
            await self._groups.close(list(built))

    async def _build(
        self, ready: Mapping[str, tuple[GroupClosed, Sequence[Seat]]]
    ) -> dict[str, tuple[int, list[CreditedGroup]]]:
        """By group its revision and its events; a group that another replica closed meanwhile is not there."""
        wanted = {group_id: [seat.item_id for seat in seats] for group_id, (_, seats) in ready.items()}
        picked = await self._groups.pick(wanted)
        built: dict[str, tuple[int, list[CreditedGroup]]] = {}
        for group_id, (record, seats) in ready.items():
            values = picked.get(group_id, {})
            if len(values) == len(seats):
                members = standing(map(Member.model_validate_json, values.values()), record, self._rules)
                revision = revision_of(seats)
                built[group_id] = revision, [stamped(one, record, revision) for one in build(members, self._rules)]
        return built


def _key(one: CreditedGroup) -> str:
    """All of a group for one policy is in one partition, in order."""
    return f"{one.group.policy}/{one.group.group_id}"


def _sequences(one: CreditedGroup) -> Iterable[Outgoing]:
    for sequence, traceparent in zip(one.sequences, one.traceparents, strict=True):
        yield Outgoing(TRANSITIONS, _key(one), sequence, traceparent or None)


def _count_late(
    rosters: Mapping[str, Roster],
    records: Mapping[str, GroupClosed],
    newcomers: Mapping[str, Set[str]],
    recorded: Set[str],
) -> None:
    """Members that are not trained because their group is closed: those that came now, and those before the record."""
    late = sum(len(rollouts) for group_id, rollouts in newcomers.items() if group_id not in rosters)
    for group_id, record in records.items():
        unnamed = rosters[group_id].unnamed(record)
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
