"""AgentOps: `agentops.span.kind` of sessions, agents, operations and tools. Its model calls are flattened (`flat`).

Its `tool_call.<name>` spans are the model's requests, not tool executions: they are kept, but not as tool calls.
"""

from collections.abc import Sequence

from leyden.events import JsonObject, SpanKind
from leyden.ingest.core import fields
from leyden.ingest.core.dialect import Meaning
from leyden.ingest.core.parts import unwrapped_arguments
from leyden.ingest.core.raw import RawSpan
from leyden.ingest.core.values import said, text
from leyden.ingest.dialects import flat, gen_ai
from leyden.ingest.dialects.gen_ai import take

KIND = "agentops.span.kind"
_NAMES = ("operation.name", "agentops.entity.name", "agentops.operation.name")
_KINDS = {
    "llm": SpanKind.LLM_CALL,
    "tool": SpanKind.TOOL_CALL,
    "guardrail": SpanKind.OTHER,
}
_INPUTS = ("agentops.tool.input", "tool.parameters", "agentops.entity.input")
_OUTPUTS = ("agentops.tool.output", "tool.result", "agentops.entity.output")


class AgentOps:
    """Spans with `agentops.span.kind`, and tool calls requested by a model."""

    name = "agentops"

    def recognises(self, span: RawSpan) -> bool:
        return KIND in span.attributes or _is_request(span)

    def meaning(self, span: RawSpan) -> Meaning:
        attributes = span.attributes
        told = text(attributes.get(KIND))
        if told is None:
            return Meaning(SpanKind.OTHER)
        kind = _KINDS.get(told, SpanKind.AGENT_STEP)
        meaning = flat.read(span, kind)
        meaning.understood.add(KIND)
        if kind is SpanKind.TOOL_CALL:
            _tool_call(meaning, span)
        if meaning.agent_name is None:
            meaning.agent_name = take(meaning, attributes, "agent.name")
        if meaning.agent_name is None and told == "agent":
            meaning.agent_name = take(meaning, attributes, *_NAMES)
        return meaning

    def evaluations(self, span: RawSpan) -> Sequence[tuple[int, JsonObject]]:
        return gen_ai.evaluations(span)


def _is_request(span: RawSpan) -> bool:
    return (
        span.name.startswith("tool_call.") and "tool.parameters" in span.attributes and "tool.name" in span.attributes
    )


def _tool_call(meaning: Meaning, span: RawSpan) -> None:
    attributes = span.attributes
    meaning.tool = fields.tool_call(
        take(meaning, attributes, "tool.name", *_NAMES) or span.name.removesuffix(".tool"),
        call_id=take(meaning, attributes, "tool.call.id"),
        arguments=unwrapped_arguments(said(attributes, *_INPUTS)),
        result=said(attributes, *_OUTPUTS),
        description=take(meaning, attributes, "tool.description"),
    )
    meaning.understood |= {next((n for n in wanted if n in attributes), wanted[0]) for wanted in (_INPUTS, _OUTPUTS)}
