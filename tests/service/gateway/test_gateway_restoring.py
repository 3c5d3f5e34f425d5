"""A store that lost its data has its state from the log again, and nothing is done twice."""

from collections import Counter
from collections.abc import AsyncGenerator
from datetime import timedelta
from typing import Any

import httpx
import pytest

from leyden.events import Event, RolloutEnded, TaskEnqueued
from leyden.events.codec import EVENTS_BY_TOPIC, encode
from leyden.gateway.handlers.restoring import Restorer, RestoringTimes
from leyden.ids import rollout_id_of
from leyden.kafka import Retry
from service.gateway.gateway_fakes import START, Bench, FakeLog
from service.gateway.gateway_store_fake import MemoryStore

V1 = "/leyden/v1"
BAD = {"status": "failed", "failure": {"failure_class": "agent_exception", "message": "boom"}}
GOOD = {"status": "succeeded"}
TIMES = RestoringTimes(interval_s=1.0, grace_s=0.0, ttl_s=86_400.0)


class History:
    """The log that the gateway wrote; every event of a topic comes twice, as after a producer's retry."""

    def __init__(self, log: FakeLog) -> None:
        self._log = log
        self.failures = 0

    async def events(self, topic: str) -> AsyncGenerator[Event, None]:
        for outgoing in list(self._log.published):
            if isinstance(outgoing.event, EVENTS_BY_TOPIC[topic]):
                yield outgoing.event
                yield outgoing.event
                if self.failures:
                    self.failures -= 1
                    raise Retry("Kafka went away")


def lose(gate: Bench) -> Restorer:
    """Redis is empty; what restores it."""
    vars(gate.store).update(vars(MemoryStore(whole=False)))
    return Restorer(gate.store, History(gate.log), gate.gateway.rollouts, gate.clock, TIMES)


async def enqueue(gate: Bench, http: httpx.AsyncClient, *names: str, **changes: Any) -> None:
    tasks = [{"task_id": name, "retry": {"backoff_s": 0}} | changes for name in names]
    assert (await http.post(f"{V1}/tasks", json={"tasks": tasks})).status_code == 201
    await gate.drain_tasks()


async def claim(http: httpx.AsyncClient, limit: int = 1) -> list[dict[str, Any]]:
    reply = await http.post(f"{V1}/rollouts/claim", json={"runner": "r", "limit": limit})
    found: list[dict[str, Any]] = reply.json()["rollouts"]
    return found


async def end(http: httpx.AsyncClient, rollout: dict[str, Any], body: dict[str, Any]) -> httpx.Response:
    return await http.post(f"{V1}/rollouts/{rollout['rollout_id']}/attempts/{rollout['attempt']}/end", json=body)


async def test_what_ended_stays_ended_and_what_waited_waits(gate: Bench, http: httpx.AsyncClient) -> None:
    await enqueue(gate, http, "done", "failed", "waits", max_attempts=2)
    done, failed = await claim(http, 2)
    assert (await end(http, done, GOOD)).status_code == (await end(http, failed, BAD)).status_code == 200
    restorer = lose(gate)
    assert await claim(http) == [], "nothing is handed out before the state is back"
    refused = await http.post(f"{V1}/tasks", json={"tasks": [{"task_id": "done", "samples": 9}]})
    assert refused.status_code == 503, "what was accepted before is not known"
    assert restorer.ready() is not None
    assert await restorer.restore_if_lost()
    assert restorer.ready() is None
    assert not await restorer.restore_if_lost()
    await gate.drain_tasks()
    counts = (await http.get(f"{V1}/queue")).json()
    assert (counts["queued"], counts["running"], counts["ended"]) == (2, 0, 1)
    found = {(r["task_id"], r["attempt"]) for r in await claim(http, 9)}
    assert found == {("failed", 1), ("waits", 0)}
    late = await http.post(f"/rollouts/{done['trace_id']}/v1/chat/completions", json={"model": "policy"})
    assert late.status_code == 409


async def test_an_attempt_that_ran_is_over_as_infrastructure_and_tried_again(
    gate: Bench, http: httpx.AsyncClient
) -> None:
    await enqueue(gate, http, "t", max_attempts=2)
    (ran,) = await claim(http)
    own = (await http.post(f"{V1}/rollouts", json={"task": {"input": 1}})).json()
    assert await lose(gate).restore_if_lost()
    ends = {event.rollout_id: event for event in gate.log.of(RolloutEnded)}
    assert ends[ran["rollout_id"]].failure.failure_class == "infrastructure"
    assert (ends[ran["rollout_id"]].final, ends[own["rollout_id"]].final) == (False, True)
    assert (await end(http, ran, GOOD)).status_code == 409
    assert [r["attempt"] for r in await claim(http, 9)] == [1]


async def test_delays_and_pauses_come_back(gate: Bench, http: httpx.AsyncClient) -> None:
    await enqueue(gate, http, "t", retry={"backoff_s": 60})
    (rollout,) = await claim(http)
    await end(http, rollout, BAD)
    await http.post(f"{V1}/queue/pause", json={})
    await lose(gate).restore_if_lost()
    counts = (await http.get(f"{V1}/queue")).json()
    assert (counts["delayed"], counts["paused"]) == (1, ["*"])
    gate.clock.set(START + timedelta(seconds=61))
    assert await claim(http) == []
    await http.post(f"{V1}/queue/resume", json={})
    assert [r["attempt"] for r in await claim(http)] == [1]


