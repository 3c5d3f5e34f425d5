"""OpenInference (Arize): `openinference.span.kind`, with messages flattened into attributes."""

from collections.abc import Sequence

from leyden.events import Json, JsonObject, SpanKind
from leyden.events.tool_results import reported_error
from leyden.ingest.core import fields
from leyden.ingest.core.dialect import Meaning
from leyden.ingest.core.messages import langchain_generations, messages_of, of_flat
from leyden.ingest.core.parts import unwrapped_arguments
from leyden.ingest.core.raw import RawSpan
from leyden.ingest.core.values import count, listed, mapping, objects, parsed, said, score, text, unflattened
from leyden.ingest.dialects import gen_ai, names
from leyden.ingest.dialects.gen_ai import take

KIND = "openinference.span.kind"
RUN = ".run"
_KINDS = {
    "LLM": SpanKind.LLM_CALL,
    "EMBEDDING": SpanKind.LLM_CALL,
    "TOOL": SpanKind.TOOL_CALL,
    "AGENT": SpanKind.AGENT_STEP,
    "CHAIN": SpanKind.AGENT_STEP,
    "RETRIEVER": SpanKind.RETRIEVAL,
    "RERANKER": SpanKind.RETRIEVAL,
}
INPUT, OUTPUT = "input.value", "output.value"
_MIMES = frozenset({"input.mime_type", "output.mime_type"})
_COUNTS = {
    "input_tokens": "llm.token_count.prompt",
    "output_tokens": "llm.token_count.completion",
    "cached_tokens": "llm.token_count.prompt_details.cache_read",
}
_DOCUMENTS = ("retrieval.documents.", "reranker.output_documents.")


class OpenInference:
    """Spans with `openinference.span.kind`."""

    name = "openinference"

    def recognises(self, span: RawSpan) -> bool:
        return KIND in span.attributes

    def meaning(self, span: RawSpan) -> Meaning:
        attributes = span.attributes
        told = text(attributes.get(KIND)) or ""
        kind = _KINDS.get(told.upper(), SpanKind.OTHER)
        if kind is SpanKind.TOOL_CALL and "tool.name" not in attributes and span.name.startswith("handoff"):
            kind = SpanKind.AGENT_STEP
        score = _score(attributes, span.name) if told.upper() == "EVALUATOR" else None
        meaning = Meaning(SpanKind.EVALUATION if score else kind, evaluation=score)
        _identity(meaning, span, told.upper() == "AGENT")
        if kind is SpanKind.LLM_CALL:
            _model_call(meaning, attributes, told.upper())
        elif kind is SpanKind.TOOL_CALL:
            _tool_call(meaning, span)
        elif kind is SpanKind.RETRIEVAL:
            _retrieval(meaning, attributes)
        if meaning.kind is not SpanKind.OTHER:
            meaning.understood.add(KIND)
        return meaning

    def evaluations(self, span: RawSpan) -> Sequence[tuple[int, JsonObject]]:
        return gen_ai.evaluations(span)


def _identity(meaning: Meaning, span: RawSpan, is_agent: bool) -> None:
    """Set the agent: its name, or the name in LangChain's metadata, which is on every span of the agent.

    smolagents' is only in the span's name, `geographer.run`. A graph node's name or id names the agent only of an
    agent's span that has no name at all: instrumentations also put the product's word for an agent, or a number, there.
    """
    attributes = span.attributes
    meaning.agent_name = take(meaning, attributes, "agent.name", names.AGENT_NAME)
    meaning.conversation_id = take(meaning, attributes, "session.id")
    metadata = attributes.get("metadata")
    if isinstance(metadata, str) and (meaning.agent_name is None or meaning.conversation_id is None):
        held = mapping(metadata)
        meaning.agent_name = meaning.agent_name or text(held.get("lc_agent_name"))
        meaning.conversation_id = meaning.conversation_id or text(held.get("thread_id")) or text(held.get("session_id"))
    if meaning.agent_name is None and is_agent:
        run = span.name.removesuffix(RUN) if span.name.endswith(RUN) else None
        node = text(attributes.get("graph.node.name")) or text(attributes.get("graph.node.id"))
        meaning.agent_name = run or node


