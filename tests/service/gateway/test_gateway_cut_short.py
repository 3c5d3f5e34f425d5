"""A reply that the engine did not bring to its end is never recorded as a good one, in whatever way it says so."""

from typing import Any

import httpx
import orjson
import pytest
from aiohttp import web

from service.gateway.gateway_chunks import ASKS, chunk, sends
from service.gateway.gateway_fakes import Bench
from service.gateway.gateway_scripts import PROMPT, VERSION_HEADERS

OPENING = [chunk({"role": "assistant", "content": ""}, prompt_token_ids=PROMPT), chunk({"content": "Hi"})]
END = chunk({}, "stop")
ERRORS: dict[str, dict[str, Any]] = {
    "vLLM": {"object": "error", "message": "boom", "code": 500},
    "bare": {"message": "boom"},
    "FastAPI": {"detail": "boom"},
    "OpenAI": {"error": {"message": "boom"}},
    "text": {"error": "boom"},
}


@pytest.mark.parametrize("path", ASKS)
@pytest.mark.parametrize("error", ERRORS)
async def test_an_error_in_a_stream_is_one_in_any_servers_shape(
    gate: Bench, http: httpx.AsyncClient, path: str, error: str
) -> None:
    gate.engine.reply = sends([*OPENING, ERRORS[error]])
    told = await http.post(path, json=ASKS[path] | {"model": "policy", "stream": True})
    (call,) = gate.log.calls
    assert call.error is not None and "boom" in call.error and "boom" in told.text
    assert not any(sign in told.text for sign in ("message_stop", "response.completed"))


@pytest.mark.parametrize("path", ASKS)
async def test_the_last_line_without_a_finish_reason_is_an_early_end(
    gate: Bench, http: httpx.AsyncClient, path: str
) -> None:
    gate.engine.reply = sends(OPENING)
    told = await http.post(path, json=ASKS[path] | {"model": "policy", "stream": True})
    (call,) = gate.log.calls
    assert call.error is not None and "ended early" in call.error
    assert not any(sign in told.text for sign in ("[DONE]", "message_stop", "response.completed"))


@pytest.mark.parametrize("path", ASKS)
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("finish", ["abort", "error"])
async def test_what_the_engine_gave_up_is_not_trained(
    gate: Bench, http: httpx.AsyncClient, path: str, streamed: bool, finish: str
) -> None:
    last = chunk({}, finish)
    whole = {key: value for key, value in last["choices"][0].items() if key != "delta"}

    async def plain(request: web.Request, _: dict[str, Any]) -> web.StreamResponse:
        message = {"role": "assistant", "content": "Hi"}
        reply = {**last, "object": "chat.completion", "choices": [whole | {"message": message}]}
        return web.json_response(reply | {"prompt_token_ids": PROMPT}, headers=VERSION_HEADERS)

    gate.engine.reply = sends([*OPENING, last]) if streamed else plain
    await http.post(path, json=ASKS[path] | {"model": "policy", "stream": streamed})
    (call,) = gate.log.calls
    assert call.error is not None and finish in call.error


@pytest.mark.parametrize("path", ASKS)
@pytest.mark.parametrize("null", [None, "", {}])
async def test_an_error_that_says_nothing_is_none(gate: Bench, http: httpx.AsyncClient, path: str, null: Any) -> None:
    gate.engine.reply = sends([one | {"error": null} for one in (*OPENING, END)])
    told = await http.post(path, json=ASKS[path] | {"model": "policy", "stream": True})
    (call,) = gate.log.calls
    assert call.error is None
    assert "Hi" in told.text and "served-name" not in told.text and "token_ids" not in told.text
    lines = [line[5:] for line in told.text.splitlines() if line.startswith("data:") and "[DONE]" not in line]
    assert not any(orjson.loads(line).get("error") for line in lines)


@pytest.mark.parametrize("indices", [(0, 0), (None, None), (0,), (0, 1, 2)])
async def test_other_choices_than_were_asked_for_are_not_trained(
    gate: Bench, http: httpx.AsyncClient, indices: tuple[int | None, ...]
) -> None:
    """Two under one index would be recorded as one response of all their tokens."""
    whole = {key: value for key, value in chunk({}, "stop")["choices"][0].items() if key != "delta"}
    choices = [whole | {"index": index, "message": {"role": "assistant", "content": "Hi"}} for index in indices]

    async def plain(request: web.Request, _: dict[str, Any]) -> web.StreamResponse:
        reply = chunk({}) | {"object": "chat.completion", "choices": choices, "prompt_token_ids": PROMPT}
        return web.json_response(reply, headers=VERSION_HEADERS)

    gate.engine.reply = plain
    await http.post("/v1/chat/completions", json={"model": "policy", "n": 2, "messages": []})
    (call,) = gate.log.calls
    assert call.error is not None and "where 2 were asked for" in call.error
