"""Retries with their delays, cancelling, pausing, shares, beginning once: over HTTP."""

import asyncio
from datetime import timedelta
from typing import Any

import httpx
import pytest

from leyden.events import QueuePaused, QueueResumed, RolloutEnded, RolloutStarted, TaskEnqueued
from leyden.events.codec import encode
from leyden.ids import new_rollout_id, rollout_id_of
from service.gateway.gateway_fakes import START, Bench

V1 = "/leyden/v1"
BAD = {"status": "failed", "failure": {"failure_class": "agent_exception", "message": "boom"}}
MODEL = {"model": "policy", "messages": [{"role": "user", "content": "?"}]}


async def enqueue(gate: Bench, http: httpx.AsyncClient, *tasks: dict[str, Any]) -> list[dict[str, Any]]:
    reply = await http.post(f"{V1}/tasks", json={"tasks": list(tasks)})
    assert reply.status_code == 201, reply.text
    await gate.drain_tasks()
    found: list[dict[str, Any]] = reply.json()["tasks"]
    return found


async def claim(http: httpx.AsyncClient, limit: int = 1, **changes: Any) -> list[dict[str, Any]]:
    reply = await http.post(f"{V1}/rollouts/claim", json={"runner": "r", "limit": limit} | changes)
    assert reply.status_code == 200, reply.text
    found: list[dict[str, Any]] = reply.json()["rollouts"]
    return found


async def end(http: httpx.AsyncClient, rollout: dict[str, Any], body: dict[str, Any]) -> httpx.Response:
    return await http.post(f"{V1}/rollouts/{rollout['rollout_id']}/attempts/{rollout['attempt']}/end", json=body)


async def call(http: httpx.AsyncClient, rollout: dict[str, Any]) -> httpx.Response:
    return await http.post(f"/rollouts/{rollout['trace_id']}/v1/chat/completions", json=MODEL)


async def test_a_retry_waits_for_its_time(gate: Bench, http: httpx.AsyncClient) -> None:
    await enqueue(gate, http, {"task_id": "t", "retry": {"backoff_s": 8}})
    (rollout,) = await claim(http)
    assert (await end(http, rollout, BAD)).json()["final"] is False
    (ended,) = gate.log.of(RolloutEnded)
    assert ended.retry_at is not None
    assert START + timedelta(seconds=4) <= ended.retry_at <= START + timedelta(seconds=8)
    assert (await http.get(f"{V1}/queue")).json()["delayed"] == 1
    gate.clock.set(ended.retry_at - timedelta(milliseconds=5))
    assert await claim(http) == []
    gate.clock.set(ended.retry_at)
    assert [r["attempt"] for r in await claim(http)] == [1]


async def test_a_failure_that_the_policy_does_not_try_again_is_final(gate: Bench, http: httpx.AsyncClient) -> None:
    await enqueue(gate, http, {"task_id": "t", "retry": {"on": ["infrastructure"]}})
    (rollout,) = await claim(http)
    assert (await end(http, rollout, BAD)).json()["final"] is True


async def test_a_cancelled_task_never_starts_and_what_runs_of_it_is_over(gate: Bench, http: httpx.AsyncClient) -> None:
    await enqueue(gate, http, {"task_id": "t", "samples": 3}, {"task_id": "other"})
    (running,) = await claim(http)
    assert (await call(http, running)).status_code == 200
    off = await http.post(f"{V1}/tasks/cancel", json={"task_ids": ["t"], "reason": "wrong prompt"})
    assert off.json() == {"tasks": [{"task_id": "t", "rollouts": 3, "cancelled": 3}]}
    events = gate.log.of(RolloutEnded)
    assert {e.rollout_id for e in events} == {rollout_id_of("t", n) for n in range(3)}
    assert {(e.status, e.final, e.failure.failure_class, e.failure.message) for e in events} == {
        ("failed", True, "cancelled", "wrong prompt")
    }
    assert {e.rollout_id: len(e.call_ids) for e in events}[running["rollout_id"]] == 1
    assert (await call(http, running)).status_code == 409
    beat = await http.post(f"{V1}/rollouts/{running['rollout_id']}/attempts/0/heartbeat")
    assert beat.status_code == 409
    assert (await end(http, running, {"status": "succeeded"})).status_code == 409
    assert [r["task_id"] for r in await claim(http, 9)] == ["other"]
    gate.clock.set(START + timedelta(hours=1))
    again = await http.post(f"{V1}/tasks/cancel", json={"task_ids": ["t"]})
    assert again.json() == off.json()
    assert len(gate.log.of(RolloutEnded)) == 3