def _model_call(meaning: Meaning, attributes: JsonObject, kind: str) -> None:
    meaning.model = take(meaning, attributes, "llm.model_name", "embedding.model_name")
    given, used = unflattened(attributes, "llm.input_messages.")
    answered, also_used = unflattened(attributes, "llm.output_messages.")
    output = parsed(attributes.get(OUTPUT))
    messages, metadata = langchain_generations(output)
    input_messages, output_messages = of_flat(given, "message"), of_flat(answered, "message")
    if input_messages or not isinstance(attributes.get(INPUT), str):
        meaning.understood.update(used)
    if kind == "LLM" and _is_partial(input_messages) and isinstance(whole := attributes.get(INPUT), str):
        input_messages = messages_of(mapping(whole).get("messages") or parsed(whole)) or input_messages
    if _is_partial(output_messages):
        output_messages = messages or output_messages
    meaning.understood.update(also_used)
    meaning.repeated = {name for name, is_in in ((INPUT, input_messages), (OUTPUT, output_messages)) if is_in}
    meaning.understood |= _MIMES
    parameters = mapping(
        attributes.get("llm.invocation_parameters") or attributes.get("embedding.invocation_parameters")
    )
    reason = take(meaning, attributes, "llm.finish_reason") or text(metadata.get("finish_reason"))
    meaning.llm = fields.llm_call(
        operation="embeddings" if kind == "EMBEDDING" else "chat",
        provider=take(meaning, attributes, "llm.provider", "llm.system"),
        response_id=_response_id(output, metadata),
        finish_reasons=[reason] if reason else None,
        # The tools are also in llm.tools.
        parameters={name: value for name, value in parameters.items() if name not in ("model", "tools")},
        input_messages=input_messages,
        output_messages=output_messages,
    )
    if parameters:
        meaning.repeated.add("llm.invocation_parameters")
    for field, name in _COUNTS.items():
        if (found := count(attributes.get(name))) is not None:
            meaning.llm[field] = found
            meaning.understood.add(name)


def _is_partial(messages: Sequence[JsonObject]) -> bool:
    """Whether flattened messages lack something that the whole request or response in another attribute may have.

    OpenInference for LangChain in Node writes no tool call ids, and no content that is a list.
    """
    return not messages or any(
        (message.get("role") == "tool" and "tool_call_id" not in message)
        or (message.get("content") is None and "tool_calls" not in message)
        or any(not call.get("id") for call in objects(message.get("tool_calls")))
        for message in messages
    )


def _response_id(output: Json, metadata: JsonObject) -> str | None:
    """The response id, from the whole response in `output.value`: no attribute has it."""
    return text(output.get("id")) or text(metadata.get("id")) if isinstance(output, dict) else None


def _tool_call(meaning: Meaning, span: RawSpan) -> None:
    attributes = span.attributes
    result = said(attributes, OUTPUT, names.TOOL_RESULT)
    message = _tool_message(result)
    schema = parsed(attributes.get("tool.json_schema") or attributes.get("tool.parameters"))
    found = unwrapped_arguments(said(attributes, INPUT, names.TOOL_ARGUMENTS))
    is_schema = isinstance(schema, dict) and ("properties" in schema or "$schema" in schema)
    meaning.tool = fields.tool_call(
        (take(meaning, attributes, "tool.name", names.TOOL_NAME) or span.name).removesuffix(".__call__"),
        call_id=take(meaning, attributes, "tool_call.id", "tool.id", names.TOOL_CALL_ID)
        or text(message.get("tool_call_id")),
        arguments=found if found is not None or is_schema else schema,
        result=message.get("content") if message else result,
        parameters_schema=schema if is_schema and isinstance(schema, dict) else None,
        description=take(meaning, attributes, "tool.description"),
    )
    meaning.understood |= {INPUT, OUTPUT, *_MIMES}
    meaning.tool["error"] = reported_error(result) if message else None
    if is_schema or found is None:
        meaning.understood.add("tool.parameters")


def _tool_message(result: Json) -> JsonObject:
    """The content of the message that a LangChain tool returned, in Python or in Node."""
    message = mapping(mapping(result).get("output")) or mapping(result)
    held = mapping(message.get("data") if message.get("type") == "tool" else message.get("kwargs"))
    return held if "content" in held and (message.get("type") == "tool" or "tool_call_id" in held) else {}


def _retrieval(meaning: Meaning, attributes: JsonObject) -> None:
    documents: list[Json] | None = None
    for prefix in _DOCUMENTS:
        items, used = unflattened(attributes, prefix)
        if items:
            documents = [item.get("document", item) for item in items]
            meaning.understood.update(used)
            meaning.repeated.add(OUTPUT)
            break
    else:
        output = mapping(attributes.get(OUTPUT))
        if isinstance(output.get("documents"), list):
            documents = listed(output["documents"])
            meaning.understood |= {OUTPUT}
    meaning.retrieval = fields.retrieval(parsed(attributes.get(INPUT)), documents)
    meaning.understood |= {INPUT, *_MIMES}


def _score(attributes: JsonObject, name: str) -> JsonObject | None:
    """An evaluator's result, if it is an object with a score or a label."""
    output = mapping(attributes.get(OUTPUT))
    value, label = score(output.get("score")), text(output.get("label"))
    if value is None and label is None:
        return None
    return fields.evaluation(text(output.get("name")) or name, value, label, text(output.get("explanation")))
