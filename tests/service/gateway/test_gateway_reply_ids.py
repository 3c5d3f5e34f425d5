"""Ids of replies and tool calls: unique whatever the engine sends, and the same to the caller and in the record."""

from itertools import pairwise
from typing import Any

import httpx
import orjson
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.gateway.gateway_chunks import ASKS, CHAT, MESSAGES, RESPONSES
from service.gateway.gateway_fakes import Bench
from service.gateway.gateway_scripts import PROMPT, VERSION_HEADERS

COMPLETIONS = "/v1/completions"
MORE_ASKS = ASKS | {COMPLETIONS: {"prompt": "?"}}
BEGINNINGS = {CHAT: "chatcmpl-", MESSAGES: "msg_", RESPONSES: "resp_", COMPLETIONS: "cmpl-"}
ABSENT = object()


def named(reply_id: Any, tool_ids: list[Any]) -> Any:
    """An engine whose replies have this id, and these ids of tool calls; `ABSENT`: no such field."""

    async def reply(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        head = {"object": "chat.completion", "created": 1, "model": body["model"]}
        head |= {} if reply_id is ABSENT else {"id": reply_id}
        calls = [
            {"index": at, "type": "function", "function": {"name": "look", "arguments": f'{{"at":{at}}}'}}
            | ({} if tool_id is ABSENT else {"id": tool_id})
            for at, tool_id in enumerate(tool_ids)
        ]
        said = {"role": "assistant", "content": "Hi"} | ({"tool_calls": calls} if calls else {})
        probs = {"content": [{"token": "x", "logprob": -0.5, "bytes": None, "top_logprobs": []}]}
        choice = {"index": 0, "logprobs": probs, "token_ids": [7], "finish_reason": "stop"}
        if not body.get("stream"):
            form = {"text": "Hi"} if "prompt" in body else {"message": said}
            return web.json_response(
                head | {"choices": [choice | form], "prompt_token_ids": PROMPT}, headers=VERSION_HEADERS
            )
        response = web.StreamResponse(headers=VERSION_HEADERS)
        await response.prepare(request)
        form = {"text": "Hi"} if "prompt" in body else {"delta": said}
        kind = "text_completion" if "prompt" in body else "chat.completion.chunk"
        chunk = head | {"object": kind, "choices": [choice | form], "prompt_token_ids": PROMPT}
        await response.write(b"data: " + orjson.dumps(chunk) + b"\n\ndata: [DONE]\n\n")
        return response

    return reply


def ids_in(path: str, text: str, stream: bool) -> tuple[set[str], list[str]]:
    """The reply's id, and those of its tool calls, as the caller got them."""
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: {")]
    told: list[Any] = [orjson.loads(line) for line in lines] if stream else [orjson.loads(text)]
    if path == RESPONSES:
        whole = told[-1]["response"] if stream else told[0]
        calls = [item["call_id"] for item in whole["output"] if item["type"] == "function_call"]
        return {one["response"]["id"] for one in told if "response" in one} or {whole["id"]}, calls
    if path == MESSAGES:
        blocks = [one.get("content_block", {}) for one in told] if stream else told[0]["content"]
        first = told[0]["message"] if stream else told[0]
        return {first["id"]}, [block["id"] for block in blocks if block.get("type") == "tool_use"]
    saying = [choice.get("delta") or choice.get("message") or {} for one in told for choice in one["choices"]]
    calls = [call["id"] for said in saying for call in said.get("tool_calls") or ()]
    return {one["id"] for one in told}, calls


IDS = st.sampled_from([ABSENT, None, "", "same", "chatcmpl-same", 7, {}])


@given(
    path=st.sampled_from(list(MORE_ASKS)),
    stream=st.booleans(),
    reply_id=IDS,
    tool_ids=st.lists(st.sampled_from([ABSENT, None, "", "c1", "c2", 7]), max_size=4),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_every_reply_and_each_of_its_calls_has_an_id_of_its_own_which_is_recorded(
    gate: Bench, http: httpx.AsyncClient, path: str, stream: bool, reply_id: Any, tool_ids: list[Any]
) -> None:
    gate.engine.reply = gate.engine.routes[COMPLETIONS] = named(reply_id, tool_ids)
    seen: list[tuple[str, list[str]]] = []
    for _ in range(2):
        told = await http.post(path, json=MORE_ASKS[path] | {"model": "policy", "stream": stream})
        assert told.status_code == 200, told.text
        (shown,), calls = ids_in(path, told.text, stream)
        call = gate.log.calls[-1]
        recorded: Any = call.choices[0].message.get("tool_calls") or []
        assert (call.response_id, [one["id"] for one in recorded]) == (shown, calls)
        assert shown == BEGINNINGS[path] + call.call_id
        assert len(set(calls)) == len(calls) == (0 if path == COMPLETIONS else len(tool_ids))
        seen.append((shown, calls))
    for (one, made), (other, again) in pairwise(seen):
        assert one != other
        given_ids = {"c1", "c2"}
        assert not (set(made) - given_ids) & set(again), "an id of our own is of one call"


async def test_ids_that_the_engine_gives_once_stay(gate: Bench, http: httpx.AsyncClient) -> None:
    gate.engine.reply = named("x", ["functions.look:0", ABSENT, "functions.look:0", "c2"])
    told = await http.post(CHAT, json=ASKS[CHAT] | {"model": "policy"})
    ids = [call["id"] for call in told.json()["choices"][0]["message"]["tool_calls"]]
    assert (ids[0], ids[3], len(set(ids))) == ("functions.look:0", "c2", 4)
