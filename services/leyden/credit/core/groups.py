"""Who is in a group, and when it is closed. The caller looks at the clock and passes `overdue`.

A group is closed by a record in the log (`GroupClosed`); of several the first counts, whichever replica wrote it. The
group is then built from exactly the members that the record names, each at the newest revision of its rewards. So a
group's events depend on the named members alone, not on later rollouts or on the order of arrival.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from leyden.credit.core.actions import Context, actions_of
from leyden.credit.core.assemble import Attempt, State
from leyden.credit.core.group_events import PRODUCER, CreditedGroup
from leyden.credit.core.member import Member
from leyden.credit.core.reasons import Reason, reason_text
from leyden.credit.core.section import CreditSection
from leyden.events import GroupClosed, GroupClosing
from leyden.ids import derive

RECORD = "closed"
"""Id of the item that holds a group's `GroupClosed`."""
_MEMBER, _PUBLISHED, _SEPARATOR = "member", "published", "|"


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberSummary:
    """What the id of a member's item says: enough to close a group without loading any tokens."""

    rollout_id: str
    revision: int
    group_size: int
    usable: bool
    ended_at: datetime

    @classmethod
    def of(cls, member: Member) -> "MemberSummary":
        """The summary of `member`."""
        return cls(
            rollout_id=member.rollout_id,
            revision=member.revision,
            group_size=member.group_size,
            usable=member.left_out is None,
            ended_at=member.ended_at,
        )

    @classmethod
    def parse(cls, item_id: str) -> "MemberSummary":
        """Inverse of `item_id`."""
        rollout_id, revision, size, usable, ended_at = item_id.partition(_SEPARATOR)[2].rsplit(_SEPARATOR, 4)
        return cls(
            rollout_id=rollout_id,
            revision=int(revision),
            group_size=int(size),
            usable=usable == "1",
            ended_at=datetime.fromisoformat(ended_at),
        )

    @property
    def item_id(self) -> str:
        """Id under which the member is stored; each revision is an item of its own."""
        parts = (_MEMBER, self.rollout_id, self.revision, self.group_size, int(self.usable), self.ended_at.isoformat())
        return _SEPARATOR.join(map(str, parts))


def published_id(revision: int) -> str:
    """Id of the item that says that a revision of the group is in Kafka."""
    return f"{_PUBLISHED}{_SEPARATOR}{revision}"


@dataclass(frozen=True)
class GroupSummary:
    """What the ids of a group's items say."""

    group_id: str
    members: dict[str, MemberSummary] = field(default_factory=dict)
    """By rollout, each at its newest revision."""
    recorded: bool = False
    """Whether the `GroupClosed` is here."""
    published: int = -1
    """The newest revision of the group that is in Kafka; -1 for none."""

    @classmethod
    def of(cls, group_id: str, item_ids: Iterable[str]) -> "GroupSummary":
        """The summary of the group `group_id`; the order of its items does not matter."""
        members: dict[str, MemberSummary] = {}
        recorded, published = False, -1
        for item_id in sorted(item_ids):
            kind, _, rest = item_id.partition(_SEPARATOR)
            if kind == _MEMBER:
                member = MemberSummary.parse(item_id)
                if member.rollout_id not in members or members[member.rollout_id].revision <= member.revision:
                    members[member.rollout_id] = member
            elif kind == _PUBLISHED:
                published = max(published, int(rest))
            else:
                recorded = recorded or item_id == RECORD
        return cls(group_id, members, recorded, published)

    def named_by(self, record: GroupClosed) -> list[MemberSummary] | None:
        """The members that `record` names; None while one of them is missing."""
        if not self.members.keys() >= set(record.rollout_ids):
            return None
        return [self.members[rollout_id] for rollout_id in sorted(set(record.rollout_ids))]

    def too_late_for(self, record: GroupClosed) -> set[str]:
        """Rollouts of the group that `record` does not name."""
        return self.members.keys() - set(record.rollout_ids)


def revision_of(members: Iterable[MemberSummary]) -> int:
    """A group's revision: the sum of its members' reward revisions, so the order of arrival does not matter."""
    return sum(member.revision for member in members)


