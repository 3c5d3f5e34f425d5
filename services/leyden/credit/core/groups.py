"""Who is in a group, and when it takes no more. Pure: what a clock says comes from outside, as `overdue`.

A group is closed by a record in the log (`GroupClosed`); the first one counts, whoever wrote it. It is then built from
exactly the members that the record names, each at the newest revision of its rewards. So the events of a group depend
on the named members alone: not on who came later, nor on the order in which they came.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from leyden.credit.core.actions import Context, actions_of
from leyden.credit.core.assemble import Attempt, State
from leyden.credit.core.build import CreditedGroup
from leyden.credit.core.member import Member
from leyden.credit.core.rules import Reason, Rules, reason_text
from leyden.events import GroupClosed, GroupClosing
from leyden.ids import derive

PRODUCER = "credit"
RECORD = "closed"
"""Id of the item that holds a group's `GroupClosed`."""
_SEAT, _PUBLISHED, _SEPARATOR = "member", "published", "|"


@dataclass(frozen=True, slots=True)
class Seat:
    """A member as the id of its item: enough to close a group without loading any tokens."""

    rollout_id: str
    revision: int
    group_size: int
    usable: bool
    ended_at: datetime

    @classmethod
    def of(cls, member: Member) -> "Seat":
        """The seat of `member`."""
        return cls(member.rollout_id, member.revision, member.group_size, member.left_out is None, member.ended_at)

    @classmethod
    def parse(cls, item_id: str) -> "Seat":
        """What `item_id` was made of."""
        rollout_id, revision, size, usable, ended_at = item_id.split(_SEPARATOR)[1:]
        return cls(rollout_id, int(revision), int(size), usable == "1", datetime.fromisoformat(ended_at))

    @property
    def item_id(self) -> str:
        """Under which the member is kept; another revision is another item."""
        parts = (_SEAT, self.rollout_id, self.revision, self.group_size, int(self.usable), self.ended_at.isoformat())
        return _SEPARATOR.join(map(str, parts))


def published_id(revision: int) -> str:
    """Id of the item that says that a revision of the group is in Kafka."""
    return f"{_PUBLISHED}{_SEPARATOR}{revision}"


@dataclass(frozen=True)
class Roster:
    """A group as the ids of its items."""

    group_id: str
    seats: dict[str, Seat] = field(default_factory=dict)
    """By rollout, the newest revision of each."""
    recorded: bool = False
    published: int = -1
    """The newest revision of the group that is in Kafka; -1 when none is."""

    @classmethod
    def of(cls, group_id: str, item_ids: Iterable[str]) -> "Roster":
        """The group `group_id`, whatever the order of its items."""
        seats: dict[str, Seat] = {}
        recorded, published = False, -1
        for item_id in sorted(item_ids):
            kind, _, rest = item_id.partition(_SEPARATOR)
            if kind == _SEAT:
                seat = Seat.parse(item_id)
                if seat.rollout_id not in seats or seats[seat.rollout_id].revision <= seat.revision:
                    seats[seat.rollout_id] = seat
            elif kind == _PUBLISHED:
                published = max(published, int(rest))
            else:
                recorded = recorded or item_id == RECORD
        return cls(group_id, seats, recorded, published)

    def named(self, record: GroupClosed) -> list[Seat] | None:
        """The seats that `record` names; None while one of them is missing."""
        if not self.seats.keys() >= set(record.rollout_ids):
            return None
        return [self.seats[rollout_id] for rollout_id in sorted(set(record.rollout_ids))]

    def unnamed(self, record: GroupClosed) -> set[str]:
        """Rollouts that came too late for `record`."""
        return self.seats.keys() - set(record.rollout_ids)


def revision_of(seats: Iterable[Seat]) -> int:
    """The revision of a group: how many late rewards its members took, in all. The same in any order of arrival."""
    return sum(seat.revision for seat in seats)


def closing(roster: Roster, rules: Rules, overdue: bool = False) -> GroupClosed | None:
    """The record that closes a group now; None while it may still become more, or has its record, or is not ours."""
    if roster.recorded or not roster.seats or not rules.group.decides:
        return None
    inside = sorted(roster.seats.values(), key=lambda seat: (seat.ended_at, seat.rollout_id))
    size, quota = max(seat.group_size for seat in inside), rules.group.quota
    usable = [seat for seat in inside if seat.usable]
    if quota is not None and len(usable) >= quota:
        named = usable[:quota] + [seat for seat in inside if not seat.usable]
        whole = len(named) == len(inside) >= size
        return _record(roster.group_id, named, GroupClosing.COMPLETE if whole else GroupClosing.QUOTA, rules)
    if len(inside) >= size:
        return _record(roster.group_id, inside[:size], GroupClosing.COMPLETE, rules)
    return _record(roster.group_id, inside, GroupClosing.DEADLINE, rules) if overdue else None


