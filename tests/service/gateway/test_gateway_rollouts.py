"""Tasks and rollouts over HTTP, and what remains when a step in between fails or the process is killed there."""

import asyncio
from datetime import timedelta
from typing import Any

import httpx
import pytest

from leyden.events import RolloutEnded, RolloutStarted, TaskEnqueued
from leyden.events.codec import encode
from leyden.ids import rollout_id_of
from service.gateway.gateway_fakes import API_KEY, START, Bench, bench

V1 = "/leyden/v1"
TASK = {
    "task_id": "t",
    "input": {"question": "2+3"},
    "metadata": {"answer": 5},
    "max_attempts": 2,
    "retry": {"backoff_s": 0},
}
NOBODY = {"delayed": 0, "lanes": {}, "paused": []}
GOOD = {"status": "succeeded", "reward": 1.0, "output": {"b": 1, "a": 2}, "span_count": 3}
BAD = {"status": "failed", "failure": {"failure_class": "agent_exception", "message": "boom"}}


async def enqueue(gate: Bench, http: httpx.AsyncClient, **changes: Any) -> None:
    reply = await http.post(f"{V1}/tasks", json={"tasks": [TASK | changes]})
    assert reply.status_code == 201, reply.text
    await gate.drain_tasks()


async def claim(http: httpx.AsyncClient, **changes: Any) -> list[dict[str, Any]]:
    reply = await http.post(f"{V1}/rollouts/claim", json={"runner": "r"} | changes)
    assert reply.status_code == 200, reply.text
    found: list[dict[str, Any]] = reply.json()["rollouts"]
    return found


def attempt_url(rollout: dict[str, Any], what: str) -> str:
    return f"{V1}/rollouts/{rollout['rollout_id']}/attempts/{rollout['attempt']}/{what}"


async def test_a_task_becomes_rollouts_of_one_group(gate: Bench, http: httpx.AsyncClient) -> None:
    reply = await http.post(f"{V1}/tasks", json={"tasks": [TASK | {"samples": 2}]})
    ids = [rollout_id_of("t", n) for n in range(2)]
    assert reply.json() == {"tasks": [{"task_id": "t", "group_id": "t", "rollout_ids": ids, "new": True}]}
    (event,) = gate.log.of(TaskEnqueued)
    assert (event.rollout_ids, event.task.metadata, gate.log.published[0].key) == (ids, {"answer": 5}, "t")
    await gate.drain_tasks()
    waiting = {"queued": 2, "running": 0, "ended": 0, "lanes": {"train:": 2}}
    assert (await http.get(f"{V1}/queue")).json() == NOBODY | waiting


async def test_a_task_posted_again_has_the_same_answer_and_no_effect(gate: Bench, http: httpx.AsyncClient) -> None:
    first = await http.post(f"{V1}/tasks", json={"tasks": [TASK]})
    gate.clock.set(START + timedelta(hours=1))
    second = await http.post(f"{V1}/tasks", json={"tasks": [TASK | {"samples": 5, "input": "other"}]})
    (one,), (again,) = first.json()["tasks"], second.json()["tasks"]
    assert again == one | {"new": False}
    assert len({encode(event) for event in gate.log.of(TaskEnqueued)}) == 1
    await gate.drain_tasks()
    assert len(await claim(http, limit=10)) == 1


async def test_an_unacknowledged_task_is_not_accepted_and_can_be_sent_again(
    gate: Bench, http: httpx.AsyncClient
) -> None:
    gate.log.failures = 1
    refused = await http.post(f"{V1}/tasks", json={"tasks": [TASK]})
    assert (refused.status_code, refused.json()["error"]["type"]) == (503, "unavailable")
    assert "retry-after" in refused.headers
    await enqueue(gate, http)
    assert len(await claim(http, limit=10)) == 1


async def test_a_claim_hands_out_all_that_an_agent_needs(gate: Bench, http: httpx.AsyncClient) -> None:
    await enqueue(gate, http)
    (rollout,) = await claim(http)
    trace = rollout_id_of("t", 0) + "0000"
    assert rollout["trace_id"] == trace
    assert rollout["traceparent"].split("-")[1] == trace
    assert rollout["base_url"] == f"http://127.0.0.1:8080/rollouts/{trace}/v1"
    assert (rollout["input"], rollout["task_id"], rollout["mode"]) == ({"question": "2+3"}, "t", "train")
    assert (rollout["lease_s"], rollout["timeout_s"], rollout["group_id"]) == (60.0, 600.0, "t")
    assert "metadata" not in rollout
    (started,) = gate.log.of(RolloutStarted)
    assert (started.rollout_id, started.attempt, started.runner, started.event_time) == (trace[:28], 0, "r", START)
    called = await http.post(
        f"/rollouts/{trace}/v1/chat/completions",
        json={"model": "policy"},
        headers={"authorization": f"Bearer {rollout['api_key']}"},
    )
    assert called.status_code == 200


