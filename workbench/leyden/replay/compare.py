"""Compares two sets of transitions by the hashes of their events' bytes.

Only the newest revision of a group is compared: live, late rewards came one by one, but a replay reads them together
and may skip the revisions in between.
"""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime

from leyden.events import GroupCredited, SequenceCredited
from leyden.events.codec import TRANSITIONS, decode
from leyden.kafka.claims import ClaimStore
from leyden.kafka.reading import read_topics
from leyden.kafka.settings import KafkaSettings
from leyden.reading.revisions import NewestRevisions


@dataclass(frozen=True)
class TransitionSet:
    """The transitions under one topic prefix, of the newest revision of each group."""

    hashes: dict[str, str]
    """Event id → SHA-256 of the event's bytes."""
    groups: frozenset[str]
    sequences: int
    credits: frozenset[str] = frozenset({""})
    """Names of the credit services that published them."""

    @property
    def digest(self) -> str:
        """One SHA-256 over all events; order and copies do not change it."""
        lines = "".join(f"{event_id} {digest}\n" for event_id, digest in sorted(self.hashes.items()))
        return hashlib.sha256(lines.encode()).hexdigest()


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
    newest = NewestRevisions[str]()
    async for record in read_topics(settings, claims, prefix + TRANSITIONS):
        event = decode(TRANSITIONS, record.value)
        assert isinstance(event, SequenceCredited | GroupCredited)
        if wanted.has(event, datetime.fromtimestamp(record.timestamp / 1000, UTC)):
            newest.add(event, hashlib.sha256(record.value).hexdigest())
    return transition_set(newest)


def transition_set(newest: NewestRevisions[str]) -> TransitionSet:
    """The transitions of `newest`, whose values are the hashes of the events' bytes."""
    hashes: dict[str, str] = {}
    groups, credits, sequences = set(), set(), 0
    for (credit, _, group_id), kept in newest.newest():
        hashes |= kept
        sequences += len(kept) - 1
        groups.add(group_id)
        credits.add(credit)
    return TransitionSet(hashes, frozenset(groups), sequences, frozenset(credits))


def compare(recorded: TransitionSet, replayed: TransitionSet) -> Comparison:
    """Compare event by event."""
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
