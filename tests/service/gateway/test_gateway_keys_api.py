"""API keys through the whole gateway: the admin API, scopes on every route, models, projects, limits, logs."""

import asyncio
import logging
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from starlette.routing import Route

from leyden.cli.keys import KeyAdmin, Wanted, row
from leyden.client.gateway import GatewayClient
from leyden.events import KeyCreated, KeyRevoked
from leyden.gateway.core.keys import rollout_key
from leyden.stack.errors import StackError
from service.gateway.gateway_fakes import API_KEY, REF, SECRET, START, Bench, bench
from service.gateway.gateway_keys import CHAT, KEYS, MESSAGES, bearer, call, made

AGENT, RUNNER, ADMIN = "agent", "runner", "admin"
NEEDED = {
    "/v1/chat/completions": AGENT,
    "/v1/responses": AGENT,
    "/v1/responses/{response_id}": AGENT,
    "/v1/responses/{response_id}/input_items": AGENT,
    "/v1/responses/input_tokens": AGENT,
    "/v1/messages": AGENT,
    "/v1/completions": AGENT,
    "/v1/embeddings": AGENT,
    "/v1/models": AGENT,
    "/v1/models/{model}": AGENT,
    "/v1/messages/count_tokens": AGENT,
    "/v1/traces": AGENT,
    "/v1/logs": AGENT,
    "/v1/metrics": AGENT,
    "/openapi.json": AGENT,
    "/leyden/v1/rollouts": AGENT,
    "/leyden/v1/rollouts/{rollout}": "its own",
    "/leyden/v1/rollouts/{rollout}/attempts/{attempt}/heartbeat": "its own",
    "/leyden/v1/rollouts/{rollout}/attempts/{attempt}/end": "its own",
    "/leyden/v1/tasks": RUNNER,
    "/leyden/v1/tasks/cancel": RUNNER,
    "/leyden/v1/rollouts/claim": RUNNER,
    "/leyden/v1/rollouts/cancel": RUNNER,
    "/leyden/v1/policies": RUNNER,
    "/leyden/v1/calls": RUNNER,
    "/leyden/v1/queue": RUNNER,
    "/leyden/v1/queue/pause": ADMIN,
    "/leyden/v1/queue/resume": ADMIN,
    "/leyden/v1/keys": ADMIN,
    "/leyden/v1/keys/{key_id}": ADMIN,
}
"""What the README's table says; a route that is in neither is forgotten."""
GRANTED = {
    AGENT: {AGENT},
    RUNNER: {AGENT, RUNNER, "its own"},
    ADMIN: {AGENT, RUNNER, ADMIN, "its own"},
    "rollout": {AGENT},
}
"""`its own`: of a rollout that another key began and nobody's key claimed."""
NOT_FOR_ROLLOUT_KEYS = {"/leyden/v1/rollouts"}


async def test_a_key_is_told_once_works_at_once_and_ends_when_it_is_revoked(
    gate: Bench, http: httpx.AsyncClient
) -> None:
    key = await made(http, name="ci", scopes=["runner"], project="math", concurrency=3)
    assert key["key"].startswith(f"lk-{key['key_id']}-")
    assert (await call(http, key["key"])).status_code == 200
    (listed,) = (await http.get(KEYS)).json()["keys"]
    assert listed == {name: value for name, value in key.items() if name != "key"}
    assert (listed["name"], listed["scopes"], listed["project"], listed["concurrency"]) == ("ci", ["runner"], "math", 3)
    for _ in range(2):
        gone = await http.delete(f"{KEYS}/{key['key_id']}")
        assert (gone.status_code, gone.json()["revoked_at"]) == (200, START.isoformat())
    assert (await call(http, key["key"])).status_code == 401
    assert [type(event) for event in gate.log.of(KeyCreated) + gate.log.of(KeyRevoked)] == [KeyCreated, KeyRevoked]
    assert key["key"].encode() not in b"".join(o.event.model_dump_json().encode() for o in gate.log.published)


async def test_another_replica_knows_a_key_and_its_end_from_the_topic_alone(
    gate: Bench, http: httpx.AsyncClient
) -> None:
    key = await made(http)
    async with bench() as other, httpx.AsyncClient(base_url=other.url, trust_env=False) as there:
        assert (await call(there, key["key"])).status_code == 401
        await _read_keys(gate, other)
        assert (await call(there, key["key"])).status_code == 200
        await http.delete(f"{KEYS}/{key['key_id']}")
        await _read_keys(gate, other)
        await _read_keys(gate, other)
        assert (await call(there, key["key"])).status_code == 401


async def _read_keys(source: Bench, target: Bench) -> None:
    await target.gateway.keys.on_keys(source.log.delivered("keys.v1"))


async def test_a_replica_that_is_still_reading_its_keys_asks_to_be_asked_again(
    gate: Bench, http: httpx.AsyncClient
) -> None:
    gate.gateway.ring.complete = gate.gateway.keys.read.is_set
    answer = await call(http, f"lk-{'0' * 12}-x")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert (await call(http, API_KEY)).status_code == 200
    gate.gateway.keys.read.set()
    assert (await call(http, f"lk-{'0' * 12}-x")).status_code == 401


