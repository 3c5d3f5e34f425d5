"""AIR rule `tool_status`: did the agent's tool calls succeed?"""

from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from leyden.events import Evidence
from leyden.reward.core.failure import SUCCESS
from leyden.reward.core.rules.base import IntermediateRule, Signal
from leyden.reward.core.view import RolloutView


class ToolStatus(IntermediateRule):
    """Gives one signal per tool call whose spans say how it ended, for the model call that requested it."""

    rule: Literal["tool_status"] = "tool_status"
    name: str = "tool_status"
    ok: float = Field(default=0.1, allow_inf_nan=False)
    error: float = Field(default=-0.1, allow_inf_nan=False)

    def observe(self, view: RolloutView) -> Iterable[Signal]:
        for span in view.span_index.tools:
            if (outcome := view.tool_outcome(span)) is None:
                continue
            evidence = Evidence(kind="span", id=span.event_id)
            value = self.ok if outcome == SUCCESS else self.error
            yield Signal(value, evidence, call_id=view.call_that_asked(span))
