"""Projects are isolated: a key of one project reaches nothing of another, at any door."""

from typing import Any

import httpx
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from leyden.events import RolloutStarted
from leyden.events.otlp import JSON
from leyden.gateway.core.otlp.look import MAX_NAMED, rollouts_named
from leyden.gateway.core.refusals import Refusal
from leyden.gateway.http.bodies import BeginBody, EndBody, TasksBody
from leyden.gateway.http.otlp import PROTOBUF
from leyden.ids import AttemptRef, new_rollout_id, rollout_id_of
from service.gateway.gateway_fakes import Bench
from service.gateway.gateway_keys import CHAT, KEYS, MESSAGES, bearer, made

V1 = "/leyden/v1"
SCOPES = ["agent", "runner", "admin"]


class World:
    """Projects alpha and beta, with a key of each scope, and a running rollout of alpha and one of no project."""

    def __init__(self, http: httpx.AsyncClient, gate: Bench) -> None:
        self.http, self.gate = http, gate
        self.keys: dict[tuple[str, str], str] = {}

    async def begin(self) -> None:
        for project in ("alpha", "beta"):
            for scope in SCOPES:
                self.keys[project, scope] = (await made(self.http, scopes=[scope], project=project))["key"]
        self.alphas = (await self.http.post(f"{V1}/rollouts", json={}, headers=self.of("alpha", "agent"))).json()
        self.nobodys = (await self.http.post(f"{V1}/rollouts", json={})).json()

    def of(self, project: str, scope: str) -> dict[str, str]:
        return bearer(self.keys[project, scope])

    async def ask(self, method: str, path: str, project: str, scope: str, body: Any = None) -> httpx.Response:
        return await self.http.request(method, path, json=body, headers=self.of(project, scope))


@pytest.fixture
async def world(gate: Bench, http: httpx.AsyncClient) -> World:
    made_ = World(http, gate)
    await made_.begin()
    return made_


def trace(rollout: dict[str, Any]) -> str:
    return str(rollout["trace_id"])


CALL = {"model": "policy", "messages": MESSAGES}


@pytest.mark.parametrize("scope", SCOPES)
async def test_no_key_of_another_project_calls_or_ends_or_looks_at_a_rollout(world: World, scope: str) -> None:
    for rollout in (world.alphas, world.nobodys):
        attempt = f"{V1}/rollouts/{rollout['rollout_id']}/attempts/0"
        asked = [
            ("POST", f"/rollouts/{trace(rollout)}{CHAT}", CALL),
            ("POST", f"/rollouts/{trace(rollout)}/v1/responses", {"model": "policy", "input": "?"}),
            ("POST", f"{attempt}/heartbeat", {}),
            ("POST", f"{attempt}/end", {"status": "succeeded", "reward": 1.0}),
            ("GET", f"{V1}/rollouts/{rollout['rollout_id']}", None),
        ]
        for method, path, body in asked:
            told = await world.ask(method, path, "beta", scope, body)
            assert told.status_code == 403, (path, told.text)
        headers = world.of("beta", scope) | {"traceparent": f"00-{trace(rollout)}-00f067aa0ba902b7-01"}
        assert (await world.http.post(CHAT, json=CALL, headers=headers)).status_code == 403
        headers = world.of("beta", scope) | {"x-leyden-rollout": trace(rollout)}
        assert (await world.http.post(CHAT, json=CALL, headers=headers)).status_code == 403
    assert world.gate.log.calls == []
    path = f"/rollouts/{trace(world.alphas)}{CHAT}"
    assert (await world.ask("POST", path, "alpha", scope, CALL)).status_code == 200
    assert (await world.http.post(path, json=CALL)).status_code == 200, "a key of no project may use all"


def spans(trace_id: str, **attributes: str) -> bytes:
    """An export request of one span, in JSON."""
    named = [{"key": key, "value": {"stringValue": value}} for key, value in attributes.items()]
    span = {"traceId": trace_id, "spanId": "00f067aa0ba902b7", "name": "s"}
    groups = [{"resource": {"attributes": named}, "scopeSpans": [{"spans": [span]}]}]
    return orjson.dumps({"resourceSpans": groups})


