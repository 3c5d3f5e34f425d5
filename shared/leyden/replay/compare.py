"""Whether two sets of transitions are the same, by the hashes of their bytes."""

import hashlib
from dataclasses import dataclass

from leyden.events import GroupCredited, SequenceCredited
from leyden.events.codec import TRANSITIONS, decode
from leyden.kafka.admin import topic_partitions
from leyden.kafka.ranges import read_range, resolve_range
from leyden.kafka.settings import KafkaSettings


@dataclass(frozen=True)
class TransitionSet:
    """The transitions under one prefix: event id → SHA-256 of the event's bytes; and which groups they are of."""

    hashes: dict[str, str]
    groups: frozenset[str]
    sequences: int

    @property
    def digest(self) -> str:
        """One SHA-256 over all of them, whatever their order or number of copies."""
        lines = "".join(f"{event_id} {digest}\n" for event_id, digest in sorted(self.hashes.items()))
        return hashlib.sha256(lines.encode()).hexdigest()


@dataclass(frozen=True)
class Comparison:
    """Event by event, over the groups that both sides have."""

    same: int
    different: int
    only_recorded: int
    only_replayed: int
    recorded_digest: str
    replayed_digest: str

    @property
    def identical(self) -> bool:
        """Every event of every common group is there on both sides, with the same bytes; and there is one."""
        return self.same > 0 and self.different == self.only_recorded == self.only_replayed == 0


async def read_transitions(settings: KafkaSettings, prefix: str, groups: frozenset[str] | None = None) -> TransitionSet:
    """The transitions under `prefix`, of `groups` only when given."""
    partitions = await topic_partitions(settings, [prefix + TRANSITIONS])
    wanted = await resolve_range(settings, partitions, None, None)
    hashes: dict[str, str] = {}
    seen: set[str] = set()
    sequences: set[str] = set()
    async for record in read_range(settings, wanted):
        event = decode(TRANSITIONS, record.value)
        assert isinstance(event, SequenceCredited | GroupCredited)
        if groups is not None and event.group_id not in groups:
            continue
        seen.add(event.group_id)
        hashes.setdefault(event.event_id, hashlib.sha256(record.value).hexdigest())
        if isinstance(event, SequenceCredited):
            sequences.add(event.event_id)
    return TransitionSet(hashes, frozenset(seen), len(sequences))


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
