"""The view of a model call that rules and reward functions get."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from leyden.events import Json, JsonObject, ModelCallRecorded
from leyden.events.replies import replies_of


@dataclass(frozen=True)
class ChoiceView:
    """One response of a model call."""

    message: JsonObject
    finish_reason: str | None


@dataclass(frozen=True)
class CallView:
    """One model call."""

    call_id: str
    request: JsonObject
    choices: tuple[ChoiceView, ...]
    started_at: datetime
    policy: str | None
    policy_version: int | None
    error: str | None
    latency_s: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    agent_name: str | None = None
    parent_span_id: str | None = None
    """Id of the span in which the agent made the call."""
    response_id: str | None = None
    """The response id, which an instrumentation's span of the call may have too."""
    requested_model: str | None = None
    """The model name in the request."""
    trace_id: str | None = None
    """Trace of `parent_span_id`."""

    @property
    def ended_at(self) -> datetime:
        """When the response was complete."""
        return self.started_at + timedelta(seconds=self.latency_s)


def call_view(call: ModelCallRecorded) -> CallView:
    """The view of `call`."""
    return CallView(
        call_id=call.call_id,
        request=call.request,
        choices=tuple(ChoiceView(choice.message, choice.finish_reason) for choice in call.choices),
        started_at=call.started_at,
        policy=call.policy,
        policy_version=call.policy_version,
        error=call.error,
        latency_s=call.latency_s,
        prompt_tokens=call.usage.prompt_tokens,
        completion_tokens=call.usage.completion_tokens,
        agent_name=call.agent_name,
        parent_span_id=call.parent_span_id,
        response_id=call.response_id,
        requested_model=call.requested_model,
        trace_id=call.trace_id,
    )


def replies_of_view(call: CallView) -> Sequence[str]:
    """Hashes of the call's reply (see `leyden.events.replies`); empty if it failed or has several responses."""
    if call.error is not None or len(call.choices) != 1:
        return ()
    names = (call.requested_model, call.policy, call.policy_version)
    return replies_of(*names, call.choices[0].message, call.prompt_tokens, call.completion_tokens)


def request_messages(call: CallView) -> list[JsonObject]:
    """The messages of the call's request; empty for a text completion."""
    return _objects(call.request.get("messages"))


def message_tool_calls(message: JsonObject) -> list[JsonObject]:
    """The `tool_calls` of one message, in OpenAI's format."""
    return _objects(message.get("tool_calls"))


def tool_calls(call: CallView) -> list[JsonObject]:
    """The `tool_calls` of the call's responses, in OpenAI's format."""
    return [item for choice in call.choices for item in message_tool_calls(choice.message)]


def answer_texts(call: CallView) -> list[str]:
    """The texts of the call's responses; a response that only calls tools has none."""
    texts = [choice.message.get("content") for choice in call.choices]
    return [text for text in texts if isinstance(text, str) and text]


def tool_call_ids(call: CallView) -> set[str]:
    """The tool call ids in the call's responses."""
    return {id_ for item in tool_calls(call) if isinstance(id_ := item.get("id"), str)}


def asked_of(item: JsonObject) -> tuple[str, str | None, Json] | None:
    """(Id, name, arguments) of a tool call in OpenAI's format; None without an id."""
    id_, function = item.get("id"), item.get("function")
    if not isinstance(id_, str):
        return None
    body = function if isinstance(function, dict) else {}
    name = body.get("name")
    return id_, name if isinstance(name, str) else None, body.get("arguments")


def _objects(value: Json) -> list[JsonObject]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
