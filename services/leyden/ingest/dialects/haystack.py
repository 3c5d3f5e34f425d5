"""Haystack's own tracer: span names `haystack.…`, with inputs and outputs as JSON in attributes of those names."""

from collections.abc import Sequence

from leyden.events import JsonObject, SpanKind
from leyden.ingest.core import fields
from leyden.ingest.core.dialect import Meaning
from leyden.ingest.core.messages import messages_of
from leyden.ingest.core.raw import RawSpan
from leyden.ingest.core.values import count, mapping, objects, said, text
from leyden.ingest.dialects import gen_ai
from leyden.ingest.dialects.gen_ai import take

_PREFIX = "haystack."
LLM, TOOL, COMPONENT = "haystack.agent.step.llm", "haystack.agent.step.tool", "haystack.component"
TOOL_NAME, TOOL_ERROR = "haystack.tool.name", "haystack.tool.error"
COMPONENT_NAME, COMPONENT_TYPE = "haystack.component.name", "haystack.component.type"


class Haystack:
    """Spans with Haystack's names."""

    name = "haystack"

    def recognises(self, span: RawSpan) -> bool:
        return span.name.startswith(_PREFIX)

    def meaning(self, span: RawSpan) -> Meaning:
        attributes = span.attributes
        component = text(attributes.get(COMPONENT_TYPE)) or ""
        if span.name == TOOL or TOOL_NAME in attributes:
            return _tool_call(span)
        if span.name == LLM:
            return _model_call(attributes, LLM)
        if component.endswith("Generator"):
            return _model_call(attributes, COMPONENT)
        meaning = Meaning(SpanKind.AGENT_STEP)
        if component == "Agent":
            meaning.agent_name = take(meaning, attributes, COMPONENT_NAME)
        return meaning

    def evaluations(self, span: RawSpan) -> Sequence[tuple[int, JsonObject]]:
        return gen_ai.evaluations(span)


def _tool_call(span: RawSpan) -> Meaning:
    attributes = span.attributes
    meaning = Meaning(SpanKind.TOOL_CALL, understood={TOOL + ".input", TOOL + ".output"})
    result = said(attributes, TOOL + ".output")
    failed = attributes.get(TOOL_ERROR) is True
    meaning.tool = fields.tool_call(
        take(meaning, attributes, TOOL_NAME) or span.name,
        arguments=said(attributes, TOOL + ".input"),
        result=result,
        description=take(meaning, attributes, "haystack.tool.description"),
        error=(text(mapping(result).get("error")) or "error") if failed else None,
    )
    return meaning


def _model_call(attributes: JsonObject, at: str) -> Meaning:
    meaning = Meaning(SpanKind.LLM_CALL)
    given, answered = mapping(attributes.get(at + ".input")), mapping(attributes.get(at + ".output"))
    replies = [_plain(reply) for reply in objects(answered.get("replies") or [])]
    metadata = mapping(replies[0].get("meta")) if replies else {}
    usage = mapping(metadata.get("usage"))
    meaning.model = text(metadata.get("model"))
    reason = text(metadata.get("finish_reason"))
    meaning.llm = fields.llm_call(
        operation="chat",
        response_id=text(metadata.get("id")),
        finish_reasons=[reason] if reason else None,
        input_tokens=count(usage.get("prompt_tokens")),
        output_tokens=count(usage.get("completion_tokens")),
        cached_tokens=count(mapping(usage.get("prompt_tokens_details")).get("cached_tokens")),
        parameters=mapping(given.get("generation_kwargs")),
        input_messages=messages_of([_plain(message) for message in objects(given.get("messages") or [])]),
        output_messages=messages_of(list(replies)),
    )
    if meaning.llm["input_messages"]:
        meaning.repeated.add(at + ".input")
    if meaning.llm["output_messages"]:
        meaning.repeated.add(at + ".output")
    return meaning


def _plain(message: JsonObject) -> JsonObject:
    """A message of older versions has its fields behind underscores."""
    return {name.removeprefix("_"): value for name, value in message.items()}