async def test_kafka_away_makes_no_key_and_ends_none(gate: Bench, http: httpx.AsyncClient) -> None:
    key = await made(http)
    gate.log.failures = 2
    assert (await http.post(KEYS, json={"name": "x"})).status_code == 503
    assert (await http.delete(f"{KEYS}/{key['key_id']}")).status_code == 503
    assert len((await http.get(KEYS)).json()["keys"]) == 1
    assert (await call(http, key["key"])).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": ""},
        {"name": "x", "scopes": []},
        {"name": "x", "scopes": ["root"]},
        {"name": "x", "project": "a/b"},
        {"name": "x", "requests_per_minute": 0},
        {"name": "x", "expires_at": "2026-01-01"},
        {"name": "x", "expires_at": "2025-01-01T00:00:00Z"},
        {"name": "x", "model": ["misspelt"]},
    ],
)
async def test_a_key_that_makes_no_sense_is_not_made(
    gate: Bench, http: httpx.AsyncClient, body: dict[str, Any]
) -> None:
    answer = await http.post(KEYS, json=body)
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request")
    assert gate.log.of(KeyCreated) == []


async def test_a_key_that_nobody_has_cannot_be_revoked(gate: Bench, http: httpx.AsyncClient) -> None:
    assert (await http.delete(f"{KEYS}/{'0' * 12}")).status_code == 404


def _routes(gate: Bench) -> list[tuple[str, str]]:
    """(method, path) of every route that is not another one's second address."""
    routes = [route for route in gate.gateway.routes() if isinstance(route, Route)]
    known = [r for r in routes if "{rest:path}" not in r.path and r.path.startswith(("/v1/", "/leyden/", "/openapi"))]
    return [
        (method, re.sub(r":\w+}", "}", route.path))
        for route in known
        for method in sorted((route.methods or set()) - {"HEAD"})
    ]


def test_every_route_is_in_the_table_of_scopes() -> None:
    async def paths() -> set[str]:
        async with bench() as gate:
            return {path for _, path in _routes(gate)}

    assert asyncio.run(paths()) == set(NEEDED)


@pytest.mark.parametrize("who", [AGENT, RUNNER, ADMIN, "rollout", "nobody"])
async def test_every_route_keeps_to_the_table_of_scopes(gate: Bench, http: httpx.AsyncClient, who: str) -> None:
    rollout = (await http.post("/leyden/v1/rollouts", json={})).json()["rollout_id"]
    key = "nobody's"
    if who == "rollout":
        key = rollout_key(SECRET.encode(), REF)
    elif who != "nobody":
        key = (await made(http, scopes=[who]))["key"]
    wrong = []
    for method, path in _routes(gate):
        status = await _status(http, method, path, rollout, key)
        refused = status == (401 if who == "nobody" else 403)
        allowed = who != "nobody" and NEEDED[path] in GRANTED[who]
        if who == "rollout" and path in NOT_FOR_ROLLOUT_KEYS:
            allowed = False
        if refused == allowed:
            wrong.append((method, path, status))
    assert wrong == []


async def _status(http: httpx.AsyncClient, method: str, path: str, rollout: str, key: str) -> int:
    filled = path.replace("{rollout}", rollout).replace("{attempt}", "0")
    filled = filled.replace("{model}", "policy").replace("{key_id}", "0" * 12)
    return (await http.request(method, filled, headers=bearer(key), json={} if method == "POST" else None)).status_code


async def test_an_agents_key_looks_after_the_rollouts_that_it_began_and_no_others(
    gate: Bench, http: httpx.AsyncClient
) -> None:
    mine, other = (await made(http))["key"], (await made(http))["key"]
    rollout = (await http.post("/leyden/v1/rollouts", json={}, headers=bearer(mine))).json()
    base = f"/leyden/v1/rollouts/{rollout['rollout_id']}"
    end = f"{base}/attempts/0/end"
    steps: Sequence[tuple[str, str, Any]] = (
        ("GET", base, None),
        ("POST", f"{base}/attempts/0/heartbeat", {}),
        ("POST", end, {"status": "succeeded"}),
    )
    for key, status in ((other, 403), (mine, 200), (rollout["api_key"], 200)):
        for method, path, body in steps:
            if status == 200 and key != mine and path != base:
                continue
            answer = await http.request(method, path, json=body, headers=bearer(key))
            assert answer.status_code == status, (path, answer.text)


async def test_a_runners_key_of_a_project_leaves_other_projects_attempts_alone(
    gate: Bench, http: httpx.AsyncClient
) -> None:
    ours = (await made(http, scopes=["runner"], project="math"))["key"]
    theirs = (await made(http, scopes=["runner"], project="law"))["key"]
    await http.post("/leyden/v1/tasks", json={"tasks": [{"task_id": "t"}]}, headers=bearer(ours))
    await gate.drain_tasks()
    claim = {"runner": "r", "wait_s": 0}
    (claimed,) = (await http.post("/leyden/v1/rollouts/claim", json=claim, headers=bearer(ours))).json()["rollouts"]
    end = f"/leyden/v1/rollouts/{claimed['rollout_id']}/attempts/0/end"
    assert (await http.post(end, json={"status": "succeeded"}, headers=bearer(theirs))).status_code == 403
    assert (await http.post(end, json={"status": "succeeded"}, headers=bearer(ours))).status_code == 200


