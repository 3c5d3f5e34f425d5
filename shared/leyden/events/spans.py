"""Spans in the one model that every instrumentation's dialect is normalised to: `spans.v1`."""

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
