"""What no recording shows: older names, dialects of servers, and attributes of any type under every known name."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyden.events import Json, SpanKind, SpanRecorded
from leyden.events.codec import SPANS, decode, encode
from leyden.ingest.core.event import Normalised
from leyden.ingest.core.messages import chat_messages, messages_of
from leyden.ingest.core.normalise import normalise_traces
from leyden.ingest.core.values import parsed
from leyden.ingest.dialects import DIALECTS
from unit.ingest.otlp_builders import otlp_event, otlp_request, otlp_span


def meant(attributes: dict[str, object], name: str = "a span", **more: Any) -> SpanRecorded:
    [one] = normalise_traces(otlp_request(otlp_span(attributes, name, **more)), DIALECTS)
    assert isinstance(one, Normalised)
    return one.event()


def test_flattened_messages_of_older_versions_are_read() -> None:
    span = meant({
        "gen_ai.system": "OpenAI", "llm.request.type": "chat", "gen_ai.request.model": "m",
        "gen_ai.prompt.0.role": "user", "gen_ai.prompt.0.content": "hi",
        "gen_ai.completion.0.role": "assistant", "gen_ai.completion.0.finish_reason": "tool_calls",
        "gen_ai.completion.0.tool_calls.0.name": "add", "gen_ai.completion.0.tool_calls.0.id": "c1",
        "gen_ai.completion.0.tool_calls.0.arguments": "{}", "gen_ai.usage.prompt_tokens": 3,
    })  # fmt: skip
    assert (span.kind, span.dialect) == (SpanKind.LLM_CALL, "gen_ai_flat")
    assert span.llm is not None
    assert span.llm.input_messages == [{"role": "user", "content": "hi"}]
    [said] = span.llm.output_messages
    assert said["tool_calls"] == [{"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}}]
    assert (span.llm.finish_reasons, span.llm.input_tokens) == (["tool_calls"], 3)
    assert not any(name.startswith(("gen_ai.prompt.", "gen_ai.completion.")) for name in span.attributes)


def test_messages_in_events_of_the_span_are_read_once() -> None:
    events = [
        otlp_event("gen_ai.user.message", {"content": "hi"}),
        otlp_event("gen_ai.choice", {"gen_ai.event.content": json.dumps({"message": {"content": "ho"}, "index": 0})}),
        otlp_event("cache miss", {}),
    ]
    span = meant({"gen_ai.system": "az.ai.inference", "gen_ai.request.model": "m"}, events=events)
    assert span.llm is not None
    assert span.llm.input_messages == [{"role": "user", "content": "hi"}]
    assert span.llm.output_messages == [{"role": "assistant", "content": "ho"}]
    assert [event["name"] for event in span.attributes["otel.events"]] == ["cache miss"]  # type: ignore[index, union-attr, call-overload]


@pytest.mark.parametrize("field", ["response", "result"])
def test_a_tools_answer_is_read_under_either_name(field: str) -> None:
    part: Json = {"type": "tool_call_response", "id": "c1", field: "42"}
    assert chat_messages({"role": "tool", "parts": [part]}) == [{"role": "tool", "tool_call_id": "c1", "content": "42"}]


def test_cached_tokens_that_a_provider_leaves_out_are_added() -> None:
    counts = {"gen_ai.usage.input_tokens": 5, "gen_ai.usage.cache_read.input_tokens": 100}
    span = meant({"gen_ai.operation.name": "chat", "gen_ai.provider.name": "anthropic", **counts})
    assert span.llm is not None
    assert (span.llm.input_tokens, span.llm.cached_tokens) == (105, 100)


def test_a_tool_of_a_server_that_answers_with_an_error_has_failed() -> None:
    result = {"content": [{"type": "text", "text": "no such city"}], "isError": True}
    span = meant({
        "mcp.method.name": "tools/call", "gen_ai.tool.name": "population", "rpc.jsonrpc.error_code": -32602,
        "gen_ai.tool.call.result": json.dumps(result),
    })  # fmt: skip
    assert (span.kind, span.dialect) == (SpanKind.TOOL_CALL, "mcp")
    assert span.tool is not None
    assert (span.tool.name, span.tool.type, span.tool.error) == ("population", "mcp", "no such city")
    assert span.outcome is not None
    assert span.outcome.rpc_code == "-32602"
    assert meant({"mcp.method.name": "tools/list"}).kind is SpanKind.OTHER


def test_tools_of_older_pydantic_ai_are_read() -> None:
    span = meant({
        "logfire.msg": "running tool", "gen_ai.tool.name": "add", "gen_ai.tool.call.id": "c1",
        "tool_arguments": '{"a": 1}', "tool_response": "2", "logfire.json_schema": "{}",
    })  # fmt: skip
    assert span.tool is not None
    assert (span.dialect, span.tool.arguments, span.tool.result) == ("logfire", {"a": 1}, "2")
    assert span.attributes["otel.left_out"] == {"logfire.json_schema": 2}


def test_a_query_that_found_nothing_is_evidence() -> None:
    span = meant({"db.system.name": "postgresql", "db.response.returned_rows": 0, "db.response.status_code": "08P01"})
    assert span.outcome is not None
    assert (span.dialect, span.outcome.returned_rows, span.outcome.db_status) == ("evidence", 0, "08P01")


def test_an_evaluators_answer_is_a_score() -> None:
    output = json.dumps({"score": 0.5, "label": "good", "explanation": "short"})
    span = meant({"openinference.span.kind": "EVALUATOR", "output.value": output}, name="helpful")
    assert span.kind is SpanKind.EVALUATION
    assert span.evaluation is not None
    assert (span.evaluation.name, span.evaluation.value, span.evaluation.label) == ("helpful", 0.5, "good")


def test_json_that_is_nested_too_deep_to_be_written_stays_a_text() -> None:
    deep = "[" * 200 + "]" * 200
    assert parsed(deep) == deep
    assert parsed("[" * 20 + "]" * 20) != "[" * 20 + "]" * 20
    assert messages_of("just text") == [{"role": "user", "content": "just text"}]


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["role", "parts", "content", "type", "id", "name", "lc", "kwargs", "data", "generations",
                         "message", "messages", "tool_calls", "function", "arguments", "output", "args", "kwargs"])
        | st.text(max_size=3), inner, max_size=4,
    ),
    max_leaves=10,
)  # fmt: skip
VALUES = st.one_of(
    st.text(max_size=8),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.binary(max_size=8),
    st.lists(st.text(max_size=4), max_size=3),
    st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=3),
    JSON_VALUES.map(json.dumps),
)
NAMES = [
    "gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.system", "gen_ai.request.model", "gen_ai.response.id",
    "gen_ai.response.finish_reasons", "gen_ai.response.finish_reason", "gen_ai.input.messages", "gen_ai.agent.name",
    "gen_ai.output.messages", "gen_ai.system_instructions", "gen_ai.usage.input_tokens", "gen_ai.request.temperature",
    "gen_ai.usage.cache_read.input_tokens", "gen_ai.tool.name", "gen_ai.tool.call.arguments",
    "gen_ai.tool.call.result", "gen_ai.tool.definitions", "gen_ai.retrieval.documents", "gen_ai.evaluation.name",
    "gen_ai.evaluation.score.value", "gen_ai.prompt", "gen_ai.completion", "gen_ai.prompt.0.role",
    "gen_ai.prompt.0.content", "gen_ai.prompt.0.tool_calls.0", "gen_ai.prompt.0.tool_calls.0.name",
    "gen_ai.completion.0.content", "gen_ai.completion.9.x", "llm.request.type", "openinference.span.kind",
    "input.value", "output.value", "llm.input_messages.0.message.role", "metadata",
    "llm.input_messages.0.message.tool_calls.0.tool_call.function.name", "llm.input_messages.0.message",
    "llm.output_messages.1.message.contents.0.message_content.text", "llm.invocation_parameters", "tool.name",
    "tool.parameters", "llm.token_count.prompt", "retrieval.documents.0.document.id", "retrieval.documents.x",
    "traceloop.span.kind", "traceloop.entity.input", "traceloop.entity.output", "traceloop.entity.name",
    "agentops.span.kind", "agentops.tool.input", "operation.name", "langsmith.span.kind",
    "langsmith.metadata.usage_metadata", "logfire.msg", "logfire.msg_template", "logfire.span_type", "request_data",
    "response_data", "input", "output", "name", "error", "usage", "tool_arguments", "mcp.method.name",
    "rpc.jsonrpc.error_code", "isError", "http.status_code", "http.request.method", "db.response.status_code",
    "db.system", "process.exit.code", "error.type", "leyden.rollout_id", "leyden.attempt", "session.id",
]  # fmt: skip
KINDS: dict[str, list[object]] = {
    "openinference.span.kind": ["LLM", "TOOL", "AGENT", "RETRIEVER", "EVALUATOR", "EMBEDDING", "RERANKER"],
    "traceloop.span.kind": ["workflow", "agent", "tool"],
    "agentops.span.kind": ["llm", "tool", "agent"],
    "langsmith.span.kind": ["llm", "tool", "retriever", "chain"],
    "gen_ai.operation.name": ["chat", "execute_tool", "invoke_agent", "retrieval"],
    "mcp.method.name": ["tools/call"],
    "logfire.msg_template": ["Function: {name}", "Chat completion with x", "Agent run: {name!r}"],
    "http.status_code": [500],
}


@pytest.mark.parametrize("mark", KINDS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_dialect_never_raises_and_every_span_is_one_event_that_round_trips(mark: str, data: st.DataObject) -> None:
    attributes = data.draw(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=8))
    attributes[mark] = data.draw(st.sampled_from(KINDS[mark]) | VALUES)
    [one] = normalise_traces(otlp_request(otlp_span(attributes)), DIALECTS)
    assert isinstance(one, Normalised)
    event = decode(SPANS, one.value)
    assert encode(event) == one.value
    assert decode(SPANS, encode(event)) == event