def _record(group_id: str, named: Sequence[Seat], reason: GroupClosing, rules: Rules) -> GroupClosed:
    return GroupClosed(
        event_id=derive("group-closed", group_id, *((rules.credit,) if rules.credit else ())),
        event_time=max(seat.ended_at for seat in named),
        producer=PRODUCER,
        credit=rules.credit,
        group_id=group_id,
        rollout_ids=sorted(seat.rollout_id for seat in named),
        reason=reason,
    )


def standing(members: Iterable[Member], record: GroupClosed, rules: Rules) -> list[Member]:
    """The named members as they enter the group: stale ones left out, and all of them where too few are usable."""
    found = list(members)
    if rules.group.by == "given" and rules.group.version_window is not None:
        found = _without_stale(found, rules.group.version_window)
    usable = sum(member.left_out is None for member in found)
    if record.reason is GroupClosing.DEADLINE and usable < rules.group.min_members:
        text = reason_text(Reason.TOO_FEW, f"{usable} of {rules.group.min_members}")
        found = [_left_out(member, text) if member.left_out is None else member for member in found]
    return found


def _without_stale(members: Sequence[Member], window: int) -> list[Member]:
    newest: dict[str, int] = {}
    for member in members:
        for policy, versions in _versions(member).items():
            newest[policy] = max(newest.get(policy, 0), *versions)
    found = []
    for member in members:
        behind = max((newest[policy] - min(versions) for policy, versions in _versions(member).items()), default=0)
        stale = reason_text(Reason.STALE, f"{behind} versions behind") if behind > window else None
        found.append(_left_out(member, stale) if stale else member)
    return found


def _versions(member: Member) -> dict[str, list[int]]:
    """By policy the versions that acted."""
    found: dict[str, list[int]] = {}
    for trajectory in member.trajectories:
        for sequence in trajectory.sequences:
            found.setdefault(trajectory.policy, []).extend(span.policy_version for span in sequence.spans)
    return found


def _left_out(member: Member, reason: str) -> Member:
    return member.model_copy(update={"left_out": reason, "trajectories": []})


def stamped(one: CreditedGroup, record: GroupClosed, revision: int) -> CreditedGroup:
    """`one` as that revision of the group that `record` closed; the first one of an unnamed credit keeps its ids."""
    about: dict[str, object] = {"credit": record.credit, "revision": revision}
    marks = [f"credit={record.credit}"] if record.credit else []
    marks += [f"revision={revision}"] if revision else []

    def event_id(plain: str) -> str:
        return derive(plain, *marks) if marks else plain

    return replace(
        one,
        sequences=[s.model_copy(update=about | {"event_id": event_id(s.event_id)}) for s in one.sequences],
        group=one.group.model_copy(
            update=about | {"event_id": event_id(one.group.event_id), "closed_by": record.reason}
        ),
    )


def admitted(attempt: Attempt, horizon_s: float) -> Attempt:
    """`attempt` with the newest revision of its rewards that came within the horizon and is all here.

    The horizon is measured between event times, so that a replay admits what was admitted live. Without a horizon only
    the first rewards count. While nothing that counts is here, the attempt has no rewards yet.
    """
    found = [number for number in attempt.completions if in_time(attempt, number, horizon_s)]
    whole = [number for number in found if attempt.rewards.keys() >= set(attempt.completions[number].reward_ids)]
    if not found:
        return replace(attempt, completed=None)
    return attempt.at_revision(max(whole or found))


def in_time(attempt: Attempt, revision: int, horizon_s: float) -> bool:
    """Whether a revision of the attempt's rewards counts; the first one always does."""
    if revision == 0:
        return True
    if horizon_s <= 0 or attempt.ended is None:
        return False
    late = attempt.completions[revision].event_time - attempt.ended.event_time
    return late <= timedelta(seconds=horizon_s)


def placed(member: Member, attempt: Attempt, rules: Rules) -> Member:
    """`member` with its revision, and in the group in which it is compared."""
    completed = attempt.completed if attempt.state is not State.FAILED else None
    changes: dict[str, object] = {"revision": completed.revision if completed else 0}
    group_id = _task_group(attempt, rules) if member.group_size == 1 else None
    if group_id is not None:
        changes |= {"group_id": group_id, "group_size": rules.group.size}
    return member.model_copy(update=changes)


def _task_group(attempt: Attempt, rules: Rules) -> str | None:
    """The group of the attempt's task and policy-version window, by its first action.

    None where groups are given, and for a rollout without task, for validation, or without an action: it stays alone.
    A failed one is in it too, to be left out visibly. Rewards play no part, so that a late one moves nobody.
    """
    ended, window = attempt.ended, rules.group.version_window
    if rules.group.by != "task" or window is None or ended is None or ended.task is None:
        return None
    if ended.task.mode == "validation":
        return None
    for call in attempt.settled_calls():
        found = actions_of(call, rules.policies, rules.agents)
        if not isinstance(found, Context):
            return f"task/{ended.task.task_id}/{found[0].policy}/{found[0].policy_version // window}"
    return None
