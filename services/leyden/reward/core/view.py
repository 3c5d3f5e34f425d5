"""The view of a finished attempt that rules and reward functions get. Read-only, in a fixed order."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Literal

from leyden.events import (
    Json,
    JsonObject,
    ModelCallRecorded,
    RolloutEnded,
    RolloutSettled,
    SpanKind,
    SpanRecorded,
    VerdictRecorded,
)
from leyden.events.replies import replies_of, replies_of_span, same_replies, told_by
from leyden.reward.core.evidence import AttemptEvidence
from leyden.reward.core.spans import SpanIndex

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class TaskView:
    """The task. The agent never saw `metadata` (a reference answer, say)."""

    input: Json = None
    metadata: JsonObject = field(default_factory=dict)
    mode: Literal["train", "validation"] = "train"


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

    @property
    def ended_at(self) -> datetime:
        """When the response was complete."""
        return self.started_at + timedelta(seconds=self.latency_s)


@dataclass(frozen=True)
class RolloutView:
    """A finished attempt: calls and spans by start time, and the data of the rollout's end."""

    rollout_id: str
    attempt: int
    task: TaskView
    calls: tuple[CallView, ...]
    spans: tuple[SpanRecorded, ...]
    output: Json
    status: Literal["succeeded", "failed"]
    reward: float | None
    """The reward sent with the rollout's end, if any."""
    verdicts: Mapping[tuple[str, str], VerdictRecorded] = field(default_factory=dict)
    """Verdicts of judges by (rule, hash of its settings)."""

    @property
    def tool_spans(self) -> list[SpanRecorded]:
        """Spans of tool executions."""
        return [span for span in self.spans if span.kind is SpanKind.TOOL_CALL]

    @property
    def final_text(self) -> str | None:
        """The text of the last response that has any."""
        for call in reversed(self.calls):
            if texts := answer_texts(call):
                return texts[0]
        return None

    def call_that_asked(self, span: SpanRecorded) -> str | None:
        """The call whose action caused `span`: of the calls started before it, the latest with its tool call id, or
        else the latest answered one. None if there is none.
        """
        named = self._asked.get(span.tool.call_id or "", ()) if span.tool else ()
        return _latest(named, span.start_unix_nano) or _latest(self._answered, span.start_unix_nano)

    @cached_property
    def span_index(self) -> SpanIndex:
        """The index of the spans."""
        return SpanIndex.of(self.spans)

    @cached_property
    def calls_by_id(self) -> Mapping[str, CallView]:
        """Call id → call."""
        return {call.call_id: call for call in self.calls}

    @cached_property
    def steps(self) -> Mapping[str, int]:
        """Call id → step: the index among the answered calls of policies, by start time."""
        acted = [call for call in self.calls if call.error is None and call.policy is not None]
        return {call.call_id: step for step, call in enumerate(acted)}

    @cached_property
    def calls_in_spans(self) -> Mapping[str, str]:
        """Span id → its call: the latest made directly in the span, the one with the span's response id, or the one
        with the same response.
        """
        replies = {call.call_id: call.call_id for call in self.calls}
        replies |= {call.response_id: call.call_id for call in self.calls if call.response_id is not None}
        named = {id_: replies[reply] for id_, reply in self._replies if reply in replies}
        told = {span_id: call_id for call_id, span_id in self._told.items()} | named
        return told | {call.parent_span_id: call.call_id for call in self.calls if call.parent_span_id is not None}

    def agent_of_call(self, call: CallView) -> str | None:
        """The agent that made the call: named by the call itself, or else by the span with its response id, the span
        in which it was made, or the span with the same response.
        """
        replies = self._agents_of_replies
        named = call.agent_name or replies.get(call.response_id or "") or replies.get(call.call_id)
        agents = self.span_index.agents
        return named or agents.get(call.parent_span_id or "") or agents.get(self._told.get(call.call_id, ""))

    def agent_of_span(self, span: SpanRecorded) -> str | None:
        """The agent of the span: the nearest one around it, or else the agent of the call that caused it."""
        if (name := self.span_index.agents.get(span.span_id)) is not None:
            return name
        call = self.calls_by_id.get(self.call_that_asked(span) or "")
        return self.agent_of_call(call) if call is not None else None

    @cached_property
    def _replies(self) -> Sequence[tuple[str, str]]:
        """(span id, its response id) for spans of model calls, in order."""
        return [
            (s.span_id, s.llm.response_id) for s in self.spans if s.llm is not None and s.llm.response_id is not None
        ]

    @cached_property
    def _told(self) -> Mapping[str, str]:
        """Call id → the span with the same reply."""
        spans = [(told_by(span)[1], replies) for span in self.spans if (replies := replies_of_span(span))]
        parents = {span.span_id: span.parent_span_id for span in self.spans if span.parent_span_id} if spans else {}
        calls = {call.call_id: _replies(call) for call in self.calls}
        return same_replies(calls, spans, parents) if spans else {}

    @cached_property
    def _agents_of_replies(self) -> Mapping[str, str]:
        """Response id → the agent of its first span that has one."""
        agents = self.span_index.agents
        return {reply: name for id_, reply in reversed(self._replies) if (name := agents.get(id_)) is not None}

    @cached_property
    def _answered(self) -> Sequence[tuple[int, str]]:
        """(start, call id) of answered calls, in order."""
        return [(unix_nano(call.started_at), call.call_id) for call in self.calls if call.error is None]

    @cached_property
    def _asked(self) -> Mapping[str, Sequence[tuple[int, str]]]:
        """Tool call id → (start, call id) of the answered calls that have it. Engines may reuse an id."""
        found: dict[str, list[tuple[int, str]]] = defaultdict(list)
        for call in self.calls:
            for id_ in sorted(tool_call_ids(call)) if call.error is None else ():
                found[id_].append((unix_nano(call.started_at), call.call_id))
        return found


