"""AIR rule `budget`: limits on time, tokens or calls."""

from collections.abc import Iterable
from typing import Literal

from pydantic import Field, model_validator

from leyden.events import Evidence
from leyden.reward.core.calls import CallView
from leyden.reward.core.rules.base import IntermediateRule, Signal
from leyden.reward.core.view import RolloutView

Measure = Literal["latency_s", "tokens", "completion_tokens", "calls", "tool_calls"]
_PER_ROLLOUT = frozenset({"calls", "tool_calls"})


class Budget(IntermediateRule):
    """Compares usage with `limit`: of each model call, or of all calls that pass the filters together.

    Only answered calls count. Per rollout, `latency_s` is the time from the start of the first of them to the end of
    the last, and the signal is for the whole rollout. A call without token counts gives no signal.
    """

    rule: Literal["budget"] = "budget"
    name: str = "budget"
    measure: Measure
    """`tokens`: prompt and completion tokens; `calls`: answered model calls."""
    limit: float = Field(ge=0, allow_inf_nan=False)
    per: Literal["call", "rollout"] = "rollout"
    penalty: Literal["step", "linear"] = "step"
    """`step`: the value is `over` above the limit. `linear`: it goes from 0 at the limit to `over` at `full_at`."""
    full_at: float | None = Field(default=None, allow_inf_nan=False)
    """Usage at which a linear penalty reaches `over`; null: twice the limit."""
    over: float = Field(default=-0.1, allow_inf_nan=False)
    within: float | None = Field(default=None, allow_inf_nan=False)
    """Value if the limit is kept; null: no signal."""

    def observe(self, view: RolloutView) -> Iterable[Signal]:
        calls = [call for call in view.calls if call.error is None and self.wants_call(call, view)]
        if self.per == "call":
            for call in calls:
                if (value := self._value(self._use([call]))) is not None:
                    yield Signal(value, Evidence(kind="call", id=call.call_id), call_id=call.call_id)
            return
        used = float(self._tools(view)) if self.measure == "tool_calls" else self._use(calls)
        if (value := self._value(used)) is not None:
            yield Signal(value, Evidence(kind="rollout", id=view.rollout_id))

    def _value(self, used: float | None) -> float | None:
        if used is None:
            return None
        if used <= self.limit:
            return self.within
        full_at = 2 * self.limit if self.full_at is None else self.full_at
        if self.penalty == "step" or used >= full_at:
            return self.over
        return self.over * (used - self.limit) / (full_at - self.limit)

    def _use(self, calls: list[CallView]) -> float | None:
        """Total usage of `calls`; None if unknown."""
        if self.measure == "calls":
            return len(calls)
        if not calls:
            return None
        if self.measure == "latency_s":
            return (max(call.ended_at for call in calls) - calls[0].started_at).total_seconds()
        if not any(call.prompt_tokens or call.completion_tokens for call in calls):
            return None
        prompt = 0 if self.measure == "completion_tokens" else sum(call.prompt_tokens for call in calls)
        return prompt + sum(call.completion_tokens for call in calls)

    def _tools(self, view: RolloutView) -> int:
        return sum(self.wants_span(span, view, view.call_that_asked(span)) for span in view.span_index.tools)

    @model_validator(mode="after")
    def _makes_sense(self) -> "Budget":
        if self.measure in _PER_ROLLOUT and self.per == "call":
            raise ValueError(f"a budget of {self.measure} is one per rollout")
        if self.tool and self.measure != "tool_calls":
            raise ValueError("a budget has the filter 'tool' for the measure tool_calls only")
        if self.full_at is not None and self.full_at <= self.limit:
            raise ValueError("full_at must be over the limit")
        if self.shaping is not None and self.per == "rollout":
            raise ValueError("what a rollout used is known at its end, where a potential is 0: shape a budget per call")
        return self
