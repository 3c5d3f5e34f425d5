"""What a rule or a reward function sees of a finished attempt. Read only, in one fixed order."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

from leyden.events import Json, JsonObject, ModelCallRecorded, RolloutEnded, RolloutSettled, SpanKind, SpanRecorded
from leyden.reward.core.evidence import AttemptEvidence

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

    @property
    def tool_spans(self) -> list[SpanRecorded]:
        """Spans that executed a tool."""
        return [span for span in self.spans if span.kind is SpanKind.TOOL_CALL]

    @property
    def final_text(self) -> str | None:
        """The text of the last answer that has any."""
        for call in reversed(self.calls):
            for choice in call.choices:
                if isinstance(text := choice.message.get("content"), str) and text:
                    return text
        return None

    def call_that_asked(self, span: SpanRecorded) -> str | None:
        """The call whose action led to `span`: of those started before it, the latest that named its tool call's id,
        or else the latest that was answered; None when there was no such call.
        """
        before = [c for c in self.calls if c.error is None and _unix_nano(c.started_at) <= span.start_unix_nano]
        wanted = span.tool.call_id if span.tool else None
        asked = [call for call in before if wanted is not None and wanted in tool_call_ids(call)]
        return next((call.call_id for call in reversed(asked or before)), None)


def tool_calls(call: CallView) -> list[JsonObject]:
    """The `tool_calls` of the call's answers, in OpenAI's form."""
    found: list[JsonObject] = []
    for choice in call.choices:
        asked = choice.message.get("tool_calls")
        found += [item for item in asked if isinstance(item, dict)] if isinstance(asked, list) else []
    return found


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
    )


def _unix_nano(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(microseconds=1) * 1000
