"""Exports the traces of the OpenAI Agents SDK as spans of the current rollout, by the GenAI conventions.

    from leyden.client import openai_agents
    openai_agents.install()

Agents, tool calls with arguments and results, model calls, handoffs, guardrails and errors, each below its parent. Only
`install` imports the SDK.
"""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, Protocol

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Status, StatusCode

from leyden.client import semconv
from leyden.client.rollouts import parent_context
from leyden.client.session import flush, tracer
from leyden.client.spans import Attributes, json_text

Message = dict[str, Any]

FLUSH_S = 5.0


class SdkTrace(Protocol):
    """The part of the SDK's trace that is read here."""

    trace_id: str
    name: str


class SdkSpan(Protocol):
    """The part of the SDK's span that is read here."""

    trace_id: str
    span_id: str
    parent_id: str | None
    span_data: Any
    error: Any


class LeydenTracing:
    """A tracing processor for the SDK. Accepts span types that it does not know."""

    def __init__(self) -> None:
        self._open: dict[str, trace.Span] = {}
        self._agents: dict[str, str] = {}
        """Agent name by id of an open span."""

    def on_trace_start(self, trace: SdkTrace) -> None:
        """Start a span for the run, below the current one."""
        name = str(trace.name)
        attributes: Attributes = {
            semconv.GEN_AI_OPERATION_NAME: semconv.INVOKE_WORKFLOW,
            semconv.GEN_AI_WORKFLOW_NAME: name,
        }
        self._start(trace.trace_id, f"{semconv.INVOKE_WORKFLOW} {name}", parent_context(), attributes)

    def on_trace_end(self, trace: SdkTrace) -> None:
        """End the run's span."""
        if opened := self._open.pop(trace.trace_id, None):
            opened.end()

    def on_span_start(self, span: SdkSpan) -> None:
        """Start our span, below its parent's, else below the run's."""
        parent_key = span.parent_id or span.trace_id
        parent = self._open.get(parent_key) or self._open.get(span.trace_id)
        agent = _text(getattr(span.span_data, "name", None)) if span.span_data.type == "agent" else None
        if agent := agent or self._agents.get(parent_key):
            self._agents[span.span_id] = agent
        context = trace.set_span_in_context(parent) if parent is not None else parent_context()
        self._start(span.span_id, span.span_data.type, context, {})

    def on_span_end(self, span: SdkSpan) -> None:
        """End our span; its name and attributes are known now."""
        agent = self._agents.pop(span.span_id, None)
        opened = self._open.pop(span.span_id, None)
        if opened is None or not opened.is_recording():
            return
        name, attributes = described(span.span_data)
        if agent is not None:
            attributes.setdefault(semconv.GEN_AI_AGENT_NAME, agent)
        opened.update_name(name)
        opened.set_attributes(attributes)
        if span.error:
            message, kind = _error(span.error, span.span_data.type)
            opened.set_attribute(semconv.ERROR_TYPE, kind)
            opened.set_status(Status(StatusCode.ERROR, message))
        opened.end()

    def force_flush(self) -> None:
        """Send the spans that have ended."""
        flush(FLUSH_S)

    def shutdown(self) -> None:
        """Drop the spans that are still open."""
        self._open.clear()
        self._agents.clear()

    def _start(self, key: str, name: str, context: Context | None, attributes: Attributes) -> None:
        self._open[key] = tracer().start_span(name, context, attributes=attributes)


def install(*, keep_others: bool = False) -> LeydenTracing:
    """Replace the SDK's trace processors, which would send a rollout's key to OpenAI, with ours; switch tracing on.

    `keep_others` adds ours to the existing ones. Raises ModuleNotFoundError when the SDK is not installed.
    """
    from agents import (  # type: ignore[import-not-found, unused-ignore]
        add_trace_processor,
        set_trace_processors,
        set_tracing_disabled,
    )

    processor = LeydenTracing()
    set_tracing_disabled(False)
    if keep_others:
        add_trace_processor(processor)
    else:
        set_trace_processors([processor])
    return processor


def described(data: Any) -> tuple[str, Attributes]:
    """Our name and attributes for a span's data."""
    describe = _DESCRIBED.get(data.type, _anything)
    return describe(data)


def _agent(data: Any) -> tuple[str, Attributes]:
    return f"{semconv.INVOKE_AGENT} {data.name}", {
        semconv.GEN_AI_OPERATION_NAME: semconv.INVOKE_AGENT,
        semconv.GEN_AI_AGENT_NAME: str(data.name),
    }


def _function(data: Any) -> tuple[str, Attributes]:
    attributes: Attributes = {
        semconv.GEN_AI_OPERATION_NAME: semconv.EXECUTE_TOOL,
        semconv.GEN_AI_TOOL_NAME: str(data.name),
        semconv.GEN_AI_TOOL_TYPE: "extension" if data.mcp_data else "function",
    }
    if data.input is not None:
        attributes[semconv.GEN_AI_TOOL_CALL_ARGUMENTS] = _json(data.input)
    if data.output is not None:
        attributes[semconv.GEN_AI_TOOL_CALL_RESULT] = json_text(data.output)
    return f"{semconv.EXECUTE_TOOL} {data.name}", attributes


def _generation(data: Any) -> tuple[str, Attributes]:
    attributes = _model_call(data.model, data.usage)
    attributes[semconv.GEN_AI_INPUT_MESSAGES] = json_text(messages_of(data.input))
    attributes[semconv.GEN_AI_OUTPUT_MESSAGES] = json_text(messages_of(data.output, "assistant"))
    return f"chat {data.model or ''}".strip(), attributes


