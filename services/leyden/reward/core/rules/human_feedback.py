"""AIR rule `human_feedback`: people's evaluations as numbers."""

from collections.abc import Iterable, Mapping
from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from leyden.events import Evaluation, Evidence, SpanKind, SpanRecorded
from leyden.events.joins import parent_of, place_of
from leyden.reward.core.rules.base import FilterName, IntermediateRule, Signal
from leyden.reward.core.rules.filters import Names, matches
from leyden.reward.core.view import RolloutView


class HumanFeedback(IntermediateRule):
    """Gives one signal per evaluation with one of these names; `emitted` then ignores evaluations with these names.

    The value is that of its label if `labels` has it, else its number. If the evaluation is below the span of a tool
    call or model call, the signal is for that call, else for the whole rollout.
    """

    rates_outcome: ClassVar[bool] = True
    judges_late: ClassVar[bool] = True
    filters = frozenset[FilterName]({"agent", "step"})

    rule: Literal["human_feedback"] = "human_feedback"
    name: str = "human_feedback"
    evaluations: Names = Field(min_length=1)
    """Name pattern of the evaluations, or a list of patterns."""
    labels: Mapping[str, float] = Field(default_factory=dict)
    """Label (case-insensitive) → number."""
    scale: tuple[float, float] | None = None
    """Maps ratings between these two numbers to -1…1 and clips others; null: numbers are used unchanged."""

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
            raise ValueError("the two numbers of scale must differ")
        return self


def _judged_call(span: SpanRecorded, view: RolloutView) -> str | None:
    """The model call that caused the spans above the evaluation."""
    parent = view.span_index.by_place.get(parent_of(span) or ("", ""))
    match parent:
        case SpanRecorded(kind=SpanKind.LLM_CALL):
            return view.calls_in_spans.get(place_of(parent))
        case SpanRecorded(kind=SpanKind.TOOL_CALL):
            return view.call_that_asked(parent)
    return None
