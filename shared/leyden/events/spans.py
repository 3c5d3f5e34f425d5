"""Spans in the one model that every instrumentation's dialect is normalised to: `spans.v1`."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Literal

from pydantic import Field

from leyden.events.base import Event, Json, JsonObject, Record


class SpanKind(StrEnum):
    """What a span means to Leyden."""

    LLM_CALL = "llm_call"
    """An inference request to a model."""
    TOOL_CALL = "tool_call"
    """The execution of a tool."""
    AGENT_STEP = "agent_step"
    """An agent's own work: invoke_agent, a graph node, a chain."""
    RETRIEVAL = "retrieval"
    """A search whose results go into the context."""
    EVALUATION = "evaluation"
    """A score; becomes a reward."""
    OTHER = "other"
    """Not understood; kept as it is."""


class ToolCall(Record):
    """A tool's execution."""

    name: str
    call_id: str | None = None
    arguments: Json = None
    result: Json = None
    parameters_schema: JsonObject | None = None
    """JSON Schema of the tool's arguments, when the span carries it."""
    type: str | None = None
    """`function`, `extension`, `datastore`, `mcp` …, as the span says."""
    description: str | None = None
    error: str | None = None
    """What the answer itself says went wrong, where the span's status does not (MCP's `isError`)."""


class LlmCall(Record):
    """What a span says of an inference request. Where the gateway saw it, `ModelCallRecorded` is the authority."""

    operation: str | None = None
    """`chat`, `text_completion`, `embeddings` …"""
    provider: str | None = None
    response_id: str | None = None
    """The reply's id: what joins the span to `ModelCallRecorded.response_id`."""
    finish_reasons: list[str] = Field(default_factory=list)
    input_tokens: int | None = None
    """All of them, the cached ones too."""
    output_tokens: int | None = None
    cached_tokens: int | None = None
    """Those of `input_tokens` that the provider read from its cache."""
    parameters: JsonObject = Field(default_factory=dict)
    """Of the request: `temperature`, `max_tokens` …"""
    input_messages: list[JsonObject] = Field(default_factory=list)
    """What was sent, as chat messages (`role`, `content`, `tool_calls`, `tool_call_id`) in whatever dialect."""
    output_messages: list[JsonObject] = Field(default_factory=list)
    """What came back, in the same form."""


class Retrieval(Record):
    """A search and what it found."""

    query: Json = None
    documents: list[Json] | None = None
    """As the span lists them, an object's fields under their last names (`id`, `content`, `score`, `metadata`); None:
    it does not say."""


class Outcome(Record):
    """What a program, a server or a database answered: evidence for intermediate rewards."""

    http_status: int | None = None
    db_status: str | None = None
    returned_rows: int | None = None
    exit_code: int | None = None
    rpc_code: str | None = None


class Evaluation(Record):
    """A score that somebody gave, per the GenAI conventions' `gen_ai.evaluation.result`."""

    name: str
    value: float | None = None
    label: str | None = None
    explanation: str | None = None


class SpanRecorded(Event):
    """One finished span. `attributes` holds everything that was not understood."""

    type: Literal["span-recorded"] = "span-recorded"
    trace_id: str
    span_id: str
    parent_span_id: str | None = None
    rollout_id: str | None = None
    attempt: int = 0
    derived: bool = False
    """Made of an event inside a span: no exporter counted it, so `RolloutEnded.span_count` does not either."""
    kind: SpanKind
    dialect: str
    name: str
    status: Literal["unset", "ok", "error"] = "unset"
    error_type: str | None = None
    error_message: str | None = None
    start_unix_nano: int
    end_unix_nano: int
    agent_name: str | None = None
    model: str | None = None
    tool: ToolCall | None = None
    evaluation: Evaluation | None = None
    attributes: JsonObject = Field(default_factory=dict)
    agent_id: str | None = None
    agent_description: str | None = None
    conversation_id: str | None = None
    """The session or thread that the span says it is part of."""
    llm: LlmCall | None = None
    retrieval: Retrieval | None = None
    outcome: Outcome | None = None
    project: str | None = None
    """The project of the key that the span was sent with."""


def model_calls(spans: Sequence[SpanRecorded]) -> list[SpanRecorded]:
    """The spans that are each one model call, in the given order.

    Where a framework's span and its client's are about one call, the inner one is it: of spans of model calls inside
    one another (with no tool or agent between them), and of spans with one response id, the innermost.
    """
    by_place = {(span.trace_id, span.span_id): span for span in spans}
    outer: set[tuple[str, str]] = set()
    depths: dict[str, tuple[int, SpanRecorded]] = {}
    calls = [span for span in spans if span.kind is SpanKind.LLM_CALL]
    for span in calls:
        depth, seen, between = 0, {span.span_id}, True
        at = by_place.get((span.trace_id, span.parent_span_id or ""))
        while at is not None and at.span_id not in seen:
            seen.add(at.span_id)
            depth += 1
            between = between and at.kind not in (SpanKind.TOOL_CALL, SpanKind.AGENT_STEP)
            if between and at.kind is SpanKind.LLM_CALL:
                outer.add((at.trace_id, at.span_id))
            at = by_place.get((at.trace_id, at.parent_span_id or ""))
        answer = span.llm.response_id if span.llm else None
        if answer is not None and (answer not in depths or depths[answer][0] < depth):
            depths[answer] = (depth, span)
    chosen = {id(span) for _, span in depths.values()}
    return [
        span
        for span in calls
        if (span.trace_id, span.span_id) not in outer
        and (span.llm is None or span.llm.response_id is None or id(span) in chosen)
    ]
