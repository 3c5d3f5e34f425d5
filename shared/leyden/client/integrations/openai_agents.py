"""The OpenAI Agents SDK's own traces as spans of the current rollout, by the GenAI conventions.

    from leyden.client.integrations import openai_agents
    openai_agents.install()

Agent names, tool calls with arguments and results, model calls, handoffs, guardrails and errors, each below its parent.
Nothing here imports the SDK but `install`: it calls its processors by method names alone.
"""

from typing import Any, Protocol

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Status, StatusCode

from leyden.client import semconv
from leyden.client.instruments import Attributes, json_text
from leyden.client.integrations.messages import messages_of
from leyden.client.rollouts import parent_context
from leyden.client.session import flush, tracer

FLUSH_S = 5.0


class SdkTrace(Protocol):
    """The SDK's trace, as far as it is read here."""

    trace_id: str
    name: str


class SdkSpan(Protocol):
    """The SDK's span, as far as it is read here."""

    trace_id: str
    span_id: str
    parent_id: str | None
    span_data: Any
    error: Any


class LeydenTracing:
    """A tracing processor of the SDK. Its methods never raise for what they do not know."""

    def __init__(self) -> None:
        self._open: dict[str, trace.Span] = {}
        self._agents: dict[str, str] = {}
        """The agent at work, by open span."""

    def on_trace_start(self, trace: SdkTrace) -> None:
        """A run: below whatever is current here."""
        name = str(trace.name)
        attributes: Attributes = {
            semconv.GEN_AI_OPERATION_NAME: semconv.INVOKE_WORKFLOW,
            semconv.GEN_AI_WORKFLOW_NAME: name,
        }
        self._start(trace.trace_id, f"{semconv.INVOKE_WORKFLOW} {name}", parent_context(), attributes)

    def on_trace_end(self, trace: SdkTrace) -> None:
        """The run is over."""
        if opened := self._open.pop(trace.trace_id, None):
            opened.end()

    def on_span_start(self, span: SdkSpan) -> None:
        """Open its twin: below its parent's, else below the run's."""
        parent_key = span.parent_id or span.trace_id
        parent = self._open.get(parent_key) or self._open.get(span.trace_id)
        agent = _text(getattr(span.span_data, "name", None)) if span.span_data.type == "agent" else None
        if agent := agent or self._agents.get(parent_key):
            self._agents[span.span_id] = agent
        context = trace.set_span_in_context(parent) if parent is not None else parent_context()
        self._start(span.span_id, span.span_data.type, context, {})

    def on_span_end(self, span: SdkSpan) -> None:
        """What it was is known now."""
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
        """Send what has ended."""
        flush(FLUSH_S)

    def shutdown(self) -> None:
        """What is open never ended."""
        self._open.clear()
        self._agents.clear()

    def _start(self, key: str, name: str, context: Context | None, attributes: Attributes) -> None:
        self._open[key] = tracer().start_span(name, context, attributes=attributes)


def install(*, keep_others: bool = False) -> LeydenTracing:
    """Have the SDK trace to Leyden, and no longer to OpenAI, whose key is not the one that a rollout has.

    `keep_others` leaves the processors that there are. Raises ModuleNotFoundError without the SDK.
    """
    from agents import add_trace_processor, set_trace_processors  # type: ignore[import-not-found, unused-ignore]

    processor = LeydenTracing()
    if keep_others:
        add_trace_processor(processor)
    else:
        set_trace_processors([processor])
    return processor


def described(data: Any) -> tuple[str, Attributes]:
    """A span's name and attributes, by the type of its data."""
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
    """Guardrails, turns, MCP listings, custom spans, and types that do not exist yet."""
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
    """Message and `error.type`; the SDK's own message says little, its data says what it was."""
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
