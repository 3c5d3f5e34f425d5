"""Replies with one odd value anywhere: an answer or an error in the API's shape, and the record says the same."""

import json
from collections.abc import Iterator
from copy import deepcopy
from functools import reduce
from operator import getitem
from typing import Any

import httpx
import pytest
from aiohttp import web

from leyden.events.codec import MODEL_CALLS, decode, encode
from service.gateway.gateway_fakes import Bench
from service.gateway.gateway_scripts import VERSION_HEADERS, Says, events, tool_call

ASKS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "?"}], "logprobs": True},
    "/v1/messages": {"messages": [{"role": "user", "content": "?"}], "max_tokens": 9},
    "/v1/responses": {"input": "?", "include": ["message.output_text.logprobs"]},
}
SAYS = Says("So", [tool_call("c1", "look", "{}")], reasoning="hm", finish="tool_calls")
ODD: list[Any] = [None, {}, -1, ["x"], "x", 2**40]
COMPLETE = ("[DONE]", "message_stop", "response.completed")
ERRORS = ("engine_reply", "policy_version_mismatch", "engine_error", "engine_broke", "api_error")


def places(value: Any) -> Iterator[tuple[Any, ...]]:
    """The way to every value in a reply, and to the reply itself."""
    yield ()
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from ((key, *rest) for rest in places(inner))


def changed(reply: Any, place: tuple[Any, ...], value: Any) -> Any:
    """The reply with this value at that place."""
    if not place:
        return value
    copy = deepcopy(reply)
    *way, last = place
    reduce(getitem, way, copy)[last] = value
    return copy


@pytest.mark.parametrize("path", ASKS)
async def test_no_plain_reply_is_a_fault_of_the_gateway(gate: Bench, http: httpx.AsyncClient, path: str) -> None:
    for place in places(SAYS.plain({"model": "served-name"})):
        for value in ODD:

            async def odd(_: web.Request, body: dict[str, Any], place: Any = place, value: Any = value) -> web.Response:
                return web.json_response(changed(SAYS.plain(body), place, value), headers=VERSION_HEADERS)

            gate.engine.reply = odd
            gate.log.published.clear()
            told = await http.post(path, json=ASKS[path] | {"model": "policy"})
            shown = f"{place} = {value!r}: {told.status_code} {told.text[:300]}"
            assert told.status_code in (200, 502), shown
            assert told.json(), shown
            error = _recorded(gate, shown)
            if told.status_code == 502:
                assert error and told.json()["error"]["message"] in error, f"{shown}, recorded: {error}"
            else:
                assert not error or error.startswith("engine:"), f"{shown}, recorded: {error}"


@pytest.mark.parametrize("path", ASKS)
async def test_no_stream_is_a_fault_of_the_gateway(gate: Bench, http: httpx.AsyncClient, path: str) -> None:
    chunks = SAYS.chunks({"model": "served-name"})
    for number, place in enumerate(list(places(chunks))[1:]):
        for value in ODD[number % 2 :: 2]:

            async def odd(
                request: web.Request, _: dict[str, Any], place: Any = place, value: Any = value
            ) -> web.StreamResponse:
                return await events(request, changed(chunks, place, value))

            gate.engine.reply = odd
            gate.log.published.clear()
            told = await http.post(path, json=ASKS[path] | {"model": "policy", "stream": True})
            shown = f"{place} = {value!r}: {told.status_code} {told.text[-400:]}"
            assert told.status_code == 200, shown
            error = _recorded(gate, shown)
            assert "could not bring the stream" not in told.text, shown
            if any(sign in told.text for sign in COMPLETE):
                assert not error or error.startswith("engine:"), f"{shown}, recorded: {error}"
            else:
                assert error and any(sign in told.text for sign in ERRORS), f"{shown}, recorded: {error}"


def _recorded(gate: Bench, shown: str) -> str | None:
    """The error of the one record, which can be written to Kafka and read again."""
    (call,) = gate.log.calls
    decode(MODEL_CALLS, encode(call))
    assert json.dumps(call.request), shown
    return call.error
