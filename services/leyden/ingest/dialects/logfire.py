"""Logfire: `logfire.span_type` and `logfire.msg_template` on spans that follow the conventions, or that have their
payload in `request_data`, `input` and `output`, as its OpenAI Agents instrumentation does.
Pydantic AI sets the same attributes; its older versions use `tool_arguments` and `tool_response` for tools.
"""

from collections.abc import Sequence

from leyden.events import JsonObject, SpanKind
from leyden.ingest.core.dialect import Meaning
from leyden.ingest.core.messages import messages_of
from leyden.ingest.core.raw import RawSpan
from leyden.ingest.core.values import count, first, mapping, parsed, text
from leyden.ingest.dialects import gen_ai, names
from leyden.ingest.dialects.gen_ai import take

_MARKS = frozenset({"logfire.span_type", "logfire.msg_template", "logfire.msg", "logfire.json_schema"})
_REQUEST, _RESPONSE = "request_data", "response_data"
SCHEMA = "logfire.json_schema"
"""Says which attributes are JSON: nothing about the span itself."""
_KIND_OF_TEMPLATE = (
    ("Agent run", SpanKind.AGENT_STEP),
    ("Turn {turn}", SpanKind.AGENT_STEP),
    ("Handoff", SpanKind.AGENT_STEP),
    ("Function: ", SpanKind.TOOL_CALL),
    ("Chat completion with", SpanKind.LLM_CALL),
    ("Responses API with", SpanKind.LLM_CALL),
)


class Logfire:
    """Spans with Logfire's attributes."""

    name = "logfire"

    def recognises(self, span: RawSpan) -> bool:
        return not _MARKS.isdisjoint(span.attributes)

    def meaning(self, span: RawSpan) -> Meaning:
        attributes = span.attributes
        if attributes.get("logfire.span_type") == "pending_span":
            return Meaning(SpanKind.OTHER)
        template = text(attributes.get("logfire.msg_template")) or ""
        kind = None
        if names.OPERATION not in attributes and names.TOOL_NAME not in attributes:
            kind = next((kind for start, kind in _KIND_OF_TEMPLATE if template.startswith(start)), None)
            if kind is None and _REQUEST in attributes and names.REQUEST_MODEL in attributes:
                kind = SpanKind.LLM_CALL
        meaning = gen_ai.read(span, kind)
        _agent(meaning, attributes, template)
        if meaning.llm is not None:
            _model_call(meaning, attributes)
        if meaning.tool is not None:
            _tool_call(meaning, span, kind is not None)
        meaning.repeated.add(SCHEMA)
        return meaning

    def evaluations(self, span: RawSpan) -> Sequence[tuple[int, JsonObject]]:
        return gen_ai.evaluations(span)


def _agent(meaning: Meaning, attributes: JsonObject, template: str) -> None:
    if meaning.agent_name is None:
        meaning.agent_name = take(meaning, attributes, "agent_name")
    if meaning.agent_name is None and template.startswith("Agent run"):
        meaning.agent_name = take(meaning, attributes, "name")


def _model_call(meaning: Meaning, attributes: JsonObject) -> None:
    llm = meaning.llm
    assert llm is not None
    if not llm["input_messages"]:
        request = mapping(attributes.get(_REQUEST))
        given = messages_of(first(attributes, "input") or request.get("messages") or request.get("input"))
        llm["input_messages"] = list(given)
        meaning.understood |= {"input"} if "input" in attributes and given else set()
        meaning.repeated |= {_REQUEST} if given and _REQUEST in attributes else set()
    if not llm["output_messages"]:
        response = mapping(attributes.get(_RESPONSE))
        said = messages_of(first(attributes, "output") or response.get("message") or attributes.get("response"))
        llm["output_messages"] = list(said)
        meaning.understood |= {"output"} if "output" in attributes and said else set()
        meaning.repeated |= {_RESPONSE} if said and _RESPONSE in attributes else set()
    usage = mapping(attributes.get("usage") or attributes.get("gen_ai.usage.raw"))
    details = mapping(usage.get("input_tokens_details") or usage.get("prompt_tokens_details"))
    if llm["cached_tokens"] is None:
        llm["cached_tokens"] = count(details.get("cached_tokens"))


def _tool_call(meaning: Meaning, span: RawSpan, plain: bool) -> None:
    """A tool call of older Pydantic AI, or (with `plain`) a function tool of the Agents SDK."""
    attributes = span.attributes
    tool = meaning.tool
    assert tool is not None
    given = ("tool_arguments", "input") if plain else ("tool_arguments",)
    result = ("tool_response", "output") if plain else ("tool_response",)
    if plain and (name := take(meaning, attributes, "name")) is not None:
        tool["name"] = name
    for field, wanted in (("arguments", given), ("result", result)):
        name_ = next((name for name in wanted if name in attributes), None)
        if name_ is not None and tool[field] is None:
            tool[field] = parsed(attributes[name_])
            meaning.understood.add(name_)
    error = mapping(attributes.get("error"))
    if plain and error:
        data = mapping(error.get("data"))
        meaning.error_message = text(error.get("message"))
        meaning.error_type = text(data.get("error_type")) or ("tool_error" if span.status == "error" else None)
