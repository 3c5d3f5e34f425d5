"""Events of `spans.v1`: spans of all instrumentations, normalised to one model."""

from collections.abc import Iterable, Sequence
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
    """A step of an agent: invoke_agent, a graph node, a chain."""
    RETRIEVAL = "retrieval"
    """A search whose results go into the context."""
    EVALUATION = "evaluation"
    """A score, which becomes a reward."""
    OTHER = "other"
    """Any other span; kept unchanged."""


class ToolCall(Record):
    """The execution of a tool."""

    name: str
    call_id: str | None = None
    arguments: Json = None
    result: Json = None
    parameters_schema: JsonObject | None = None
    """JSON Schema of the tool's arguments, if the span has it."""
    type: str | None = None
    """`function`, `extension`, `datastore`, `mcp` … (from the span)."""
    description: str | None = None
    error: str | None = None
    """Error reported in the tool's result rather than in the span's status (MCP's `isError`)."""


class LlmCall(Record):
    """An inference request as described by its span. For calls through the gateway, prefer `ModelCallRecorded`."""

    operation: str | None = None
    """`chat`, `text_completion`, `embeddings` …"""
    provider: str | None = None
    response_id: str | None = None
    """Id of the response; joins the span to `ModelCallRecorded.response_id`."""
    finish_reasons: list[str] = Field(default_factory=list)
    input_tokens: int | None = None
    """Includes cached tokens."""
    output_tokens: int | None = None
    cached_tokens: int | None = None
    """The part of `input_tokens` that the provider read from its cache."""
    parameters: JsonObject = Field(default_factory=dict)
    """Request parameters: `temperature`, `max_tokens` …"""
    input_messages: list[JsonObject] = Field(default_factory=list)
    """The prompt as chat messages (`role`, `content`, `tool_calls`, `tool_call_id`), for every dialect."""
    output_messages: list[JsonObject] = Field(default_factory=list)
    """The response, in the same format."""


class Retrieval(Record):
    """A search and its results."""

    query: Json = None
    documents: list[Json] | None = None
    """The documents listed by the span; fields of objects have the last part of their name (`id`, `content`, `score`,
    `metadata`). None if the span lists none."""


class Outcome(Record):
    """The result of a program, a server or a database: evidence for intermediate rewards."""

    http_status: int | None = None
    db_status: str | None = None
    returned_rows: int | None = None
    exit_code: int | None = None
    rpc_code: str | None = None


class Evaluation(Record):
    """A score, from the GenAI conventions' event `gen_ai.evaluation.result`."""

    name: str
    value: float | None = None
    label: str | None = None
    explanation: str | None = None


class SpanRecorded(Event):
    """One span. `attributes` holds everything that has no field of its own."""

    type: Literal["span-recorded"] = "span-recorded"
    trace_id: str
    span_id: str
    parent_span_id: str | None = None
    rollout_id: str | None = None
    attempt: int = 0
    derived: bool = False
    """Made from an event inside a span; not included in `RolloutEnded.span_count`."""
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
    """The session or thread named by the span."""
    llm: LlmCall | None = None
    retrieval: Retrieval | None = None
    outcome: Outcome | None = None
    project: str | None = None
    """Project of the API key that the span was sent with."""
    unfinished: bool = False
    """Exported while it was running, without an end. The finished span is an event of its own and replaces it (see
    `without_replaced`). Not included in `RolloutEnded.span_count`."""


def without_replaced(spans: Iterable[SpanRecorded]) -> list[SpanRecorded]:
    """`spans` in their order, without unfinished ones whose finished span is there too."""
    found = list(spans)
    finished = {(span.trace_id, span.span_id, span.project) for span in found if not span.unfinished}
    return [s for s in found if not s.unfinished or (s.trace_id, s.span_id, s.project) not in finished]


def model_calls(spans: Sequence[SpanRecorded]) -> list[SpanRecorded]:
    """One span for each model call, in the given order.

    A framework and its client library may both report a call. Of nested model call spans (with no tool or agent between
    them), and of spans with the same response id, only the innermost is returned.
    """
    spans = without_replaced(spans)
    by_id = {(span.trace_id, span.span_id): span for span in spans}
    outer: set[tuple[str, str]] = set()
    depths: dict[str, tuple[int, SpanRecorded]] = {}
    calls = [span for span in spans if span.kind is SpanKind.LLM_CALL]
    for span in calls:
        depth, seen, between = 0, {span.span_id}, True
        at = by_id.get((span.trace_id, span.parent_span_id or ""))
        while at is not None and at.span_id not in seen:
            seen.add(at.span_id)
            depth += 1
            between = between and at.kind not in (SpanKind.TOOL_CALL, SpanKind.AGENT_STEP)
            if between and at.kind is SpanKind.LLM_CALL:
                outer.add((at.trace_id, at.span_id))
            at = by_id.get((at.trace_id, at.parent_span_id or ""))
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
