"""What every rollout store keeps, the fake and Redis alike. A test class inherits it and gives a `store` fixture."""

import asyncio
from datetime import timedelta

from leyden.events import Task
from leyden.gateway.core.rollouts import RolloutSpec, RolloutState, Running
from leyden.gateway.ports import EndResult, QueueCounts, RolloutStore
from leyden.ids import AttemptRef, rollout_id_of
from service.gateway.gateway_fakes import START

SPEC = RolloutSpec(task=Task(task_id="t", input={"q": "ü"}), group_id="g", group_size=2, max_attempts=2)
VALIDATION = RolloutSpec(task=Task(task_id="v", mode="validation"), group_id="v")
IDS = [rollout_id_of("t", n) for n in range(3)]
LEASE = START + timedelta(seconds=60)
LATER = START + timedelta(seconds=61)


class RolloutStoreLaws:
    async def test_the_first_event_of_a_task_stays(self, store: RolloutStore) -> None:
        assert await store.accept_tasks([("a", b"1"), ("b", b"2")]) == [b"1", b"2"]
        assert await store.accept_tasks([("b", b"3"), ("a", b"4")]) == [b"2", b"1"]

    async def test_a_rollout_is_queued_once_and_claimed_once_in_order(self, store: RolloutStore) -> None:
        for _ in range(2):
            await store.enqueue([(i, SPEC) for i in IDS])
        claimed = await store.claim(2, "runner", START, LEASE)
        assert [running.ref for running in claimed] == [AttemptRef(i, 0) for i in IDS[:2]]
        assert claimed[0] == Running(AttemptRef(IDS[0], 0), SPEC, START, "runner")
        await store.enqueue([(i, SPEC) for i in IDS])
        assert [running.ref.rollout_id for running in await store.claim(9, "runner", START, LEASE)] == IDS[2:]
        assert await store.claim(1, "runner", START, LEASE) == []

    async def test_claims_at_once_share_nothing(self, store: RolloutStore) -> None:
        await store.enqueue([(rollout_id_of("many", n), SPEC) for n in range(20)])
        found = await asyncio.gather(*(store.claim(3, f"r{n}", START, LEASE) for n in range(8)))
        refs = [running.ref for claimed in found for running in claimed]
        assert len(refs) == len(set(refs)) == 20

    async def test_what_is_given_back_is_claimed_next_as_the_same_attempt(self, store: RolloutStore) -> None:
        await store.enqueue([(i, SPEC) for i in IDS])
        claimed = await store.claim(2, "runner", START, LEASE)
        for _ in range(2):
            await store.unclaim([running.ref for running in claimed])
        again = await store.claim(3, "other", START, LEASE)
        assert [running.ref for running in again] == [AttemptRef(i, 0) for i in IDS]

    async def test_a_view_follows_the_rollout(self, store: RolloutStore) -> None:
        assert await store.find(IDS[0]) is None
        await store.enqueue([(IDS[0], SPEC)])
        queued = await store.find(IDS[0])
        assert queued is not None and (queued.state, queued.started_at) == (RolloutState.QUEUED, None)
        await store.claim(1, "runner", START, LEASE)
        running = await store.find(IDS[0])
        assert running is not None
        assert (running.state, running.started_at, running.runner) == (RolloutState.RUNNING, START, "runner")
        assert running.spec == SPEC

    async def test_leases_run_out_unless_renewed(self, store: RolloutStore) -> None:
        await store.enqueue([(i, SPEC) for i in IDS[:2]])
        refs = [running.ref for running in await store.claim(2, "runner", START, LEASE)]
        assert await store.expired(START, 10) == []
        assert await store.extend(refs[0], LATER + timedelta(seconds=60))
        assert await store.expired(LATER, 10) == [refs[1]]
        assert (await store.end(refs[0], b"lost", LATER, lease_over=True)).result is EndResult.LEASED
        assert not await store.extend(AttemptRef(IDS[2], 0), LATER)

    async def test_the_first_end_wins_and_freezes_the_calls(self, store: RolloutStore) -> None:
        ref = await self._running(store)
        assert await store.find_end(ref) is None
        assert await store.add_call(ref, "c2") and await store.add_call(ref, "c1") and await store.add_call(ref, "c1")
        first = await store.end(ref, b"first", LATER, lease_over=False)
        assert (first.result, first.stored, first.call_ids) == (EndResult.FIRST, b"first", ("c1", "c2"))
        assert not await store.add_call(ref, "late")
        second = await store.end(ref, b"second", LATER, lease_over=False)
        assert (second.result, second.stored, second.call_ids) == (EndResult.EARLIER, b"first", ("c1", "c2"))
        assert await store.find_end(ref) == second
        assert await store.expired(LATER, 10) == []
        assert not await store.extend(ref, LATER)

    async def test_of_ends_at_once_one_is_first(self, store: RolloutStore) -> None:
        ref = await self._running(store)
        found = await asyncio.gather(*(store.end(ref, b"%d" % n, LATER, lease_over=n % 2 == 0) for n in range(8)))
        assert [outcome.result for outcome in found].count(EndResult.FIRST) == 1
        assert len({outcome.stored for outcome in found}) == 1

    async def test_only_a_running_attempt_can_end_or_call(self, store: RolloutStore) -> None:
        ref = AttemptRef(IDS[0], 0)
        assert (await store.end(ref, b"x", START, lease_over=False)).result is EndResult.NOT_RUNNING
        assert (await store.standing(ref)).open, "an unknown rollout may call models"
        await store.enqueue([(IDS[0], SPEC)])
        assert not (await store.standing(ref)).open
        assert not await store.add_call(ref, "c")
        await store.claim(1, "runner", START, LEASE)
        assert (await store.standing(ref)).open
        assert not (await store.standing(AttemptRef(IDS[0], 1))).open
        assert (await store.end(AttemptRef(IDS[0], 1), b"x", START, lease_over=False)).result is EndResult.NOT_RUNNING

    async def test_a_settled_end_is_final_or_queues_the_next_attempt_once(self, store: RolloutStore) -> None:
        ref = await self._running(store)
        await store.end(ref, b"x", LATER, lease_over=False)
        assert await store.unsettled(START, 10) == []
        assert await store.unsettled(LATER, 10) == [ref]
        for _ in range(2):
            await store.settle(ref, final=False, status="failed")
        assert await store.unsettled(LATER, 10) == []
        (running,) = await store.claim(9, "other", LATER, LATER + timedelta(seconds=60))
        assert running.ref == AttemptRef(ref.rollout_id, 1)
        assert not (await store.standing(ref)).open
        await store.end(running.ref, b"y", LATER, lease_over=False)
        for _ in range(2):
            await store.settle(running.ref, final=True, status="succeeded")
        view = await store.find(ref.rollout_id)
        assert view is not None and (view.state, view.status) == (RolloutState.ENDED, "succeeded")
        assert await store.counts() == QueueCounts(0, 0, 1)
        await store.enqueue([(ref.rollout_id, SPEC)])
        assert await store.claim(1, "runner", LATER, LATER) == []

    async def test_mode_comes_with_the_standing(self, store: RolloutStore) -> None:
        await store.enqueue([(IDS[0], VALIDATION)])
        assert (await store.standing(AttemptRef(IDS[0], 0))).mode == "validation"
        own = AttemptRef(IDS[1], 0)
        await store.begin(Running(own, VALIDATION, START, None), LEASE)
        standing = await store.standing(own)
        assert standing.open and standing.mode == "validation"
        assert await store.expired(LATER, 10) == [own]

    @staticmethod
    async def _running(store: RolloutStore) -> AttemptRef:
        await store.enqueue([(IDS[0], SPEC)])
        (running,) = await store.claim(1, "runner", START, LEASE)
        return running.ref
