"""Paths that are not there and methods that are not for them: in the shape of the API, and for who has a key."""

import httpx
import pytest
from starlette.routing import Route

from service.gateway.gateway_fakes import REF, Bench

CHAT = "/v1/chat/completions"
ROLLOUT = f"/rollouts/{REF.rollout_id}"
ANTHROPIC = {"anthropic-version": "2023-06-01"}
NOWHERE = ["/v1", "/v1/", "/v1/nothing", f"{ROLLOUT}/v1/nothing", f"{ROLLOUT}/nothing", "/rollouts/x/v1/v1/v1/v1/chat"]
NOT_LEYDEN = ["/leyden/v1/nothing", "/leyden/v1/tasks/", "/leyden/v1", "/leyden", "/", "/nothing", "/metrics", "/docs"]
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PURGE"]
STRANGER = {"authorization": ""}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("path", NOWHERE)
async def test_an_unknown_path_of_the_model_api_is_a_404_in_its_shape(
    http: httpx.AsyncClient, path: str, method: str
) -> None:
    answer = await http.request(method, path)
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/json")
    assert answer.json()["error"]["code"] == "unknown_route"
    assert answer.headers["x-request-id"]
    theirs = await http.request(method, path, headers=ANTHROPIC)
    assert (theirs.status_code, theirs.json()["error"]["type"]) == (404, "not_found_error")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("path", NOT_LEYDEN)
async def test_any_other_unknown_path_is_a_404_in_leydens_shape(
    http: httpx.AsyncClient, path: str, method: str
) -> None:
    answer = await http.request(method, path)
    assert answer.status_code == 404
    assert answer.json()["error"]["type"] == "unknown_route"


@pytest.mark.parametrize(
    ("method", "path", "allowed", "said_in"),
    [
        ("GET", CHAT, "POST", "code"),
        ("DELETE", "/v1/models", "GET, HEAD", "code"),
        ("POST", "/v1/models/policy", "GET, HEAD", "code"),
        ("OPTIONS", f"{ROLLOUT}{CHAT}", "POST", "code"),
        ("GET", "/chat/completions", "POST", "code"),
        ("GET", f"{ROLLOUT}/chat/completions", "POST", "code"),
        ("PURGE", "/v1/v1/messages", "POST", "code"),
        ("GET", "/v1/messages/count_tokens", "POST", "code"),
        ("GET", "/leyden/v1/tasks", "POST", "type"),
        ("PUT", "/leyden/v1/keys", "GET, HEAD, POST", "type"),
        ("POST", "/leyden/v1/keys/abc", "DELETE", "type"),
        ("DELETE", f"/leyden/v1/rollouts/{REF.rollout_id}/attempts/0/end", "POST", "type"),
        ("POST", "/leyden/v1/queue", "GET, HEAD", "type"),
        ("POST", "/openapi.json", "GET, HEAD", "type"),
    ],
)
async def test_another_method_is_a_405_that_says_which_in_the_shape_of_the_api(
    http: httpx.AsyncClient, method: str, path: str, allowed: str, said_in: str
) -> None:
    answer = await http.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    error = answer.json()["error"]
    assert error[said_in] == "method_not_allowed"
    assert ("code" in error) == (said_in == "code"), "Leyden's own errors have a type and no code"


@pytest.mark.parametrize("path", ["/v1/traces", f"{ROLLOUT}/v1/logs", f"{ROLLOUT}/v1/v1/metrics"])
async def test_another_method_of_otlp_is_a_405_in_otlps_shape(http: httpx.AsyncClient, path: str) -> None:
    answer = await http.get(path)
    assert (answer.status_code, answer.headers["allow"], answer.json()["code"]) == (405, "POST", 12)
    packed = await http.put(path, headers={"content-type": "application/x-protobuf"})
    assert (packed.status_code, packed.headers["content-type"]) == (405, "application/x-protobuf")


async def test_who_has_no_key_learns_of_no_route(gate: Bench, http: httpx.AsyncClient) -> None:
    paths = {route.path_format for route in gate.gateway.routes() if isinstance(route, Route)}
    asked = [path.replace("{", "").replace("}", "") for path in paths] + NOWHERE + NOT_LEYDEN
    for path in asked:
        for method in METHODS:
            answer = await http.request(method, path, headers=STRANGER)
            assert answer.status_code == 401, (method, path)
            assert "allow" not in answer.headers
    told = {(await http.get(path, headers=STRANGER)).text for path in NOT_LEYDEN}
    assert len(told) == 1


async def test_a_path_is_shown_back_only_in_part(http: httpx.AsyncClient) -> None:
    answer = await http.get(f"/v1/{'x' * 5000}")
    assert len(answer.json()["error"]["message"]) < 400
