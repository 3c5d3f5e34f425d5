"""The view of a finished attempt that rules and reward functions get. Read-only, in a fixed order."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from leyden.events import Json, JsonObject, RolloutEnded, RolloutSettled, SpanKind, SpanRecorded, VerdictRecorded
from leyden.events.joins import Joins, Place, join, joinable_call, joinable_span, place_of
from leyden.reward.core.asking import ToolUse, tool_use
from leyden.reward.core.calls import CallView, answer_texts, call_view, replies_of_view
from leyden.reward.core.evidence import AttemptEvidence
from leyden.reward.core.failure import outcome_of
from leyden.reward.core.spans import SpanIndex


@dataclass(frozen=True)
class TaskView:
    """The task. The agent never saw `metadata` (a reference answer, say)."""

    input: Json = None
    metadata: JsonObject = field(default_factory=dict)
    mode: Literal["train", "validation"] = "train"


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
        """The call whose action caused `span`; None if there is none, or more than one fits (see `asking`)."""
        return self._tool_use.call_of(span)

    def tool_outcome(self, span: SpanRecorded) -> str | None:
        """How the tool call ended: `SUCCESS`, how it failed, or None if nothing says so (see `failure`)."""
        place = place_of(span)
        if place not in self._outcomes:
            parts = self.span_index.parts_of(span)
            self._outcomes[place] = outcome_of(span, parts, self._tool_use.answers.get(place))
        return self._outcomes[place]

    def is_answered(self, span: SpanRecorded) -> bool:
        """Whether a later request of the conversation that asked for the tool call has its result."""
        return place_of(span) in self._tool_use.answers

    @cached_property
    def _outcomes(self) -> dict[Place, str | None]:
        """The outcomes that a rule has asked for, by the place of the span: several rules ask for the same."""
        return {}

    @cached_property
    def span_index(self) -> SpanIndex:
        """The index of the spans."""
        return self._tool_use.index

    @cached_property
    def calls_by_id(self) -> Mapping[str, CallView]:
        """Call id → call."""
        return {call.call_id: call for call in self.calls}

    @cached_property
    def steps(self) -> Mapping[str, int]:
        """Call id → step: the index among the answered calls of policies, by start time."""
        acted = [call for call in self.calls if call.error is None and call.policy is not None]
        return {call.call_id: step for step, call in enumerate(acted)}

    @property
    def calls_in_spans(self) -> Mapping[Place, str]:
        """Span → its call: the latest made directly in it, or the one that it reports (see `leyden.events.joins`)."""
        return self._joins.calls

    def agent_of_call(self, call: CallView) -> str | None:
        """The agent that made the call: as the call says, or else as the spans of the call say."""
        if call.agent_name:
            return call.agent_name
        agents = self._spans.agents
        return next((name for place in self._joins.spans[call.call_id] if (name := agents.get(place))), None)

    def agent_of_span(self, span: SpanRecorded) -> str | None:
        """The agent of the span: the nearest one around it, or else the agent of the call that caused it."""
        if (name := self._spans.agents.get(place_of(span))) is not None:
            return name
        call = self.calls_by_id.get(self.call_that_asked(span) or "")
        return self.agent_of_call(call) if call is not None else None

    @cached_property
    def _spans(self) -> SpanIndex:
        return SpanIndex.of(self.spans)

    @cached_property
    def _joins(self) -> Joins:
        calls = [joinable_call(call, replies_of_view(call) if self.spans else ()) for call in self.calls]
        return join(calls, map(joinable_span, self.spans))

    @cached_property
    def _tool_use(self) -> ToolUse:
        return tool_use(self._spans, self.calls, self.agent_of_call)


def view_of(ended: RolloutEnded, settled: RolloutSettled, evidence: AttemptEvidence) -> RolloutView:
    """The view of exactly the evidence that `settled` names. Raises KeyError if some of it is missing."""
    task = ended.task
    return RolloutView(
        rollout_id=ended.rollout_id,
        attempt=ended.attempt,
        task=TaskView(task.input, task.metadata, task.mode) if task else TaskView(),
        calls=tuple(call_view(call) for call in evidence.named_calls(settled.call_ids)),
        spans=tuple(evidence.named_spans(settled.span_ids)),
        output=ended.output,
        status=ended.status,
        reward=ended.reward,
        verdicts=evidence.verdicts,
    )
