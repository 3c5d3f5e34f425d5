"""OpenLLMetry (Traceloop): `traceloop.span.kind` of workflows, tasks, agents and tools, with input and output as JSON.

Its model calls follow the conventions (older ones are flattened, see `flat`). Its MCP instrumentation records tool
calls in the same way.
"""

from collections.abc import Sequence

from leyden.events import Json, JsonObject, SpanKind
from leyden.events.tool_results import reported_error
from leyden.ingest.core import fields
from leyden.ingest.core.dialect import Meaning
from leyden.ingest.core.messages import chat_messages
from leyden.ingest.core.parts import unwrapped_arguments
from leyden.ingest.core.raw import RawSpan
from leyden.ingest.core.values import mapping, said, text
from leyden.ingest.dialects import flat, gen_ai, names
from leyden.ingest.dialects.gen_ai import take

KIND = "traceloop.span.kind"
ENTITY, INPUT, OUTPUT = "traceloop.entity.name", "traceloop.entity.input", "traceloop.entity.output"
_ASSOCIATION = "traceloop.association.properties."
_CONVERSATION = tuple(_ASSOCIATION + name for name in ("session_id", "thread_id", "conversation_id", "chat_id"))
_AGENT = _ASSOCIATION + "lc_agent_name"
_MARKS = frozenset({KIND, ENTITY, INPUT, "traceloop.workflow.name", *_CONVERSATION})
_KINDS = {
    "workflow": SpanKind.AGENT_STEP,
    "task": SpanKind.AGENT_STEP,
    "agent": SpanKind.AGENT_STEP,
    "handoff": SpanKind.AGENT_STEP,
    "tool": SpanKind.TOOL_CALL,
}


class Traceloop:
    """Spans with `traceloop.span.kind`, an entity name or association properties."""

    name = "traceloop"

    def recognises(self, span: RawSpan) -> bool:
        return not _MARKS.isdisjoint(span.attributes)

    def meaning(self, span: RawSpan) -> Meaning:
        attributes = span.attributes
        told = text(attributes.get(KIND)) or ""
        kind = _KINDS.get(told)
        if kind is None and flat.Flat().recognises(span):
            meaning = flat.read(span)
        else:
            meaning = gen_ai.read(span, kind)
        if kind is SpanKind.TOOL_CALL:
            _tool_call(meaning, span)
        if kind is not None:
            meaning.understood.add(KIND)
        if meaning.agent_name is None:
            named = text(attributes.get(ENTITY)) if told == "agent" else None
            meaning.agent_name = named or text(attributes.get(_AGENT))
        if meaning.conversation_id is None:
            meaning.conversation_id = take(meaning, attributes, *_CONVERSATION)
        _drop_repeats(meaning, attributes)
        return meaning

    def evaluations(self, span: RawSpan) -> Sequence[tuple[int, JsonObject]]:
        return gen_ai.evaluations(span)


def _drop_repeats(meaning: Meaning, attributes: JsonObject) -> None:
    """Mark input and output as repeated: newer versions also have them in the conventions' attributes."""
    pairs = ((INPUT, "gen_ai.task.input"), (OUTPUT, "gen_ai.task.output"))
    meaning.repeated |= {
        again for once, again in pairs if again in attributes and attributes[again] == attributes.get(once)
    }


def _tool_call(meaning: Meaning, span: RawSpan) -> None:
    attributes = span.attributes
    given = said(attributes, names.TOOL_ARGUMENTS, INPUT)
    result = said(attributes, names.TOOL_RESULT, OUTPUT)
    message = _message(result)
    tool = meaning.tool or fields.tool_call(span.name)
    tool["name"] = text(attributes.get(names.TOOL_NAME)) or text(attributes.get(ENTITY)) or span.name
    tool["arguments"] = _arguments(given)
    tool["result"] = message.get("content") if message else result
    tool["call_id"] = tool["call_id"] or text(message.get("tool_call_id"))
    tool["error"] = reported_error(result) if message else None
    meaning.tool = tool
    meaning.understood |= {INPUT, OUTPUT, names.TOOL_ARGUMENTS, names.TOOL_RESULT, ENTITY}


def _arguments(given: Json) -> Json:
    """The tool's arguments, unwrapped: decorators put them in args and kwargs, MCP and LangChain deeper."""
    if not isinstance(given, dict):
        return given
    if "tool_name" in given and "arguments" in given:
        return given["arguments"]
    if "input_str" in given:
        inputs = given.get("inputs")
        return inputs if isinstance(inputs, dict) else given["input_str"]
    return unwrapped_arguments(given)


def _message(result: Json) -> JsonObject:
    """The content of the message that a LangChain tool returned."""
    output = result.get("output") if isinstance(result, dict) else None
    if not isinstance(output, dict) or not ("lc" in output or output.get("type") == "tool"):
        return {}
    message = next(iter(chat_messages(mapping(output))), {})
    return message if "content" in message else {}
