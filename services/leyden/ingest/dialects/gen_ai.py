"""The OpenTelemetry GenAI conventions, with current names and those before 1.37. Our client library follows them too.

AutoGen, Semantic Kernel, Microsoft's Agent Framework and Pydantic AI follow them natively, OpenLLMetry and Logfire in
newer versions, so other dialects call `read` first and add their own attributes. Messages may be in attributes or in
span events (`gen_ai.user.message` …); for messages in log records see `logs`.
"""

import re
from collections.abc import Mapping, Sequence

from leyden.events import Json, JsonObject, SpanKind
from leyden.ingest.core import fields
from leyden.ingest.core.dialect import Meaning
from leyden.ingest.core.messages import chat_messages, finish_reasons_of, messages_of
from leyden.ingest.core.parts import unwrapped
from leyden.ingest.core.raw import RawSpan
from leyden.ingest.core.values import (
    MAX_COUNT,
    count,
    first,
    is_empty,
    listed,
    mapping,
    objects,
    parsed,
    said,
    score,
    text,
    texts,
)
from leyden.ingest.dialects import names

KIND_OF_OPERATION = {
    "chat": SpanKind.LLM_CALL,
    "chat.completions": SpanKind.LLM_CALL,
    "text.completions": SpanKind.LLM_CALL,
    "text_completion": SpanKind.LLM_CALL,
    "generate_content": SpanKind.LLM_CALL,
    "embeddings": SpanKind.LLM_CALL,
    "execute_tool": SpanKind.TOOL_CALL,
    "invoke_agent": SpanKind.AGENT_STEP,
    "create_agent": SpanKind.AGENT_STEP,
    "invoke_workflow": SpanKind.AGENT_STEP,
    "execute_task": SpanKind.AGENT_STEP,
    "handoff": SpanKind.AGENT_STEP,
    "chain": SpanKind.AGENT_STEP,
    "plan": SpanKind.AGENT_STEP,
    "agent_step": SpanKind.AGENT_STEP,
    "execute_event_loop_cycle": SpanKind.AGENT_STEP,
    "retrieval": SpanKind.RETRIEVAL,
    "search_memory": SpanKind.RETRIEVAL,
}
_MARKS = frozenset({names.OPERATION, names.SYSTEM, names.PROVIDER, names.TOOL_NAME, names.EVALUATION_NAME})
_INPUT_EVENTS = {
    "gen_ai.system.message": "system",
    "gen_ai.user.message": "user",
    "gen_ai.assistant.message": "assistant",
    "gen_ai.tool.message": "tool",
}
_MESSAGE_FIELDS = frozenset({"content", "role", "tool_calls", "id", "message"})
TOOL_EVENT = "gen_ai.tool.message"
CHOICE_EVENT = "gen_ai.choice"
PROMPT_EVENT, COMPLETION_EVENT = "gen_ai.content.prompt", "gen_ai.content.completion"
DETAILS_EVENT = "gen_ai.client.inference.operation.details"
_COUNTS_TOKENS = re.compile(r"(?i)count_?tokens|tokens?_?count")
_ANSWER_NAMES = frozenset({*names.OUTPUT_TOKENS, names.OUTPUT_MESSAGES, names.COMPLETION, "response_data"})
_ANSWER_PREFIXES = ("gen_ai.response.", "gen_ai.completion.")
_ANSWER_EVENTS = frozenset({CHOICE_EVENT, COMPLETION_EVENT, DETAILS_EVENT})
MESSAGE_EVENTS = frozenset({*_INPUT_EVENTS, CHOICE_EVENT, PROMPT_EVENT, COMPLETION_EVENT, DETAILS_EVENT})


class GenAi:
    """Spans with a `gen_ai.` attribute, or with a score or message among their events."""

    name = "gen_ai"

    def recognises(self, span: RawSpan) -> bool:
        return (
            not _MARKS.isdisjoint(span.attributes)
            or any(key.startswith("gen_ai.") for key in span.attributes)
            or any(event.name.startswith("gen_ai.") for event in span.events)
        )

    def meaning(self, span: RawSpan) -> Meaning:
        return read(span)

    def evaluations(self, span: RawSpan) -> Sequence[tuple[int, JsonObject]]:
        return evaluations(span)


