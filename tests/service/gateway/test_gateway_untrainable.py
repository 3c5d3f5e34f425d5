"""Calls that must not be trained are answered, and their records say why, whichever model API was called."""

from typing import Any

import httpx
import pytest
from aiohttp import web
from prometheus_client import REGISTRY

from credit_support import finished, reward
from leyden.credit.core.assemble import assemble
from leyden.credit.core.evidence import Evidence
from leyden.credit.core.membership import member_of
from leyden.credit.core.section import CreditSection
from leyden.events import ModelCallRecorded
from leyden.events.codec import MODEL_CALLS, decode, encode
from service.gateway.gateway_engine_fake import chunks, completion, logprobs
from service.gateway.gateway_fakes import REF, Bench, bench
from service.gateway.gateway_scripts import VERSION_HEADERS, Completes, Says, events

TEXT: Any = [{"role": "user", "content": "hi"}]
PICTURE = "data:image/png;base64,AA=="
IMAGE: Any = {"type": "image_url", "image_url": {"url": PICTURE}}
FACES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": TEXT},
    "/v1/completions": {"prompt": "hi"},
    "/v1/responses": {"input": "hi"},
    "/v1/messages": {"messages": TEXT, "max_tokens": 5},
}


async def ask(gate: Bench, http: httpx.AsyncClient, route: str, **more: Any) -> httpx.Response:
    gate.engine.reply = Says("Hi!")
    gate.engine.routes["/v1/completions"] = Completes()
    return await http.post(f"{gate.url}/rollouts/{REF.trace_id}{route}", json={"model": "policy"} | FACES[route] | more)


def used(call: ModelCallRecorded) -> dict[str, int]:
    """How credit uses the call, read from its topic."""
    read = decode(MODEL_CALLS, encode(call))
    assert isinstance(read, ModelCallRecorded)
    about: Any = {"rollout_id": REF.rollout_id, "attempt": REF.attempt}
    events: Any = finished([read], [reward(1.0, **about)], **about)
    evidence = [Evidence(event, "t/0/0") for event in events]
    return member_of(assemble(evidence), CreditSection()).calls


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("route", FACES)
async def test_an_ordinary_call_is_trained(gate: Bench, http: httpx.AsyncClient, route: str, stream: bool) -> None:
    reply = await ask(gate, http, route, stream=stream, temperature=0.7)
    assert reply.status_code == 200
    assert not {"x-leyden-overridden", "x-leyden-untrained"} & reply.headers.keys()
    assert used(gate.log.calls[0]) == {"started": 1}


@pytest.mark.parametrize(
    ("name", "value"),
    [("repetition_penalty", 1.3), ("logit_bias", {"7": -100}), ("top_p", "0.9"), ("of_tomorrow", {"a": 1})],
)
@pytest.mark.parametrize("route", FACES)
async def test_what_shapes_the_distribution_is_not_sent(
    gate: Bench, http: httpx.AsyncClient, route: str, name: str, value: Any
) -> None:
    if (route, name) == ("/v1/messages", "of_tomorrow"):
        assert (await ask(gate, http, route, **{name: value})).status_code == 400, "this API refuses unknown fields"
        return
    label = {"parameter": "other" if name == "of_tomorrow" else name}
    before = REGISTRY.get_sample_value("leyden_gateway_overridden_sampling_total", label) or 0
    reply = await ask(gate, http, route, **{name: value})
    assert (reply.status_code, reply.headers["x-leyden-overridden"]) == (200, name)
    assert gate.engine.bodies[0].get(name) == {"repetition_penalty": 1.0, "top_p": 1.0}.get(name)
    assert used(gate.log.calls[0]) == {"started": 1}
    assert REGISTRY.get_sample_value("leyden_gateway_overridden_sampling_total", label) == before + 1


@pytest.mark.parametrize("route", FACES)
async def test_by_setting_it_is_sent_and_the_call_is_not_trained(route: str, http: httpx.AsyncClient) -> None:
    async with bench(shaped_sampling="mark") as gate:
        reply = await ask(gate, http, route, logit_bias={"7": -100}, top_p=0.5)
        assert (reply.status_code, reply.headers["x-leyden-untrained"]) == (200, "logit_bias,top_p")
        assert (gate.engine.bodies[0]["logit_bias"], gate.engine.bodies[0]["top_p"]) == ({"7": -100}, 0.5)
        assert used(gate.log.calls[0]) == {"shaped": 1}


