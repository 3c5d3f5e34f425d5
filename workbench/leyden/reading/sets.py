"""Streams the newest complete groups of a named set of transitions."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime

from leyden.events import GroupCredited, SequenceCredited
from leyden.events.codec import TRANSITIONS
from leyden.ids import derive
from leyden.reading.log import Log
from leyden.stack.errors import StackError

LIVE = "live"
_CREDIT = "credit:"
_REPLAY = re.compile(r"[a-z0-9][a-z0-9-]{0,40}")


@dataclass(frozen=True)
class TransitionSet:
    """Transitions of the live topics or of a replay, by the unnamed or a named credit service."""

    name: str
    prefix: str | None
    """Topic prefix; None for the live topics."""
    credit: str = ""


def named_set(name: str) -> TransitionSet:
    """The set called `live`, the name of a replay, or `credit:NAME`. Raises StackError."""
    if name == LIVE:
        return TransitionSet(name, None)
    if name.startswith(_CREDIT) and len(name) > len(_CREDIT):
        return TransitionSet(name, None, name.removeprefix(_CREDIT))
    if not _REPLAY.fullmatch(name):
        raise StackError(f"{name!r} is not a set of transitions: use `live`, the name of a replay, or `credit:NAME`.")
    return TransitionSet(name, f"{name}.")


@dataclass(frozen=True)
class Filters:
    """Which groups to read; `start` and `end` are times of writing."""

    policy: str | None = None
    group_id: str | None = None
    start: datetime | None = None
    end: datetime | None = None


@dataclass(frozen=True)
class WholeGroup:
    """The newest revision of a group for one policy, with its sequences in order."""

    end: GroupCredited
    sequences: list[SequenceCredited]


@dataclass
class _Index:
    """Where the newest revision of each wanted group first ends; later copies of it are duplicates."""

    ends: dict[bytes, tuple[int, int, int]] = field(default_factory=dict)
    """Group → revision, partition, offset; about 150 bytes per group."""

    def note(self, end: GroupCredited, partition: int, offset: int) -> None:
        held = self.ends.get(_name(end))
        if held is None or end.revision > held[0]:
            self.ends[_name(end)] = (end.revision, partition, offset)

    def holds(self, event: SequenceCredited | GroupCredited, partition: int, offset: int) -> bool:
        """Whether the event belongs to the first copy of its group's newest revision."""
        held = self.ends.get(_name(event))
        return held is not None and held[:2] == (event.revision, partition) and offset <= held[2]


def _name(event: SequenceCredited | GroupCredited) -> bytes:
    return bytes.fromhex(derive(event.policy, event.group_id))


async def whole_groups(log: Log, of: TransitionSet, filters: Filters = Filters()) -> AsyncIterator[WholeGroup]:
    """Every wanted group once, at its newest revision. Reads the topic twice: first to find where groups end.

    Memory: the index, and the groups that are incomplete at one point of the log. Groups that are not complete within
    the time range are left out.
    """
    index = await _indexed(log, of, filters)
    pending: dict[bytes, dict[str, SequenceCredited]] = {}
    async for one in log.read(TRANSITIONS, start=filters.start, end=filters.end):
        event = one.event
        if not isinstance(event, SequenceCredited | GroupCredited) or event.credit != of.credit:
            continue
        if not index.holds(event, one.partition, one.offset):
            continue
        if isinstance(event, SequenceCredited):
            pending.setdefault(_name(event), {})[event.event_id] = event
            continue
        sequences = sorted(pending.pop(_name(event), {}).values(), key=lambda s: s.sequence_index)
        if len(sequences) == event.sequences:
            yield WholeGroup(event, sequences)


async def _indexed(log: Log, of: TransitionSet, filters: Filters) -> _Index:
    index = _Index()
    ends = log.read(
        TRANSITIONS, wanted=lambda _, value: b'"group-credited"' in value, start=filters.start, end=filters.end
    )
    async for one in ends:
        event = one.event
        if isinstance(event, GroupCredited) and event.credit == of.credit and _is_wanted(event, filters):
            index.note(event, one.partition, one.offset)
    return index


def _is_wanted(event: GroupCredited, filters: Filters) -> bool:
    return filters.policy in (None, event.policy) and filters.group_id in (None, event.group_id)
