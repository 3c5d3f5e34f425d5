"""Two credit services with different settings, side by side on the same events, and who learns from which."""

from typing import Any

from credit_support import CreditLoop, CreditPublisher, call, delivered, finished, reward, rollout
from leyden.credit.core.section import CreditSection
from leyden.events import Event, GroupCredited, SequenceCredited
from leyden.trainer.core.batching import BatchRules, GroupBuffer
from leyden.trainer.core.revisions import ReadyGroup
from trainer_fakes import new_batch


def events_of(groups: int) -> list[Event]:
    """Groups of two rollouts, each with a planner's call and a writer's, and a reward for the tool that one used."""
    events: list[Event] = []
    for index in range(2 * groups):
        about: dict[str, Any] = {"rollout_id": rollout(index)}
        plan, write = (
            call(f"{index}-{name}", [n, index], [n], at=n, **about).model_copy(update={"agent_name": name})
            for n, name in enumerate(("planner", "writer"), 1)
        )
        rewards = [reward(float(index % 2), **about), reward(0.25, rule="tool", of=plan, **about)]
        events += finished([plan, write], rewards, group_size=2, group_id=f"g{index // 2}", **about)
    return events


def service(name: str, **section: Any) -> CreditLoop:
    return CreditLoop(CreditPublisher(), section=CreditSection.model_validate(section), name=name)


async def credited() -> tuple[CreditLoop, CreditLoop]:
    plain = service("")
    dense = service("dense", strategy="step", advantage="dr_grpo", agents=[{"name": "writer", "train": False}])
    for one in (plain, dense):
        await one.on_batch(delivered(events_of(3)))
    return plain, dense


def records(*services: CreditLoop) -> list[SequenceCredited | GroupCredited]:
    """What is in transitions.v1, one service's after the other's."""
    found = [outgoing.event for one in services for outgoing in one.publisher.published]
    return [event for event in found if isinstance(event, SequenceCredited | GroupCredited)]


async def test_each_group_is_there_twice_under_each_name_and_with_ids_of_its_own() -> None:
    plain, dense = await credited()
    for one, name, per_group in ((plain, "", 4), (dense, "dense", 2)):
        assert {event.credit for event in records(one)} == {name}
        assert [group.group_id for group in one.publisher.groups] == ["g0", "g1", "g2"]
        assert [group.sequences for group in one.publisher.groups] == [per_group] * 3
    ids = [event.event_id for event in records(plain, dense)]
    assert len(ids) == len(set(ids))
    keys = {outgoing.key for one in (plain, dense) for outgoing in one.publisher.published}
    assert keys == {"p/g0", "p/g1", "p/g2"}


async def test_the_unnamed_services_bytes_do_not_change_when_another_works_beside_it() -> None:
    plain, dense = await credited()
    alone = service("")
    await alone.on_batch(delivered(events_of(3)))
    before = plain.publisher.values
    await plain.handlers.on_batch(delivered(dense.publisher.log.records))
    assert plain.publisher.values == before == alone.publisher.values


async def test_a_service_closes_its_groups_by_its_own_records_alone() -> None:
    """All services write to groups.v1 and read it: another's record must not close a group here."""
    plain, dense = service(""), service("dense")
    half, rest = events_of(1)[:5], events_of(1)[5:]
    await dense.on_batch(delivered(half + rest))
    await plain.on_batch(delivered(half))
    await plain.handlers.on_batch(delivered(dense.publisher.log.records))
    assert plain.publisher.published == []
    await plain.on_batch(delivered(rest))
    assert [group.group_id for group in plain.publisher.groups] == ["g0"]


async def test_each_is_trained_only_by_the_trainer_that_asks_for_it() -> None:
    plain, dense = await credited()
    for log in (records(plain, dense), records(dense, plain)):
        for name, per_group in (("", 4), ("dense", 2), ("other", 0)):
            buffer = GroupBuffer(BatchRules(policy="p", credit=name, groups_per_step=3))
            for offset, record in enumerate(log):
                buffer.add(record, 0, offset)
            batch = new_batch(buffer, 3)
            assert sizes(batch) == ([per_group] * 3 if per_group else None)
            if batch is not None:
                mine = {event.event_id for event in records(dense if name else plain)}
                assert {s.sequence_id for group in batch for s in group.sequences} <= mine
                buffer.finish(batch)
            assert buffer.positions == {0: len(log)}
            assert not buffer.dropped, "the other service's groups are no revisions of these"


def sizes(batch: list[ReadyGroup] | None) -> list[int] | None:
    return None if batch is None else [len(group.sequences) for group in batch]
