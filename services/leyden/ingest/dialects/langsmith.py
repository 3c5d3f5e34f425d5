"""LangSmith's OpenTelemetry export: `langsmith.span.kind`, with inputs and outputs as JSON in `gen_ai.prompt` and
`gen_ai.completion`. Its `gen_ai.operation.name` is `embeddings` for retrievers, so the kind takes precedence.
"""

import re
from collections.abc import Sequence

from leyden.events import Json, JsonObject, SpanKind
from leyden.events.tool_results import reported_error
from leyden.ingest.core import fields
from leyden.ingest.core.dialect import Meaning
from leyden.ingest.core.messages import langchain_generations, messages_of
from leyden.ingest.core.raw import RawSpan
from leyden.ingest.core.values import count, listed, mapping, parsed, text
from leyden.ingest.dialects import gen_ai, names
from leyden.ingest.dialects.gen_ai import take

KIND = "langsmith.span.kind"
_METADATA = "langsmith.metadata."
_CONVERSATION = tuple(_METADATA + name for name in ("session_id", "thread_id", "conversation_id"))
_RAISED = re.compile(r"([A-Za-z_][\w.]{0,100})\(")
_KINDS = {
    "llm": SpanKind.LLM_CALL,
    "embedding": SpanKind.LLM_CALL,
    "tool": SpanKind.TOOL_CALL,
    "chain": SpanKind.AGENT_STEP,
    "prompt": SpanKind.AGENT_STEP,
    "parser": SpanKind.AGENT_STEP,
    "retriever": SpanKind.RETRIEVAL,
}


class LangSmith:
    """Spans with `langsmith.span.kind`."""

    name = "langsmith"

    def recognises(self, span: RawSpan) -> bool:
        return KIND in span.attributes

    def meaning(self, span: RawSpan) -> Meaning:
        attributes = span.attributes
        kind = _KINDS.get(text(attributes.get(KIND)) or "", SpanKind.OTHER)
        meaning = gen_ai.read(span, kind)
        if kind is not SpanKind.OTHER:
            meaning.understood.add(KIND)
        meaning.agent_name = meaning.agent_name or text(attributes.get(_METADATA + "lc_agent_name"))
        meaning.conversation_id = meaning.conversation_id or take(meaning, attributes, *_CONVERSATION)
        prompt, completion = parsed(attributes.get(names.PROMPT)), parsed(attributes.get(names.COMPLETION))
        if meaning.llm is not None:
            _model_call(meaning, attributes, prompt, completion)
        elif meaning.tool is not None:
            meaning.tool["arguments"] = prompt
            meaning.tool["result"] = _answer(completion)
            meaning.tool["error"] = reported_error(completion)
            meaning.understood |= {names.PROMPT, names.COMPLETION}
        elif kind is SpanKind.RETRIEVAL:
            _retrieval(meaning, prompt, completion)
        meaning.error_type = _error_type(span)
        return meaning

    def evaluations(self, span: RawSpan) -> Sequence[tuple[int, JsonObject]]:
        return gen_ai.evaluations(span)


def _error_type(span: RawSpan) -> str | None:
    """The raised type, from the repr in the message: LangSmith's exception events all have type Exception."""
    message = next((text(e.attributes.get("exception.message")) for e in span.events if e.name == "exception"), None)
    found = _RAISED.match(message or "")
    return found[1] if found else None


def _model_call(meaning: Meaning, attributes: JsonObject, prompt: Json, completion: Json) -> None:
    assert meaning.llm is not None
    said, metadata = langchain_generations(completion)
    given = messages_of(mapping(prompt).get("messages"))
    output = mapping(completion)
    if not said and isinstance(output.get("choices"), list):
        said = messages_of([mapping(choice).get("message") for choice in listed(output["choices"])])
    for field, messages, name in (
        ("input_messages", given, names.PROMPT),
        ("output_messages", said, names.COMPLETION),
    ):
        if messages and not meaning.llm[field]:
            meaning.llm[field] = list(messages)
            meaning.understood.add(name)
    meaning.llm["response_id"] = meaning.llm["response_id"] or text(metadata.get("id")) or text(output.get("id"))
    if not meaning.llm["finish_reasons"] and (reason := text(metadata.get("finish_reason"))):
        meaning.llm["finish_reasons"] = [reason]
    meaning.llm["provider"] = text(attributes.get(_METADATA + "ls_provider")) or meaning.llm["provider"]
    meaning.model = text(metadata.get("model_name")) or meaning.model
    usage = mapping(mapping(attributes.get(_METADATA + "usage_metadata")).get("input_token_details"))
    if meaning.llm["cached_tokens"] is None:
        meaning.llm["cached_tokens"] = count(usage.get("cache_read"))


def _answer(completion: Json) -> Json:
    """The tool's result: LangChain's tools return a message, others use `output`; a failed tool has none."""
    output = completion.get("output", completion) if isinstance(completion, dict) else completion
    if isinstance(output, dict) and output.get("type") == "tool" and "content" in output:
        return output["content"]
    return output if output != {} else None


def _retrieval(meaning: Meaning, prompt: Json, completion: Json) -> None:
    query = prompt.get("query", prompt) if isinstance(prompt, dict) else prompt
    found = completion.get("documents") if isinstance(completion, dict) else None
    documents = found if isinstance(found, list) else None
    meaning.retrieval = fields.retrieval(query, documents)
    meaning.understood.add(names.PROMPT)
    if documents is not None:
        meaning.understood.add(names.COMPLETION)
