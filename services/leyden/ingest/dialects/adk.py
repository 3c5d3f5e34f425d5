"""google-adk: the GenAI conventions, and in its earlier schema content under `gcp.vertex.agent.…`, as Gemini has it."""

from collections.abc import Sequence

from leyden.events import Json, JsonObject, SpanKind
from leyden.events.masked import has_mask
from leyden.ingest.core.dialect import Meaning
from leyden.ingest.core.messages import messages_of
from leyden.ingest.core.raw import RawSpan
from leyden.ingest.core.values import mapping, said, text
from leyden.ingest.dialects import gen_ai, names
from leyden.ingest.dialects.gen_ai import take

_PREFIX = "gcp.vertex.agent."
REQUEST, RESPONSE = _PREFIX + "llm_request", _PREFIX + "llm_response"
ARGUMENTS, RESULT = _PREFIX + "tool_call_args", _PREFIX + "tool_response"
_SESSION = _PREFIX + "session_id"
_MARKS = frozenset({
    REQUEST, RESPONSE, ARGUMENTS, RESULT, _SESSION, _PREFIX + "event_id", _PREFIX + "invocation_id", _PREFIX + "data",
})  # fmt: skip
MERGED = "(merged tools)"
"""Name of a span that repeats the tool calls of one step; each has a span of its own."""


class Adk:
    """Spans with an attribute of google-adk."""

    name = "google_adk"

    def recognises(self, span: RawSpan) -> bool:
        return not _MARKS.isdisjoint(span.attributes)

    def meaning(self, span: RawSpan) -> Meaning:
        attributes = span.attributes
        if attributes.get(names.TOOL_NAME) == MERGED:
            return Meaning(SpanKind.OTHER)
        meaning = gen_ai.read(span, _kind(attributes))
        if meaning.conversation_id is None:
            meaning.conversation_id = take(meaning, attributes, _SESSION)
        if meaning.llm is not None:
            _model_call(meaning, attributes)
        if meaning.tool is not None:
            _tool_call(meaning.tool, attributes)
            meaning.understood |= {ARGUMENTS, RESULT}
        meaning.repeated |= {name for name in (REQUEST, RESPONSE) if attributes.get(name) == "{}"}
        return meaning

    def evaluations(self, span: RawSpan) -> Sequence[tuple[int, JsonObject]]:
        return gen_ai.evaluations(span)


def _kind(attributes: JsonObject) -> SpanKind | None:
    """Without an operation, a span with a model and a request is a call: `call_llm` of the earlier schema."""
    is_call = names.OPERATION not in attributes and names.REQUEST_MODEL in attributes and REQUEST in attributes
    return SpanKind.LLM_CALL if is_call else None


def _model_call(meaning: Meaning, attributes: JsonObject) -> None:
    llm = meaning.llm
    assert llm is not None
    request, response = mapping(attributes.get(REQUEST)), mapping(attributes.get(RESPONSE))
    instruction = mapping(request.get("config")).get("system_instruction")
    system: list[JsonObject] = [{"role": "system", "content": instruction}] if text(instruction) else []
    if not llm["input_messages"] and (given := messages_of(request.get("contents"))):
        llm["input_messages"] = [*system, *given]
        meaning.repeated.add(REQUEST)
    if not llm["output_messages"] and (answered := messages_of(response.get("content"))):
        llm["output_messages"] = list(answered)
        meaning.repeated.add(RESPONSE)


def _tool_call(tool: JsonObject, attributes: JsonObject) -> None:
    """Fill in what the conventions' attributes do not say. With content switched off, both values are `{}`."""
    arguments, result = said(attributes, ARGUMENTS), said(attributes, RESULT)
    if arguments == {} and result == {}:
        arguments = result = None
    tool["arguments"] = arguments if tool["arguments"] is None else tool["arguments"]
    tool["result"] = _known(result if tool["result"] is None else tool["result"])
    tool["call_id"] = None if has_mask(tool["call_id"]) else tool["call_id"]


def _known(result: Json) -> Json:
    return None if isinstance(result, dict) and has_mask(result.get("result")) else result