async def test_what_a_claimed_rollouts_key_does_is_the_claimers(gate: Bench, http: httpx.AsyncClient) -> None:
    runner = await made(http, scopes=["runner"], project="math", models=["policy"], requests_per_minute=5)
    begun = (await http.post("/leyden/v1/rollouts", json={}, headers=bearer(runner["key"]))).json()
    answer = await call(http, begun["api_key"])
    assert (answer.status_code, answer.headers["x-ratelimit-remaining-requests"]) == (200, "4")
    (recorded,) = gate.log.calls
    assert (recorded.project, recorded.key_id) == ("math", runner["key_id"])
    assert recorded.rollout_id == begun["rollout_id"]
    assert (await call(http, begun["api_key"], "other")).status_code == 403
    await http.delete(f"{KEYS}/{runner['key_id']}")
    assert (await call(http, begun["api_key"])).status_code == 401


async def test_a_call_names_its_project_and_key_and_a_bootstrap_key_has_neither(
    gate: Bench, http: httpx.AsyncClient
) -> None:
    key = await made(http, project="math")
    await call(http, key["key"])
    await call(http, API_KEY)
    assert [(c.project, c.key_id) for c in gate.log.calls] == [("math", key["key_id"]), (None, None)]


async def test_the_command_makes_lists_and_revokes_on_a_real_gateway(gate: Bench) -> None:
    gateway, other = GatewayClient(gate.url, API_KEY), GatewayClient(gate.url, rollout_key(SECRET.encode(), REF))
    admin = KeyAdmin(gateway)
    now = datetime.now(UTC)
    made_key = await asyncio.to_thread(
        admin.create, Wanted("ci", ["runner"], "math", ["policy*"], 60, 1000, 2, now + timedelta(days=1))
    )
    (listed,) = await asyncio.to_thread(admin.list)
    assert row(listed, now)[1:] == [
        "ci", f"until {listed['expires_at'][:10]}", "runner", "math", "policy*",
        "60 requests/min, 1000 tokens/min, 2 at a time",
    ]  # fmt: skip
    await asyncio.to_thread(admin.revoke, made_key["key_id"])
    (listed,) = await asyncio.to_thread(admin.list)
    assert row(listed, now)[2].startswith("revoked")
    with pytest.raises(StackError, match="scope admin"):
        await asyncio.to_thread(KeyAdmin(other).list)
    gateway.close()
    other.close()


async def test_the_session_header_binds_and_says_so_in_the_shape_of_the_api_when_it_cannot(
    gate: Bench, http: httpx.AsyncClient
) -> None:
    begun = [(await http.post("/leyden/v1/rollouts", json={})).json() for _ in range(2)]
    mine, other = begun
    session = {"x-leyden-rollout": mine["trace_id"]}
    parent = {"traceparent": f"00-{other['trace_id']}-{'ab' * 8}-01"}
    body = {"model": "policy", "messages": MESSAGES}
    assert (await http.post(CHAT, json=body, headers=session | parent)).status_code == 200
    assert (await http.post(CHAT, json=body, headers=parent)).status_code == 200
    assert [call.rollout_id for call in gate.log.calls] == [mine["rollout_id"], other["rollout_id"]]
    elsewhere = await http.post(CHAT, json=body, headers=session | bearer(other["api_key"]))
    assert (elsewhere.status_code, elsewhere.json()["error"]["code"]) == (403, "wrong_rollout")
    nowhere = await http.post("/v1/messages", json=body | {"max_tokens": 5}, headers={"x-leyden-rollout": "session-1"})
    assert (nowhere.status_code, nowhere.json()["error"]["type"]) == (400, "invalid_request_error")
    assert len(gate.log.calls) == 2


async def test_no_key_is_ever_logged(gate: Bench, http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    key = await made(http, scopes=["runner"], requests_per_minute=1)
    begun = (await http.post("/leyden/v1/rollouts", json={}, headers=bearer(key["key"]))).json()
    for one in (key["key"], begun["api_key"], key["key"] + "x", begun["api_key"] + "x", API_KEY):
        await call(http, one)
        await http.post("/v1/traces", content=b"\xff", headers=bearer(one))
    gate.log.failures = 1
    await call(http, API_KEY)
    await http.delete(f"{KEYS}/{key['key_id']}")
    await call(http, key["key"])
    own = "\n".join(f"{r.getMessage()} {r.exc_text} {vars(r)}" for r in caplog.records if r.name.startswith("leyden"))
    secrets = (key["key"], key["key"].rpartition("-")[2], begun["api_key"].rpartition("-")[2], API_KEY, SECRET)
    assert [secret for secret in secrets if secret in own] == []