def read(span: RawSpan, kind: SpanKind | None = None) -> Meaning:
    """Interpret the conventions' attributes of `span`. `kind` overrides the kind that they imply."""
    attributes = span.attributes
    meaning = Meaning(kind or _kind(span))
    _identity(meaning, attributes)
    if meaning.kind is SpanKind.LLM_CALL:
        _model_call(meaning, span)
    elif meaning.kind is SpanKind.TOOL_CALL:
        _tool_call(meaning, span)
    elif meaning.kind is SpanKind.RETRIEVAL:
        _retrieval(meaning, attributes)
    elif meaning.kind is SpanKind.EVALUATION:
        score = meaning.evaluation = evaluation_of(attributes)
        meaning.understood |= {names.EVALUATION_NAME, names.EVALUATION_LABEL, names.EVALUATION_EXPLANATION}
        if score["value"] is not None:
            meaning.understood.add(names.EVALUATION_VALUE)
    if meaning.kind is not SpanKind.OTHER:
        meaning.understood.add(names.OPERATION)
    return meaning


def evaluations(span: RawSpan) -> Sequence[tuple[int, JsonObject]]:
    """Scores among the span's events, as (index of the event, score)."""
    if not span.events:
        return ()
    return [
        (index, evaluation_of(event.attributes))
        for index, event in enumerate(span.events)
        if event.name == names.EVALUATION_RESULT
    ]


def evaluation_of(attributes: Mapping[str, Json]) -> JsonObject:
    """A score from the attributes of a span, an event or a log record."""
    return fields.evaluation(
        text(attributes.get(names.EVALUATION_NAME)) or "evaluation",
        score(attributes.get(names.EVALUATION_VALUE)),
        text(attributes.get(names.EVALUATION_LABEL)),
        text(attributes.get(names.EVALUATION_EXPLANATION)),
    )


def _kind(span: RawSpan) -> SpanKind:
    attributes = span.attributes
    if names.EVALUATION_NAME in attributes:
        return SpanKind.EVALUATION
    operation = attributes.get(names.OPERATION)
    if isinstance(operation, str):
        return KIND_OF_OPERATION.get(operation, SpanKind.OTHER)
    if names.TOOL_NAME in attributes:
        return SpanKind.TOOL_CALL
    return SpanKind.LLM_CALL if names.REQUEST_MODEL in attributes and _answers(span) else SpanKind.OTHER


def _answers(span: RawSpan) -> bool:
    """Whether a span without an operation has a trace of an answer, or failed: counting tokens is no model call."""
    failed = span.status == "error" and _COUNTS_TOKENS.search(span.name) is None
    return (
        failed
        or any(name in _ANSWER_NAMES or name.startswith(_ANSWER_PREFIXES) for name in span.attributes)
        or any(event.name in _ANSWER_EVENTS for event in span.events)
    )


def _identity(meaning: Meaning, attributes: JsonObject) -> None:
    """Set the agent and the conversation."""
    meaning.agent_name = take(meaning, attributes, names.AGENT_NAME)
    if names.AGENT_ID in attributes:
        meaning.agent_id = take(meaning, attributes, names.AGENT_ID)
    if names.AGENT_DESCRIPTION in attributes:
        meaning.agent_description = take(meaning, attributes, names.AGENT_DESCRIPTION)
    meaning.conversation_id = take(meaning, attributes, names.CONVERSATION_ID)
    if meaning.conversation_id is None and names.SESSION_ID in attributes:
        meaning.conversation_id = take(meaning, attributes, names.SESSION_ID)


def take(meaning: Meaning, attributes: JsonObject, *wanted: str) -> str | None:
    """The first non-empty string among the attributes `wanted`; marks it as understood."""
    for name in wanted:
        value = attributes.get(name)
        if isinstance(value, str) and value:
            meaning.understood.add(name)
            return value
    return None


def _model_call(meaning: Meaning, span: RawSpan) -> None:
    attributes = span.attributes
    response, request = text(attributes.get(names.RESPONSE_MODEL)), text(attributes.get(names.REQUEST_MODEL))
    meaning.model = response or request
    if request is not None and response in (None, request):
        meaning.understood |= {names.REQUEST_MODEL, names.RESPONSE_MODEL}
    elif response is not None:
        meaning.understood.add(names.RESPONSE_MODEL)
    given, answered = _messages(meaning, span)
    meaning.llm = fields.llm_call(
        operation=text(attributes.get(names.OPERATION)),
        provider=take(meaning, attributes, names.PROVIDER, names.SYSTEM),
        response_id=take(meaning, attributes, names.RESPONSE_ID),
        finish_reasons=_finish_reasons(meaning, attributes),
        input_tokens=_count(meaning, attributes, names.INPUT_TOKENS),
        output_tokens=_count(meaning, attributes, names.OUTPUT_TOKENS),
        cached_tokens=_count(meaning, attributes, names.CACHED_TOKENS),
        parameters=_parameters(meaning, attributes),
        input_messages=given,
        output_messages=answered,
    )
    if span.events and not meaning.llm["finish_reasons"]:
        meaning.llm["finish_reasons"] = list(_finish_reasons_in_events(span))
    _add_cached(meaning.llm, attributes)


