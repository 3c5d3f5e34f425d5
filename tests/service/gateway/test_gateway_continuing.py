"""Token in, token out at the gateway: what is offered to the engine, and what is kept of its answer."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import httpx
import pytest
from aiohttp import web
from openai import AsyncOpenAI
from prometheus_client import REGISTRY

from leyden.gateway.core.keys import rollout_key
from leyden.ids import AttemptRef
from leyden.kafka import Retry
from service.gateway.gateway_engine_fake import chunks, completion
from service.gateway.gateway_fakes import REF, SECRET, Bench, bench

USER = {"role": "user", "content": "say hi"}
SAID = {"role": "assistant", "content": "Hi!"}
MORE = {"role": "user", "content": "again"}


class MemoryEarlierCalls:
    def __init__(self) -> None:
        self.kept: dict[AttemptRef, dict[bytes, bytes]] = {}
        self.down = False
        self.finds = 0

    async def find(self, ref: AttemptRef, digests: Sequence[bytes]) -> tuple[bytes | None, bool]:
        self.finds += 1
        assert digests
        if self.down:
            raise Retry("down")
        calls = self.kept.get(ref, {})
        return next((calls[digest] for digest in digests if digest in calls), None), bool(calls)

    async def keep(self, ref: AttemptRef, calls: Mapping[bytes, bytes]) -> None:
        if self.down:
            raise Retry("down")
        self.kept.setdefault(ref, {}).update(calls)


def continuing(streamed: bool = False) -> Any:
    """An engine that continues whatever it is offered."""

    async def reply(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        wish = body["leyden_continue"]
        prompt = [*wish["token_ids"], 4, 5] if wish else [1, 2, 3]
        said = {
            "x-leyden-policy-version": "policy@3",
            "x-leyden-prompt": "continued" if wish else "rendered",
            "x-leyden-rendered": f"{len(prompt)}:digest",
        }
        counts = {"prompt_tokens": len(prompt), "completion_tokens": 2, "total_tokens": len(prompt) + 2}
        told = {"prompt_token_ids": prompt, "usage": counts}
        if not body.get("stream"):
            return web.json_response(completion(body) | told, headers=said)
        import orjson

        response = web.StreamResponse(headers=said)
        response.content_type = "text/event-stream"
        await response.prepare(request)
        first, *rest, last = chunks(body)
        for chunk in (first | {"prompt_token_ids": prompt}, *rest, last | {"usage": told["usage"]}):
            await response.write(b"data: " + orjson.dumps(chunk) + b"\n\n")
        await response.write(b"data: [DONE]\n\n")
        return response

    return reply


@pytest.fixture
async def earlier() -> MemoryEarlierCalls:
    return MemoryEarlierCalls()


@pytest.fixture
async def gate(earlier: MemoryEarlierCalls) -> AsyncIterator[Bench]:
    async with bench(earlier=earlier, tokens_in="pol*") as made:
        made.engine.reply = continuing()
        yield made


@pytest.fixture
async def agent(gate: Bench) -> AsyncIterator[AsyncOpenAI]:
    key = rollout_key(SECRET.encode(), REF)
    async with AsyncOpenAI(
        base_url=f"{gate.url}/v1", api_key=key, max_retries=0, http_client=httpx.AsyncClient(trust_env=False)
    ) as client:
        yield client


async def say(agent: AsyncOpenAI, *messages: dict[str, str]) -> None:
    await agent.chat.completions.create(model="policy", messages=list(messages))  # type: ignore[arg-type]


def prompts(outcome: str) -> float:
    return REGISTRY.get_sample_value("leyden_gateway_prompts_total", {"policy": "policy", "outcome": outcome}) or 0.0


async def test_a_call_that_goes_on_is_offered_the_tokens_of_the_one_before(gate: Bench, agent: AsyncOpenAI) -> None:
    before = prompts("first"), prompts("extended")
    await say(agent, USER)
    await say(agent, USER, SAID, MORE)
    await say(agent, USER, SAID, MORE, SAID, MORE)
    wishes = [body["leyden_continue"] for body in gate.engine.bodies]
    assert wishes == [
        {},
        {"token_ids": [1, 2, 3, 7, 8], "rendered": "3:digest", "truncated": False},
        {"token_ids": [1, 2, 3, 7, 8, 4, 5, 7, 8], "rendered": "7:digest", "truncated": False},
    ]
    assert [headers["x-leyden-continue"] for headers in gate.engine.headers] == ["1"] * 3
    first, second, third = gate.log.calls
    assert [call.continues for call in (first, second, third)] == [None, first.call_id, second.call_id]
    assert (prompts("first") - before[0], prompts("extended") - before[1]) == (1, 2)
    assert "leyden_continue" not in second.request


async def test_a_stream_is_continued_as_well(gate: Bench, agent: AsyncOpenAI) -> None:
    stream = await agent.chat.completions.create(model="policy", messages=[USER], stream=True)  # type: ignore[call-overload]
    assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]) == "Hi!"
    await say(agent, USER, SAID, MORE)
    assert gate.engine.bodies[1]["leyden_continue"]["token_ids"] == [1, 2, 3, 7, 8]


async def test_an_edited_history_forks(gate: Bench, agent: AsyncOpenAI) -> None:
    before = prompts("forked")
    await say(agent, USER)
    await say(agent, USER, {"role": "assistant", "content": "Hi?"}, MORE)
    assert gate.engine.bodies[1]["leyden_continue"] == {}
    assert prompts("forked") - before == 1


async def test_an_engine_that_found_another_history_is_counted(gate: Bench, agent: AsyncOpenAI) -> None:
    async def rendering(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        said = {"x-leyden-policy-version": "policy@3", "x-leyden-prompt": "rendered", "x-leyden-rendered": "3:d"}
        return web.json_response(completion(body), headers=said)

    before = prompts("drifted")
    gate.engine.reply = rendering
    await say(agent, USER)
    await say(agent, USER, SAID, MORE)
    assert prompts("drifted") - before == 1
    assert gate.log.calls[1].continues is None


async def test_an_engine_that_knows_nothing_of_it_answers_as_ever(gate: Bench, agent: AsyncOpenAI) -> None:
    before = prompts("unsupported")
    gate.engine.reply = gate.engine.default
    await say(agent, USER)
    await say(agent, USER, SAID, MORE)
    assert gate.engine.bodies[1]["leyden_continue"] == {}
    assert prompts("unsupported") - before == 2


async def test_no_call_fails_because_earlier_ones_cannot_be_looked_up(
    gate: Bench, agent: AsyncOpenAI, earlier: MemoryEarlierCalls
) -> None:
    gate.engine.reply = gate.engine.default
    earlier.down = True
    await say(agent, USER, SAID, MORE)
    assert "leyden_continue" not in gate.engine.bodies[0]


async def test_a_conversations_first_turn_asks_for_nothing_earlier_and_later_ones_find_it(
    gate: Bench, agent: AsyncOpenAI, earlier: MemoryEarlierCalls
) -> None:
    before = prompts("first")
    await say(agent, USER)
    await say(agent, MORE)
    assert earlier.finds == 0
    assert prompts("first") - before == 2, "another conversation of the attempt is no fork"
    await say(agent, USER, SAID, MORE)
    assert (earlier.finds, gate.log.calls[2].continues) == (1, gate.log.calls[0].call_id)


async def test_what_a_caller_sends_under_that_name_is_not_for_the_engine(agent: AsyncOpenAI, gate: Bench) -> None:
    forged = {"leyden_continue": {"token_ids": [9], "rendered": "1:x"}}
    await agent.chat.completions.create(model="policy", messages=[USER], extra_body=forged)  # type: ignore[list-item]
    assert gate.engine.bodies[0]["leyden_continue"] == {}


async def test_without_the_setting_nothing_is_offered() -> None:
    async with bench() as gate, httpx.AsyncClient(base_url=gate.url, trust_env=False) as http:
        headers = {"authorization": f"Bearer {rollout_key(SECRET.encode(), REF)}"}
        body = {"model": "policy", "messages": [USER], "leyden_continue": {}}
        assert (await http.post("/v1/chat/completions", json=body, headers=headers)).status_code == 200
        assert "leyden_continue" not in gate.engine.bodies[0]
        assert "x-leyden-continue" not in gate.engine.headers[0]