async def test_a_claim_waits_for_a_task(gate: Bench, http: httpx.AsyncClient) -> None:
    waiting = asyncio.ensure_future(claim(http, wait_s=5))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    await enqueue(gate, http)
    assert len(await waiting) == 1
    assert await claim(http, wait_s=0) == []


async def test_a_claim_that_the_log_did_not_take_is_given_back(gate: Bench, http: httpx.AsyncClient) -> None:
    await enqueue(gate, http)
    gate.log.failures = 1
    assert (await http.post(f"{V1}/rollouts/claim", json={"runner": "r"})).status_code == 503
    (rollout,) = await claim(http)
    assert rollout["attempt"] == 0


async def test_killed_between_claim_and_log_the_lease_gives_the_rollout_back(
    gate: Bench, http: httpx.AsyncClient
) -> None:
    await enqueue(gate, http)
    gate.log.failures = gate.store.fail_at["unclaim"] = 1
    assert (await http.post(f"{V1}/rollouts/claim", json={"runner": "r"})).status_code == 503
    assert await claim(http) == []
    gate.clock.set(START + timedelta(seconds=61))
    await gate.gateway.rollouts.sweep()
    (ended,) = gate.log.of(RolloutEnded)
    assert (ended.status, ended.final, ended.failure.failure_class) == ("failed", False, "runner_lost")
    (rollout,) = await claim(http)
    assert rollout["attempt"] == 1


async def test_an_end_is_logged_with_its_calls_and_can_be_repeated(gate: Bench, http: httpx.AsyncClient) -> None:
    await enqueue(gate, http)
    (rollout,) = await claim(http)
    for _ in range(3):
        await http.post(f"/rollouts/{rollout['trace_id']}/v1/chat/completions", json={"model": "policy"})
    gate.clock.set(START + timedelta(seconds=5))
    first = await http.post(attempt_url(rollout, "end"), json=GOOD)
    gate.clock.set(START + timedelta(seconds=9))
    again = await http.post(attempt_url(rollout, "end"), json=GOOD | {"output": {"a": 2, "b": 1}})
    answer = {"rollout_id": rollout["rollout_id"], "attempt": 0, "status": "succeeded", "final": True, "calls": 3}
    assert first.json() == again.json() == answer
    events = gate.log.of(RolloutEnded)
    assert len({encode(event) for event in events}) == 1
    ended = events[0]
    assert ended.call_ids == sorted(call.call_id for call in gate.log.calls)
    assert (ended.event_time, ended.started_at) == (START + timedelta(seconds=5), START)
    assert (ended.reward, ended.span_count, ended.task.metadata) == (1.0, 3, {"answer": 5})
    other = await http.post(attempt_url(rollout, "end"), json=BAD)
    assert (other.status_code, other.json()["error"]["type"]) == (409, "ended_differently")
    view = (await http.get(f"{V1}/rollouts/{rollout['rollout_id']}")).json()
    assert view == {"rollout_id": rollout["rollout_id"], "attempt": 0, "state": "ended", "status": "succeeded"}
    assert (await http.get(f"{V1}/queue")).json() == NOBODY | {"queued": 0, "running": 0, "ended": 1}


async def test_a_failed_attempt_is_tried_again_until_there_are_none_left(gate: Bench, http: httpx.AsyncClient) -> None:
    await enqueue(gate, http)
    for attempt, final in ((0, False), (1, True)):
        (rollout,) = await claim(http)
        assert rollout["attempt"] == attempt
        assert (await http.post(attempt_url(rollout, "end"), json=BAD)).json()["final"] is final
    assert await claim(http) == []
    assert [event.final for event in gate.log.of(RolloutEnded)] == [False, True]