def _response(data: Any) -> tuple[str, Attributes]:
    response = data.response
    model = getattr(response, "model", None)
    attributes = _model_call(model, getattr(response, "usage", None) or getattr(data, "usage", None))
    attributes[semconv.GEN_AI_INPUT_MESSAGES] = json_text(messages_of(data.input))
    if response is not None:
        attributes[semconv.GEN_AI_OUTPUT_MESSAGES] = json_text(messages_of(response.output, "assistant"))
        attributes[semconv.GEN_AI_RESPONSE_ID] = str(response.id)
        attributes[semconv.GEN_AI_RESPONSE_MODEL] = str(model)
    return f"chat {model or ''}".strip(), attributes


def _model_call(model: Any, usage: Any) -> Attributes:
    attributes: Attributes = {semconv.GEN_AI_OPERATION_NAME: "chat", semconv.GEN_AI_PROVIDER_NAME: "openai"}
    if model:
        attributes[semconv.GEN_AI_REQUEST_MODEL] = str(model)
    counts = usage if isinstance(usage, dict) else getattr(usage, "__dict__", {})
    for ours, theirs in (
        (semconv.GEN_AI_USAGE_INPUT_TOKENS, "input_tokens"),
        (semconv.GEN_AI_USAGE_OUTPUT_TOKENS, "output_tokens"),
    ):
        if isinstance(counts.get(theirs), int):
            attributes[ours] = counts[theirs]
    return attributes


def _handoff(data: Any) -> tuple[str, Attributes]:
    return f"handoff to {data.to_agent}", {
        semconv.LEYDEN_OPERATION_NAME: "handoff",
        semconv.LEYDEN_OPERATION_ARGUMENTS: json_text({"from_agent": data.from_agent, "to_agent": data.to_agent}),
    }


def _anything(data: Any) -> tuple[str, Attributes]:
    """Guardrails, turns, MCP listings, custom spans, and unknown types."""
    told = {key: value for key, value in data.export().items() if key not in ("type", "name") and value is not None}
    name = _text(getattr(data, "name", None))
    return f"{data.type} {name}" if name else str(data.type), {
        semconv.LEYDEN_OPERATION_NAME: name or str(data.type),
        semconv.LEYDEN_OPERATION_ARGUMENTS: json_text(told),
    }


_DESCRIBED = {
    "agent": _agent,
    "function": _function,
    "generation": _generation,
    "response": _response,
    "handoff": _handoff,
}


def _error(error: Any, kind: str) -> tuple[str, str]:
    """Message and `error.type`; the SDK's data is more precise than its message."""
    if not isinstance(error, dict):
        return str(error), "error"
    data = error.get("data") or {}
    detail = data.get("error") if isinstance(data, dict) else None
    message = f"{error.get('message')}: {detail}" if detail else str(error.get("message"))
    return message, "tool_error" if kind == "function" else "error"


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json_text(value)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def messages_of(items: Any, role: str = "user") -> list[Message]:
    """A string, chat messages or Responses items as the conventions' `[{"role", "parts"}]`."""
    if isinstance(items, str):
        return [{"role": role, "parts": [_text_part(items)]}]
    return [_message(item, role) for item in map(_plain, items or ()) if item]


def _message(item: Mapping[str, Any], role: str) -> Message:
    kind = item.get("type")
    if kind in ("function_call", "custom_tool_call"):
        arguments = item.get("arguments", item.get("input"))
        return {"role": "assistant", "parts": [_call(item.get("call_id"), item.get("name"), arguments)]}
    if kind in ("function_call_output", "custom_tool_call_output") or item.get("role") == "tool":
        answer = item.get("output", item.get("content"))
        call_id = item.get("call_id") or item.get("tool_call_id")
        return {"role": "tool", "parts": [{"type": "tool_call_response", "id": call_id, "response": answer}]}
    if kind == "reasoning":
        return {"role": "assistant", "parts": _parts(item.get("summary") or item.get("content"), "reasoning")}
    calls = [_plain(call) for call in item.get("tool_calls") or ()]
    functions = [(call.get("id"), _plain(call.get("function") or {})) for call in calls]
    parts = _parts(item.get("content"), "text") + [_call(i, f.get("name"), f.get("arguments")) for i, f in functions]
    return {"role": item.get("role") or role, "parts": parts or [_other(item)]}


def _parts(content: Any, kind: str) -> list[dict[str, Any]]:
    if content is None:
        return []
    if isinstance(content, str):
        return [_text_part(content, kind)]
    parts: Iterable[Mapping[str, Any]] = map(_plain, content)
    return [_text_part(part["text"], kind) if isinstance(part.get("text"), str) else _other(part) for part in parts]


def _text_part(content: str, kind: str = "text") -> dict[str, Any]:
    return {"type": kind, "content": content}


def _call(call_id: Any, name: Any, arguments: Any) -> dict[str, Any]:
    with suppress(ValueError):  # the model wrote invalid JSON: recorded as it is
        arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
    return {"type": "tool_call", "id": call_id, "name": name, "arguments": arguments}


def _other(item: Mapping[str, Any]) -> dict[str, Any]:
    return {**item, "type": str(item.get("type") or "other")}


def _plain(item: Any) -> Mapping[str, Any]:
    """A mapping, or a pydantic model as a mapping."""
    if isinstance(item, Mapping):
        return item
    dump = getattr(item, "model_dump", None)
    plain = dump(mode="json", exclude_none=True) if dump else {}
    return plain if isinstance(plain, Mapping) else {}
