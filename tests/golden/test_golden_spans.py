"""Spans as real instrumentations export them (spans/), and what each of them comes to mean."""

import json
from pathlib import Path
from typing import Any

import orjson
import pytest

from leyden.events import Json, LlmCall, SpanKind, SpanRecorded, ToolCall, model_calls
from leyden.events.codec import SPANS, decode, encode
from leyden.events.joins import place_of
from leyden.events.otlp import CONTENT_TYPE_HEADER, JSON, SIGNAL_HEADER
from leyden.events.replies import replies_of_span
from leyden.ingest.core import decode as records
from leyden.ingest.core.event import Normalised
from leyden.ingest.core.normalise import normalise_traces
from leyden.ingest.dialects import DIALECTS
from leyden.ingest.dialects.logs import normalise_logs
from leyden.reward.core.failure import SUCCESS, outcome_of
from leyden.reward.core.spans import SpanIndex

HERE = Path(__file__).parent
RECORDINGS = sorted((HERE / "spans").glob("*.json"))
FACTS: dict[str, tuple[int, list[str], str | None]] = {
    "adk_agent": (3, ["population"] * 2, "geographer"),
    "adk_legacy": (3, ["population"] * 2, "geographer"),
    "agent_framework_agent": (2, ["population"], "geographer"),
    "agentops_openai": (3, ["population"] * 2, "geographer"),
    "agentscope_agent": (3, ["population"] * 2, "geographer"),
    "agno_agent": (3, ["population"] * 2, "geographer"),
    "ai_sdk_7_agent": (3, ["population"] * 2, "geographer"),
    "ai_sdk_agent": (3, ["population"] * 2, "geographer"),
    "autogen_assistant": (3, ["population"] * 2, "geographer"),
    "dspy_react": (4, ["population", "population", "finish"], None),
    "genai_current": (3, [], "geographer"),
    "genai_events": (3, [], None),
    "haystack_agent": (3, ["population"] * 2, None),
    "http_db": (0, [], None),
    "instructor_extract": (2, [], None),
    "langchain_js_agent": (3, ["population"] * 2, "geographer"),
    "langsmith_langchain": (3, ["population"] * 2, "geographer"),
    "litellm_loop": (3, [], None),
    "logfire_openai": (3, [], None),
    "logfire_openai_agents": (3, ["population"], "geographer"),
    "mcp_client": (0, ["population"] * 2, None),
    "mirascope_agent": (3, [], None),
    "nested_langchain_openai": (2, ["population"], "geographer"),
    "openai_agents_js_agent": (3, ["population"] * 2, "geographer"),
    "openinference_anthropic": (3, [], None),
    "openinference_langchain": (3, ["population"] * 2, "geographer"),
    "openinference_openai": (4, ["population"] * 2, "geographer"),
    "openinference_openai_agents": (3, ["population"], "geographer"),
    "pydantic_ai_native": (3, ["population"] * 2, "geographer"),
    "semantic_kernel_agent": (2, ["Places-population"], "geographer"),
    "smolagents_agent": (3, ["population", "population", "final_answer"], "geographer"),
    "strands_agent": (3, ["population"] * 2, "geographer"),
    "strands_current": (3, ["population"] * 2, "geographer"),
    "traceloop_anthropic": (3, [], None),
    "traceloop_langchain": (3, ["population"] * 2, "geographer"),
    "traceloop_openai": (3, ["population"] * 2, "geographer"),
    "traceloop_openai_agents": (3, ["population"], "geographer"),
}
"""Recording → (model calls, tools in the order in which they were executed, the agent that is named)."""


def spans_of(recording: Path) -> list[SpanRecorded]:
    """Everything that a recording becomes, in the order of the recording."""
    return [one.event() for one in made_of(recording)]


def made_of(recording: Path) -> list[Normalised]:
    """The same as it is published."""
    found: list[Normalised] = []
    for signal, requests in sorted(json.loads(recording.read_text()).items(), reverse=True):
        for request in requests:
            headers = {CONTENT_TYPE_HEADER: JSON, SIGNAL_HEADER: signal}
            decoded = records.decode(orjson.dumps(request), headers)
            assert not decoded.bad
            made = normalise_logs(decoded.logs) if signal == "logs" else normalise_traces(decoded.traces, DIALECTS)
            found += [one for one in made if isinstance(one, Normalised)]
    return found


