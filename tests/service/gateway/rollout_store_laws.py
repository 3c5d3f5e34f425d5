"""What every rollout store keeps, the fake and Redis alike. A test class inherits it and gives a `store` fixture."""

import asyncio
from datetime import timedelta

import pytest

from leyden.events import Task
from leyden.gateway.core.reply import CallNote, LastCall
from leyden.gateway.core.restoring import Restored
from leyden.gateway.core.rollouts import RolloutSpec, RolloutState, Running
from leyden.gateway.ports import CallInFlight, EndResult, QueueCounts, RolloutStore
from leyden.ids import AttemptRef, rollout_id_of
from leyden.kafka import Retry
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

    async def test_it_is_known_which_attempts_may_not_call_any_more(self, store: RolloutStore) -> None:
        ended, running, unknown = AttemptRef(IDS[0], 0), AttemptRef(IDS[1], 0), AttemptRef(IDS[2], 7)
        await store.enqueue([(i, SPEC) for i in IDS[:2]])
        await store.claim(2, "runner", START, LEASE)
        await store.end(ended, b"e", LATER, lease_over=False)
        earlier = AttemptRef(IDS[1], 3)
        assert await store.over([running, ended, unknown, earlier]) == [ended, earlier]
        assert await store.over([]) == []

    async def test_calls_in_flight_are_those_that_each_replica_showed_last(self, store: RolloutStore) -> None:
        ref = await self._running(store)
        young = CallInFlight(call_id="a", ref=ref, model="policy", seconds=1.5)
        old = CallInFlight(call_id="b", ref=ref, model="policy", project="p", seconds=60.0)
        loose = CallInFlight(call_id="c", ref=None, model="judge", seconds=3.0)
        assert await store.calls_in_flight() == []
        await store.show_calls("r1", [young, old], 60)
        await store.show_calls("r2", [loose], 60)
        assert await store.calls_in_flight() == [old, loose, young]
        await store.show_calls("r1", [old], 60)
        assert await store.calls_in_flight() == [old, loose]
        assert await store.unanswered(ref) == [old]
        assert await store.unanswered(AttemptRef(IDS[2], 0)) == []
        await store.add_call(ref, "b")
        assert await store.unanswered(ref) == [], "listed, so answered"
        await store.show_calls("r1", [], 60)
        await store.show_calls("r2", [], 60)
        assert await store.calls_in_flight() == []

    async def test_the_calls_of_an_attempt_go_with_what_each_replica_showed_last(self, store: RolloutStore) -> None:
        ref = await self._running(store)
        other = AttemptRef(IDS[1], 0)
        own = [CallInFlight(call_id=name, ref=ref, model="policy", seconds=2.0) for name in "ab"]
        theirs = CallInFlight(call_id="c", ref=other, model="policy", seconds=2.0)
        await store.show_calls("r1", [own[0], theirs], 60)
        await store.show_calls("r2", [own[1]], 60)
        assert sorted(call.call_id for call in await store.unanswered(ref)) == ["a", "b"]
        assert await store.unanswered(other) == [theirs]
        await store.show_calls("r1", [theirs], 60)
        assert await store.unanswered(ref) == [own[1]]
        await store.show_calls("r2", [], 60)
        assert (await store.unanswered(ref), await store.unanswered(other)) == ([], [theirs])

    async def test_interrupted_attempts_are_counted_once_with_their_ends(self, store: RolloutStore) -> None:
        ref = await self._running(store)
        for _ in range(2):
            await store.end(ref, b"x", START, lease_over=False, interrupted=True)
        await store.settle(ref, final=False, status="failed", retry_at=START)
        (again,) = await store.claim(1, "runner", START, LEASE)
        await store.end(again.ref, b"x", START, lease_over=False)
        view = await store.find(ref.rollout_id)
        assert view is not None and (view.attempt, view.interrupted) == (1, 1)

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
        assert (await store.attempt_status(ref)).open, "an unknown rollout may call models"
        await store.enqueue([(IDS[0], SPEC)])
        assert not (await store.attempt_status(ref)).open
        assert not await store.add_call(ref, "c")
        await store.claim(1, "runner", START, LEASE)
        assert (await store.attempt_status(ref)).open
        assert not (await store.attempt_status(AttemptRef(IDS[0], 1))).open
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
        assert not (await store.attempt_status(ref)).open
        await store.end(running.ref, b"y", LATER, lease_over=False)
        for _ in range(2):
            await store.settle(running.ref, final=True, status="succeeded")
        view = await store.find(ref.rollout_id)
        assert view is not None and (view.state, view.status) == (RolloutState.ENDED, "succeeded")
        assert await store.counts() == QueueCounts(queued=0, running=0, ended=1)
        await store.enqueue([(ref.rollout_id, SPEC)])
        assert await store.claim(1, "runner", LATER, LATER) == []

    async def test_a_delayed_attempt_waits_for_its_time_and_stands_where_it_stood(self, store: RolloutStore) -> None:
        ref = await self._running(store)
        await store.enqueue([(i, SPEC) for i in IDS[1:]])
        await store.end(ref, b"x", START, lease_over=False)
        for _ in range(2):
            await store.settle(ref, final=False, status="failed", retry_at=LATER)
        counts = await store.counts()
        assert (counts.queued, counts.delayed, counts.lanes) == (3, 1, {"train:": 2})
        (other,) = await store.claim(1, "r", LATER - timedelta(milliseconds=1), LEASE)
        assert other.ref.rollout_id == IDS[1]
        found = await store.claim(9, "r", LATER, LATER + timedelta(seconds=60))
        assert [running.ref for running in found] == [AttemptRef(IDS[0], 1), AttemptRef(IDS[2], 0)]

    async def test_a_higher_priority_comes_first_and_equals_in_order(self, store: RolloutStore) -> None:
        low, high = SPEC.model_copy(update={"priority": -1000}), SPEC.model_copy(update={"priority": 1000})
        ids = [rollout_id_of("p", n) for n in range(5)]
        await store.enqueue(list(zip(ids, [low, SPEC, high, SPEC, high], strict=True)))
        found = await store.claim(9, "r", START, LEASE)
        assert [ids.index(running.ref.rollout_id) for running in found] == [2, 4, 1, 3, 0]

    async def test_neither_mode_waits_for_the_other(self, store: RolloutStore) -> None:
        await store.enqueue([(rollout_id_of("t", n), SPEC) for n in range(40)])
        await store.enqueue([(rollout_id_of("v", n), VALIDATION) for n in range(40)])
        modes = [(await store.claim(1, "r", START, LEASE))[0].spec.mode for _ in range(20)]
        assert modes.count("train") == modes.count("validation") == 10
        batch = [running.spec.mode for running in await store.claim(20, "r", START, LEASE)]
        assert batch.count("train") == 10
        rest = [running.spec.mode for running in await store.claim(256, "r", START, LEASE)]
        assert (rest.count("train"), rest.count("validation")) == (20, 20), "nobody idles while there is work"

    async def test_who_had_nothing_to_do_saves_up_nothing(self, store: RolloutStore) -> None:
        await store.enqueue([(rollout_id_of("t", n), SPEC) for n in range(60)])
        await store.claim(40, "r", START, LEASE)
        await store.enqueue([(rollout_id_of("v", n), VALIDATION) for n in range(20)])
        modes = [running.spec.mode for running in await store.claim(10, "r", START, LEASE)]
        assert modes.count("train") == 5

    async def test_a_project_claims_its_own_and_the_operator_all(self, store: RolloutStore) -> None:
        ours, theirs = (SPEC.model_copy(update={"project": name}) for name in ("ours", "*"))
        await store.enqueue(list(zip(IDS, [ours, theirs, SPEC], strict=True)))
        assert [r.ref.rollout_id for r in await store.claim(9, "r", START, LEASE, "ours")] == [IDS[0]]
        assert [r.ref.rollout_id for r in await store.claim(9, "r", START, LEASE, "*")] == [IDS[1]]
        assert [r.ref.rollout_id for r in await store.claim(9, "r", START, LEASE)] == [IDS[2]]

    async def test_what_is_paused_is_not_claimed_and_what_runs_goes_on(self, store: RolloutStore) -> None:
        ours = SPEC.model_copy(update={"project": "ours"})
        ref = await self._running(store)
        await store.enqueue([(IDS[1], ours), (IDS[2], SPEC)])
        await store.pause("ours", True, START)
        await store.pause(None, True, START)
        assert (await store.counts()).paused == ("*", "ours")
        assert await store.claim(9, "r", START, LEASE) == []
        assert await store.extend(ref, LATER)
        await store.pause(None, False, LATER)
        await store.pause(None, True, START)  # an older word, delivered again
        assert [r.ref.rollout_id for r in await store.claim(9, "r", START, LEASE)] == [IDS[2]]
        await store.pause("ours", False, LATER)
        assert [r.ref.rollout_id for r in await store.claim(9, "r", START, LEASE)] == [IDS[1]]
        assert (await store.counts()).paused == ()

    async def test_what_is_withdrawn_never_starts(self, store: RolloutStore) -> None:
        ref = AttemptRef(IDS[0], 0)
        assert (await store.withdraw(ref, b"x", START)).result is EndResult.NOT_RUNNING
        await store.enqueue([(i, SPEC) for i in IDS[:2]])
        first = await store.withdraw(ref, b"off", START)
        assert (first.result, first.stored, first.call_ids) == (EndResult.FIRST, b"off", ())
        assert (await store.withdraw(ref, b"other", START)).stored == b"off"
        assert [r.ref.rollout_id for r in await store.claim(9, "r", START, LEASE)] == [IDS[1]]
        assert await store.unsettled(START, 10) == [ref]
        await store.settle(ref, final=True, status="failed")
        view = await store.find(IDS[0])
        assert view is not None and (view.state, view.status) == (RolloutState.ENDED, "failed")
        assert (await store.withdraw(AttemptRef(IDS[1], 0), b"x", START)).result is EndResult.NOT_RUNNING

    async def test_what_waits_for_its_next_attempt_can_be_withdrawn(self, store: RolloutStore) -> None:
        ref = await self._running(store)
        await store.end(ref, b"x", START, lease_over=False)
        await store.settle(ref, final=False, status="failed", retry_at=LATER)
        again = AttemptRef(ref.rollout_id, 1)
        assert (await store.withdraw(again, b"off", START)).result is EndResult.FIRST
        assert await store.claim(9, "r", LATER, LATER) == []

    async def test_claims_and_withdrawals_at_once_share_nothing(self, store: RolloutStore) -> None:
        ids = [rollout_id_of("race", n) for n in range(20)]
        await store.enqueue([(i, SPEC) for i in ids])
        off, claimed = await asyncio.gather(
            asyncio.gather(*(store.withdraw(AttemptRef(i, 0), b"off", START) for i in ids)),
            asyncio.gather(*(store.claim(2, "r", START, LEASE) for _ in range(10))),
        )
        withdrawn = {i for i, outcome in zip(ids, off, strict=True) if outcome.result is EndResult.FIRST}
        taken = [running.ref.rollout_id for found in claimed for running in found]
        assert len(taken) == len(set(taken))
        assert withdrawn.isdisjoint(taken) and withdrawn | set(taken) == set(ids)

    async def test_a_rollout_is_begun_once(self, store: RolloutStore) -> None:
        own = Running(AttemptRef(IDS[0], 0), SPEC, START, "me")
        assert await store.begin(own, LEASE)
        assert not await store.begin(Running(own.ref, VALIDATION, LATER, "you"), LATER)
        view = await store.find(IDS[0])
        assert view is not None and (view.spec, view.started_at, view.runner) == (SPEC, START, "me")
        await store.enqueue([(IDS[1], SPEC)])
        assert not await store.begin(Running(AttemptRef(IDS[1], 0), SPEC, START, "me"), LEASE)

    async def test_the_last_call_is_noted_with_its_repeats(self, store: RolloutStore) -> None:
        ref = await self._running(store)
        assert await store.last_call(ref) is None
        notes = [CallNote(output="a"), CallNote(output="b"), CallNote(output="b"), CallNote("oops", "length", "b")]
        for number, note in enumerate(notes):
            for _ in range(2):
                assert await store.add_call(ref, f"c{number}", note)
        assert await store.last_call(ref) == LastCall("c3", notes[-1], 3)
        for number in range(2):
            await store.add_call(ref, f"empty{number}", CallNote())
        assert await store.last_call(ref) == LastCall("empty1", CallNote(), 1)

    async def test_a_tasks_event_can_be_had_again(self, store: RolloutStore) -> None:
        assert await store.task("a") is None
        await store.accept_tasks([("a", b"1")])
        assert await store.task("a") == b"1"

    async def test_the_first_version_is_kept_until_it_is_replaced_by_name(self, store: RolloutStore) -> None:
        ref, other = AttemptRef(IDS[0], 0), AttemptRef(IDS[0], 1)
        assert await store.kept_version(ref, "p") is None
        await asyncio.gather(*(store.keep_version(ref, "p", n, None) for n in (3, 4)))
        kept = await store.kept_version(ref, "p")
        assert kept in (3, 4)
        await store.keep_version(ref, "p", 5, None)
        await store.keep_version(ref, "p", 6, 7 - (kept or 0))
        assert await store.kept_version(ref, "p") == kept
        await store.keep_version(ref, "p", 0, kept)
        assert (await store.kept_version(ref, "p"), await store.kept_version(ref, "q")) == (0, None)
        assert await store.kept_version(other, "p") is None

    async def test_the_past_is_put_back_as_it_was(self, store: RolloutStore) -> None:
        ids = [rollout_id_of("past", n) for n in range(5)]
        ran = Restored(AttemptRef(ids[1], 1), SPEC, RolloutState.RUNNING, started_at=START, runner="r").given_up(START)
        rows = [
            Restored(AttemptRef(ids[0], 2), SPEC, RolloutState.QUEUED, retry_at=LATER),
            ran,
            Restored(AttemptRef(ids[2], 1), SPEC, RolloutState.ENDED, "succeeded"),
            Restored(AttemptRef(ids[3], 0), SPEC, RolloutState.QUEUED),
            Restored(AttemptRef(ids[4], 0), SPEC.model_copy(update={"priority": 1}), RolloutState.QUEUED),
        ]
        assert await store.restore(rows) == [True] * 5
        assert await store.restore(rows) == [False] * 5, "again changes nothing"
        running = AttemptRef(ids[1], 1)
        assert not await store.extend(running, LATER), "nobody keeps it"
        assert await store.expired(LATER, 10) == []
        assert await store.unsettled(START, 10) == [running]
        assert not (await store.attempt_status(running)).open
        late = await store.end(running, b"x", START, lease_over=False)
        assert (late.result, late.stored) == (EndResult.EARLIER, ran.end), "its end came back with it"
        assert not (await store.attempt_status(AttemptRef(ids[2], 1))).open
        await store.enqueue([(i, SPEC) for i in ids])
        found = await store.claim(9, "r", LATER, LATER + timedelta(seconds=60))
        assert [r.ref for r in found] == [AttemptRef(ids[4], 0), AttemptRef(ids[0], 2), AttemptRef(ids[3], 0)]

    async def test_what_is_further_than_the_log_is_left_alone(self, store: RolloutStore) -> None:
        await store.enqueue([(i, SPEC) for i in IDS])
        (running,) = await store.claim(1, "r", START, LEASE)
        ended = [Restored(AttemptRef(i, 1), SPEC, RolloutState.ENDED, "succeeded") for i in IDS[:2]]
        assert await store.restore(ended) == [False, True], "what only waited is overtaken, what runs is not"
        assert (await store.attempt_status(running.ref)).open
        ran = [Restored(AttemptRef(IDS[2], 0), SPEC, RolloutState.RUNNING, started_at=START).given_up(START)]
        assert await store.restore(ran) == [True]
        assert await store.claim(9, "r", START, LEASE) == []
        await store.end(running.ref, b"x", START, lease_over=False)
        await store.settle(running.ref, final=False, status="failed")
        first = [Restored(running.ref, SPEC, RolloutState.RUNNING, started_at=START).given_up(START)]
        assert await store.restore(first) == [False], "its next attempt waits already"

    async def test_a_store_without_its_state_hands_out_nothing(self, bare_store: RolloutStore) -> None:
        await bare_store.enqueue([(IDS[0], SPEC)])
        assert not await bare_store.has_state()
        assert await bare_store.claim(1, "r", START, LEASE) == []
        begun = Running(AttemptRef(IDS[1], 0), SPEC, START)
        with pytest.raises(Retry):
            await bare_store.begin(begun, LEASE)
        await bare_store.state_restored(7)
        assert await bare_store.has_state()
        assert len(await bare_store.claim(1, "r", START, LEASE)) == 1
        assert (await bare_store.counts()).ended == 7
        assert await bare_store.begin(begun, LEASE)

    async def test_mode_comes_with_the_standing(self, store: RolloutStore) -> None:
        await store.enqueue([(IDS[0], VALIDATION)])
        assert (await store.attempt_status(AttemptRef(IDS[0], 0))).mode == "validation"
        own = AttemptRef(IDS[1], 0)
        await store.begin(Running(own, VALIDATION, START, None), LEASE)
        standing = await store.attempt_status(own)
        assert standing.open and standing.mode == "validation"
        assert await store.expired(LATER, 10) == [own]

    @staticmethod
    async def _running(store: RolloutStore) -> AttemptRef:
        await store.enqueue([(IDS[0], SPEC)])
        (running,) = await store.claim(1, "runner", START, LEASE)
        return running.ref
