"""From batches of events to published groups: keep, assemble, credit, compare, publish, and only then forget.

The order of the writes makes a crash harmless anywhere. An attempt's evidence is closed last, so that whatever was not
finished is found again when the batch comes again; what was finished is recognised by its ids.
"""

from collections.abc import Iterable, Mapping, Sequence

from leyden.credit.core.assemble import State, assemble
from leyden.credit.core.build import CreditedGroup, build, is_complete
from leyden.credit.core.credit import credit
from leyden.credit.core.evidence import EvidenceEvent, Exhibit, pack, subject_of, unpack
from leyden.credit.core.member import Member
from leyden.credit.core.rules import Rules
from leyden.credit.metrics import ABANDONED, CALLS, GROUPS, LEFT_OUT, SEQUENCES, TOO_LONG, ZERO_VARIANCE
from leyden.credit.ports import EvidenceStore, Publisher
from leyden.events import Event
from leyden.events.codec import TRANSITIONS
from leyden.kafka import Delivered, Outgoing


class CreditHandlers:
    """The handlers of credit on its two stores: evidence by attempt, members by group."""

    def __init__(self, attempts: EvidenceStore, groups: EvidenceStore, publisher: Publisher, rules: Rules) -> None:
        self._attempts = attempts
        self._groups = groups
        self._publisher = publisher
        self._rules = rules

    async def on_batch(self, batch: Sequence[Delivered[Event]]) -> None:
        """Use every event of `batch`; when this returns, all that they complete is in Kafka."""
        items = list(_items(batch))
        await self._attempts.add(items)
        members, decided = await self._decide([subject for subject, _, _ in items])
        await self._groups.add((m.group_id, m.rollout_id, m.model_dump_json().encode()) for m in members)
        await self._publish_complete({member.group_id for member in members})
        await self._attempts.close(decided)

    async def _decide(self, subjects: Sequence[str]) -> tuple[list[Member], list[str]]:
        """The members that the attempts of `subjects` make, and all attempts of which nothing more is needed."""
        members: list[Member] = []
        decided: list[str] = []
        for subject, kept in (await self._attempts.load(subjects)).items():
            attempt = assemble(map(unpack, kept.values()))
            if attempt.state in (State.COMPLETE, State.FAILED):
                members.append(credit(attempt, self._rules))
                decided.append(subject)
            elif attempt.state is State.ABANDONED:
                ABANDONED.inc()
                decided.append(subject)
        _count_members(members)
        return members, decided

    async def _publish_complete(self, group_ids: Iterable[str]) -> None:
        """Publish every group that has all its members: its sequences and, once they are safe, itself."""
        loaded = await self._groups.load(sorted(group_ids))
        complete = _complete(loaded)
        credited = [one for members in complete.values() for one in build(members, self._rules)]
        await self._publisher.publish_all([outgoing for one in credited for outgoing in _sequences(one)])
        await self._publisher.publish_all([Outgoing(TRANSITIONS, one.group.group_id, one.group) for one in credited])
        _count_groups(credited)
        await self._groups.close(list(complete))


def _items(batch: Sequence[Delivered[Event]]) -> Iterable[tuple[str, str, bytes]]:
    for one in batch:
        subject = subject_of(one.event)
        if subject is not None:
            assert isinstance(one.event, EvidenceEvent)
            yield subject, one.event.event_id, pack(Exhibit(one.event, one.origin, one.traceparent or ""))


def _complete(loaded: Mapping[str, Mapping[str, bytes]]) -> dict[str, list[Member]]:
    members = {group: [Member.model_validate_json(value) for value in kept.values()] for group, kept in loaded.items()}
    return {group: found for group, found in members.items() if is_complete(found)}


def _sequences(one: CreditedGroup) -> Iterable[Outgoing]:
    for sequence, traceparent in zip(one.sequences, one.traceparents, strict=True):
        yield Outgoing(TRANSITIONS, sequence.group_id, sequence, traceparent or None)


def _count_members(members: Iterable[Member]) -> None:
    for member in members:
        for how, count in member.calls.items():
            CALLS.labels(how=how).inc(count)
        for trajectory in member.trajectories:
            TOO_LONG.labels(policy=trajectory.policy).inc(trajectory.too_long)


def _count_groups(credited: Iterable[CreditedGroup]) -> None:
    for one in credited:
        GROUPS.labels(policy=one.group.policy).inc()
        SEQUENCES.labels(policy=one.group.policy).inc(len(one.sequences))
        ZERO_VARIANCE.labels(policy=one.group.policy).inc(int(one.group.zero_variance))
        for reason in one.group.left_out.values():
            LEFT_OUT.labels(reason=reason.split(":", 1)[0]).inc()