@pytest.mark.parametrize("step", ["log", "log_after_write", "settle"])
@pytest.mark.parametrize("repaired_by", ["runner", "sweeper"])
async def test_an_end_that_stopped_half_way_is_completed_once(
    gate: Bench, http: httpx.AsyncClient, step: str, repaired_by: str
) -> None:
    await enqueue(gate, http)
    (rollout,) = await claim(http)
    if step == "settle":
        gate.store.fail_at["settle"] = 1
    else:
        gate.log.failures, gate.log.fail_after_write = 1, step == "log_after_write"
    assert (await http.post(attempt_url(rollout, "end"), json=BAD)).status_code == 503
    late = await http.post(f"/rollouts/{rollout['trace_id']}/v1/chat/completions", json={"model": "policy"})
    assert late.status_code == 409
    assert await claim(http) == [], "the next attempt does not begin before this one's end is in the log"
    gate.clock.set(START + timedelta(seconds=20))
    if repaired_by == "runner":
        assert (await http.post(attempt_url(rollout, "end"), json=BAD)).status_code == 200
    for _ in range(2):
        await gate.gateway.rollouts.sweep()
    events = gate.log.of(RolloutEnded)
    assert len({encode(event) for event in events}) == 1
    assert events[0].event_time == START
    (again,) = await claim(http, limit=5)
    assert again["attempt"] == 1


async def test_the_sweeper_leaves_an_end_alone_that_is_on_its_way(gate: Bench, http: httpx.AsyncClient) -> None:
    await enqueue(gate, http)
    (rollout,) = await claim(http)
    gate.log.failures = 1
    await http.post(attempt_url(rollout, "end"), json=GOOD)
    gate.clock.set(START + timedelta(seconds=5))
    await gate.gateway.rollouts.sweep()
    assert gate.log.of(RolloutEnded) == []


async def test_stopped_runners_use_up_no_attempt(gate: Bench, http: httpx.AsyncClient) -> None:
    stopped = BAD | {"failure": {"failure_class": "interrupted", "message": "the runner was stopped"}}
    await enqueue(gate, http)
    ends = []
    for report in (stopped, stopped, BAD, stopped, stopped, BAD):
        [rollout] = await claim(http)
        ends.append((await http.post(attempt_url(rollout, "end"), json=report)).json()["final"])
    assert ends == [False] * 5 + [True], "two failures of its own, as max_attempts says"
    assert await claim(http) == []


async def test_a_task_whose_runner_is_stopped_each_time_is_given_up(gate: Bench, http: httpx.AsyncClient) -> None:
    stopped = BAD | {"failure": {"failure_class": "interrupted", "message": "the runner was stopped"}}
    await enqueue(gate, http)
    ends = []
    while claimed := await claim(http):
        ends.append((await http.post(attempt_url(claimed[0], "end"), json=stopped)).json()["final"])
    assert ends == [False] * 11 + [True], "ten that do not count, then two as max_attempts says"


async def test_heartbeats_keep_an_attempt_until_its_time_is_over(gate: Bench, http: httpx.AsyncClient) -> None:
    await enqueue(gate, http, timeout_s=100)
    (rollout,) = await claim(http)
    for second in (50, 100, 150):
        gate.clock.set(START + timedelta(seconds=second))
        await gate.gateway.rollouts.sweep()
        beat = await http.post(attempt_url(rollout, "heartbeat"))
        assert (beat.status_code, beat.json()["lease_s"]) == (200, min(60, 160 - second))
    gate.clock.set(START + timedelta(seconds=161))
    assert (await http.post(attempt_url(rollout, "heartbeat"))).status_code == 409
    await gate.gateway.rollouts.sweep()
    (ended,) = gate.log.of(RolloutEnded)
    assert ended.failure.failure_class == "timeout"
    assert (await http.post(attempt_url(rollout, "end"), json=GOOD)).status_code == 409
    assert (await http.post(attempt_url(rollout, "heartbeat"))).status_code == 409


async def test_a_sweep_goes_on_after_a_passing_fault() -> None:
    key = {"authorization": f"Bearer {API_KEY}"}
    async with (
        bench(sweep_interval_s=0.01) as gate,
        httpx.AsyncClient(base_url=gate.url, headers=key, trust_env=False) as http,
    ):
        gate.store.fail_at["expired"] = 2
        await enqueue(gate, http)
        await claim(http)
        gate.clock.set(START + timedelta(seconds=61))
        sweeping = asyncio.ensure_future(gate.gateway.rollouts.sweep_forever())
        async with asyncio.timeout(5):
            while not gate.log.of(RolloutEnded):
                await asyncio.sleep(0.01)
        sweeping.cancel()


