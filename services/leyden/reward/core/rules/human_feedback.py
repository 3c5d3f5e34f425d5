"""AIR: what people said about the agent's work, as numbers."""

from collections.abc import Iterable, Mapping
from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from leyden.events import Evaluation, Evidence, SpanKind, SpanRecorded
from leyden.reward.core.rules.base import FilterName, IntermediateRule, Signal
from leyden.reward.core.rules.filters import Names, matches
from leyden.reward.core.view import RolloutView


class HumanFeedback(IntermediateRule):
    """One signal per evaluation with one of these names; `emitted` then leaves evaluations of these names alone.

    Its label when `labels` has it, else its number. One that stands under a tool call's span, or under a model call's,
    is for that call; any other is for the whole rollout.
    """

    judges_late: ClassVar[bool] = True
    filters = frozenset[FilterName]({"agent", "step"})

    rule: Literal["human_feedback"] = "human_feedback"
    name: str = "human_feedback"
    evaluations: Names = Field(min_length=1)
    """Patterns of the evaluations' names, one or a list."""
    labels: Mapping[str, float] = Field(default_factory=dict)
    """Label, in whatever case → number."""
    scale: tuple[float, float] | None = None
    """Ratings from the first to the second become -1 to 1, those outside -1 or 1; null: numbers as they are."""

    @property
    def claimed_evaluations(self) -> Names:
        return self.evaluations

    def observe(self, view: RolloutView) -> Iterable[Signal]:
        for span in view.spans:
            found = span.evaluation if span.kind is SpanKind.EVALUATION else None
            if found is None or not matches(self.evaluations, found.name):
                continue
            if (value := self._value(found)) is not None:
                evidence = Evidence(kind="span", id=span.event_id)
                yield Signal(value, evidence, found.name, _judged_call(span, view))

    def _value(self, evaluation: Evaluation) -> float | None:
        if evaluation.label is not None and (label := evaluation.label.strip().casefold()) in self.labels:
            return self.labels[label]
        if evaluation.value is None or self.scale is None:
            return evaluation.value
        low, high = self.scale
        return min(max(2 * (evaluation.value - low) / (high - low) - 1, -1.0), 1.0)

    @field_validator("labels")
    @classmethod
    def _in_any_case(cls, labels: Mapping[str, float]) -> Mapping[str, float]:
        return {label.strip().casefold(): value for label, value in labels.items()}

    @model_validator(mode="after")
    def _scale_has_two_ends(self) -> "HumanFeedback":
        if self.scale is not None and self.scale[0] == self.scale[1]:
            raise ValueError("scale needs two different ends")
        return self


def _judged_call(span: SpanRecorded, view: RolloutView) -> str | None:
    """The model call whose work the evaluation stands under."""
    parent = view.span_index.by_id.get(span.parent_span_id or "")
    match parent:
        case SpanRecorded(kind=SpanKind.LLM_CALL):
            return view.calls_in_spans.get(parent.span_id)
        case SpanRecorded(kind=SpanKind.TOOL_CALL):
            return view.call_that_asked(parent)
    return None
