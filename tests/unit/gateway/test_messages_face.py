"""Anthropic messages as a face: what is laid down here holds whatever a caller or a model says."""

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyden.gateway.core.faces import FACES, MESSAGES, Face
from leyden.gateway.core.faces.messages import count_request
from leyden.gateway.core.faces.messages_request import chat_request
from leyden.gateway.core.refusals import Refusal
from leyden.gateway.core.request import prepare
from leyden.gateway.core.sampling import ShapedSampling

HEAD = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "p@1"}
TEXT = st.text(st.characters(codec="utf-8"), max_size=6)
USAGE = {"prompt_tokens": 5, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 2}}


@st.composite
def replies(draw: st.DrawFn) -> dict[str, Any]:
    """A chat message of a model: reasoning, text and tool calls, each there or not."""
    message: dict[str, Any] = {"role": "assistant", "content": draw(TEXT | st.none()), "reasoning": draw(TEXT)}
    arguments = st.sampled_from(["{}", '{"a": 1}', '{"a": {"b": [1, "x"]}}', "", "[1]", '{"a": ', "text"])
    calls = draw(st.lists(arguments, max_size=3))
    message["tool_calls"] = [
        {"id": f"c{index}", "type": "function", "function": {"name": f"f{index}", "arguments": text}}
        for index, text in enumerate(calls)
    ]
    return message