def shown(span: SpanRecorded, names: dict[str, str]) -> dict[str, Any]:
    """What the span means; of what was left among the attributes the names."""
    left = sorted(name for name in span.attributes if not name.startswith(("otel.resource", "otel.scope")))
    told: dict[str, Any] = {
        "span": span.name,
        "under": names.get(span.parent_span_id or ""),
        "kind": span.kind,
        "dialect": span.dialect,
        "agent": span.agent_name,
        "error": [span.error_type, span.error_message] if span.status == "error" or span.error_type else None,
        "model": span.model,
        "llm": span.llm and span.llm.model_dump(mode="json", exclude_defaults=True),
        "tool": span.tool and span.tool.model_dump(mode="json", exclude_defaults=True),
        "retrieval": span.retrieval and span.retrieval.model_dump(mode="json", exclude_defaults=True),
        "outcome": span.outcome and span.outcome.model_dump(mode="json", exclude_defaults=True),
        "left": left or None,
    }
    return {name: value for name, value in told.items() if value is not None}


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda path: path.stem)
def test_recorded_spans_mean_what_they_meant(recording: Path, request: pytest.FixtureRequest) -> None:
    spans = spans_of(recording)
    names = {span.span_id: span.name for span in spans}
    found = json.loads(json.dumps([shown(span, names) for span in spans]))
    expected = HERE / "expected_spans" / recording.name
    if request.config.getoption("--update-golden", default=False):
        expected.parent.mkdir(exist_ok=True)
        expected.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    assert found == json.loads(expected.read_text())


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda path: path.stem)
def test_every_framework_made_the_calls_and_used_the_tools_that_it_did(recording: Path) -> None:
    """Independent of the expectations above."""
    calls, tools, agent = FACTS[recording.stem]
    spans = spans_of(recording)
    made = model_calls(spans)
    assert len(made) == calls
    assert all(span.llm is not None and span.model for span in made)
    used = [span for span in spans if span.kind is SpanKind.TOOL_CALL and isinstance(span.tool, ToolCall)]
    assert [span.tool.name for span in sorted(used, key=lambda span: span.start_unix_nano) if span.tool] == tools
    assert (agent in {span.agent_name for span in spans}) or agent is None


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda path: path.stem)
def test_a_recorded_span_is_the_bytes_that_the_model_gives(recording: Path) -> None:
    for one in made_of(recording):
        assert encode(one.event()) == one.value
        assert encode(decode(SPANS, one.value)) == one.value


def test_two_instrumentations_of_one_call_are_one_call_with_one_reply() -> None:
    spans = spans_of(HERE / "spans" / "nested_langchain_openai.json")
    told = [span for span in spans if span.kind is SpanKind.LLM_CALL]
    assert {span.dialect for span in told} == {"gen_ai", "openinference"}
    assert len(told) == 4
    assert [span.llm.response_id for span in model_calls(spans) if span.llm] == ["chatcmpl-1", "chatcmpl-2"]


SILENT = {"adk_legacy", "traceloop_openai_agents"}
"""Their model calls' spans say nothing of the answer; of google-adk's earlier schema the span around it does."""


def test_every_call_is_told_by_its_replys_id_or_by_the_reply_itself() -> None:
    """What joins it to the gateway's record."""
    for recording in RECORDINGS:
        for call in model_calls(spans_of(recording)):
            assert call.llm is not None
            told = call.llm.response_id is not None or replies_of_span(call)
            assert told or call.llm.operation == "embeddings" or recording.stem in SILENT


def test_the_tool_that_failed_says_so() -> None:
    for recording in RECORDINGS:
        for span in spans_of(recording):
            if span.tool is not None and "Atlantis" in str(span.tool.arguments) and span.kind is SpanKind.TOOL_CALL:
                assert span.status == "error" or span.tool.error, (recording.stem, span.name)


def test_what_was_asked_and_answered_has_one_form_in_every_dialect() -> None:
    """The first question that a framework asks, and the call of the tool that it is answered with."""
    for recording in RECORDINGS:
        for call in model_calls(spans_of(recording)):
            assert isinstance(call.llm, LlmCall)
            for message in [*call.llm.input_messages, *call.llm.output_messages]:
                assert isinstance(message["role"], str), (recording.stem, message)
                for asked in message.get("tool_calls") or []:  # type: ignore[union-attr]
                    assert isinstance(asked["function"]["name"], str)  # type: ignore[index, call-overload]


AGENTS = {
    "adk_agent": "geographer",
    "adk_legacy": "geographer",
    "agentscope_agent": "geographer",
    "agno_agent": "geographer",
    "ai_sdk_7_agent": "geographer",
    "ai_sdk_agent": "geographer",
    "haystack_agent": None,
    "langchain_js_agent": "geographer",
    "openai_agents_js_agent": "geographer",
    "smolagents_agent": "geographer",
    "strands_agent": "geographer",
    "strands_current": "geographer",
}
"""Recordings of one story, and the agent's name (Haystack's agents have none)."""


BARE = {"langchain_js_agent"}
"""Their tools' spans have the only value of the arguments, without its name."""


@pytest.mark.parametrize("name", AGENTS)
def test_a_recorded_agent_did_what_its_program_and_the_scripted_model_say(name: str) -> None:
    """The model asks for Atlantis, which fails, then for Delft, then answers; all of it by the one agent."""
    spans = sorted(spans_of(HERE / "spans" / f"{name}.json"), key=lambda span: span.start_unix_nano)
    index = SpanIndex.of(spans)
    tools = [span for span in spans if span.kind is SpanKind.TOOL_CALL and span.tool]
    population = [span for span in tools if span.tool and span.tool.name == "population"]
    asked: list[Json] = ["Atlantis", "Delft"] if name in BARE else [{"city": "Atlantis"}, {"city": "Delft"}]
    assert [span.tool.arguments for span in population if span.tool] == asked
    first, second = (outcome_of(span) for span in population)
    assert first is not None
    assert "no such city" in first
    assert second == SUCCESS
    assert "106000" in str(population[1].tool and population[1].tool.result)
    replies = [
        span.llm.output_messages
        for span in spans
        if span.kind is SpanKind.LLM_CALL and span.llm and span.llm.output_messages
    ]
    calls = [call["function"] for [reply] in replies for call in reply.get("tool_calls") or []]  # type: ignore[index, union-attr, call-overload]
    told = [(call["name"], json.loads(call["arguments"])) for call in calls]  # type: ignore[index, call-overload, arg-type]
    assert told[:2] == [("population", {"city": "Atlantis"}), ("population", {"city": "Delft"})]
    assert "It is 106000." in json.dumps(replies[-1])
    assert {index.agents[place_of(span)] for span in [*tools, *model_calls(spans)]} == {AGENTS[name]}
