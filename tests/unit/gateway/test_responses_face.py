"""The Responses API as a face: requests to chat, replies and streams back, without a server."""

from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from leyden.gateway.core.faces.responses import RESPONSES
from leyden.gateway.core.refusals import Refusal

EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
WEATHER = {"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": True}
CALL = {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"city":"Oslo"}', "id": "fc_1"}
RESULT = {"type": "function_call_output", "call_id": "call_1", "output": "rain"}


def asked(**fields: Any) -> dict[str, Any]:
    """The chat request of a Responses request."""
    return RESPONSES.request({"model": "policy", "input": "hi"} | fields)


def reply(finish: str = "stop", **message: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": None} | message, "finish_reason": finish}
    usage = {
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "total_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 1},
    }
    head = {"id": "chatcmpl-7", "object": "chat.completion", "created": 9, "model": "policy@3"}
    return head | {"choices": [choice | {"logprobs": None}], "usage": usage}


def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return {
        "id": "chatcmpl-7",
        "object": "chat.completion.chunk",
        "created": 9,
        "model": "policy@3",
        "choices": [choice],
    }


def usage_chunk() -> dict[str, Any]:
    return chunk({}) | {"choices": [], "usage": reply()["usage"]}


def parsed(events: list[bytes]) -> list[dict[str, Any]]:
    """The events' payloads; each one's name is its type."""
    found = []
    for event in b"".join(events).decode().removesuffix("\n\n").split("\n\n"):
        name, data = event.split("\n")
        found.append(orjson.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def streamed(chunks: list[dict[str, Any]], **body: Any) -> list[dict[str, Any]]:
    stream = RESPONSES.stream({"model": "policy", "input": "hi", "stream": True} | body)
    events = [event for piece in chunks for event in stream.feed(piece)] + stream.end()
    assert stream.kept is not None
    return parsed(events + stream.ended(stream.kept))


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


def test_a_turn_of_the_assistant_is_one_chat_message_again() -> None:
    thought = {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]}
    said = {
        "type": "message",
        "role": "assistant",
        "id": "m",
        "content": [{"type": "output_text", "text": "Let me see."}],
    }
    messages = asked(instructions="Be kind.", input=[{"role": "user", "content": "?"}, thought, said, CALL, RESULT])[
        "messages"
    ]
    assert messages == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "?"},
        {
            "role": "assistant",
            "content": "Let me see.",
            "reasoning": "hm",
            "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Oslo"}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
    ]


def test_what_the_gateway_answered_is_a_turn_that_says_the_same() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    calls = [call, call | {"id": "call_2"}]
    message: dict[str, Any] = {"content": "Let me see.", "reasoning": "hm", "tool_calls": calls}
    output = RESPONSES.whole(reply(**message), {"model": "policy"})["output"]
    assert asked(input=output)["messages"] == [{"role": "assistant"} | message]


def test_reasoning_comes_back_from_clients_that_keep_only_its_encrypted_content() -> None:
    events = streamed([chunk({"reasoning": "hm ☂"}), chunk({"content": "So."}, "stop"), usage_chunk()])
    (thought,) = [
        e["item"] for e in events if e["type"] == "response.output_item.done" and e["item"]["type"] == "reasoning"
    ]
    kept = {name: thought[name] for name in ("id", "type", "summary", "encrypted_content")}
    (message,) = asked(input=[kept, {"role": "assistant", "content": "So."}])["messages"]
    assert message == {"role": "assistant", "content": "So.", "reasoning": "hm ☂"}


@pytest.mark.parametrize("foreign", ["gAAAA", "leyden-reasoning-!", "leyden-reasoning-/w==", 7])
def test_encrypted_content_of_another_server_says_nothing(foreign: object) -> None:
    item = {"type": "reasoning", "summary": [], "encrypted_content": foreign}
    assert asked(input=[item, {"role": "user", "content": "?"}])["messages"] == [{"role": "user", "content": "?"}]


def test_two_turns_of_the_assistant_stay_two() -> None:
    messages = asked(input=[{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}, CALL])[
        "messages"
    ]
    assert [(m["content"], "tool_calls" in m) for m in messages] == [("a", False), ("b", True)]


def test_leading_instructions_are_one_system_message() -> None:
    items = [
        {"role": "developer", "content": "b"},
        {"role": "user", "content": "c"},
        {"role": "system", "content": "d"},
    ]
    assert [(m["role"], m["content"]) for m in asked(instructions="a", input=items)["messages"]] == [
        ("system", "a\n\nb"), ("user", "c"), ("system", "d")
    ]  # fmt: skip