def closing_record(
    group: GroupSummary, section: CreditSection, *, name: str = "", overdue: bool = False
) -> GroupClosed | None:
    """The record that closes `group` now; None if more members may come, if it is closed, or if a replay closes it.

    `name` is the credit service's own name, `overdue` whether the group's deadline has passed.
    """
    if group.recorded or not group.members or section.group.close != "live":
        return None
    members = sorted(group.members.values(), key=lambda member: (member.ended_at, member.rollout_id))
    usable = [member for member in members if member.usable]
    size, quota = max(member.group_size for member in members), section.group.quota
    if quota is not None and len(usable) >= quota:
        named = usable[:quota] + [member for member in members if not member.usable]
        reason = GroupClosing.COMPLETE if len(named) == len(members) >= size else GroupClosing.QUOTA
    elif len(members) >= size:
        named, reason = members[:size], GroupClosing.COMPLETE
    elif overdue:
        named, reason = members, GroupClosing.DEADLINE
    else:
        return None
    return GroupClosed(
        event_id=derive("group-closed", group.group_id, *([name] if name else [])),
        event_time=max(member.ended_at for member in named),
        producer=PRODUCER,
        credit=name,
        group_id=group.group_id,
        rollout_ids=sorted(member.rollout_id for member in named),
        reason=reason,
    )


def apply_group_limits(members: Iterable[Member], record: GroupClosed, section: CreditSection) -> list[Member]:
    """Leave out stale members; leave out all if fewer than `min_members` are usable at the deadline."""
    found = list(members)
    if section.group.by == "given" and section.group.version_window is not None:
        found = _without_stale(found, section.group.version_window)
    usable = sum(member.left_out is None for member in found)
    if record.reason is GroupClosing.DEADLINE and usable < section.group.min_members:
        text = reason_text(Reason.TOO_FEW, f"{usable} of {section.group.min_members}")
        found = [member.without_training(text) if member.left_out is None else member for member in found]
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
        found.append(member.without_training(stale) if stale else member)
    return found


def _versions(member: Member) -> dict[str, list[int]]:
    """Policy → the versions that acted."""
    found: dict[str, list[int]] = {}
    for trajectory in member.trajectories:
        for sequence in trajectory.sequences:
            found.setdefault(trajectory.policy, []).extend(t.policy_version for t in sequence.transitions)
    return found


def with_revision(one: CreditedGroup, record: GroupClosed, revision: int) -> CreditedGroup:
    """`one` with the record's reason, the revision and the service's name. Name and revision, if set, change ids."""
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


def select_rewards(attempt: Attempt) -> Attempt:
    """`attempt` at the newest complete revision of its rewards that came within the horizon.

    The horizon, which a revision itself tells, is measured between event times: a replay selects what was selected
    live. While no revision that counts is here, the attempt has no rewards yet.
    """
    counted = [number for number in attempt.completions if in_time(attempt, number)]
    complete = [n for n in counted if attempt.rewards.keys() >= set(attempt.completions[n].reward_ids)]
    if not counted:
        return replace(attempt, completed=None)
    return attempt.at_revision(max(complete or counted))


def in_time(attempt: Attempt, revision: int) -> bool:
    """Whether a revision of the attempt's rewards came within the horizon; the first one always counts."""
    if revision == 0:
        return True
    given = attempt.completions[revision]
    if given.late_horizon_s <= 0 or attempt.ended is None:
        return False
    return given.event_time - attempt.ended.event_time <= timedelta(seconds=given.late_horizon_s)


def assign_group(member: Member, attempt: Attempt, section: CreditSection) -> Member:
    """`member` with its reward revision and horizon, and with the group in which it is compared."""
    completed = attempt.completed if attempt.state is not State.FAILED else None
    changes: dict[str, object] = {"revision": completed.revision if completed else 0}
    changes |= {"late_horizon_s": attempt.late_horizon_s}
    group_id = _task_group(attempt, section) if member.group_size == 1 else None
    if group_id is not None:
        changes |= {"group_id": group_id, "group_size": section.group.size}
    return member.model_copy(update=changes)


def _task_group(attempt: Attempt, section: CreditSection) -> str | None:
    """Id of the group for the attempt's task and version window, by the policy version of its first action.

    None with `by: given`, and for a validation rollout or one without a task or an action: it stays in its own group.
    A failed rollout gets a group too, so that it is left out visibly. Rewards play no part, so a late one moves none.
    """
    ended, window = attempt.ended, section.group.version_window
    if section.group.by != "task" or window is None or ended is None or ended.task is None:
        return None
    if ended.task.mode == "validation":
        return None
    for call in attempt.settled_calls():
        found = actions_of(call, section.policies, section.agents)
        if not isinstance(found, Context):
            return f"task/{ended.task.task_id}/{found[0].policy}/{found[0].policy_version // window}"
    return None
