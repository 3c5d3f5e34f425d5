"""AIR: did the tools that the agent used succeed?"""

from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from leyden.events import Evidence, SpanRecorded
from leyden.reward.core.rules.base import IntermediateRule, Signal
from leyden.reward.core.view import RolloutView


class ToolStatus(IntermediateRule):
    """One signal per tool span, for the call that asked for the tool."""

    rule: Literal["tool_status"] = "tool_status"
    name: str = "tool_status"
    ok: float = Field(default=0.1, allow_inf_nan=False)
    error: float = Field(default=-0.1, allow_inf_nan=False)

    def signals(self, view: RolloutView) -> Iterable[Signal]:
        for span in view.tool_spans:
            value = self.error if _failed(span) else self.ok
            yield Signal(value, Evidence(kind="span", id=span.event_id), call_id=view.call_that_asked(span))


def _failed(span: SpanRecorded) -> bool:
    """By the conventions, `error.type` is set exactly when the operation failed; some set the status alone."""
    return span.status == "error" or (span.status == "unset" and span.error_type is not None)