def _messages(meaning: Meaning, span: RawSpan) -> tuple[list[JsonObject], list[JsonObject]]:
    """(Input messages, output messages) from the attributes; from the events what the attributes do not have."""
    given, answered = _in_attributes(meaning, span.attributes)
    if span.events and not (given and answered):
        in_events = _in_events(span)
        if any(in_events):
            meaning.events = MESSAGE_EVENTS
        given, answered = given or in_events[0], answered or in_events[1]
    return [*_instructions(meaning, span.attributes), *given], answered


def _in_attributes(meaning: Meaning, attributes: JsonObject) -> tuple[list[JsonObject], list[JsonObject]]:
    given: list[JsonObject] = []
    answered: list[JsonObject] = []
    if names.INPUT_MESSAGES in attributes and (given := messages_of(attributes[names.INPUT_MESSAGES])):
        meaning.understood.add(names.INPUT_MESSAGES)
    if names.OUTPUT_MESSAGES in attributes and (answered := messages_of(attributes[names.OUTPUT_MESSAGES])):
        meaning.understood.add(names.OUTPUT_MESSAGES)
    return given, answered if any(map(_says_something, answered)) else []


def _says_something(message: JsonObject) -> bool:
    return len(message) > 2 or message.get("content") not in (None, "", [])


def _instructions(meaning: Meaning, attributes: JsonObject) -> list[JsonObject]:
    instructions = listed(attributes[names.SYSTEM_INSTRUCTIONS]) if names.SYSTEM_INSTRUCTIONS in attributes else []
    if not instructions:
        return []
    meaning.understood.add(names.SYSTEM_INSTRUCTIONS)
    return chat_messages({"role": "system", "parts": instructions})


def _in_events(span: RawSpan) -> tuple[list[JsonObject], list[JsonObject]]:
    given: list[JsonObject] = []
    answered: list[JsonObject] = []
    for event in span.events:
        if event.name in MESSAGE_EVENTS:
            more_given, more_answered = messages_in_event(event.name, event.attributes, None)
            given += more_given
            answered += more_answered
    return given, answered


def messages_in_event(name: str, attributes: JsonObject, body: Json) -> tuple[list[JsonObject], list[JsonObject]]:
    """(Input messages, output messages) of one event or log record; `body` is None for a span event."""
    if name == DETAILS_EVENT:
        held: JsonObject = {**attributes, **mapping(body)}
        given, answered = _in_attributes(Meaning(SpanKind.OTHER), held)
        return [*_instructions(Meaning(SpanKind.OTHER), held), *given], answered
    if name == PROMPT_EVENT:
        return messages_of(attributes.get(names.PROMPT)), []
    if name == COMPLETION_EVENT:
        return [], messages_of(attributes.get(names.COMPLETION))
    content = parsed(body) if body is not None else parsed(attributes.get("gen_ai.event.content"))
    message: JsonObject = content if isinstance(content, dict) else {} if content is None else {"content": content}
    if not message:
        message = {name: parsed(value) for name, value in attributes.items() if name in _MESSAGE_FIELDS}
    if name == CHOICE_EVENT:
        inner = parsed(message.get("message"))
        rest = {name: value for name, value in message.items() if name not in ("index", "finish_reason")}
        message = inner if isinstance(inner, dict) else rest if inner is None else {"content": inner}
        return [], chat_messages({"role": "assistant", **message})
    message = {"role": _INPUT_EVENTS[name], **message}
    if name == TOOL_EVENT and "id" in message:
        message["tool_call_id"] = message.pop("id")
    return chat_messages(message), []


def _finish_reasons_in_events(span: RawSpan) -> list[str]:
    reasons = [text(event.attributes.get("finish_reason")) for event in span.events if event.name == CHOICE_EVENT]
    return [reason for reason in reasons if reason is not None]


def _finish_reasons(meaning: Meaning, attributes: JsonObject) -> list[str]:
    if names.FINISH_REASONS in attributes and (reasons := texts(attributes[names.FINISH_REASONS])):
        meaning.understood.add(names.FINISH_REASONS)
        return reasons
    if names.FINISH_REASON in attributes and (reason := take(meaning, attributes, names.FINISH_REASON)):
        return [reason.removeprefix("FinishReason.").lower()]
    return finish_reasons_of(attributes[names.OUTPUT_MESSAGES]) if names.OUTPUT_MESSAGES in attributes else []