def test_parts_of_content_have_their_chat_form() -> None:
    image = {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "low"}
    file = {"type": "input_file", "file_data": "data:text/plain;base64,AA==", "filename": "a.txt"}
    text = {"type": "input_text", "text": "what is it?"}
    (several,) = asked(input=[{"role": "user", "content": [text, image, file]}])["messages"]
    assert several["content"] == [
        {"type": "text", "text": "what is it?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}},
        {"type": "file", "file": {"file_data": "data:text/plain;base64,AA==", "filename": "a.txt"}},
    ]
    (one,) = asked(input=[{"type": "message", "role": "user", "content": [text]}])["messages"]
    assert one["content"] == "what is it?"


def test_parameters_have_their_chat_form_and_unknown_ones_pass() -> None:
    form = {"type": "json_schema", "name": "city", "schema": {"type": "object"}, "strict": True}
    chat = asked(
        tools=[WEATHER], tool_choice={"type": "function", "name": "weather"}, parallel_tool_calls=False,
        text={"format": form}, max_output_tokens=5, reasoning={"effort": "low"}, temperature=0.5, top_k=4,
        metadata={"a": "b"}, store=True, user="u", safety_identifier="s", stop=["x"], stream=True,
        include=["message.output_text.logprobs", "reasoning.encrypted_content"], top_logprobs=2, truncation="auto",
    )  # fmt: skip
    del chat["messages"]
    assert chat == {
        "model": "policy",
        "tools": [{"type": "function", "function": {n: WEATHER[n] for n in ("name", "parameters", "strict")}}],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "parallel_tool_calls": False,
        "response_format": {"type": "json_schema", "json_schema": {n: form[n] for n in ("name", "schema", "strict")}},
        "max_completion_tokens": 5,
        "reasoning_effort": "low",
        "temperature": 0.5,
        "top_k": 4,
        "user": "u",
        "safety_identifier": "s",
        "stop": ["x"],
        "stream": True,
        "stream_options": {"include_usage": True},
        "logprobs": True,
        "top_logprobs": 2,
    }


def test_allowed_tools_are_the_only_ones_left() -> None:
    choice = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "weather"}]}
    chat = asked(tools=[WEATHER, WEATHER | {"name": "other"}], tool_choice=choice)
    assert ([t["function"]["name"] for t in chat["tools"]], chat["tool_choice"]) == (["weather"], "required")


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"input": None}, "input", "input"),
        ({"input": []}, "input", "at least one"),
        ({"input": [3]}, "input[0]", "object"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role", "user"),
        ({"input": [{"role": "user", "content": 3}]}, "input[0].content", "string"),
        ({"input": [{"role": "user", "content": [{"type": "video"}]}]}, "input[0].content[0].type", "video"),
        ({"input": [{"type": "web_search_call", "id": "x"}]}, "input[0].type", "web_search_call"),
        ({"input": [CALL | {"arguments": {}}]}, "input[0].arguments", "string"),
        ({"input": [RESULT | {"call_id": None}]}, "input[0].call_id", "string"),
        ({"conversation": "conv_1"}, "conversation", "not supported"),
        ({"prompt": {"id": "p"}}, "prompt", "prompt"),
        ({"background": True}, "background", "background"),
        ({"tools": [WEATHER, {"type": "web_search"}], "tool_choice": "required"}, "tools[1]", "web_search"),
        ({"tools": [WEATHER, WEATHER]}, "tools[1].name", "two tools are called `weather`"),
        ({"tools": "all"}, "tools", "list"),
        ({"tool_choice": {"type": "file_search"}}, "tool_choice", "file_search"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format.type", "grammar"),
        ({"text": "json"}, "text", "object"),
        ({"n": 2}, "n", "must be 1"),
    ],
)
def test_what_has_no_chat_form_is_refused_by_name(fields: dict[str, Any], param: str, says: str) -> None:
    with pytest.raises(Refusal) as refused:
        asked(**fields)
    assert (refused.value.status, refused.value.param) == (400, param)
    assert says in refused.value.message


def test_a_reply_is_the_official_clients_response() -> None:
    shown = RESPONSES.whole(reply(content="Hi!"), {"model": "policy", "tools": [WEATHER], "metadata": {"a": "b"}})
    response = Response.model_validate(shown, strict=False)
    assert (response.id, response.status, response.output_text) == ("resp_7", "completed", "Hi!")
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens, response.usage.total_tokens) == (3, 2, 5)
    assert response.usage.input_tokens_details.cached_tokens == 1
    assert (response.metadata, response.tools[0].type) == ({"a": "b"}, "function")


