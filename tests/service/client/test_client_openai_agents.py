"""The OpenAI Agents SDK's traces as our spans: its objects as its 0.24 has them, by their attributes."""

import json
from types import SimpleNamespace
from typing import Any

import leyden
from client_support import FakeGateway, attributes
from leyden.client.openai_agents import LeydenTracing, messages_of


class Sdk:
    """Begins and ends spans as the SDK does."""

    def __init__(self) -> None:
        self.sees = LeydenTracing()
        self.trace = SimpleNamespace(trace_id="trace_1", name="Agent workflow")
        self._count = 0

    def span(self, parent: Any, kind: str, error: Any = None, **data: Any) -> Any:
        self._count += 1
        described = SimpleNamespace(type=kind, export=lambda: {"type": kind, **data}, **data)
        span = SimpleNamespace(
            trace_id="trace_1", span_id=f"span_{self._count}", parent_id=parent and parent.span_id,
            span_data=described, error=error,
        )  # fmt: skip
        self.sees.on_span_start(span)
        return span


def test_a_run_becomes_spans_with_agents_tools_model_calls_and_errors(connected: FakeGateway) -> None:
    sdk = Sdk()
    with leyden.Rollout("solver"):
        sdk.sees.on_trace_start(sdk.trace)
        agent = sdk.span(None, "agent", name="Math")
        asked = [{"role": "user", "content": "1+2?"}]
        call = {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "add", "arguments": '{"a": 1}'}}]}
        usage = {"input_tokens": 5, "output_tokens": 2}
        model = sdk.span(agent, "generation", model="policy", input=asked, output=[call], usage=usage)
        error = {"message": "Error running tool", "data": {"tool_name": "add", "error": "no b"}}
        tool = sdk.span(agent, "function", error, name="add", input='{"a": 1}', output="failed", mcp_data=None)
        handoff = sdk.span(agent, "handoff", from_agent="Math", to_agent="Poet")
        for span in (model, tool, handoff, sdk.span(agent, "guardrail", name="polite", triggered=True), agent):
            sdk.sees.on_span_end(span)
        sdk.sees.on_trace_end(sdk.trace)
    [(trace_id, [end])] = connected.ends.items()
    spans = {span.name: span for span in connected.spans_of(trace_id)}
    assert end["span_count"] == len(spans) == 7
    workflow, math = spans["invoke_workflow Agent workflow"], spans["invoke_agent Math"]
    assert workflow.parent_span_id == spans["invoke_agent solver"].span_id
    assert math.parent_span_id == workflow.span_id
    inner = ("chat policy", "execute_tool add", "handoff to Poet", "guardrail polite")
    assert {spans[name].parent_span_id for name in inner} == {math.span_id}
    assert {attributes(spans[name])["gen_ai.agent.name"] for name in inner} == {"Math"}
    chat, added = attributes(spans["chat policy"]), attributes(spans["execute_tool add"])
    assert (chat["gen_ai.request.model"], chat["gen_ai.usage.input_tokens"]) == ("policy", 5)
    [answer] = json.loads(chat["gen_ai.output.messages"])
    assert answer["parts"] == [{"type": "tool_call", "id": "c", "name": "add", "arguments": {"a": 1}}]
    assert (added["gen_ai.tool.call.arguments"], added["error.type"]) == ('{"a": 1}', "tool_error")
    assert spans["execute_tool add"].status.message == "Error running tool: no b"
    assert json.loads(attributes(spans["guardrail polite"])["leyden.operation.arguments"]) == {"triggered": True}


def test_a_span_that_was_never_seen_to_begin_is_left_alone(connected: FakeGateway) -> None:
    sdk = Sdk()
    lost = sdk.span(None, "agent", name="Math")
    sdk.sees.shutdown()
    sdk.sees.on_span_end(lost)
    sdk.sees.on_trace_end(sdk.trace)


def test_messages_of_both_apis_have_the_conventions_form() -> None:
    assert messages_of("hi") == [{"role": "user", "parts": [{"type": "text", "content": "hi"}]}]
    assert messages_of(None) == []
    items = [
        {
            "role": "user",
            "content": [{"type": "input_text", "text": "look"}, {"type": "input_image", "image_url": "u"}],
        },
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "not json"},
        {"type": "function_call_output", "call_id": "c", "output": "4"},
        {"role": "tool", "tool_call_id": "d", "content": "5"},
        SimpleNamespace(model_dump=lambda **_: {"type": "message", "role": "assistant", "content": [{"text": "bye"}]}),
        {"type": "web_search_call", "id": "w"},
    ]
    assert messages_of(items) == [
        {"role": "user", "parts": [
            {"type": "text", "content": "look"}, {"type": "input_image", "image_url": "u"}]},
        {"role": "assistant", "parts": [{"type": "reasoning", "content": "hm"}]},
        {"role": "assistant", "parts": [{"type": "tool_call", "id": "c", "name": "f", "arguments": "not json"}]},
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c", "response": "4"}]},
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "d", "response": "5"}]},
        {"role": "assistant", "parts": [{"type": "text", "content": "bye"}]},
        {"role": "user", "parts": [{"type": "web_search_call", "id": "w"}]},
    ]  # fmt: skip
