"""Vercel's AI SDK: `ai.…` attributes on `ai.generateText`, `ai.generateText.doGenerate`, `ai.toolCall` and their kin.

`ai.generateText` and `ai.streamText` are an agent's turn; `….doGenerate` and `….doStream` in it are the model calls.
"""

from collections.abc import Sequence

from leyden.events import Json, JsonObject, SpanKind
from leyden.ingest.core import fields
from leyden.ingest.core.dialect import Meaning
from leyden.ingest.core.messages import messages_of
from leyden.ingest.core.parts import first_said, tool_call
from leyden.ingest.core.raw import RawSpan
from leyden.ingest.core.values import count, objects, said, text
from leyden.ingest.dialects import gen_ai
from leyden.ingest.dialects.gen_ai import take

OPERATION = "ai.operationId"
TOOL = "ai.toolCall.name"
PROMPT, TEXT, CALLS, OBJECT = "ai.prompt.messages", "ai.response.text", "ai.response.toolCalls", "ai.response.object"
REASONING = "ai.response.reasoning"
_MARKS = frozenset({OPERATION, TOOL, PROMPT, TEXT, CALLS, OBJECT, "ai.model.id"})
_CALL_ENDS = (".doGenerate", ".doStream", ".doEmbed")
_FUNCTION = "ai.telemetry.functionId"
_METADATA = "ai.telemetry.metadata."
_CONVERSATION = tuple(_METADATA + name for name in ("sessionId", "threadId", "conversationId", "chatId"))
_COUNTS = {
    "input_tokens": ("ai.usage.inputTokens", "ai.usage.promptTokens", "ai.usage.tokens"),
    "output_tokens": ("ai.usage.outputTokens", "ai.usage.completionTokens"),
    "cached_tokens": ("ai.usage.cachedInputTokens", "ai.usage.inputTokenDetails.cacheReadTokens"),
}


class AiSdk:
    """Spans with an attribute of the AI SDK's own."""

    name = "ai_sdk"

    def recognises(self, span: RawSpan) -> bool:
        return not _MARKS.isdisjoint(span.attributes)

    def meaning(self, span: RawSpan) -> Meaning:
        attributes = span.attributes
        kind = _kind(text(attributes.get(OPERATION)) or span.name.partition(" ")[0], attributes)
        meaning = gen_ai.read(span, kind)
        meaning.understood.add(OPERATION)
        if meaning.agent_name is None:
            meaning.agent_name = take(meaning, attributes, _FUNCTION)
        if meaning.conversation_id is None:
            meaning.conversation_id = take(meaning, attributes, *_CONVERSATION)
        if meaning.llm is not None:
            _model_call(meaning, attributes)
        elif meaning.tool is not None:
            meaning.tool = fields.tool_call(
                take(meaning, attributes, TOOL) or text(meaning.tool["name"]) or span.name,
                call_id=take(meaning, attributes, "ai.toolCall.id") or text(meaning.tool["call_id"]),
                arguments=said(attributes, "ai.toolCall.args", "ai.toolCall.input"),
                result=said(attributes, "ai.toolCall.result", "ai.toolCall.output"),
            )
            meaning.understood |= {"ai.toolCall.args", "ai.toolCall.result", "ai.toolCall.input", "ai.toolCall.output"}
        return meaning

    def evaluations(self, span: RawSpan) -> Sequence[tuple[int, JsonObject]]:
        return gen_ai.evaluations(span)


def _kind(operation: str, attributes: JsonObject) -> SpanKind:
    if operation == "ai.toolCall" or TOOL in attributes:
        return SpanKind.TOOL_CALL
    is_call = operation.endswith(_CALL_ENDS) or (not operation.startswith("ai.") and PROMPT in attributes)
    return SpanKind.LLM_CALL if is_call else SpanKind.AGENT_STEP


def _model_call(meaning: Meaning, attributes: JsonObject) -> None:
    llm = meaning.llm
    assert llm is not None
    meaning.model = meaning.model or take(meaning, attributes, "ai.response.model", "ai.model.id")
    llm["response_id"] = llm["response_id"] or take(meaning, attributes, "ai.response.id")
    llm["provider"] = llm["provider"] or take(meaning, attributes, "ai.model.provider")
    if not llm["finish_reasons"] and (reason := take(meaning, attributes, "ai.response.finishReason")):
        llm["finish_reasons"] = [reason]
    for field, wanted in _COUNTS.items():
        if llm[field] is None:
            llm[field] = next((n for name in wanted if (n := count(attributes.get(name))) is not None), None)
    if not llm["input_messages"] and (given := messages_of(attributes.get(PROMPT))):
        llm["input_messages"] = list(given)
        meaning.understood.add(PROMPT)
    if not llm["output_messages"]:
        llm["output_messages"] = list(_answer(attributes))
        meaning.understood |= {TEXT, CALLS, REASONING, OBJECT} if llm["output_messages"] else set()


def _answer(attributes: JsonObject) -> list[JsonObject]:
    content: Json = text(attributes.get(TEXT)) or text(attributes.get(OBJECT))
    message: JsonObject = {"role": "assistant", "content": content}
    calls: list[Json] = [
        tool_call(asked.get("toolCallId"), asked.get("toolName"), first_said(asked, "input", "args"))
        for asked in objects(attributes.get(CALLS))
    ]
    if calls:
        message["tool_calls"] = calls
    if (thought := text(attributes.get(REASONING))) is not None:
        message["reasoning_content"] = thought
    return [message] if content or calls or thought else []
