"""Every model API of the gateway, by its official client, in front of a real engine: what is answered, and recorded.

A test class inherits these and gives the fixtures `engine` and `direct`.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import openai
import pytest
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

from engine_support import Direct, EngineProcess
from leyden.events import ModelCallRecorded, PolicyServed, unpack_floats, unpack_ints
from leyden.events.codec import MODEL_CALLS, decode, encode
from leyden.kafka import Delivered
from service.gateway.gateway_fakes import API_KEY, REF, Bench, bench

TOLERANCE = 2e-3
HELLO: Any = [{"role": "user", "content": "Tom has 23 apples"}]


@dataclass
class Door:
    """A gateway in front of a live engine, and the clients of one rollout's agent."""

    gate: Bench
    engine: EngineProcess
    direct: dict[Path, Direct]
    version: str
    kind: str
    """`vllm` or `transformers`."""
    openai: AsyncOpenAI
    claude: AsyncAnthropic

    def call(self, route: str, choices: int = 1, streamed: bool = False, forced: bool = False) -> ModelCallRecorded:
        """The one call that is in the log since the last look: whole, and true to what the model does.

        Where a form was `forced`, vLLM's logprobs are those of what the form allows.
        """
        (outgoing,) = self.gate.log.published
        self.gate.log.published.clear()
        assert outgoing.topic == MODEL_CALLS
        assert not isinstance(outgoing.event, bytes)
        call = decode(MODEL_CALLS, encode(outgoing.event))
        assert isinstance(call, ModelCallRecorded)
        assert (call.route, call.rollout_id, call.attempt, call.error) == (route, *REF, None)
        assert f"{call.policy}@{call.policy_version}" == self.version
        assert (len(call.choices), call.streamed) == (choices, streamed)
        prompt = unpack_ints(call.prompt_token_ids).tolist()
        tokens = [unpack_ints(choice.token_ids).tolist() for choice in call.choices]
        for choice, ids in zip(call.choices, tokens, strict=True):
            told = unpack_floats(choice.logprobs).tolist()
            direct, temperature = self.direct[self.engine.folders[self.version]], call.sampling.temperature
            wanted = told if forced else direct.logprobs(prompt, ids, temperature)
            assert told == pytest.approx(wanted, abs=TOLERANCE)
            assert len(told) == len(ids) > 0
            assert choice.finish_reason
        counted = (call.usage.prompt_tokens, call.usage.completion_tokens)
        assert counted == (len(prompt), sum(map(len, tokens)))
        return call


def tokens_of(call: ModelCallRecorded, choice: int = 0) -> list[int]:
    return unpack_ints(call.choices[choice].token_ids).tolist()


def prompt_of(call: ModelCallRecorded) -> list[int]:
    return unpack_ints(call.prompt_token_ids).tolist()


class DoorLaws:
    @pytest.fixture(scope="class")
    @classmethod
    def models_of(cls, direct: dict[Path, Direct]) -> dict[Path, Direct]:
        """The models in the folders that are live meanwhile."""
        return direct

    @pytest.fixture
    async def door(self, engine: EngineProcess, models_of: dict[Path, Direct]) -> AsyncIterator[Door]:
        live = engine.version()
        policy, _, number = live["version"].partition("@")
        served = PolicyServed(
            event_id="live", event_time=datetime.now(UTC), producer="policy", policy=policy, version=int(number),
            replica="live", endpoint=engine.url, model=live["model"], engine=live["engine"],
        )  # fmt: skip
        async with bench() as gate:
            await gate.gateway.models.on_models([Delivered(served, "models.v1", policy, 0, 0, "models.v1/0/0")])
            url = f"{gate.url}/rollouts/{REF.trace_id}"
            async with (
                AsyncOpenAI(base_url=f"{url}/v1", api_key=API_KEY, max_retries=0) as gpt,
                AsyncAnthropic(base_url=url, api_key=API_KEY, max_retries=0) as claude,
            ):
                yield Door(gate, engine, models_of, live["version"], live["engine"], gpt, claude)


