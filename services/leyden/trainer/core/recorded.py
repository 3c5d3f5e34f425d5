"""The recorded batches as a chain: each names the one before it. Decides which comes next. No IO."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime

from leyden.events import BatchFormed, BatchGroup
from leyden.ids import derive
from leyden.trainer.core.batching import BatchRules, sequence_ids
from leyden.trainer.core.progress import PRODUCER
from leyden.trainer.core.revisions import ReadyGroup


class BatchChain:
    """The batches that trainers with the same rules recorded, and how far they were trained here.

    Two trainers, or a trainer and one that was believed dead, may record a batch with the same parent; the first in the
    log counts. A later one counts if the first was given up, because this log does not have what it names. A batch
    recorded in place of another one has the other's successors, behind its own.
    """

    def __init__(self, rules: BatchRules, last: str = "") -> None:
        """`last`: event id of the newest batch that the checkpoint has trained."""
        self._rules = rules
        self._last = last
        self._known = {"", last}
        self._read: set[str] = set()
        self._next: dict[str, list[BatchFormed]] = defaultdict(list)
        """Parent → the batches that name it, in the order of the log."""
        self._given_up: set[str] = set()
        self._replaces: dict[str, str] = {}
        """Batch → the one in whose place it was recorded."""

    def add(self, batch: BatchFormed) -> None:
        """Add a record, in the order of the log. Ignores other rules, and a parent that is not above."""
        repeats = len({group.group_id for group in batch.groups}) < len(batch.groups)
        if repeats or not self._same_rules(batch) or batch.parent not in self._known:
            return
        children = self._next[batch.parent]
        if batch.event_id not in self._read and any(one.event_id == batch.replaces for one in children):
            self._replaces[batch.event_id] = batch.replaces
        self._read.add(batch.event_id)
        if batch.event_id in self._given_up:
            if all(one.event_id != batch.event_id for one in children):
                return
            self._given_up.discard(batch.event_id)
            children[:] = [one for one in children if one.event_id != batch.event_id]
        elif batch.event_id in self._known:
            return
        self._known.add(batch.event_id)
        children.append(batch)

    @property
    def last(self) -> str:
        """Event id of the newest batch that was trained; empty before the first."""
        return self._last

    @property
    def next(self) -> BatchFormed | None:
        """The recorded batch to train now; None if a new one is to be formed."""
        return self.next_besides("")

    def next_besides(self, event_id: str) -> BatchFormed | None:
        """The recorded batch to train now if `event_id` is given up."""
        for parent in self._parents():
            for batch in self._next.get(parent, ()):
                if batch.event_id not in self._given_up and batch.event_id != event_id:
                    return batch
        return None

    def finish(self, batch: BatchFormed) -> None:
        """Go on behind `batch`, of which nothing is left to train."""
        for parent in self._parents():
            self._next.pop(parent, None)
        self._last = batch.event_id

    def give_up(self, batch: BatchFormed) -> None:
        """Never choose `batch` again, unless it is recorded again."""
        self._given_up.add(batch.event_id)

    def _parents(self) -> list[str]:
        """The last batch, and those in whose place it was recorded, whose successors are also its own."""
        found = [self._last]
        while (replaced := self._replaces.get(found[-1])) is not None:
            found.append(replaced)
        return found

    def _same_rules(self, batch: BatchFormed) -> bool:
        rules = self._rules
        return (rules.policy, rules.credit, rules.groups_per_step, rules.drop_zero_variance, rules.max_staleness) == (
            batch.policy,
            batch.credit,
            batch.groups_per_step,
            batch.drop_zero_variance,
            batch.max_staleness,
        )


def batch_formed(
    groups: Sequence[ReadyGroup],
    rules: BatchRules,
    *,
    parent: str,
    replaces: str = "",
    step: int,
    version: int,
    seed: int,
    settings_hash: str,
    formed_at: datetime,
) -> BatchFormed:
    """The record of a new batch. The same groups after the same batch have the same event id."""
    chosen = [BatchGroup(group_id=group.group_id, revision=group.revision) for group in groups]
    names = [part for group in chosen for part in (group.group_id, group.revision)]
    names += ["replaces", replaces] if replaces else []
    return BatchFormed(
        event_id=derive("batch-formed", rules.policy, rules.credit, parent, *names),
        event_time=formed_at,
        producer=PRODUCER,
        policy=rules.policy,
        credit=rules.credit,
        parent=parent,
        replaces=replaces,
        step=step,
        version=version,
        groups=chosen,
        sequence_ids=sequence_ids(groups),
        groups_per_step=rules.groups_per_step,
        drop_zero_variance=rules.drop_zero_variance,
        max_staleness=rules.max_staleness,
        seed=seed,
        settings_hash=settings_hash,
    )
