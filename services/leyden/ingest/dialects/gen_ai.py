"""The OpenTelemetry GenAI conventions, which our own client library speaks too."""

import math
from collections.abc import Iterator, Sequence

import orjson

from leyden.events import Evaluation, Json, JsonObject, SpanKind, ToolCall
from leyden.ingest.core.dialect import Meaning
from leyden.ingest.core.raw import RawSpan
from leyden.ingest.dialects import names

KIND_OF_OPERATION = {
    "chat": SpanKind.LLM_CALL,
    "text_completion": SpanKind.LLM_CALL,
    "generate_content": SpanKind.LLM_CALL,
    "embeddings": SpanKind.LLM_CALL,
    "execute_tool": SpanKind.TOOL_CALL,
    "invoke_agent": SpanKind.AGENT_STEP,
    "create_agent": SpanKind.AGENT_STEP,
    "invoke_workflow": SpanKind.AGENT_STEP,
    "retrieval": SpanKind.RETRIEVAL,
}


class GenAi:
    """Spans with a `gen_ai.` attribute, or with a score as an event."""

    name = "gen_ai"

    def recognises(self, span: RawSpan) -> bool:
        return any(key.startswith("gen_ai.") for key in span.attributes) or any(
            event.name == names.EVALUATION_RESULT for event in span.events
        )

    def meaning(self, span: RawSpan) -> Meaning:
        attributes = span.attributes
        kind = _kind(attributes)
        understood = {names.OPERATION, names.AGENT_NAME}
        tool = evaluation = None
        if kind is SpanKind.TOOL_CALL:
            tool = _tool(span)
            understood |= {names.TOOL_NAME, names.TOOL_CALL_ID, names.TOOL_ARGUMENTS, names.TOOL_RESULT}
            understood |= {names.TOOL_PARAMETERS} if tool.parameters_schema is not None else set()
        elif kind is SpanKind.EVALUATION:
            evaluation = _evaluation(attributes)
            understood |= {names.EVALUATION_NAME, names.EVALUATION_LABEL, names.EVALUATION_EXPLANATION}
            understood |= {names.EVALUATION_VALUE} if evaluation.value is not None else set()
        return Meaning(
            kind=kind,
            agent_name=_text(attributes.get(names.AGENT_NAME)),
            model=_text(attributes.get(names.RESPONSE_MODEL)) or _text(attributes.get(names.REQUEST_MODEL)),
            tool=tool,
            evaluation=evaluation,
            understood=frozenset(understood) if kind is not SpanKind.OTHER else frozenset({names.AGENT_NAME}),
        )

    def evaluations(self, span: RawSpan) -> Sequence[tuple[int, Evaluation]]:
        return [
            (index, _evaluation(event.attributes))
            for index, event in enumerate(span.events)
            if event.name == names.EVALUATION_RESULT
        ]


def _kind(attributes: JsonObject) -> SpanKind:
    if names.EVALUATION_NAME in attributes:
        return SpanKind.EVALUATION
    operation = attributes.get(names.OPERATION)
    if isinstance(operation, str):
        return KIND_OF_OPERATION.get(operation, SpanKind.OTHER)
    if names.TOOL_NAME in attributes:
        return SpanKind.TOOL_CALL
    return SpanKind.LLM_CALL if names.REQUEST_MODEL in attributes else SpanKind.OTHER


def _tool(span: RawSpan) -> ToolCall:
    attributes = span.attributes
    name = _text(attributes.get(names.TOOL_NAME)) or span.name.removeprefix("execute_tool ")
    schema = _parsed(attributes.get(names.TOOL_PARAMETERS))
    return ToolCall(
        name=name,
        call_id=_text(attributes.get(names.TOOL_CALL_ID)),
        arguments=_parsed(attributes.get(names.TOOL_ARGUMENTS)),
        result=_parsed(attributes.get(names.TOOL_RESULT)),
        parameters_schema=schema
        if isinstance(schema, dict)
        else _schema_of(name, attributes.get(names.TOOL_DEFINITIONS)),
    )


def _evaluation(attributes: JsonObject) -> Evaluation:
    value = attributes.get(names.EVALUATION_VALUE)
    return Evaluation(
        name=_text(attributes.get(names.EVALUATION_NAME)) or "evaluation",
        value=_number(value),
        label=_text(attributes.get(names.EVALUATION_LABEL)),
        explanation=_text(attributes.get(names.EVALUATION_EXPLANATION)),
    )


def _schema_of(tool: str, definitions: Json) -> JsonObject | None:
    """The parameters of `tool` among `gen_ai.tool.definitions`, flat or in OpenAI's `function` envelope."""
    for definition in _objects(_parsed(definitions)):
        body = definition.get("function")
        described = body if isinstance(body, dict) else definition
        parameters = described.get("parameters")
        if described.get("name") == tool and isinstance(parameters, dict):
            return parameters
    return None


def _objects(value: Json) -> Iterator[JsonObject]:
    for item in value if isinstance(value, list) else [value]:
        parsed = _parsed(item)
        if isinstance(parsed, dict):
            yield parsed


def _parsed(value: Json) -> Json:
    """JSON text as its value, anything else as it is: instrumentations send both.

    orjson refuses what could not be written again (lone surrogates, NaN); such a text stays a text.
    """
    if not isinstance(value, str) or not value.lstrip().startswith(("{", "[", '"')):
        return value
    try:
        parsed: Json = orjson.loads(value)
    except orjson.JSONDecodeError:
        return value
    return parsed


def _number(value: Json) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def _text(value: Json) -> str | None:
    return value if isinstance(value, str) and value else None