@pytest.mark.parametrize("route", FACES)
async def test_by_setting_it_is_refused(route: str, http: httpx.AsyncClient) -> None:
    async with bench(shaped_sampling="refuse") as gate:
        reply = await ask(gate, http, route, repetition_penalty=1.3)
        assert reply.status_code == 400
        assert "repetition_penalty" in reply.json()["error"]["message"]
        assert gate.engine.bodies == []


TOOL: Any = {"type": "object", "properties": {}}


@pytest.mark.parametrize(
    ("route", "more", "name"),
    [
        ("/v1/chat/completions", {"response_format": {"type": "json_object"}}, "response_format"),
        ("/v1/completions", {"structured_outputs": {"regex": "a"}}, "structured_outputs"),
        ("/v1/responses", {"text": {"format": {"type": "json_object"}}}, "response_format"),
        (
            "/v1/responses",
            {"tools": [{"type": "function", "name": "f", "parameters": TOOL}], "tool_choice": "required"},
            "tool_choice",
        ),
        (
            "/v1/messages",
            {"tools": [{"name": "f", "input_schema": TOOL}], "tool_choice": {"type": "any"}},
            "tool_choice",
        ),
    ],
)
async def test_a_forced_form_is_served_and_not_trained(
    gate: Bench, http: httpx.AsyncClient, route: str, more: Any, name: str
) -> None:
    reply = await ask(gate, http, route, **more)
    assert (reply.status_code, reply.headers["x-leyden-untrained"]) == (200, name)
    assert name in gate.engine.bodies[0]
    assert used(gate.log.calls[0]) == {"shaped": 1}


@pytest.mark.parametrize(
    ("route", "more"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": [{"type": "text", "text": "?"}, IMAGE]}]}),
        ("/v1/chat/completions", {"messages": [*TEXT, {"role": "tool", "tool_call_id": "a", "content": [IMAGE]}]}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": [{"image_url": {"url": PICTURE}}]}]}),
        (
            "/v1/responses",
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": PICTURE}]}]},
        ),
        (
            "/v1/messages",
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {
                                "type": "image",
                                "source": {"type": "base64", "media_type": "image/png", "data": "AA=="},
                            }
                        ],
                    }
                ]
            },
        ),
    ],
)
async def test_an_image_makes_the_call_context(gate: Bench, http: httpx.AsyncClient, route: str, more: Any) -> None:
    reply = await ask(gate, http, route, **more)
    assert (reply.status_code, reply.headers["x-leyden-untrained"]) == (200, "image_url")
    assert gate.log.calls[0].unseen == ["image_url"]
    assert used(gate.log.calls[0]) == {"unseen_input": 1}


def spoilt(how: str, piece: dict[str, Any]) -> dict[str, Any]:
    """The piece of a reply as a broken engine sends it."""
    for choice in piece.get("choices") or ():
        if not choice["token_ids"]:
            continue
        if how == "null":
            choice["logprobs"]["content"] = [{"token": "x", "logprob": None}] * len(choice["token_ids"])
        elif how == "int64":
            choice["token_ids"] = [2**31] * len(choice["token_ids"])
        elif how == "minus infinity":
            choice["logprobs"] = logprobs(*[("x", -9999.0)] * len(choice["token_ids"]))
    if how == "lost" and piece.get("usage"):
        piece["usage"]["completion_tokens"] = 6
    if how == "prompt lost" and piece.get("usage"):
        piece["usage"]["prompt_tokens"] = 4
    return piece


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("how", ["null", "int64", "minus infinity", "lost", "prompt lost"])
async def test_tokens_that_do_not_agree_are_answered_and_torn(
    gate: Bench, http: httpx.AsyncClient, how: str, stream: bool
) -> None:
    async def broken(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        if stream:
            return await events(request, [spoilt(how, chunk) for chunk in chunks(body)])
        return web.json_response(spoilt(how, completion(body)), headers=VERSION_HEADERS)

    gate.engine.reply = broken
    url = f"{gate.url}/rollouts/{REF.trace_id}/v1/chat/completions"
    reply = await http.post(url, json={"model": "policy", "messages": TEXT, "stream": stream})
    assert reply.status_code == 200
    assert "!" in reply.text and "error" not in reply.text
    (call,) = gate.log.calls
    assert (call.error or "").startswith("engine: ")
    assert call.choices[0].message["content"] == "Hi!"
    assert used(call) == {"error": 1}
