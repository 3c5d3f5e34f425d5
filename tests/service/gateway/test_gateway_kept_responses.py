"""The Responses API with state, by the official client: what is kept, for whom, and how long."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import openai
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st
from openai import AsyncOpenAI

from leyden.gateway.core.kept import fields_of, owner_of
from leyden.gateway.core.keys import Caller
from leyden.gateway.core.refusals import Refusal
from leyden.gateway.core.request import Binding
from leyden.gateway.handlers.kept import Kept
from leyden.ids import AttemptRef
from service.gateway.gateway_fakes import API_KEY, REF, Bench, bench
from service.gateway.gateway_kept_fake import MemoryKeptResponses
from service.gateway.gateway_keys import made as create_key
from service.gateway.gateway_scripts import Says, tool_call

OTHER = AttemptRef("1e7de" + "0" * 22 + "2", 0)
WEATHER: Any = {"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": True}


def numbered(gate: Bench, *says: Says) -> None:
    """Have the engine give these answers in turn, each with an id of its own."""

    async def reply(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        number = len(gate.engine.bodies)
        script = says[min(number, len(says)) - 1]
        named = Numbered(**vars(script), number=number)
        return await named(request, body)

    gate.engine.reply = reply


class Numbered(Says):
    def __init__(self, number: int, **fields: Any) -> None:
        super().__init__(**fields)
        self.number = number

    def plain(self, body: dict[str, Any]) -> dict[str, Any]:
        return super().plain(body) | {"id": f"chatcmpl-{self.number}"}

    def chunks(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        return [chunk | {"id": f"chatcmpl-{self.number}"} for chunk in super().chunks(body)]


async def respond(agent: AsyncOpenAI, stream: bool, **asked: Any) -> Any:
    if not stream:
        return await agent.responses.create(model="policy", **asked)
    async with agent.responses.stream(model="policy", **asked) as opened:
        return await opened.get_final_response()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_response_continues_the_previous_one(gate: Bench, agent: AsyncOpenAI, stream: bool) -> None:
    call = tool_call("c1", "weather", '{"city":"Oslo"}')
    numbered(gate, Says(None, [call], reasoning="hm", finish="tool_calls"), Says("It rains."), Says("Bye."))
    first = await respond(agent, stream, input="Oslo?", tools=[WEATHER], instructions="Be kind.")
    output = [{"type": "function_call_output", "call_id": "c1", "output": "rain"}]
    second = await respond(agent, stream, input=output, tools=[WEATHER], previous_response_id=first.id)
    third = await respond(agent, stream, input="Thanks", previous_response_id=second.id)
    assert (first.store, second.previous_response_id, third.output_text) == (True, first.id, "Bye.")
    said = {"role": "assistant", "content": None, "reasoning": "hm", "tool_calls": [call]}
    asked = [{"role": "user", "content": "Oslo?"}, said, {"role": "tool", "tool_call_id": "c1", "content": "rain"}]
    assert [body["messages"] for body in gate.engine.bodies[1:]] == [
        asked,
        [*asked, {"role": "assistant", "content": "It rains."}, {"role": "user", "content": "Thanks"}],
    ]
    assert [one.request["messages"] for one in gate.log.calls] == [body["messages"] for body in gate.engine.bodies]
    assert not any("previous_response_id" in body for body in gate.engine.bodies)


@pytest.mark.parametrize("bare", [False, True])
async def test_items_are_referred_to_by_their_ids(gate: Bench, agent: AsyncOpenAI, bare: bool) -> None:
    call = tool_call("c1", "weather", "{}")
    numbered(gate, Says("So.", [call], reasoning="hm", finish="tool_calls"), Says("Done."))
    first = await respond(agent, False, input="?", tools=[WEATHER])
    refers: list[Any] = [{"id": item.id} | ({} if bare else {"type": "item_reference"}) for item in first.output]
    result = {"type": "function_call_output", "call_id": "c1", "output": "rain"}
    await respond(agent, False, input=[{"role": "user", "content": "?"}, *refers, result], tools=[WEATHER])
    assert gate.engine.bodies[1]["messages"] == [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": "So.", "reasoning": "hm", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "rain"},
    ]
    with pytest.raises(openai.BadRequestError, match=r"Item with id 'msg_x' not found.*Send the item itself"):
        await respond(agent, False, input=[{"type": "item_reference", "id": "msg_x"}])


async def test_a_kept_response_is_retrieved_listed_and_deleted(gate: Bench, agent: AsyncOpenAI) -> None:
    numbered(gate, Says("One."), Says("Two."))
    first = await respond(agent, False, input="1?")
    second = await respond(agent, True, input=[{"role": "user", "content": "2?"}], previous_response_id=first.id)
    found = await agent.responses.retrieve(second.id)
    assert (found.id, found.store, found.output_text, found.usage) == (second.id, True, "Two.", second.usage)
    pages = [await agent.responses.input_items.list(second.id, order=order, limit=2) for order in ("asc", "desc")]
    listed = [[item async for item in page] for page in pages]
    assert [item.id for item in listed[0]] == [item.id for item in reversed(listed[1])]
    texts = [item.content[0].text for item in listed[0] if item.type == "message"]
    assert texts == ["1?", "One.", "2?"]
    assert pages[0].has_more is True
    await agent.responses.delete(second.id)
    with pytest.raises(openai.NotFoundError, match="not found"):
        await agent.responses.retrieve(second.id)
    with pytest.raises(openai.BadRequestError) as gone:
        await respond(agent, False, input="?", previous_response_id=second.id)
    assert (gone.value.code, gone.value.param) == ("previous_response_not_found", "previous_response_id")
    assert "Send all items of the conversation in `input`" in gone.value.message
    await respond(agent, False, input="?", previous_response_id=first.id)


async def test_what_is_not_to_be_stored_is_not(gate: Bench, agent: AsyncOpenAI) -> None:
    numbered(gate, Says("One."))
    for stream in (False, True):
        response = await respond(agent, stream, input="?", store=False)
        assert response.store is False
        with pytest.raises(openai.NotFoundError):
            await agent.responses.retrieve(response.id)


async def test_a_response_is_its_attempts_and_its_keys(
    gate: Bench, agent: AsyncOpenAI, http: httpx.AsyncClient
) -> None:
    keys = [(await create_key(http, name=name, project=name))["key"] for name in ("a", "b")]
    callers = [
        agent.with_options(base_url=f"{gate.url}{path}/v1", api_key=key)
        for path in ("", f"/rollouts/{REF.trace_id}", f"/rollouts/{OTHER.trace_id}")
        for key in (API_KEY, "other", *keys)
    ]
    numbered(gate, Says("mine"))
    for owner in callers:
        made = await respond(owner, False, input="?")
        for caller in callers:
            if caller is owner:
                assert (await caller.responses.retrieve(made.id)).id == made.id
                continue
            with pytest.raises(openai.NotFoundError):
                await caller.responses.retrieve(made.id)
            with pytest.raises(openai.NotFoundError):
                await caller.responses.delete(made.id)
            with pytest.raises(openai.NotFoundError):
                await caller.responses.input_items.list(made.id)
            with pytest.raises(openai.BadRequestError, match="not found"):
                await respond(caller, False, input="?", previous_response_id=made.id)
            with pytest.raises(openai.BadRequestError, match="not found"):
                await respond(caller, False, input=[{"type": "item_reference", "id": made.output[0].id}])


@pytest.fixture
async def small() -> AsyncIterator[Bench]:
    async with bench(kept=MemoryKeptResponses(30_000)) as made:
        yield made


async def test_old_responses_go_first_and_a_conversation_in_use_stays(small: Bench) -> None:
    numbered(small, Says("So it is."))
    async with AsyncOpenAI(
        base_url=f"{small.url}/v1", api_key=API_KEY, max_retries=0, http_client=httpx.AsyncClient(trust_env=False)
    ) as agent:
        last, left = await respond(agent, False, input="first"), await respond(agent, False, input="another")
        for number in range(12):
            last = await respond(agent, False, input=str(number), previous_response_id=last.id)
        assert len(small.engine.bodies[-1]["messages"]) == 25
        with pytest.raises(openai.BadRequestError, match=r"no longer kept \(\d+ bytes for \d+ s"):
            await respond(agent, False, input="?", previous_response_id=left.id)
        large = await respond(agent, False, input="x" * 20_000)
        assert large.store is False


async def test_a_prompts_tokens_are_counted_with_its_conversation(gate: Bench, agent: AsyncOpenAI) -> None:
    async def tokenize(_: web.Request, body: dict[str, Any]) -> web.Response:
        return web.json_response({"count": len(body["messages"]), "tools": body.get("tools")})

    gate.engine.routes["/tokenize"] = tokenize
    numbered(gate, Says("One."))
    first = await respond(agent, False, input="1?")
    counted = await agent.responses.input_tokens.count(model="policy", input="2?", previous_response_id=first.id)
    assert (counted.object, counted.input_tokens) == ("response.input_tokens", 3)


TURNS = st.lists(st.tuples(st.integers(0, 9), st.booleans(), st.integers(0, 1), st.text(max_size=4)), max_size=8)
BINDINGS = [Binding(REF), Binding(OTHER, caller=Caller(key_id="k"))]


@given(TURNS)
@settings(max_examples=60, deadline=None)
async def test_any_tree_of_turns_has_the_conversations_that_were_had(turns: list[tuple[int, bool, int, str]]) -> None:
    """Each turn continues any earlier response, or none, of one of two attempts; the oracle keeps whole lists."""
    kept = Kept(MemoryKeptResponses(), "some time")
    had: list[dict[str, list[Any]]] = [{}, {}]
    for number, (back, store, whose, text) in enumerate(turns):
        ids = [*had[0], *had[1], "resp_never"]
        previous = ids[back % len(ids)] if back else None
        asked: dict[str, Any] = {
            "input": [{"role": "user", "content": text}],
            "previous_response_id": previous,
            "store": store,
        }
        if previous is not None and previous not in had[whose]:
            with pytest.raises(Refusal, match="not found"):
                await kept.resolved(BINDINGS[whose], asked)
            continue
        before = had[whose][previous] if previous is not None else []
        resolved = await kept.resolved(BINDINGS[whose], asked)
        assert resolved["input"] == [*before, *asked["input"]]
        answer = {"type": "message", "id": f"msg_{number}", "role": "assistant", "content": [{"text": text}]}
        response = {"id": f"resp_{number}", "output": [answer], "store": False}
        told = await kept.keep(BINDINGS[whose], resolved, response)
        assert told["store"] is store
        if store:
            had[whose][f"resp_{number}"] = [*resolved["input"], answer]
            again = {"input": [{"type": "item_reference", "id": f"msg_{number}"}]}
            assert (await kept.resolved(BINDINGS[whose], again))["input"] == [answer]


TEXTS = st.sampled_from(["a", "b"])


@given(texts=st.lists(TEXTS, min_size=1, max_size=4), data=st.data())
@settings(max_examples=100, deadline=None)
async def test_items_that_a_client_sends_again_count_once(texts: list[str], data: st.DataObject) -> None:
    """It sends again the end, or all, of what it has, before what is new; the model must see each turn once."""
    kept = Kept(MemoryKeptResponses(), "some time")
    had: list[dict[str, Any]] = []
    previous = None
    for number, text in enumerate(texts):
        user = {"role": "user", "content": text}
        call = {"type": "function_call", "id": f"fc_{number}", "call_id": "c", "name": "f", "arguments": text}
        result = {"type": "function_call_output", "call_id": "c", "output": text}
        answer = {"type": "message", "id": f"msg_{number}", "role": "assistant", "content": text, "status": "completed"}
        new = [*([result] if had else []), user]
        again = had[data.draw(st.integers(0, len(had))) :]
        is_seen = any("id" in item for item in again)
        is_bare = again == had and data.draw(st.booleans())
        sent = [{key: item[key] for key in item if key != "id" or not is_bare} for item in again] if is_seen else []
        resolved = await kept.resolved(BINDINGS[0], {"input": [*sent, *new], "previous_response_id": previous})
        assert [item | {"id": None} for item in resolved["input"]] == [item | {"id": None} for item in (*had, *new)]
        previous = f"resp_{number}"
        await kept.keep(BINDINGS[0], resolved, {"id": previous, "output": [answer, call], "store": True})
        had = [*resolved["input"], answer, call]


async def test_another_item_under_a_known_id_is_refused_as_by_openai(gate: Bench, agent: AsyncOpenAI) -> None:
    numbered(gate, Says("One."), Says("Two."))
    first = await respond(agent, False, input="?")
    item = first.output[0].model_dump()
    again = await respond(agent, False, input=[item, {"role": "user", "content": "!"}], previous_response_id=first.id)
    assert [one["content"] for one in gate.engine.bodies[-1]["messages"]] == ["?", "One.", "!"]
    edited = item | {"content": [{"type": "output_text", "text": "Other.", "annotations": []}]}
    for given_items in ([edited], [{"role": "user", "content": "first"}, item]):
        with pytest.raises(openai.BadRequestError, match=f"Duplicate item found with id {item['id']}"):
            await respond(agent, False, input=given_items, previous_response_id=again.id)


async def test_an_id_of_two_items_of_one_conversation_is_not_referred_to(gate: Bench, agent: AsyncOpenAI) -> None:
    numbered(gate, Says("One."))
    two: Any = [{"type": "message", "id": "msg_x", "role": "user", "content": text} for text in ("a", "b")]
    await respond(agent, False, input=two)
    assert [one["content"] for one in gate.engine.bodies[-1]["messages"]] == ["a", "b"]
    with pytest.raises(openai.BadRequestError, match="belongs to two items"):
        await respond(agent, False, input=[{"type": "item_reference", "id": "msg_x"}])


@pytest.mark.parametrize("stream", [False, True])
async def test_an_engine_whose_ids_collide_mixes_no_conversations(
    gate: Bench, agent: AsyncOpenAI, stream: bool
) -> None:
    for engine_id in ("", "chatcmpl-1"):
        gate.engine.bodies.clear()

        async def reply(request: web.Request, body: dict[str, Any], engine_id: str = engine_id) -> web.StreamResponse:
            class Same(Says):
                def plain(self, body: dict[str, Any]) -> dict[str, Any]:
                    return super().plain(body) | {"id": engine_id}

                def chunks(self, body: dict[str, Any]) -> list[dict[str, Any]]:
                    return [chunk | {"id": engine_id} for chunk in super().chunks(body)]

            return await Same(body["messages"][-1]["content"])(request, body)

        gate.engine.reply = reply
        first, second = [await respond(agent, stream, input=text) for text in ("mine", "yours")]
        assert first.id != second.id
        await respond(agent, stream, input="more", previous_response_id=first.id)
        assert [one["content"] for one in gate.engine.bodies[-1]["messages"]] == ["mine", "mine", "more"]
        found = await agent.responses.retrieve(second.id)
        assert found.output_text == "yours"
    assert len({call.response_id for call in gate.log.calls}) == len(gate.log.calls)


def test_equal_items_are_stored_once_and_owners_differ_by_attempt_and_key() -> None:
    item = {"role": "user", "content": "?"}
    fields: Mapping[str, bytes] = fields_of({"input": [item] * 50}, {"id": "resp_1", "output": []})
    assert [name[0] for name in fields] == ["i", "n", "r"]
    assert len({owner_of(one) for one in (*BINDINGS, Binding(), Binding(caller=Caller(key_id="k")))}) == 4
