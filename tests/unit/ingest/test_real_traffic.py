"""Small spans as frameworks really send them, with what each of them means; and their neighbours, generated."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyden.events import Json, JsonObject, SpanKind, SpanRecorded
from leyden.ingest.core.messages import messages_of, of_flat
from leyden.ingest.core.normalise import normalise_traces
from leyden.ingest.dialects import DIALECTS
from leyden.reward.core.failure import SUCCESS, outcome_of
from unit.ingest.otlp_builders import otlp_event, otlp_request, otlp_span

ASKED = {"id": "t1", "type": "function", "function": {"name": "population", "arguments": '{"city":"Oslo"}'}}


def one(attributes: JsonObject, name: str = "a span", **fields: Any) -> SpanRecorded:
    [found] = normalise_traces(otlp_request(otlp_span(attributes, name, **fields)), DIALECTS)
    return found.event()  # type: ignore[union-attr]


def tool_of(attributes: JsonObject, name: str = "a span", **fields: Any) -> tuple[str, Json, Json, str | None]:
    span = one(attributes, name, **fields)
    assert span.kind is SpanKind.TOOL_CALL
    assert span.tool is not None
    return span.tool.name, span.tool.arguments, span.tool.result, outcome_of(span)


def test_a_tool_of_google_adk_that_reports_an_error() -> None:
    result = {"isError": True, "content": [{"type": "text", "text": "no such city"}]}
    attributes: JsonObject = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "population",
        "gen_ai.tool.call.id": "<not specified>",
        "gcp.vertex.agent.tool_call_args": '{"city": "Atlantis"}',
        "gcp.vertex.agent.tool_response": json.dumps(result),
    }
    name, arguments, found, outcome = tool_of(attributes)
    assert (name, arguments, found) == ("population", {"city": "Atlantis"}, result)
    assert outcome == "tool error no such city"
    assert one(attributes).tool.call_id is None  # type: ignore[union-attr]


@pytest.mark.parametrize("result", ['{"result": "<not specified>"}', "{}", "<not serializable>", None])
def test_a_tool_of_google_adk_without_content_says_nothing(result: str | None) -> None:
    off: JsonObject = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "population"}
    off["gcp.vertex.agent.tool_call_args"] = "{}"
    if result is not None:
        off["gcp.vertex.agent.tool_response"] = result
    assert tool_of(off)[2:] == (None, None)


def test_a_merged_tool_span_of_google_adk_is_no_tool_call() -> None:
    merged: JsonObject = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "(merged tools)"}
    assert one(merged | {"gcp.vertex.agent.event_id": "e"}).kind is SpanKind.OTHER


def test_a_choice_event_with_bedrocks_blocks() -> None:
    block = {"toolUse": {"toolUseId": "t1", "name": "population", "input": {"city": "Oslo"}}}
    choice = otlp_event("gen_ai.choice", {"finish_reason": "tool_use", "message": json.dumps([block])})
    asked = otlp_event("gen_ai.user.message", {"content": '[{"text": "How many?"}]'})
    answered = {"toolResult": {"toolUseId": "t0", "status": "success", "content": [{"text": "7"}]}}
    told = otlp_event("gen_ai.tool.message", {"content": json.dumps([answered])})
    span = one({"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"}, events=[asked, told, choice])
    assert span.llm is not None
    assert span.llm.input_messages == [
        {"role": "user", "content": "How many?"},
        {"role": "tool", "tool_call_id": "t0", "content": "7"},
    ]
    assert span.llm.output_messages == [{"role": "assistant", "content": None, "tool_calls": [ASKED]}]
    assert span.llm.finish_reasons == ["tool_use"]


def test_a_tools_arguments_and_result_in_events() -> None:
    events = [
        otlp_event("gen_ai.tool.message", {"role": "tool", "content": '{"city": "Oslo"}', "id": "t1"}),
        otlp_event("gen_ai.choice", {"message": '[{"text": "709000"}]', "id": "t1"}),
    ]
    attributes: JsonObject = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "population"}
    assert tool_of(attributes, events=events) == ("population", {"city": "Oslo"}, "709000", SUCCESS)
    hidden = attributes | {"gen_ai.tool.call.arguments": "", "gen_ai.tool.call.result": "[REDACTED]"}
    assert tool_of(hidden, events=events) == ("population", {"city": "Oslo"}, "709000", SUCCESS)


@pytest.mark.parametrize("wrapper", [{}, {"args": []}, {"args": [], "sanitize_inputs_outputs": True}])
def test_wrapped_arguments_of_openinference(wrapper: JsonObject) -> None:
    attributes: JsonObject = {
        "openinference.span.kind": "TOOL",
        "input.value": json.dumps(wrapper | {"kwargs": {"city": "Oslo"}}),
        "output.value": "709000",
    }
    assert tool_of(attributes, "population.__call__") == ("population", {"city": "Oslo"}, "709000", SUCCESS)
    positional = attributes | {"input.value": '{"args": ["Oslo"], "kwargs": {}}'}
    assert tool_of(positional, "population.__call__")[1] == {"args": ["Oslo"], "kwargs": {}}


MESSAGE = {"content": "no such city", "tool_call_id": "t1", "status": "error"}
DUMPED = {"lc": 1, "type": "constructor", "id": ["langchain_core", "messages", "ToolMessage"], "kwargs": MESSAGE}
LANGCHAIN: list[JsonObject] = [
    {"openinference.span.kind": "TOOL", "output.value": json.dumps({"type": "tool", "data": MESSAGE})},
    {"openinference.span.kind": "TOOL", "output.value": json.dumps({**MESSAGE, "type": "tool"})},
    {"openinference.span.kind": "TOOL", "output.value": json.dumps(DUMPED)},
    {"langsmith.span.kind": "tool", "gen_ai.completion": json.dumps({"output": {**MESSAGE, "type": "tool"}})},
    {"langsmith.span.kind": "tool", "gen_ai.completion": json.dumps({"output": DUMPED})},
    {"traceloop.span.kind": "tool", "traceloop.entity.output": json.dumps({"output": DUMPED})},
    {"traceloop.span.kind": "tool", "traceloop.entity.output": json.dumps({"output": {**MESSAGE, "type": "tool"}})},
]


@pytest.mark.parametrize("attributes", LANGCHAIN)
@pytest.mark.parametrize("status", ["error", "success"])
def test_the_status_of_langchains_tool_message_is_kept(attributes: JsonObject, status: str) -> None:
    told: JsonObject = {name: str(value).replace('"error"', f'"{status}"') for name, value in attributes.items()}
    *_, outcome = tool_of(told, "population")
    assert outcome == ("tool error no such city" if status == "error" else SUCCESS)


MCP_ERROR = {"isError": True, "content": [{"type": "text", "text": "no such city"}]}
RESULTS: dict[str, JsonObject] = {
    "gen_ai.tool.call.result": {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "population"},
    "ai.toolCall.result": {"ai.toolCall.name": "population"},
    "output.value": {"openinference.span.kind": "TOOL"},
    "gen_ai.completion": {"langsmith.span.kind": "tool"},
    "traceloop.entity.output": {"traceloop.span.kind": "tool"},
    "tool.result": {"agentops.span.kind": "tool"},
    "tool_response": {"logfire.msg": "running tool", "gen_ai.tool.name": "population"},
    "gcp.vertex.agent.tool_response": {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "population"},
    "haystack.agent.step.tool.output": {"haystack.tool.name": "population"},
}


@pytest.mark.parametrize("name", RESULTS)
def test_every_dialect_reads_a_protocols_error_in_its_results(name: str) -> None:
    span = "haystack.agent.step.tool" if name.startswith("haystack") else "a span"
    assert tool_of(RESULTS[name] | {name: json.dumps(MCP_ERROR)}, span)[3] == "tool error no such city"
    assert tool_of(RESULTS[name] | {name: json.dumps([{"type": "text", "text": "709000"}])}, span)[3] == SUCCESS
    assert tool_of(RESULTS[name] | {name: json.dumps({"success": False})}, span)[3] is None


def test_a_tools_answer_in_the_middle_splits_the_message() -> None:
    parts = [
        {"type": "tool_call", "id": "t1", "name": "population", "arguments": {"city": "Oslo"}},
        {"type": "tool_call_response", "id": "t1", "response": "709000"},
        {"type": "text", "content": "Done."},
    ]
    assert messages_of([{"role": "assistant", "parts": parts}]) == [
        {"role": "assistant", "content": None, "tool_calls": [ASKED]},
        {"role": "tool", "tool_call_id": "t1", "content": "709000"},
        {"role": "assistant", "content": "Done."},
    ]


@pytest.mark.parametrize("kind", ["AGENT", "LLM", "TOOL", "CHAIN"])
def test_an_agents_name_counts_and_not_a_graph_nodes_id(kind: str) -> None:
    attributes: JsonObject = {"openinference.span.kind": kind, "graph.node.id": "strands_agent"}
    assert one(attributes | {"gen_ai.agent.name": "geographer"}).agent_name == "geographer"
    assert one(attributes | {"agent.name": "geographer"}).agent_name == "geographer"
    node: JsonObject = {"openinference.span.kind": kind, "graph.node.name": "tools", "graph.node.id": "3"}
    assert one(node).agent_name == ("tools" if kind == "AGENT" else None)
    assert one(node | {"gen_ai.agent.name": "geographer"}).agent_name == "geographer"


def test_spans_of_the_ai_sdk_by_their_attributes_alone() -> None:
    tool: JsonObject = {
        "ai.toolCall.name": "population", "ai.toolCall.id": "t1", "ai.toolCall.args": '{"city":"Oslo"}',
        "ai.toolCall.result": '"709000"',
    }  # fmt: skip
    assert tool_of(tool, "ai.toolCall") == ("population", {"city": "Oslo"}, "709000", SUCCESS)
    prompt = [
        {"role": "system", "content": "Use the tool."},
        {"role": "user", "content": [{"type": "text", "text": "How many?"}]},
        {"role": "assistant", "content": [
            {"type": "tool-call", "toolCallId": "t1", "toolName": "population", "input": {"city": "Oslo"}},
        ]},
        {"role": "tool", "content": [
            {"type": "tool-result", "toolCallId": "t1", "toolName": "population",
             "output": {"type": "text", "value": "709000"}},
        ]},
    ]  # fmt: skip
    calls = [{"toolCallType": "function", "toolCallId": "t1", "toolName": "population", "args": '{"city":"Oslo"}'}]
    span = one(
        {
            "ai.prompt.messages": json.dumps(prompt), "ai.response.text": "I ask.",
            "ai.response.toolCalls": json.dumps(calls), "ai.model.id": "policy", "ai.usage.promptTokens": 7,
            "ai.usage.completionTokens": 3, "ai.response.finishReason": "tool-calls", "ai.response.id": "r1",
        },
        "ai.generateText.doGenerate",
    )  # fmt: skip
    assert (span.kind, span.model, span.dialect) == (SpanKind.LLM_CALL, "policy", "ai_sdk")
    assert span.llm is not None
    assert span.llm.output_messages == [{"role": "assistant", "content": "I ask.", "tool_calls": [ASKED]}]
    assert span.llm.input_messages[2:] == [
        {"role": "assistant", "content": None, "tool_calls": [ASKED]},
        {"role": "tool", "tool_call_id": "t1", "content": "709000"},
    ]
    counts = (span.llm.input_tokens, span.llm.output_tokens, span.llm.response_id, span.llm.finish_reasons)
    assert counts == (7, 3, "r1", ["tool-calls"])
    assert one({"ai.operationId": "ai.streamText"}, "ai.streamText").kind is SpanKind.AGENT_STEP
    assert one({"gen_ai.operation.name": "agent_step"}).kind is SpanKind.AGENT_STEP


def test_counting_tokens_is_no_model_call() -> None:
    asked: JsonObject = {"gen_ai.request.model": "claude", "gen_ai.system": "anthropic"}
    assert one(asked, "anthropic.messages.count_tokens").kind is SpanKind.OTHER
    assert one(asked | {"gen_ai.usage.input_tokens": 7}, "anthropic.messages.count_tokens").kind is SpanKind.OTHER
    for name in ("anthropic.messages.count_tokens", "CountTokens", "token_count m"):
        assert one(asked, name, error="overloaded").kind is SpanKind.OTHER
    answers: list[JsonObject] = [
        {"gen_ai.usage.output_tokens": 1}, {"gen_ai.response.id": "r"}, {"gen_ai.response.model": "claude-1"},
        {"gen_ai.output.messages": "[]"}, {"gen_ai.completion": "x"},
    ]  # fmt: skip
    for answer in answers:
        assert one(asked | answer).kind is SpanKind.LLM_CALL
    assert one(asked, error="overloaded").kind is SpanKind.LLM_CALL
    assert one(asked, events=[otlp_event("gen_ai.choice", {"index": 0})]).kind is SpanKind.LLM_CALL


NOTHING = st.sampled_from(["", "[]", "[REDACTED]", "<elided>", "__REDACTED__", '[{"role": "assistant", "parts": []}]'])


@given(nothing=NOTHING)
def test_an_attribute_that_says_nothing_hides_nothing(nothing: str) -> None:
    call: JsonObject = {
        "gen_ai.operation.name": "chat",
        "gen_ai.output.messages": nothing,
        "gen_ai.input.messages": nothing,
    }
    flat = {
        "llm.request.type": "chat",
        "gen_ai.completion.0.content": "It is 4.",
        "gen_ai.completion.0.role": "assistant",
    }
    choice = otlp_event("gen_ai.choice", {"message": '{"content": "It is 4."}'})
    for span in (one(call | flat), one(call, events=[choice])):
        assert span.llm is not None
        assert span.llm.output_messages == [{"role": "assistant", "content": "It is 4."}]
    tool: JsonObject = {"openinference.span.kind": "TOOL", "tool.name": "t", "input.value": nothing}
    assert tool_of(tool | {"gen_ai.tool.call.arguments": '{"x": 1}'})[1] == {"x": 1} or nothing.startswith("[{")


EMPTY = st.sampled_from([None, "", [], {}])
ANSWERS = ["response", "result", "content", "output"]
ARGUMENTS = ["arguments", "input", "args"]


@given(names=st.permutations(ANSWERS), empty=EMPTY, at=st.integers(0, 3))
def test_an_empty_field_of_a_tools_answer_hides_no_other(names: list[str], empty: Json, at: int) -> None:
    part: JsonObject = dict.fromkeys(names, empty)
    part[names[at]] = "709000"
    parts: list[Json] = [{"type": "tool_call_response", "id": "t1", **part}]
    [message] = messages_of([{"role": "tool", "parts": parts}])
    assert message == {"role": "tool", "tool_call_id": "t1", "content": "709000"}


@given(names=st.permutations(ARGUMENTS), empty=EMPTY, at=st.integers(0, 2))
def test_an_empty_field_of_a_tools_arguments_hides_no_other(names: list[str], empty: Json, at: int) -> None:
    asked: JsonObject = {"id": "t1", "name": "population", **dict.fromkeys(names, empty), names[at]: {"city": "Oslo"}}
    [message] = messages_of([{"role": "assistant", "parts": [{"type": "tool_call", **asked}]}])
    assert message["tool_calls"] == [ASKED]
    call: JsonObject = {"toolCallId": "t1", "toolName": "population", "input": empty, "args": {"city": "Oslo"}}
    span = one({"ai.response.toolCalls": json.dumps([call])}, "ai.generateText.doGenerate")
    assert span.llm is not None
    assert span.llm.output_messages[0]["tool_calls"] == [ASKED]


@given(empty=EMPTY)
def test_an_empty_text_hides_no_other(empty: Json) -> None:
    [message] = messages_of([{"role": "user", "parts": [{"type": "text", "content": empty, "text": "How many?"}]}])
    assert message["content"] == "How many?"


TEXT = st.text(st.characters(categories=["L"]), min_size=1, max_size=5)
FORMS: dict[str, tuple[Any, Any, Any]] = {
    "conventions": (
        lambda said: {"type": "text", "content": said},
        lambda id_, said: {"type": "tool_call", "id": id_, "name": said, "arguments": {"x": said}},
        lambda id_, said: {"type": "tool_call_response", "id": id_, "result": said},
    ),
    "anthropic": (
        lambda said: {"type": "text", "text": said},
        lambda id_, said: {"type": "tool_use", "id": id_, "name": said, "input": {"x": said}},
        lambda id_, said: {"type": "tool_result", "tool_use_id": id_, "content": [{"type": "text", "text": said}]},
    ),
    "bedrock": (
        lambda said: {"text": said},
        lambda id_, said: {"toolUse": {"toolUseId": id_, "name": said, "input": {"x": said}}},
        lambda id_, said: {"toolResult": {"toolUseId": id_, "content": [{"text": said}]}},
    ),
    "gemini": (
        lambda said: {"text": said},
        lambda id_, said: {"function_call": {"id": id_, "name": said, "args": {"x": said}}},
        lambda id_, said: {"function_response": {"id": id_, "name": "n", "response": said}},
    ),
    "ai sdk": (
        lambda said: {"type": "text", "text": said},
        lambda id_, said: {"type": "tool-call", "toolCallId": id_, "toolName": said, "input": {"x": said}},
        lambda id_, said: {"type": "tool-result", "toolCallId": id_, "output": {"type": "text", "value": said}},
    ),
    "haystack": (
        lambda said: {"text": said},
        lambda id_, said: {"tool_call": {"id": id_, "tool_name": said, "arguments": {"x": said}}},
        lambda id_, said: {"tool_call_result": {"result": said, "origin": {"id": id_}, "error": False}},
    ),
}


@given(form=st.sampled_from(sorted(FORMS)), told=st.lists(st.tuples(st.integers(0, 2), TEXT), min_size=1, max_size=8))
def test_parts_of_every_form_keep_their_order_and_their_content(form: str, told: list[tuple[int, str]]) -> None:
    said, asks, answers = FORMS[form]
    parts = [[said(t), asks(f"id{n}", t), answers(f"id{n}", t)][kind] for n, (kind, t) in enumerate(told)]
    key = "parts" if form in ("conventions", "gemini") else "content"
    if form in ("anthropic", "ai sdk") and all(kind == 0 for kind, _ in told):
        return  # plain text parts stay as they are: they are OpenAI's too
    found: list[tuple[int, str]] = []
    for message in messages_of([{"role": "assistant", key: parts}]):
        if message["role"] == "tool":
            found.append((2, str(message["content"])))
            continue
        found += [(0, line) for line in str(message["content"] or "").split("\n") if line]
        for asked in message.get("tool_calls") or []:  # type: ignore[union-attr]
            function = asked["function"]  # type: ignore[index, call-overload]
            assert json.loads(function["arguments"]) == {"x": function["name"]}  # type: ignore[index, call-overload, arg-type]
            found.append((1, str(function["name"])))  # type: ignore[index, call-overload]
    expected: list[tuple[int, str]] = []
    run: list[tuple[int, str]] = []
    for kind, text in [*told, (2, "")]:
        if kind == 2:
            expected += sorted(run, key=lambda one: one[0])  # a message has its texts before its tool calls
            run = []
            expected.append((kind, text))
        else:
            run.append((kind, text))
    assert found == expected[:-1]


CALLS = st.lists(st.tuples(st.text(min_size=1, max_size=5), st.dictionaries(TEXT, TEXT, max_size=2)), max_size=3)


@given(asked=CALLS, reply=st.sampled_from(["chatcmpl-1", "msg_1", "resp_1"]), ours=st.booleans())
def test_ids_that_langchain_for_node_writes_only_into_the_whole_reply_are_read(
    asked: list[tuple[str, JsonObject]], reply: str, ours: bool
) -> None:
    """The flattened tool calls have names and arguments alone; a message without an id of the API has the run's."""
    calls: list[Json] = [{"type": "tool_call", "id": id_, "name": "f", "args": args} for id_, args in asked]
    kwargs: JsonObject = {"id": reply if not ours else f"run-{reply}", "content": "", "tool_calls": calls}
    message: JsonObject = {"lc": 1, "type": "constructor", "id": ["langchain_core", "messages", "AIMessage"]}
    attributes: JsonObject = {
        "openinference.span.kind": "LLM",
        "output.value": json.dumps({"generations": [[{"text": "", "message": {**message, "kwargs": kwargs}}]]}),
        "llm.output_messages.0.message.role": "assistant",
        "llm.output_messages.0.message.content": "",
    }
    for n, (_, args) in enumerate(asked):
        called = f"llm.output_messages.0.message.tool_calls.{n}.tool_call.function"
        attributes |= {f"{called}.name": "f", f"{called}.arguments": json.dumps(args)}
    llm = one(attributes).llm
    assert llm is not None
    assert llm.response_id == (None if ours else reply)
    [said] = llm.output_messages
    told = said.get("tool_calls") or []
    assert [call["id"] for call in told] == [id_ for id_, _ in asked]  # type: ignore[index, union-attr, call-overload]


