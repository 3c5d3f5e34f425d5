"""Whether two sets of transitions are the same, by the hashes of their bytes.

Of a group the newest revision counts: live, late rewards came one by one; a replay reads them together and may leave
out what was between.
"""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime

from leyden.events import GroupCredited, SequenceCredited
from leyden.events.codec import TRANSITIONS, decode
from leyden.kafka.claims import ClaimStore
from leyden.kafka.reading import read_topics
from leyden.kafka.settings import KafkaSettings


@dataclass(frozen=True)
class TransitionSet:
    """The transitions under one prefix: event id → SHA-256 of the event's bytes; and which groups they are of.

    Of each group those of its newest revision.
    """

    hashes: dict[str, str]
    groups: frozenset[str]
    sequences: int
    credits: frozenset[str] = frozenset({""})
    """Names of the credit services that made them."""

    @property
    def digest(self) -> str:
        """One SHA-256 over all of them, whatever their order or number of copies."""
        lines = "".join(f"{event_id} {digest}\n" for event_id, digest in sorted(self.hashes.items()))
        return hashlib.sha256(lines.encode()).hexdigest()


@dataclass
class _Revision:
    """What was published of one revision of a group."""

    number: int
    hashes: dict[str, str] = field(default_factory=dict)
    sequences: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Comparison:
    """Event by event: of a whole replay over all recorded groups, of a part over the replayed ones."""

    same: int
    different: int
    only_recorded: int
    only_replayed: int
    recorded_digest: str
    replayed_digest: str

    @property
    def identical(self) -> bool:
        """Every event is on both sides with the same bytes, and there is at least one."""
        return self.same > 0 and self.different == self.only_recorded == self.only_replayed == 0


@dataclass(frozen=True)
class Wanted:
    """Which transitions to read; None is no limit."""

    credits: Collection[str] | None = None
    """Names of credit services."""
    groups: Collection[str] | None = None
    before: datetime | None = None
    """Written to the topic before then."""

    def has(self, event: SequenceCredited | GroupCredited, written: datetime) -> bool:
        """Whether to take an event that was written then."""
        return (
            (self.credits is None or event.credit in self.credits)
            and (self.groups is None or event.group_id in self.groups)
            and (self.before is None or written < self.before)
        )


async def read_transitions(
    settings: KafkaSettings, claims: ClaimStore, prefix: str, wanted: Wanted = Wanted()
) -> TransitionSet:
    """The wanted transitions under `prefix`."""
    newest = NewestRevisions()
    async for record in read_topics(settings, claims, prefix + TRANSITIONS):
        event = decode(TRANSITIONS, record.value)
        assert isinstance(event, SequenceCredited | GroupCredited)
        if wanted.has(event, datetime.fromtimestamp(record.timestamp / 1000, UTC)):
            newest.take(event, record.value)
    return newest.transitions()


class NewestRevisions:
    """Gathers transitions in any order, and keeps of each group those of its newest revision."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, str], _Revision] = {}

    def take(self, event: SequenceCredited | GroupCredited, value: bytes) -> None:
        """Note `event`, whose bytes are `value`; of several records of one event the first counts."""
        key = event.credit, event.policy, event.group_id
        if key not in self._found or self._found[key].number < event.revision:
            self._found[key] = _Revision(event.revision)
        if self._found[key].number == event.revision:
            self._found[key].hashes.setdefault(event.event_id, hashlib.sha256(value).hexdigest())
            if isinstance(event, SequenceCredited):
                self._found[key].sequences.add(event.event_id)

    def transitions(self) -> TransitionSet:
        """What was kept."""
        revisions = list(self._found.values())
        return TransitionSet(
            hashes={event_id: digest for one in revisions for event_id, digest in one.hashes.items()},
            groups=frozenset(group_id for _, _, group_id in self._found),
            sequences=sum(len(one.sequences) for one in revisions),
            credits=frozenset(credit for credit, _, _ in self._found),
        )


def compare(recorded: TransitionSet, replayed: TransitionSet) -> Comparison:
    """Count what is the same and what is not."""
    common = recorded.hashes.keys() & replayed.hashes.keys()
    same = sum(recorded.hashes[event_id] == replayed.hashes[event_id] for event_id in common)
    return Comparison(
        same=same,
        different=len(common) - same,
        only_recorded=len(recorded.hashes) - len(common),
        only_replayed=len(replayed.hashes) - len(common),
        recorded_digest=recorded.digest,
        replayed_digest=replayed.digest,
    )
