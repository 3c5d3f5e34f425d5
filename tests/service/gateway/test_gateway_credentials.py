"""A key is accepted on every route, in every header in which clients send it."""

from urllib.parse import quote

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyden.gateway.core.keys import KeyRing, rollout_key
from leyden.gateway.core.refusals import Refusal
from service.gateway.gateway_fakes import API_KEY, REF, SECRET, START, Bench, operations

HEADERS = {
    "a bearer token": {"authorization": f"Bearer {API_KEY}"},
    "percent-encoded": {"authorization": f"Bearer%20{quote(API_KEY, safe='')}"},
    "x-api-key": {"x-api-key": API_KEY},
    "api-key": {"api-key": API_KEY},
}


@pytest.mark.parametrize("form", HEADERS)
async def test_every_route_takes_a_key_in_every_form(gate: Bench, form: str) -> None:
    transport = httpx.Limits(max_connections=4)
    async with httpx.AsyncClient(base_url=gate.url, trust_env=False, timeout=20, limits=transport) as http:
        asked = {(one.method, one.path) for one in operations() if one.path not in ("/healthz", "/readyz")}
        assert len(asked) > 20
        for method, path in sorted(asked):
            url = path.replace("{rollout_id}", REF.rollout_id).replace("{model:path}", "policy")
            body, kind = (b"{" if method == "POST" else None), {"content-type": "application/json"}
            without = await http.request(method, url, content=body, headers=kind)
            told = await http.request(method, url, content=body, headers=kind | HEADERS[form])
            assert (without.status_code, told.status_code == 401) == (401, False), f"{method} {path}: {told.text}"


KEYS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=30)


@given(KEYS, KEYS)
def test_an_encoded_key_is_the_same_key_and_opens_nothing_else(key: str, other: str) -> None:
    ring = KeyRing([key], SECRET.encode(), lambda: START)
    for encoded in (
        f"Bearer {key}",
        f"bearer {key}",
        "Bearer%20" + quote(key, safe=""),
        quote(f"Bearer {key}", safe=""),
    ):
        assert ring.caller(encoded) is ring.caller(f"Bearer {key}")
    if other != key:
        with pytest.raises(Refusal, match="no valid key"):
            ring.caller("Bearer%20" + quote(other, safe=""))


async def test_spans_with_an_encoded_key_of_a_rollout_are_kept(gate: Bench) -> None:
    key = rollout_key(SECRET.encode(), REF)
    async with httpx.AsyncClient(base_url=gate.url, trust_env=False, timeout=20) as http:
        headers = {"authorization": f"Bearer%20{key}", "content-type": "application/x-protobuf"}
        assert (await http.post("/v1/traces", content=b"", headers=headers)).status_code == 200
        wrong = headers | {"authorization": f"Bearer%20{key[:-1]}"}
        assert (await http.post("/v1/traces", content=b"", headers=wrong)).status_code == 401


WRONG = ["Bearer x", "Basic eDp5", "", "Bearer", "x", "Bearer lk-000000000000-x", "Bearer lrk-0-0", "Bearer%20", "%z"]


@given(wrong=st.lists(st.sampled_from(WRONG) | st.text(max_size=20), max_size=6), data=st.data())
def test_of_several_credentials_the_first_valid_one_counts(wrong: list[str], data: st.DataObject) -> None:
    ring = KeyRing([API_KEY, "other"], SECRET.encode(), lambda: START)
    own = rollout_key(SECRET.encode(), REF)
    right = data.draw(st.lists(st.sampled_from([API_KEY, "other", own]), min_size=1, max_size=2))
    tried = data.draw(st.permutations([*wrong, *(f"Bearer {key}" for key in right)]))
    first = next(one for one in tried if one.removeprefix("Bearer ") in right)
    assert ring.caller(*tried) == ring.caller(first)
    with pytest.raises(Refusal, match="no valid key"):
        ring.caller(*(one for one in tried if one.removeprefix("Bearer ") not in right))


@pytest.mark.parametrize("name", ["x-api-key", "api-key"])
async def test_a_key_left_over_from_another_service_does_not_hide_the_right_one(gate: Bench, name: str) -> None:
    async with httpx.AsyncClient(base_url=gate.url, trust_env=False, timeout=20) as http:
        right, left = f"Bearer {API_KEY}", "Bearer sk-of-another-service"
        for headers in (
            [("authorization", left), (name, API_KEY)],
            [("authorization", right), (name, "sk-of-another-service")],
            [("authorization", left), ("authorization", right)],
        ):
            assert (await http.get("/v1/models", headers=headers)).status_code == 200
        assert (await http.get("/v1/models", headers=[("authorization", left), (name, "x")])).status_code == 401


async def test_bootstrap_keys_are_told_apart_and_none_of_them_is_shown(gate: Bench) -> None:
    ring = gate.gateway.ring
    one, other = ring.caller(f"Bearer {API_KEY}"), ring.caller("Bearer other")
    assert one.bootstrap and other.bootstrap and one.bootstrap != other.bootstrap
    assert API_KEY not in f"{one!r} {one.bootstrap}"