def test_a_tool_use_among_the_contents_is_a_tool_call_and_no_content() -> None:
    """OpenInference for Anthropic writes it twice, here once."""
    part = "llm.output_messages.0.message.contents"
    llm = one(
        {
            "openinference.span.kind": "LLM",
            f"{part}.0.message_content.type": "text",
            f"{part}.0.message_content.text": "I ask.",
            f"{part}.1.message_content.type": "tool_use",
            f"{part}.1.tool_call.id": "t1",
            f"{part}.1.tool_call.function.name": "population",
            f"{part}.1.tool_call.function.arguments": '{"city":"Oslo"}',
        }
    ).llm
    assert llm is not None
    assert llm.output_messages == [{"role": "assistant", "tool_calls": [ASKED], "content": "I ask."}]


class Part(dict[str, Json]):
    """A part of a message that cannot be compared with others."""

    def __eq__(self, other: object) -> bool:
        raise AssertionError("all parts are compared with each other")

    __hash__ = None


def test_many_tool_uses_are_not_compared_with_each_other() -> None:
    uses: list[Json] = [Part(message_content={"type": "tool_use"}, tool_call={"id": str(n)}) for n in range(3)]
    [message] = of_flat([{"role": "assistant", "contents": [*uses, Part(type="text", text="I ask.")]}])
    assert message["content"] == "I ask."
    assert [call["id"] for call in message["tool_calls"]] == ["0", "1", "2"]  # type: ignore[index, union-attr, call-overload]