async def test_a_task_that_is_not_queued_yet_can_be_cancelled(gate: Bench, http: httpx.AsyncClient) -> None:
    await http.post(f"{V1}/tasks", json={"tasks": [{"task_id": "t"}]})
    off = await http.post(f"{V1}/tasks/cancel", json={"task_ids": ["t"]})
    assert off.json()["tasks"][0]["cancelled"] == 1
    await gate.drain_tasks()
    assert await claim(http) == []


async def test_a_retry_that_waits_can_be_cancelled(gate: Bench, http: httpx.AsyncClient) -> None:
    await enqueue(gate, http, {"task_id": "t"})
    (rollout,) = await claim(http)
    await end(http, rollout, BAD)
    off = await http.post(f"{V1}/rollouts/cancel", json={"rollout_ids": [rollout["rollout_id"]]})
    assert off.json() == {"rollouts": [{"rollout_id": rollout["rollout_id"], "cancelled": True}]}
    last = gate.log.of(RolloutEnded)[-1]
    assert (last.attempt, last.final, last.failure.failure_class) == (1, True, "cancelled")
    gate.clock.set(START + timedelta(hours=1))
    assert await claim(http) == []


async def test_what_has_ended_is_not_cancelled(gate: Bench, http: httpx.AsyncClient) -> None:
    await enqueue(gate, http, {"task_id": "t"})
    (rollout,) = await claim(http)
    await end(http, rollout, {"status": "succeeded"})
    off = await http.post(f"{V1}/rollouts/cancel", json={"rollout_ids": [rollout["rollout_id"]]})
    assert off.json()["rollouts"][0]["cancelled"] is False
    assert [e.status for e in gate.log.of(RolloutEnded)] == ["succeeded"]
    for path, body in (("tasks", {"task_ids": ["no"]}), ("rollouts", {"rollout_ids": [new_rollout_id()]})):
        assert (await http.post(f"{V1}/{path}/cancel", json=body)).status_code == 404


@pytest.mark.parametrize("step", ["log", "log_after_write", "settle", "withdraw"])
async def test_a_cancel_that_stopped_half_way_is_completed_by_asking_again(
    gate: Bench, http: httpx.AsyncClient, step: str
) -> None:
    await enqueue(gate, http, {"task_id": "t"})
    if step in ("settle", "withdraw"):
        gate.store.fail_at[step] = 1
    else:
        gate.log.failures, gate.log.fail_after_write = 1, step == "log_after_write"
    assert (await http.post(f"{V1}/tasks/cancel", json={"task_ids": ["t"]})).status_code == 503
    gate.clock.set(START + timedelta(seconds=1))
    assert (await http.post(f"{V1}/tasks/cancel", json={"task_ids": ["t"]})).json()["tasks"][0]["cancelled"] == 1
    assert len({encode(event) for event in gate.log.of(RolloutEnded)}) == 1
    assert await claim(http) == []


async def test_a_paused_queue_hands_out_nothing_until_it_is_resumed(gate: Bench, http: httpx.AsyncClient) -> None:
    await enqueue(gate, http, {"task_id": "t"})
    paused = await http.post(f"{V1}/queue/pause", json={"reason": "a new reward"})
    assert paused.json() == {"project": None, "paused": True}
    (event,) = gate.log.of(QueuePaused)
    assert (event.project, event.reason, event.event_time) == (None, "a new reward", START)
    assert await claim(http) == []
    assert (await http.get(f"{V1}/queue")).json()["paused"] == ["*"]
    waiting = asyncio.ensure_future(claim(http, wait_s=5))
    await asyncio.sleep(0.05)
    gate.clock.set(START + timedelta(seconds=1))
    await http.post(f"{V1}/queue/resume", json={})
    assert len(await waiting) == 1
    assert len(gate.log.of(QueueResumed)) == 1


async def test_a_pause_is_in_the_log_and_comes_from_it_again(gate: Bench, http: httpx.AsyncClient) -> None:
    await enqueue(gate, http, {"task_id": "t"})
    await http.post(f"{V1}/queue/pause", json={})
    gate.store.words.clear()
    await gate.drain_tasks()
    assert await claim(http) == []
    gate.clock.set(START + timedelta(seconds=1))
    await http.post(f"{V1}/queue/resume", json={})
    await gate.drain_tasks()
    assert len(await claim(http)) == 1


async def test_a_pause_that_the_log_did_not_take_is_none(gate: Bench, http: httpx.AsyncClient) -> None:
    await enqueue(gate, http, {"task_id": "t"})
    gate.log.failures = 1
    assert (await http.post(f"{V1}/queue/pause", json={})).status_code == 503
    assert len(await claim(http)) == 1


