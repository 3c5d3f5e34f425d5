"""Spans in the GenAI conventions, and in none, become the one span model."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyden.events import Evaluation, SpanKind, SpanRecorded
from leyden.events.codec import SPANS, decode, encode
from leyden.ids import derive
from leyden.ingest.core.event import Normalised
from leyden.ingest.core.normalise import RejectedSpan, normalise_traces
from leyden.ingest.core.raw import plain_value
from leyden.ingest.dialects import DIALECTS
from unit.ingest.otlp_builders import (
    ATTEMPT,
    END,
    FOREIGN_TRACE,
    ROLLOUT,
    any_value,
    otlp_event,
    otlp_request,
    otlp_span,
)


def normalised(*spans: Any, resource: dict[str, object] | None = None) -> list[SpanRecorded]:
    found = list(normalise_traces(otlp_request(*spans, resource=resource), DIALECTS))
    assert all(isinstance(span, Normalised) for span in found)
    return [span.event() for span in found if isinstance(span, Normalised)]


@pytest.mark.parametrize(
    ("operation", "kind"),
    [
        ("chat", SpanKind.LLM_CALL),
        ("text_completion", SpanKind.LLM_CALL),
        ("generate_content", SpanKind.LLM_CALL),
        ("embeddings", SpanKind.LLM_CALL),
        ("execute_tool", SpanKind.TOOL_CALL),
        ("invoke_agent", SpanKind.AGENT_STEP),
        ("create_agent", SpanKind.AGENT_STEP),
        ("retrieval", SpanKind.RETRIEVAL),
        ("search_memory", SpanKind.RETRIEVAL),
        ("plan", SpanKind.AGENT_STEP),
        ("execute_task", SpanKind.AGENT_STEP),
        ("chat.completions", SpanKind.LLM_CALL),
        ("something_new", SpanKind.OTHER),
    ],
)
def test_the_operation_says_what_a_span_is(operation: str, kind: SpanKind) -> None:
    [span] = normalised(otlp_span({"gen_ai.operation.name": operation, "gen_ai.agent.name": "solver"}))
    assert (span.kind, span.dialect, span.agent_name) == (kind, "gen_ai", "solver")
    assert ("gen_ai.operation.name" in span.attributes) == (kind is SpanKind.OTHER)


def test_a_span_of_a_tool_carries_its_call_and_its_schema() -> None:
    schema = {"type": "object", "properties": {"expression": {"type": "string"}}}
    definitions = [{"type": "function", "function": {"name": "calculator", "parameters": schema}}]
    attributes = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "calculator",
        "gen_ai.tool.call.id": "call-7",
        "gen_ai.tool.call.arguments": '{"expression": "1+1"}',
        "gen_ai.tool.call.result": "2",
        "gen_ai.tool.definitions": json.dumps(definitions),
    }
    [span] = normalised(otlp_span(attributes))
    assert span.tool is not None
    assert (span.tool.name, span.tool.call_id) == ("calculator", "call-7")
    assert (span.tool.arguments, span.tool.result) == ({"expression": "1+1"}, "2")
    assert span.tool.parameters_schema == schema


def test_a_tool_of_our_client_names_its_own_schema() -> None:
    schema = {"type": "object"}
    attributes = {"gen_ai.operation.name": "execute_tool", "leyden.tool.parameters_schema": json.dumps(schema)}
    [span] = normalised(otlp_span({**attributes, "gen_ai.tool.call.result": '"four"'}, name="execute_tool add"))
    assert span.tool is not None
    assert (span.tool.name, span.tool.parameters_schema, span.tool.result) == ("add", schema, "four")
    assert "leyden.tool.parameters_schema" not in span.attributes


@pytest.mark.parametrize("arguments", ["{not json", '{"a": NaN}', "[" * 3000])
def test_arguments_that_are_no_json_stay_a_text(arguments: str) -> None:
    [span] = normalised(otlp_span({"gen_ai.tool.name": "t", "gen_ai.tool.call.arguments": arguments}))
    assert span.tool is not None
    assert span.tool.arguments == arguments
    assert decode(SPANS, encode(span)) == span


def test_half_an_emoji_in_json_costs_one_character() -> None:
    [span] = normalised(otlp_span({"gen_ai.tool.name": "t", "gen_ai.tool.call.arguments": '{"a": "go \\ud83d"}'}))
    assert span.tool is not None
    assert span.tool.arguments == {"a": "go �"}


def test_an_evaluation_span_is_a_score() -> None:
    attributes = {"gen_ai.evaluation.name": "helpful", "gen_ai.evaluation.score.value": 1, "leyden.extra": "kept"}
    [span] = normalised(otlp_span(attributes))
    assert span.kind is SpanKind.EVALUATION
    assert span.evaluation == Evaluation(name="helpful", value=1.0)
    assert span.attributes["leyden.extra"] == "kept"
    assert not span.derived


def test_scores_as_events_become_spans_of_their_own() -> None:
    events = [
        otlp_event("gen_ai.evaluation.result", {"gen_ai.evaluation.name": name, "gen_ai.evaluation.score.value": value})
        for name, value in (("helpful", 0.5), ("short", float("nan")))
    ]
    holder, *scores = normalised(otlp_span({"gen_ai.operation.name": "invoke_agent"}, events=events))
    assert [(s.evaluation.name, s.evaluation.value) for s in scores if s.evaluation] == [
        ("helpful", 0.5),
        ("short", None),
    ]
    assert all(s.derived and s.parent_span_id == holder.span_id and s.rollout_id == ROLLOUT for s in scores)
    assert len({holder.event_id, *(s.event_id for s in scores)}) == 3
    assert scores[0].event_id == derive("span", holder.trace_id, scores[0].span_id)


def test_a_failed_tool_names_its_error() -> None:
    event = otlp_event("exception", {"exception.type": "ZeroDivisionError", "exception.message": "division by zero"})
    [span] = normalised(otlp_span({"gen_ai.tool.name": "calculator"}, events=[event], error=""))
    assert (span.status, span.error_type, span.error_message) == ("error", "ZeroDivisionError", "division by zero")
    [span] = normalised(otlp_span({"gen_ai.tool.name": "calculator", "error.type": "timeout"}, error="too slow"))
    assert (span.error_type, span.error_message) == ("timeout", "too slow")


def test_what_nobody_understands_is_kept_whole() -> None:
    event = otlp_event("cache miss", {"key": "k"})
    [span] = normalised(
        otlp_span({"http.route": "/x", "n": [1, {"deep": True}]}, events=[event]), resource={"host": "h"}
    )
    assert (span.kind, span.dialect) == (SpanKind.OTHER, "other")
    assert span.attributes["http.route"] == "/x"
    assert span.attributes["n"] == [1, {"deep": True}]
    assert span.attributes["otel.resource"] == {"host": "h"}
    assert span.attributes["otel.scope"] == {"name": "tests", "version": "1"}
    assert [e["name"] for e in span.attributes["otel.events"]] == ["cache miss"]  # type: ignore[index, union-attr, call-overload]


def test_the_time_of_a_span_is_its_end() -> None:
    [span] = normalised(otlp_span())
    assert span.event_time == datetime.fromtimestamp(END // 10**9, UTC).replace(microsecond=500_000)
    assert span.event_id == derive("span", span.trace_id, span.span_id)


@pytest.mark.parametrize(
    ("trace_id", "attributes", "resource", "expected"),
    [
        (ATTEMPT.trace_id, {}, {}, ATTEMPT),
        (FOREIGN_TRACE, {}, {}, None),
        (FOREIGN_TRACE, {"leyden.rollout.id": ROLLOUT, "leyden.attempt": 1}, {}, (ROLLOUT, 1)),
        (FOREIGN_TRACE, {"leyden.rollout.id": ROLLOUT}, {}, (ROLLOUT, 0)),
        (FOREIGN_TRACE, {"leyden.rollout_id": ROLLOUT, "leyden.attempt": 4}, {}, (ROLLOUT, 4)),
        (FOREIGN_TRACE, {}, {"leyden.rollout.id": ROLLOUT, "leyden.attempt": "3"}, (ROLLOUT, 3)),
        (FOREIGN_TRACE, {"leyden.rollout.id": ATTEMPT.trace_id}, {}, ATTEMPT),
        (ATTEMPT.trace_id, {"leyden.rollout.id": ROLLOUT}, {}, ATTEMPT),
        (FOREIGN_TRACE, {"leyden.rollout.id": "nonsense"}, {}, None),
        (FOREIGN_TRACE, {"leyden.rollout.id": ROLLOUT, "leyden.attempt": -1}, {}, None),
        (FOREIGN_TRACE, {"leyden.rollout.id": 5}, {}, None),
    ],
)
def test_a_span_is_bound_by_attribute_then_by_trace(
    trace_id: str, attributes: dict[str, object], resource: dict[str, object], expected: tuple[str, int] | None
) -> None:
    [span] = normalised(otlp_span(attributes, trace_id=trace_id), resource=resource)
    assert (span.rollout_id, span.attempt) == (expected or (None, 0))


def test_a_bad_span_is_refused_alone_and_can_be_driven_again() -> None:
    bad = otlp_span(span_id="0000000000000000")
    good = otlp_span()
    refused, kept = normalise_traces(otlp_request(bad, good), DIALECTS)
    assert isinstance(refused, RejectedSpan)
    assert isinstance(kept, Normalised)
    request = otlp_request()
    request.ParseFromString(refused.request)
    assert [s.name for s in request.resource_spans[0].scope_spans[0].spans] == [bad.name]


JSON_LIKE = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(JSON_LIKE)
def test_every_attribute_is_plain_json(value: object) -> None:
    json.dumps(plain_value(any_value(value)), allow_nan=False)


@given(
    st.dictionaries(st.text() | st.sampled_from(["gen_ai.tool.name", "gen_ai.operation.name"]), JSON_LIKE, max_size=5)
)
def test_any_span_survives_the_wire(attributes: dict[str, object]) -> None:
    [span] = normalised(otlp_span(attributes))
    assert decode(SPANS, encode(span)) == span