async def test_spans_that_name_a_rollout_of_another_project_are_refused(world: World) -> None:
    alphas, other = trace(world.alphas), "0af7651916cd43dd8448eb211c80319c"
    escaped = spans(other, rollout="X" + alphas[1:]).replace(b"X", b"\\u0031")
    bodies = [
        spans(alphas), spans(alphas.upper()), spans(other, rollout=alphas),
        spans(other, rollout=world.alphas["rollout_id"]), escaped,
    ]  # fmt: skip
    kind = {"content-type": "application/json"}
    for body in bodies:
        beta = await world.http.post("/v1/traces", content=body, headers=kind | world.of("beta", "agent"))
        assert beta.status_code == 403, beta.text
    path = f"/rollouts/{alphas}/v1/traces"
    beta = await world.http.post(path, content=spans(other), headers=kind | world.of("beta", "agent"))
    assert (beta.status_code, len(world.gate.log.raw)) == (403, 0)
    for body in bodies:
        alpha = await world.http.post("/v1/traces", content=body, headers=kind | world.of("alpha", "agent"))
        assert alpha.status_code == 200
    own = await world.http.post("/v1/traces", content=spans(other), headers=kind | world.of("beta", "agent"))
    assert (own.status_code, len(world.gate.log.raw)) == (200, len(bodies) + 1)


IDS = st.builds(new_rollout_id)


@given(ids=st.lists(IDS, max_size=5), before=st.binary(max_size=9), in_json=st.booleans())
def test_every_rollout_in_a_request_is_found(ids: list[str], before: bytes, in_json: bool) -> None:
    as_text = b" ".join(one.encode() for one in ids)
    as_bytes = b"\x0a\x10".join(bytes.fromhex(AttemptRef(one, 0).trace_id) for one in ids)
    if in_json:
        assert rollouts_named(JSON, as_text) == set(ids)
    else:
        assert rollouts_named(PROTOBUF, before + b"\x0a\x10" + as_bytes) >= set(ids)
        assert rollouts_named(PROTOBUF, before + b"\x0a\x1c" + as_text) >= set(ids)


def test_the_rollouts_of_a_request_are_bounded() -> None:
    many = b" ".join(new_rollout_id().encode() for _ in range(MAX_NAMED + 1))
    with pytest.raises(Refusal, match=f"at most {MAX_NAMED}"):
        rollouts_named(JSON, many)


async def test_tasks_and_groups_of_two_projects_never_meet(world: World) -> None:
    body = {"tasks": [{"task_id": "t", "samples": 2, "input": 1}]}
    asked = {p: await world.ask("POST", f"{V1}/tasks", p, "runner", body) for p in ("alpha", "beta")}
    told = {project: answer.json()["tasks"][0] for project, answer in asked.items()}
    plain = (await world.http.post(f"{V1}/tasks", json=body)).json()["tasks"][0]
    ids = [one["rollout_ids"] for one in (told["alpha"], told["beta"], plain)]
    assert len({rollout for rollouts in ids for rollout in rollouts}) == 6
    assert plain["rollout_ids"] == [rollout_id_of("t", number) for number in range(2)]
    assert len({told["alpha"]["group_id"], told["beta"]["group_id"], plain["group_id"]}) == 3
    again = (await world.ask("POST", f"{V1}/tasks", "alpha", "runner", body)).json()["tasks"][0]
    assert again["rollout_ids"] == told["alpha"]["rollout_ids"]
    joins = {"group_id": told["alpha"]["group_id"], "group_size": 2}
    begun = (await world.ask("POST", f"{V1}/rollouts", "beta", "agent", joins)).json()
    assert begun["group_id"] != told["alpha"]["group_id"]
    cancelled = await world.ask("POST", f"{V1}/tasks/cancel", "beta", "runner", {"task_ids": ["t"]})
    assert cancelled.json()["tasks"][0]["cancelled"] == 2
    await world.gate.drain_tasks()
    claim = {"runner": "r", "limit": 9, "wait_s": 0}
    claimed = (await world.ask("POST", f"{V1}/rollouts/claim", "alpha", "runner", claim)).json()["rollouts"]
    assert {one["rollout_id"] for one in claimed} == set(told["alpha"]["rollout_ids"])


