"""AIR rule `self_correction`: does the agent recover from its own errors?"""

from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from leyden.events import Evidence, SpanRecorded
from leyden.reward.core.rules.base import IntermediateRule, Signal
from leyden.reward.core.view import RolloutView


class SelfCorrection(IntermediateRule):
    """Rewards the first error that an agent corrects: its next call of the same tool succeeds.

    That call must have started after the failed one ended, and pass the filters. It pays once per rollout, and only for
    a tool's first error: otherwise an agent could gain by failing on purpose, with an error message as new as a file
    name.
    """

    rule: Literal["self_correction"] = "self_correction"
    name: str = "self_correction"
    corrected: float = Field(default=0.1, allow_inf_nan=False)

    def observe(self, view: RolloutView) -> Iterable[Signal]:
        failed: set[str] = set()
        open_errors: dict[tuple[str, str | None], tuple[SpanRecorded, bool]] = {}
        for span in view.span_index.tools:
            tool = span.tool.name if span.tool else span.name
            used_by = (tool, view.agent_of_span(span))
            if (error := view.tool_outcome(span)) is None:
                continue  # neither an error nor a correction
            if error:
                open_errors[used_by] = (span, tool not in failed)
                failed.add(tool)
            elif used_by in open_errors and open_errors[used_by][0].end_unix_nano <= span.start_unix_nano:
                _, first = open_errors.pop(used_by)
                call_id = view.call_that_asked(span)
                if first and self.wants_span(span, view, call_id):
                    yield Signal(self.corrected, Evidence(kind="span", id=span.event_id), call_id=call_id)
                    return