async def test_an_agent_begins_a_rollout_of_its_own_accord(gate: Bench, http: httpx.AsyncClient) -> None:
    body = {"task": {"input": "x", "mode": "validation"}, "group_id": "g", "group_size": 4}
    begun = await http.post(f"{V1}/rollouts", json=body)
    rollout = begun.json()
    assert (begun.status_code, rollout["attempt"], rollout["mode"], rollout["lease_s"]) == (201, 0, "validation", 600.0)
    (started,) = gate.log.of(RolloutStarted)
    assert (started.group_id, started.group_size) == ("g", 4)
    ended = await http.post(
        attempt_url(rollout, "end"), json=BAD, headers={"authorization": f"Bearer {rollout['api_key']}"}
    )
    assert ended.json()["final"] is True
    assert (await http.post(f"{V1}/rollouts", json={})).status_code == 201


async def test_a_rollouts_key_opens_only_its_own_attempt(gate: Bench, http: httpx.AsyncClient) -> None:
    await enqueue(gate, http, samples=2)
    one, two = await claim(http, limit=2)
    key = {"authorization": f"Bearer {one['api_key']}"}
    assert (await http.post(attempt_url(one, "heartbeat"), headers=key)).status_code == 200
    assert (await http.post(attempt_url(two, "heartbeat"), headers=key)).status_code == 403
    assert (await http.post(attempt_url(two, "end"), json=GOOD, headers=key)).status_code == 403
    assert (await http.get(f"{V1}/rollouts/{one['rollout_id']}", headers=key)).status_code == 200
    assert (await http.get(f"{V1}/rollouts/{two['rollout_id']}", headers=key)).status_code == 403
    for method, path in (("POST", "tasks"), ("POST", "rollouts"), ("POST", "rollouts/claim"), ("GET", "queue")):
        assert (await http.request(method, f"{V1}/{path}", headers=key)).status_code == 403
    assert (await http.get(f"{V1}/queue", headers={"authorization": "Bearer no"})).status_code == 401


async def test_what_is_wrong_is_said(http: httpx.AsyncClient) -> None:
    cases: list[tuple[str, Any, int, str]] = [
        ("tasks", {"tasks": []}, 400, "tasks"),
        ("tasks", {"tasks": [{"inptu": 1}]}, 400, "tasks.0.inptu"),
        ("rollouts/claim", {"runner": "r", "wait_s": 31}, 400, "wait_s"),
        ("rollouts/claim", {}, 400, "runner"),
        (f"rollouts/{rollout_id_of('no', 0)}/attempts/0/end", GOOD, 404, "no rollout"),
        (f"rollouts/{rollout_id_of('no', 0)}/attempts/0/heartbeat", None, 404, "no rollout"),
        (f"rollouts/{rollout_id_of('no', 0)}/attempts/70000/end", GOOD, 404, "no such"),
        ("rollouts/xyz/attempts/0/end", GOOD, 404, "xyz"),
    ]
    for path, body, status, words in cases:
        reply = await http.post(f"{V1}/{path}", json=body)
        assert reply.status_code == status, reply.text
        assert set(reply.json()["error"]) == {"type", "message"}
        assert words in reply.json()["error"]["message"]


async def test_policies_show_what_is_live(gate: Bench, http: httpx.AsyncClient) -> None:
    await gate.serve(4, "r1")
    assert (await http.get(f"{V1}/policies")).json() == {
        "policies": [
            {
                "policy": "policy",
                "promoted_version": None,
                "live_version": 3,
                "replicas": [
                    {"replica": "r0", "version": 3, "engine": "vllm"},
                    {"replica": "r1", "version": 4, "engine": "vllm"},
                ],
            }
        ]
    }


async def test_two_gateways_end_a_lost_attempt_once() -> None:
    async with (
        bench() as one,
        bench(store=one.store) as two,
        httpx.AsyncClient(base_url=one.url, trust_env=False) as http,
    ):
        http.headers["authorization"] = f"Bearer {API_KEY}"
        await enqueue(one, http)
        await claim(http)
        for made in (one, two):
            made.clock.set(START + timedelta(seconds=61))
        await one.gateway.rollouts.sweep()
        await two.gateway.rollouts.sweep()
        assert len(one.log.of(RolloutEnded)) + len(two.log.of(RolloutEnded)) == 1