def _count(meaning: Meaning, attributes: JsonObject, wanted: Sequence[str]) -> int | None:
    for name in wanted:
        if name in attributes and (found := count(attributes[name])) is not None:
            meaning.understood.add(name)
            return found
    return None


def _add_cached(llm: JsonObject, attributes: JsonObject) -> None:
    """Anthropic's input count excludes cached tokens: if it is smaller than the cached count, add them."""
    total, cached = llm["input_tokens"], llm["cached_tokens"]
    written = 0
    for name in names.CACHE_WRITE_TOKENS:
        if name in attributes and (written := count(attributes[name]) or 0):
            break
    if not isinstance(total, int) or not isinstance(cached, int | None) or not (cached or written):
        return
    missing = (cached or 0) + written
    if total < missing or (llm["provider"] == "anthropic" and names.PROVIDER not in attributes):
        llm["input_tokens"] = min(total + missing, MAX_COUNT)


def _parameters(meaning: Meaning, attributes: JsonObject) -> JsonObject:
    found: JsonObject = {}
    for name, value in attributes.items():
        if name.startswith("gen_ai.request.") and name != names.REQUEST_MODEL:
            found[name[len("gen_ai.request.") :]] = value
            meaning.understood.add(name)
    return found


def _tool_call(meaning: Meaning, span: RawSpan) -> None:
    attributes = span.attributes
    name = take(meaning, attributes, names.TOOL_NAME) or span.name.removeprefix("execute_tool ")
    schema = said(attributes, *names.TOOL_PARAMETERS)
    own = isinstance(schema, dict)
    if not own and names.TOOL_DEFINITIONS in attributes:
        schema = schema_of(name, attributes[names.TOOL_DEFINITIONS])
    meaning.tool = fields.tool_call(
        name,
        call_id=take(meaning, attributes, names.TOOL_CALL_ID),
        arguments=said(attributes, names.TOOL_ARGUMENTS),
        result=said(attributes, names.TOOL_RESULT),
        parameters_schema=schema if isinstance(schema, dict) else None,
        type_=take(meaning, attributes, names.TOOL_TYPE),
        description=take(meaning, attributes, names.TOOL_DESCRIPTION),
    )
    meaning.understood |= {names.TOOL_ARGUMENTS, names.TOOL_RESULT}
    if own:
        meaning.understood.update(names.TOOL_PARAMETERS)
    if span.events and (is_empty(meaning.tool["arguments"]) or is_empty(meaning.tool["result"])):
        _tool_call_in_events(meaning, span)


def _tool_call_in_events(meaning: Meaning, span: RawSpan) -> None:
    """Arguments and result from messages: a tool's span has its call as the input, its answer as the output."""
    tool = meaning.tool
    assert tool is not None
    arguments: Json = None
    result: Json = None
    for event in span.events:
        if event.name == TOOL_EVENT:
            arguments = said(event.attributes, "content")
        elif event.name == CHOICE_EVENT:
            result = unwrapped(said(event.attributes, "message"))
        elif event.name == DETAILS_EVENT:
            given, answered = messages_in_event(event.name, event.attributes, None)
            for asked in [call for message in given for call in objects(message.get("tool_calls") or [])]:
                arguments = parsed(mapping(asked.get("function")).get("arguments"))
            for message in answered:
                result = message.get("content") if message["role"] == "tool" else result
    for field, value in (("arguments", arguments), ("result", result)):
        if is_empty(tool[field]) and not is_empty(value):
            tool[field] = value
            meaning.events = MESSAGE_EVENTS


def _retrieval(meaning: Meaning, attributes: JsonObject) -> None:
    value = parsed(first(attributes, *names.RETRIEVAL_DOCUMENTS))
    documents = [parsed(item) for item in value] if isinstance(value, list) else None
    meaning.retrieval = fields.retrieval(first(attributes, *names.RETRIEVAL_QUERY), documents)
    meaning.understood.update(names.RETRIEVAL_QUERY)
    if documents is not None:
        meaning.understood.update(names.RETRIEVAL_DOCUMENTS)


def schema_of(tool: str, definitions: Json) -> JsonObject | None:
    """The parameter schema of `tool` from tool definitions, flat or inside OpenAI's `function` object."""
    for definition in objects(definitions):
        body = definition.get("function")
        described = body if isinstance(body, dict) else definition
        parameters = described.get("parameters")
        if described.get("name") == tool and isinstance(parameters, dict):
            return parameters
    return None