async def test_a_rollout_that_is_begun_again_with_its_key_is_the_same(gate: Bench, http: httpx.AsyncClient) -> None:
    headers = {"idempotency-key": "run-1"}
    first = await http.post(f"{V1}/rollouts", json={"task": {"input": 1}}, headers=headers)
    gate.clock.set(START + timedelta(seconds=5))
    again = await http.post(f"{V1}/rollouts", json={"task": {"input": 1}}, headers=headers)
    assert first.status_code == again.status_code == 201
    assert first.json() == again.json()
    assert len({encode(event) for event in gate.log.of(RolloutStarted)}) == 1
    other = await http.post(f"{V1}/rollouts", json={"task": {"input": 2}}, headers=headers)
    assert (other.status_code, other.json()["error"]["type"]) == (409, "rollout_exists")
    assert (await end(http, first.json(), {"status": "succeeded"})).status_code == 200
    over = await http.post(f"{V1}/rollouts", json={"task": {"input": 1}}, headers=headers)
    assert (over.status_code, over.json()["error"]["type"]) == (409, "attempt_over")
    without = [await http.post(f"{V1}/rollouts", json={}) for _ in range(2)]
    assert len({reply.json()["rollout_id"] for reply in without}) == 2


async def test_a_begin_that_the_log_did_not_take_is_taken_up_again(gate: Bench, http: httpx.AsyncClient) -> None:
    rollout_id = new_rollout_id()
    gate.log.failures = 1
    assert (await http.post(f"{V1}/rollouts", json={"rollout_id": rollout_id})).status_code == 503
    begun = await http.post(f"{V1}/rollouts", json={"rollout_id": rollout_id})
    assert (begun.status_code, begun.json()["rollout_id"]) == (201, rollout_id)
    assert [event.rollout_id for event in gate.log.of(RolloutStarted)] == [rollout_id]
    assert (await http.post(f"{V1}/rollouts", json={"rollout_id": "x"})).status_code == 400


async def test_no_rollout_of_a_task_is_begun_over_its_head(gate: Bench, http: httpx.AsyncClient) -> None:
    (task,) = await enqueue(gate, http, {"task_id": "t"})
    begun = await http.post(f"{V1}/rollouts", json={"rollout_id": task["rollout_ids"][0]})
    assert (begun.status_code, begun.json()["error"]["type"]) == (409, "rollout_exists")


async def test_the_end_of_a_loop_says_so_with_its_evidence(gate: Bench, http: httpx.AsyncClient) -> None:
    await enqueue(gate, http, {"task_id": "t"})
    (rollout,) = await claim(http)
    for _ in range(5):
        assert (await call(http, rollout)).status_code == 200
    body = BAD | {"failure": BAD["failure"] | {"evidence": {"error_type": "RuntimeError", "traceback": "Traceback"}}}  # type: ignore[operator]
    first = await end(http, rollout, body)
    assert first.status_code == 200
    assert (await end(http, rollout, body)).json() == first.json(), "the same report again, though its class changed"
    failure = gate.log.of(RolloutEnded)[0].failure
    assert (failure.failure_class, failure.message) == ("repetition_loop", "boom")
    assert (failure.evidence.repeats, failure.evidence.reported_class) == (5, "agent_exception")
    assert (failure.evidence.traceback, failure.evidence.finish_reason) == ("Traceback", "stop")
    assert failure.evidence.call_id in {recorded.call_id for recorded in gate.log.calls}


async def test_a_lost_attempt_names_its_last_call(gate: Bench, http: httpx.AsyncClient) -> None:
    await enqueue(gate, http, {"task_id": "t"})
    (rollout,) = await claim(http)
    await call(http, rollout)
    gate.clock.set(START + timedelta(seconds=61))
    await gate.gateway.rollouts.sweep()
    failure = gate.log.of(RolloutEnded)[0].failure
    assert failure.failure_class == "runner_lost"
    assert failure.evidence.call_id == gate.log.calls[0].call_id


async def test_priority_and_retry_go_with_the_task(gate: Bench, http: httpx.AsyncClient) -> None:
    asked = {"task_id": "high", "priority": 5, "retry": {"backoff_s": 2, "backoff_cap_s": 9, "on": ["timeout"]}}
    await enqueue(gate, http, {"task_id": "low"}, asked)
    event = gate.log.of(TaskEnqueued)[1]
    assert (event.priority, event.retry.backoff_cap_s, event.retry.on) == (5, 9, ["timeout"])
    assert [r["task_id"] for r in await claim(http, 2)] == ["high", "low"]
    for wrong in (
        {"priority": 1001},
        {"retry": {"on": ["no"]}},
        {"retry": {"backoff": 1}},
        {"retry": {"backoff_s": -1}},
    ):
        assert (await http.post(f"{V1}/tasks", json={"tasks": [wrong]})).status_code == 400