class ModelApiLaws(DoorLaws):
    """What holds for any weights."""

    async def test_chat_samples_with_logprobs_and_seed(self, door: Door) -> None:
        asked: Any = {"model": "tiny", "messages": HELLO, "n": 2, "seed": 7, "max_tokens": 6, "temperature": 1.0}
        replies = [await door.openai.chat.completions.create(**asked, logprobs=True, top_logprobs=2) for _ in range(2)]
        ids = [outgoing.event.event_id for outgoing in door.gate.log.published]
        assert len(set(ids)) == 2
        door.gate.log.published.pop()
        call = door.call("/v1/chat/completions", choices=2)
        texts = [[choice.message.content for choice in reply.choices] for reply in replies]
        assert texts[0] == texts[1]
        assert texts[0][0] != texts[0][1]
        for choice, kept in zip(replies[0].choices, call.choices, strict=True):
            assert choice.logprobs is not None
            shown = [(entry.logprob, len(entry.top_logprobs)) for entry in choice.logprobs.content or []]
            assert [one for one, _ in shown] == pytest.approx(unpack_floats(kept.logprobs).tolist(), abs=TOLERANCE)
            assert {count for _, count in shown} <= {2, 3}
            assert choice.finish_reason == kept.finish_reason
        assert "token_ids" not in replies[0].model_dump_json()
        assert (call.sampling.seed, call.sampling.max_tokens, call.sampling.temperature) == (7, 6, 1.0)

    async def test_a_chat_stream_with_usage_ends_at_its_stop_string(self, door: Door) -> None:
        asked: Any = {"model": "tiny", "messages": HELLO, "max_tokens": 24, "temperature": 0}
        whole = (await door.openai.chat.completions.create(**asked)).choices[0].message.content or ""
        stop = next(letter for letter in whole[2:] if letter.isascii())
        door.call("/v1/chat/completions")
        stream = await door.openai.chat.completions.create(
            **asked, stop=[stop], stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        call = door.call("/v1/chat/completions", streamed=True)
        text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
        assert text == whole[: whole.index(stop)] == call.choices[0].message["content"]
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == len(tokens_of(call))
        assert call.choices[0].finish_reason == "stop"

    async def test_tools_that_are_strict_leave_the_distribution_as_it_is(self, door: Door) -> None:
        """Left to itself, vLLM samples under a grammar then, and tells the logprobs of what the grammar allows."""
        schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
        tool: Any = {"type": "function", "function": {"name": "add", "strict": True, "parameters": schema}}
        await door.openai.chat.completions.create(
            model="tiny", messages=HELLO, tools=[tool], parallel_tool_calls=False, seed=5, max_tokens=16
        )
        door.call("/v1/chat/completions")

    @pytest.mark.parametrize("prompt", ["Tom has 23 apples", [10, 20, 30, 40]], ids=["text", "token ids"])
    async def test_a_text_completion_of_text_or_of_token_ids(self, door: Door, prompt: Any) -> None:
        asked: Any = {"model": "tiny", "prompt": prompt, "max_tokens": 5, "temperature": 1.0, "seed": 3}
        reply = await door.openai.completions.create(**asked, n=2, logprobs=2)
        call = door.call("/v1/completions", choices=2)
        assert prompt_of(call) == prompt or isinstance(prompt, str)
        for choice, kept in zip(reply.choices, call.choices, strict=True):
            assert choice.logprobs is not None and choice.logprobs.token_logprobs is not None
            assert choice.logprobs.token_logprobs == pytest.approx(unpack_floats(kept.logprobs).tolist(), abs=TOLERANCE)
            assert choice.logprobs.top_logprobs is not None
            assert len(choice.logprobs.top_logprobs) == len(unpack_ints(kept.token_ids))
            assert {len(top) for top in choice.logprobs.top_logprobs} <= {1, 2, 3}, "by text: bytes may look alike"
            assert kept.message == {"role": "assistant", "content": choice.text}
        assert "token_ids" not in reply.model_dump_json()
        stream = await door.openai.completions.create(**asked, stream=True)
        pieces = [choice.text async for chunk in stream for choice in chunk.choices]
        streamed = door.call("/v1/completions", streamed=True)
        assert "".join(pieces) == reply.choices[0].text
        assert (prompt_of(streamed), tokens_of(streamed)) == (prompt_of(call), tokens_of(call))

    async def test_several_prompts_are_answered_in_order(self, door: Door) -> None:
        """Not in a training rollout, where a call is one prompt; such a call is recorded without tokens."""
        client = door.openai.with_options(base_url=f"{door.gate.url}/v1")
        reply = await client.completions.create(
            model="tiny", prompt=[[10, 20, 30], [40, 50]], max_tokens=4, temperature=0
        )
        alone = await client.completions.create(model="tiny", prompt=[40, 50], max_tokens=4, temperature=0)
        assert [choice.index for choice in reply.choices] == [0, 1]
        assert reply.choices[0].text != reply.choices[1].text == alone.choices[0].text
        assert reply.usage is not None
        assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (5, 8)

    async def test_a_message_plain_and_streamed(self, door: Door) -> None:
        asked: Any = {"model": "tiny", "messages": HELLO, "system": "Be brief", "max_tokens": 8}
        greedy: Any = {"extra_body": {"temperature": 0}}
        reply = await door.claude.messages.create(**asked, **greedy)
        call = door.call("/v1/messages")
        assert (reply.content[0].type, reply.usage.output_tokens) == ("text", len(tokens_of(call)))
        assert reply.usage.input_tokens + (reply.usage.cache_read_input_tokens or 0) == len(prompt_of(call))
        async with door.claude.messages.stream(**asked, **greedy) as stream:
            streamed = await stream.get_final_message()
        again = door.call("/v1/messages", streamed=True)
        assert streamed.model_dump(include={"content", "stop_reason"}) == reply.model_dump(
            include={"content", "stop_reason"}
        )
        assert tokens_of(again) == tokens_of(call)

    async def test_counted_tokens_are_those_of_the_call(self, door: Door) -> None:
        tool: Any = {"name": "add", "input_schema": {"type": "object"}}
        for more in ({}, {"tools": [tool]}, {"system": "Be brief"}):
            asked: Any = {"model": "tiny", "messages": HELLO} | more
            counted = await door.claude.messages.count_tokens(**asked)
            await door.claude.messages.create(**asked, max_tokens=2)
            assert counted.input_tokens == len(prompt_of(door.call("/v1/messages")))

    async def test_a_message_continues_the_assistants_own_beginning(self, door: Door) -> None:
        begun: Any = [*HELLO, {"role": "assistant", "content": "He has"}]
        counted = await door.claude.messages.count_tokens(model="tiny", messages=begun)
        await door.claude.messages.create(model="tiny", messages=begun, max_tokens=2)
        call = door.call("/v1/messages")
        assert bytes_of(prompt_of(call)).endswith("assistant\nHe has")
        assert counted.input_tokens == len(prompt_of(call))

    async def test_a_response_plain_and_streamed(self, door: Door) -> None:
        asked: Any = {"model": "tiny", "input": "Tom has 23 apples", "instructions": "Be brief", "temperature": 0}
        reply = await door.openai.responses.create(**asked, max_output_tokens=16)
        call = door.call("/v1/responses")
        assert reply.output_text == call.choices[0].message["content"]
        assert reply.usage is not None
        assert (reply.usage.input_tokens, reply.usage.output_tokens) == (len(prompt_of(call)), len(tokens_of(call)))
        events = [
            event async for event in await door.openai.responses.create(**asked, max_output_tokens=16, stream=True)
        ]
        again = door.call("/v1/responses", streamed=True)
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert (
            "".join(event.delta for event in events if event.type == "response.output_text.delta") == reply.output_text
        )
        last = events[-1]
        assert last.type in ("response.completed", "response.incomplete")
        assert (last.response.output_text, last.response.status) == (reply.output_text, reply.status)
        assert tokens_of(again) == tokens_of(call)

    async def test_a_field_that_the_gateway_does_not_know_reaches_the_engine(self, door: Door) -> None:
        for unknown in ({"ignore_eos": True}, {"of_tomorrow": {"a": [1]}}):
            await door.openai.chat.completions.create(
                model="tiny", messages=HELLO, max_tokens=20, temperature=1.5, extra_body=unknown
            )
            call = door.call("/v1/chat/completions")
            assert call.request.items() >= unknown.items()
            assert len(tokens_of(call)) == 20 or "ignore_eos" not in unknown

    async def test_what_an_engine_refuses_comes_in_the_shape_of_the_api(self, door: Door) -> None:
        with pytest.raises(openai.BadRequestError):
            await door.openai.completions.create(model="tiny", prompt=[10**6], max_tokens=1)
        with pytest.raises(openai.BadRequestError):
            await door.openai.completions.create(model="tiny", prompt="x", max_tokens=9999)
        error = door.gate.log.calls[-1].error or ""
        assert error.startswith("engine 400: ")


def bytes_of(tokens: list[int]) -> str:
    """What the tiny model's tokens spell."""
    from engine_support import byte_tokenizer

    return str(byte_tokenizer().decode(tokens))