def chunks_of(message: dict[str, Any], finish: str, size: int) -> list[dict[str, Any]]:
    """The message as a stream, its texts cut into pieces."""
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    for name in ("reasoning", "content"):
        deltas += [{name: piece} for piece in cut(message[name] or "", size)]
    for index, call in enumerate(message["tool_calls"]):
        function = {"name": call["function"]["name"], "arguments": ""}
        deltas.append({"tool_calls": [{"index": index, "id": call["id"], "type": "function", "function": function}]})
        deltas += [
            {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}
            for piece in cut(call["function"]["arguments"], size)
        ]
    made = [HEAD | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    made[-1]["choices"][0]["finish_reason"] = finish
    return [*made, HEAD | {"choices": [], "usage": USAGE}]


def cut(text: str, size: int) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


def read(events: list[bytes]) -> list[dict[str, Any]]:
    """The events' data; each event's name is its data's type."""
    seen = []
    for event in events:
        name, data = event.decode().removesuffix("\n\n").split("\n")
        payload = orjson.loads(data.removeprefix("data: "))
        assert name == f"event: {payload['type']}"
        seen.append(payload)
    return [payload for payload in seen if payload["type"] != "ping"]


def assembled(events: list[dict[str, Any]]) -> dict[str, Any]:
    """A message as a client puts it together, which is strict about the order of events."""
    message = dict(events[0]["message"])
    assert [event["type"] for event in (events[0], *events[-2:])] == ["message_start", "message_delta", "message_stop"]
    content: list[dict[str, Any]] = []
    is_open = False
    for event in events[1:-2]:
        if event["type"] == "content_block_start":
            assert not is_open
            assert event["index"] == len(content)
            content.append(dict(event["content_block"]))
            is_open = True
            continue
        assert is_open
        assert event["index"] == len(content) - 1
        if event["type"] == "content_block_stop":
            is_open = False
            continue
        delta, block = event["delta"], content[-1]
        if delta["type"] == "input_json_delta":
            block["input"] = orjson.loads(delta["partial_json"])
        else:
            assert delta["type"] == f"{block['type']}_delta"
            block[block["type"]] += delta[block["type"]]
    assert not is_open
    last = events[-2]
    return message | last["delta"] | {"content": content, "usage": last["usage"]}


@settings(max_examples=150)
@given(replies(), st.sampled_from(["stop", "length", "tool_calls", "content_filter"]), st.integers(1, 4))
def test_a_stream_comes_to_the_same_message_as_a_plain_reply(message: dict[str, Any], finish: str, size: int) -> None:
    stream = MESSAGES.stream({})
    stream.prompt_tokens = 5
    events = [event for chunk in chunks_of(message, finish, size) for event in stream.feed(chunk)] + stream.end()
    choice = {"index": 0, "message": message, "finish_reason": finish}
    whole = MESSAGES.whole({"id": "chatcmpl-1", "model": "p@1", "choices": [choice], "usage": USAGE}, {})
    assert assembled(read(events)) == whole


def test_a_long_tool_call_keeps_its_reader_awake() -> None:
    stream = MESSAGES.stream({})
    delta = {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": " "}}]}
    chunk = HEAD | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    pings = [event for _ in range(100) for event in stream.feed(chunk)].count(b'event: ping\ndata: {"type":"ping"}\n\n')
    assert pings == 4, "one after the start, and one in 32 pieces"


def test_a_stream_without_a_chunk_is_a_message_all_the_same() -> None:
    message = assembled(read(MESSAGES.stream({}).end()))
    assert (message["content"], message["stop_reason"]) == ([{"type": "text", "text": ""}], "end_turn")


BLOCKS = st.fixed_dictionaries(
    {
        "type": st.sampled_from(
            ["text", "image", "tool_use", "tool_result", "thinking", "redacted_thinking", "document"]
        )
    },
    optional={
        "text": st.just("t") | st.none(),
        "id": st.just("c") | st.integers(),
        "name": st.just("f") | st.none(),
        "input": st.just({}) | st.just([1]) | st.none(),
        "tool_use_id": st.just("c") | st.none(),
        "content": st.just("r")
        | st.integers()
        | st.lists(st.just({"type": "text", "text": "x"}) | st.none(), max_size=2),
        "source": st.sampled_from([{"type": "url", "url": "u"}, {"type": "base64", "data": "AA"}, {}, [], "s"]),
    },
)
ODD = (
    st.none()
    | st.booleans()
    | st.integers()
    | TEXT
    | st.lists(TEXT, max_size=2)
    | st.dictionaries(TEXT, TEXT, max_size=2)
)
MESSAGES_OF = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system"]), "content": TEXT | st.lists(BLOCKS) | ODD}
)
BODIES = st.fixed_dictionaries(
    {"model": st.just("p")},
    optional={
        "messages": st.just([{"role": "user", "content": "x"}]) | st.lists(ODD | MESSAGES_OF, max_size=3) | ODD,
        "system": ODD | st.lists(BLOCKS, max_size=2),
        "tools": ODD | st.lists(ODD | st.just({"name": "f", "input_schema": {}}), max_size=2),
        "tool_choice": ODD | st.just({"type": "any", "disable_parallel_tool_use": True}),
        "metadata": ODD,
        "output_config": ODD | st.just({"format": {"type": "json_schema", "schema": {}}}),
        "stop_sequences": ODD,
        "stream": st.booleans(),
        "thinking": ODD,
        "n": st.none() | st.integers(0, 2),
    },
)


@settings(max_examples=300)
@given(BODIES)
def test_any_body_is_translated_or_refused_by_name(body: dict[str, Any]) -> None:
    chat = refused = None
    try:
        chat = chat_request(body)
    except Refusal as refusal:
        refused = refusal
    if chat is None:
        assert refused is not None
        assert (refused.status, (refused.param or "").split(".")[0] in (*body, "messages")) == (400, True)
        return
    assert {message["role"] for message in chat["messages"]} <= {"system", "user", "assistant", "tool"}
    assert "system" not in chat
    orjson.dumps(chat)
    assert count_request(body).keys() <= chat.keys()


@pytest.mark.parametrize("face", FACES, ids=lambda face: face.route)
def test_every_face_shapes_errors_and_has_a_route_of_its_own(face: Face) -> None:
    refusal = Refusal(404, "model_not_found", "no such model", param="model")
    error = face.error(refusal)["error"]
    assert error["type"] == "not_found_error"
    assert "no such model" in error["message"]
    assert [other.route for other in FACES].count(face.route) == 1
    assert b"no such model" in face.stream({}).error(refusal)
    page = face.engine_error(404, b"<p>Not Found</p>", "call")
    assert f"does not serve {face.upstream_route}" in orjson.loads(page)["error"]["message"]


def test_fields_of_engines_pass_through() -> None:
    body = {
        "model": "p",
        "messages": [{"role": "user", "content": "x"}],
        "min_p": 0.1,
        "chat_template_kwargs": {"a": 1},
    }
    assert chat_request(body | {"thinking": {"type": "adaptive"}, "max_tokens": 7}) == body | {"max_tokens": 7}
    assert prepare(chat_request(body), False, ShapedSampling.OVERRIDE).sampling.min_p == 0.1
