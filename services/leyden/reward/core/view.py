"""What a rule or a reward function sees of a finished attempt. Read only, in one fixed order."""

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
from leyden.events.replies import replies_of, reply_of_span, same_replies
from leyden.reward.core.evidence import AttemptEvidence
from leyden.reward.core.spans import SpanIndex

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class TaskView:
    """What was asked. `metadata` (a reference answer, say) was never shown to the agent."""

    input: Json = None
    metadata: JsonObject = field(default_factory=dict)
    mode: Literal["train", "validation"] = "train"


@dataclass(frozen=True)
class ChoiceView:
    """One response of a model."""

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
    """The span in which the agent made the call."""
    response_id: str | None = None
    """The reply's id, which an instrumentation's span of the call names."""
    requested_model: str | None = None
    """The model's name as the agent said it."""

    @property
    def ended_at(self) -> datetime:
        """When the last of the answer was there."""
        return self.started_at + timedelta(seconds=self.latency_s)


@dataclass(frozen=True)
class RolloutView:
    """A finished attempt: calls by start time, spans by start time, and what the runner said at the end."""

    rollout_id: str
    attempt: int
    task: TaskView
    calls: tuple[CallView, ...]
    spans: tuple[SpanRecorded, ...]
    output: Json
    status: Literal["succeeded", "failed"]
    reward: float | None
    """The reward that was sent with the end, if any."""
    verdicts: Mapping[tuple[str, str], VerdictRecorded] = field(default_factory=dict)
    """What judges said, by rule and hash of its settings."""

    @property
    def tool_spans(self) -> list[SpanRecorded]:
        """Spans that executed a tool."""
        return [span for span in self.spans if span.kind is SpanKind.TOOL_CALL]

    @property
    def final_text(self) -> str | None:
        """The text of the last answer that has any."""
        for call in reversed(self.calls):
            if texts := answer_texts(call):
                return texts[0]
        return None

    def call_that_asked(self, span: SpanRecorded) -> str | None:
        """The call whose action led to `span`: of those started before it, the latest that named its tool call's id,
        or else the latest that was answered; None when there was no such call.
        """
        named = self._asked.get(span.tool.call_id or "", ()) if span.tool else ()
        return _latest(named, span.start_unix_nano) or _latest(self._answered, span.start_unix_nano)

    @cached_property
    def span_index(self) -> SpanIndex:
        """How the spans hang together."""
        return SpanIndex.of(self.spans)

    @cached_property
    def calls_by_id(self) -> Mapping[str, CallView]:
        """Call id → call."""
        return {call.call_id: call for call in self.calls}

    @cached_property
    def steps(self) -> Mapping[str, int]:
        """Call id → its step: answered calls of policies, counted from 0 in the order in which they started."""
        acted = [call for call in self.calls if call.error is None and call.policy is not None]
        return {call.call_id: step for step, call in enumerate(acted)}

    @cached_property
    def calls_in_spans(self) -> Mapping[str, str]:
        """Span id → the call that it is about: the latest made right in it, the one whose reply it names, or the one
        with the reply that it tells of.
        """
        replies = {call.response_id: call.call_id for call in self.calls if call.response_id is not None}
        named = {id_: replies[reply] for id_, reply in self._replies if reply in replies}
        told = {span_id: call_id for call_id, span_id in self._told.items()} | named
        return told | {call.parent_span_id: call.call_id for call in self.calls if call.parent_span_id is not None}

    def agent_of_call(self, call: CallView) -> str | None:
        """The agent that made the call: as the call says, or else the span that names its reply, the one it was made
        in, or the one that tells of its reply.
        """
        named = call.agent_name or self._agents_of_replies.get(call.response_id or "")
        agents = self.span_index.agents
        return named or agents.get(call.parent_span_id or "") or agents.get(self._told.get(call.call_id, ""))

    def agent_of_span(self, span: SpanRecorded) -> str | None:
        """The agent at work in the span: the nearest around it, or else the one whose call led to it."""
        if (name := self.span_index.agents.get(span.span_id)) is not None:
            return name
        call = self.calls_by_id.get(self.call_that_asked(span) or "")
        return self.agent_of_call(call) if call is not None else None

    @cached_property
    def _replies(self) -> Sequence[tuple[str, str]]:
        """(Span id, the reply's id that it names) of spans of model calls, in order."""
        return [
            (s.span_id, s.llm.response_id) for s in self.spans if s.llm is not None and s.llm.response_id is not None
        ]

    @cached_property
    def _told(self) -> Mapping[str, str]:
        """Call id → the span that tells of its reply without naming it."""
        spans = [(span.span_id, reply) for span in self.spans if (reply := reply_of_span(span)) is not None]
        return same_replies({call.call_id: _replies(call) for call in self.calls}, spans) if spans else {}

    @cached_property
    def _agents_of_replies(self) -> Mapping[str, str]:
        """The reply's id → the agent at work in the first of its spans in which one is."""
        agents = self.span_index.agents
        return {reply: name for id_, reply in reversed(self._replies) if (name := agents.get(id_)) is not None}

    @cached_property
    def _answered(self) -> Sequence[tuple[int, str]]:
        """(Start, call id) of answered calls, in order."""
        return [(unix_nano(call.started_at), call.call_id) for call in self.calls if call.error is None]

    @cached_property
    def _asked(self) -> Mapping[str, Sequence[tuple[int, str]]]:
        """Tool call id → (start, call id) of the answered calls that gave it; engines may give an id again."""
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
    """The id of the last of `calls` (ordered by start) that started no later than `before`."""
    at = bisect_right(calls, before, key=lambda call: call[0])
    return calls[at - 1][1] if at else None


def choice_tool_calls(choice: ChoiceView) -> list[JsonObject]:
    """The `tool_calls` of one answer, in OpenAI's form."""
    asked = choice.message.get("tool_calls")
    return [item for item in asked if isinstance(item, dict)] if isinstance(asked, list) else []


def tool_calls(call: CallView) -> list[JsonObject]:
    """The `tool_calls` of the call's answers, in OpenAI's form."""
    return [item for choice in call.choices for item in choice_tool_calls(choice)]


def answer_texts(call: CallView) -> list[str]:
    """The texts of the call's answers; one that only asks for tools has none."""
    texts = [choice.message.get("content") for choice in call.choices]
    return [text for text in texts if isinstance(text, str) and text]


def tool_call_ids(call: CallView) -> set[str]:
    """The ids that the call's answers gave to the tools they asked for."""
    return {id_ for item in tool_calls(call) if isinstance(id_ := item.get("id"), str)}


def view_of(ended: RolloutEnded, settled: RolloutSettled, evidence: AttemptEvidence) -> RolloutView:
    """The view of exactly the evidence that `settled` names; raises KeyError when some of it is not here."""
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
    """Nanoseconds since the epoch, as spans have it."""
    return (at - _EPOCH) // timedelta(microseconds=1) * 1000