async def test_nobody_can_know_the_rollouts_of_a_projects_future_task(world: World) -> None:
    guess = rollout_id_of("future", 0)
    for owner in ("alpha", ""):
        begun = {"rollout_id": rollout_id_of("future", 0, owner)}
        assert (await world.ask("POST", f"{V1}/rollouts", "beta", "agent", begun)).status_code == 201
    body = {"tasks": [{"task_id": "future"}]}
    (task,) = (await world.ask("POST", f"{V1}/tasks", "alpha", "runner", body)).json()["tasks"]
    assert guess not in task["rollout_ids"]
    await world.gate.drain_tasks()
    claim = {"runner": "r", "wait_s": 0}
    (one,) = (await world.ask("POST", f"{V1}/rollouts/claim", "alpha", "runner", claim)).json()["rollouts"]
    assert one["task_id"] == "future"
    started = world.gate.log.of(RolloutStarted)[-1]
    assert (started.project, started.begun_by) == ("alpha", None)


async def test_a_projects_admin_makes_sees_and_revokes_keys_of_that_project_only(world: World) -> None:
    for wanted in ({"name": "x"}, {"name": "x", "project": "beta"}):
        key = (await world.ask("POST", KEYS, "beta", "admin", wanted | {"scopes": ["admin"]})).json()
        assert key["project"] == "beta"
    told = await world.ask("POST", KEYS, "beta", "admin", {"name": "x", "project": "alpha"})
    assert (told.status_code, told.json()["error"]["type"]) == (403, "wrong_project")
    listed = (await world.ask("GET", KEYS, "beta", "admin")).json()["keys"]
    assert {one["project"] for one in listed} == {"beta"}
    everything = (await world.http.get(KEYS)).json()["keys"]
    alphas = next(one for one in everything if one["project"] == "alpha")
    assert (await world.ask("DELETE", f"{KEYS}/{alphas['key_id']}", "beta", "admin")).status_code == 404
    assert (await world.ask("DELETE", f"{KEYS}/{alphas['key_id']}", "alpha", "admin")).status_code == 200


@given(number=st.integers(2**64, 10**400) | st.integers(-(10**400), -(2**63) - 1))
def test_numbers_that_no_answer_could_have_are_refused_with_their_field(number: int) -> None:
    text = f'[{{"a": {number}}}]'
    for kind, body in (
        (TasksBody, f'{{"tasks": [{{"input": {text}}}]}}'),
        (TasksBody, f'{{"tasks": [{{"metadata": {{"a": {text}}}}}]}}'),
        (BeginBody, f'{{"task": {{"input": {text}}}}}'),
        (EndBody, f'{{"status": "succeeded", "output": {text}}}'),
    ):
        with pytest.raises(ValidationError, match="64-bit"):
            kind.model_validate_json(body)  # type: ignore[attr-defined]


async def test_a_task_with_a_number_of_more_than_64_bits_is_refused_before_it_is_a_task(
    gate: Bench, http: httpx.AsyncClient
) -> None:
    body = b'{"tasks": [{"task_id": "t", "input": 18446744073709551616}]}'
    told = await http.post(f"{V1}/tasks", content=body)
    assert (told.status_code, "input" in told.json()["error"]["message"]) == (400, True)
    whole = b'{"tasks": [{"task_id": "t", "input": [18446744073709551615, -9223372036854775808]}]}'
    assert (await http.post(f"{V1}/tasks", content=whole)).status_code == 201
    await gate.drain_tasks()
    claimed = (await http.post(f"{V1}/rollouts/claim", json={"runner": "r", "wait_s": 0})).json()["rollouts"]
    assert claimed[0]["input"] == [18446744073709551615, -9223372036854775808]