def _replies(call: CallView) -> Sequence[str]:
    if call.error is not None or len(call.choices) != 1:
        return ()
    names = (call.requested_model, call.policy, call.policy_version)
    return replies_of(*names, call.choices[0].message, call.prompt_tokens, call.completion_tokens)


def _latest(calls: Sequence[tuple[int, str]], before: int) -> str | None:
    """Id of the last of `calls` (ordered by start) that started at or before `before`."""
    at = bisect_right(calls, before, key=lambda call: call[0])
    return calls[at - 1][1] if at else None


def choice_tool_calls(choice: ChoiceView) -> list[JsonObject]:
    """The `tool_calls` of one response, in OpenAI's format."""
    asked = choice.message.get("tool_calls")
    return [item for item in asked if isinstance(item, dict)] if isinstance(asked, list) else []


def tool_calls(call: CallView) -> list[JsonObject]:
    """The `tool_calls` of the call's responses, in OpenAI's format."""
    return [item for choice in call.choices for item in choice_tool_calls(choice)]


def answer_texts(call: CallView) -> list[str]:
    """The texts of the call's responses; a response that only calls tools has none."""
    texts = [choice.message.get("content") for choice in call.choices]
    return [text for text in texts if isinstance(text, str) and text]


def tool_call_ids(call: CallView) -> set[str]:
    """The tool call ids in the call's responses."""
    return {id_ for item in tool_calls(call) if isinstance(id_ := item.get("id"), str)}


def view_of(ended: RolloutEnded, settled: RolloutSettled, evidence: AttemptEvidence) -> RolloutView:
    """The view of exactly the evidence that `settled` names. Raises KeyError if some of it is missing."""
    task = ended.task
    return RolloutView(
        rollout_id=ended.rollout_id,
        attempt=ended.attempt,
        task=TaskView(task.input, task.metadata, task.mode) if task else TaskView(),
        calls=tuple(_call_view(call) for call in evidence.named_calls(settled.call_ids)),
        spans=tuple(evidence.named_spans(settled.span_ids)),
        output=ended.output,
        status=ended.status,
        reward=ended.reward,
        verdicts=evidence.verdicts,
    )


def _call_view(call: ModelCallRecorded) -> CallView:
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
    )


def unix_nano(at: datetime) -> int:
    """Nanoseconds since the epoch, as in spans."""
    return (at - _EPOCH) // timedelta(microseconds=1) * 1000