async def test_a_task_posted_again_after_the_loss_has_its_old_answer(gate: Bench, http: httpx.AsyncClient) -> None:
    await enqueue(gate, http, "t")
    (rollout,) = await claim(http)
    await end(http, rollout, GOOD)
    await lose(gate).restore_if_lost()
    gate.clock.set(START + timedelta(seconds=5))
    await enqueue(gate, http, "t", samples=3)
    assert len({encode(event) for event in gate.log.of(TaskEnqueued)}) == 1
    assert await claim(http) == []


async def test_a_cancelled_rollout_stays_so(gate: Bench, http: httpx.AsyncClient) -> None:
    await enqueue(gate, http, "t")
    await http.post(f"{V1}/tasks/cancel", json={"task_ids": ["t"]})
    await lose(gate).restore_if_lost()
    await gate.drain_tasks()
    assert await claim(http) == []


@pytest.mark.parametrize("step", ["restore", "accept_tasks", "find_end", "settle", "state_restored"])
async def test_a_restoration_that_was_cut_off_is_completed_by_the_next(
    gate: Bench, http: httpx.AsyncClient, step: str
) -> None:
    await enqueue(gate, http, "done", "ran", "waits", max_attempts=2)
    done, _ = await claim(http, 2)
    await end(http, done, GOOD)
    restorer = lose(gate)
    gate.store.fail_at[step] = 1
    with pytest.raises(Retry):
        await restorer.restore_if_lost()
    assert await claim(http, 9) == []
    gate.clock.set(START + timedelta(seconds=20))
    assert await restorer.restore_if_lost()
    await gate.gateway.rollouts.sweep()
    ends = [event for event in gate.log.of(RolloutEnded) if event.rollout_id == rollout_id_of("ran", 0)]
    assert len({encode(event) for event in ends}) == 1
    assert {(r["task_id"], r["attempt"]) for r in await claim(http, 9)} == {("ran", 1), ("waits", 0)}


async def test_a_log_that_goes_away_is_read_again(gate: Bench, http: httpx.AsyncClient) -> None:
    await enqueue(gate, http, "t")
    lose(gate)
    history = History(gate.log)
    history.failures = 1
    restorer = Restorer(gate.store, history, gate.gateway.rollouts, gate.clock, TIMES)
    with pytest.raises(Retry):
        await restorer.restore_if_lost()
    assert await claim(http) == []
    assert await restorer.restore_if_lost()
    assert len(await claim(http)) == 1


async def test_two_replicas_that_restore_at_once_do_it_once(gate: Bench, http: httpx.AsyncClient) -> None:
    await enqueue(gate, http, "ran", "waits", max_attempts=3)
    await claim(http)
    one = lose(gate)
    snapshot = FakeLog()
    snapshot.published = list(gate.log.published)
    two = Restorer(gate.store, History(snapshot), gate.gateway.rollouts, gate.clock, TIMES)
    await one.restore_if_lost()
    again = await claim(http, 9)
    assert {(r["task_id"], r["attempt"]) for r in again} == {("ran", 1), ("waits", 0)}
    gate.store.whole = False
    await two.restore_if_lost()
    assert len(gate.log.of(RolloutEnded)) == 1
    for rollout in again:
        assert (await end(http, rollout, GOOD)).status_code == 200
    assert await claim(http, 9) == []


async def test_many_tasks_are_put_back_in_few_steps(gate: Bench, http: httpx.AsyncClient) -> None:
    for part in range(6):
        await enqueue(gate, http, *(f"t{part}-{n}" for n in range(200)))
    await claim(http, 100)
    restorer = lose(gate)
    steps: Counter[str] = Counter()
    for name in ("accept_tasks", "restore"):
        counting(gate.store, name, steps)
    assert await restorer.restore_if_lost()
    assert (len(gate.store.tasks), len(gate.store.rows)) == (1200, 1200)
    assert steps["accept_tasks"] <= 2400 // 500 + 1, "every event comes twice here"
    assert steps["restore"] <= 2400 // 500 + 1
    assert len(gate.log.of(RolloutEnded)) == 100


async def test_an_end_while_the_state_is_away_may_be_sent_again(gate: Bench, http: httpx.AsyncClient) -> None:
    await enqueue(gate, http, "t")
    (rollout,) = await claim(http)
    restorer = lose(gate)
    away = await end(http, rollout, GOOD)
    assert (away.status_code, away.headers["retry-after"]) == (503, "1")
    assert (await http.post(f"{V1}/rollouts", json={})).status_code == 503
    assert (await http.post(f"{V1}/tasks/cancel", json={"task_ids": ["t"]})).status_code == 503
    await restorer.restore_if_lost()
    assert (await end(http, rollout, GOOD)).status_code == 409
    assert [(e.attempt, e.status) for e in gate.log.of(RolloutEnded)] == [(0, "failed")]


def counting(store: MemoryStore, name: str, steps: Counter[str]) -> None:
    step = getattr(store, name)

    async def counted(*arguments: Any) -> Any:
        steps[name] += 1
        return await step(*arguments)

    setattr(store, name, counted)