@pytest.mark.parametrize(
    ("finish", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter"), ("stop", None)]
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_reply_that_was_cut_short_is_incomplete(finish: str, reason: str | None, stream: bool) -> None:
    if stream:
        last = streamed([chunk({"content": "Hi"}), chunk({}, finish), usage_chunk()])[-1]
        response = last["response"]
        assert last["type"] == ("response.incomplete" if reason else "response.completed")
    else:
        response = RESPONSES.whole(reply(finish, content="Hi"), {"model": "policy"})
    status = "incomplete" if reason else "completed"
    assert (response["status"], response["output"][-1]["status"]) == (status, status)
    assert response["incomplete_details"] == ({"reason": reason} if reason else None)


def test_an_empty_reply_is_an_empty_message() -> None:
    for response in (
        RESPONSES.whole(reply(content=""), {"model": "policy"}),
        streamed([chunk({"role": "assistant", "content": ""}), chunk({}, "stop"), usage_chunk()])[-1]["response"],
    ):
        assert [part["text"] for item in response["output"] for part in item["content"]] == [""]


def test_a_streamed_text_has_the_official_sequence_of_events() -> None:
    chunks = [chunk({"role": "assistant", "content": ""}), chunk({"content": "Hi"}), chunk({"content": "!"}, "stop")]
    events = streamed([*chunks, usage_chunk()])
    assert kinds(events) == [
        "created", "in_progress", "output_item.added", "content_part.added", "output_text.delta", "output_text.delta",
        "output_text.done", "content_part.done", "output_item.done", "completed",
    ]  # fmt: skip
    assert [event["sequence_number"] for event in events] == list(range(10))
    assert events[-1]["response"]["output"] == [events[-2]["item"]]
    assert events[-1]["response"]["usage"]["total_tokens"] == 5


def test_streamed_reasoning_text_and_parallel_calls_are_items_in_order() -> None:
    def call(index: int, arguments: str, **head: Any) -> dict[str, Any]:
        function = {"arguments": arguments} | ({"name": head.pop("name")} if "name" in head else {})
        return chunk({"tool_calls": [{"index": index, "function": function} | head]})

    events = streamed(
        [
            chunk({"reasoning": "hm"}), chunk({"content": "So."}), call(0, "", id="call_1", name="weather"),
            call(0, "{}"), call(1, "[", id="call_2", name="other"), call(0, " "), call(1, "]"), chunk({}, "tool_calls"),
            usage_chunk(),
        ]
    )  # fmt: skip
    assert kinds(events) == [
        "created", "in_progress",
        "output_item.added", "content_part.added", "reasoning_text.delta",
        "reasoning_text.done", "content_part.done", "output_item.done",
        "output_item.added", "content_part.added", "output_text.delta",
        "output_text.done", "content_part.done", "output_item.done",
        "output_item.added", "function_call_arguments.delta",
        "output_item.added", "function_call_arguments.delta",
        "function_call_arguments.delta", "function_call_arguments.delta",
        "function_call_arguments.done", "output_item.done", "function_call_arguments.done", "output_item.done",
        "completed",
    ]  # fmt: skip
    output = events[-1]["response"]["output"]
    assert [item["type"] for item in output] == ["reasoning", "message", "function_call", "function_call"]
    assert [(item["call_id"], item["arguments"]) for item in output[2:]] == [("call_1", "{} "), ("call_2", "[]")]


def test_no_call_is_done_before_the_finish_reason() -> None:
    stream = RESPONSES.stream({"model": "policy", "input": "hi", "stream": True})
    calls = [{"index": i, "id": f"c{i}", "function": {"name": "weather", "arguments": "{}"}} for i in range(2)]
    before = parsed(stream.feed(chunk({"tool_calls": calls})))
    assert not [event for event in before if event["type"].endswith(".done")]


@pytest.mark.parametrize("begun", [False, True])
def test_a_failure_is_told_and_nothing_completes(begun: bool) -> None:
    stream = RESPONSES.stream({"model": "policy", "input": "hi", "stream": True})
    events = stream.feed(chunk({"content": "Hi"})) if begun else []
    told = parsed([*events, stream.error(Refusal(503, "unavailable", "come back"))])
    last = told[-2:] if begun else told
    assert [event["type"] for event in last] == ["error", "response.failed"][: 1 + begun]
    assert (last[0]["message"], last[0]["code"]) == ("come back", "unavailable")
    if begun:
        assert (last[1]["response"]["status"], last[1]["response"]["error"]["message"]) == ("failed", "come back")


DELTAS = st.lists(
    st.one_of(
        st.builds(lambda text: {"content": text}, st.text(max_size=4)),
        st.builds(lambda text: {"reasoning": text}, st.text(max_size=4)),
        st.builds(
            lambda index, text: {
                "tool_calls": [{"index": index, "id": f"c{index}", "function": {"name": "f", "arguments": text}}]
            },
            st.integers(0, 2),
            st.text(max_size=4),
        ),
    ),
    max_size=8,
)


@given(deltas=DELTAS, finish=st.sampled_from(["stop", "tool_calls", "length"]))
@settings(max_examples=100, deadline=None)
def test_any_stream_is_well_formed(deltas: list[dict[str, Any]], finish: str) -> None:
    events = streamed([*(chunk(delta) for delta in deltas), chunk({}, finish), usage_chunk()])
    for event in events:
        EVENT.validate_python(event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    added = [event["output_index"] for event in events if event["type"] == "response.output_item.added"]
    done = {event["output_index"]: event["item"] for event in events if event["type"] == "response.output_item.done"}
    assert added == sorted(done) == list(range(len(done)))
    output = events[-1]["response"]["output"]
    assert [done[index] for index in sorted(done)] == output
    assert len({item["id"] for item in output}) == len(output)
    for index, item in done.items():
        told = [e["delta"] for e in events if e.get("output_index") == index and e["type"].endswith(".delta")]
        said = item["arguments"] if item["type"] == "function_call" else "".join(p["text"] for p in item["content"])
        assert "".join(told) == said
    assert all(one["sequence_number"] < two["sequence_number"] for one, two in pairwise(events))
