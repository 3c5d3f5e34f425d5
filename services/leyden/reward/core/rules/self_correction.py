"""AIR rule `self_correction`: does the agent recover from its own errors?"""

from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from leyden.events import Evidence, SpanRecorded
from leyden.reward.core.rules.base import IntermediateRule, Signal
from leyden.reward.core.rules.failure import outcome_of
from leyden.reward.core.view import RolloutView


class SelfCorrection(IntermediateRule):
    """Rewards a tool call that succeeds after the same agent's call of the same tool failed.

    It must have started after the failed call ended, and the error must be new in the rollout. Otherwise an agent could
    gain by failing on purpose.
    """

    rule: Literal["self_correction"] = "self_correction"
    name: str = "self_correction"
    corrected: float = Field(default=0.1, allow_inf_nan=False)

    def observe(self, view: RolloutView) -> Iterable[Signal]:
        seen: set[tuple[str, str]] = set()
        open_errors: dict[tuple[str, str | None], tuple[SpanRecorded, bool]] = {}
        for span in view.span_index.tools:
            tool = span.tool.name if span.tool else span.name
            used_by = (tool, view.agent_of_span(span))
            if (error := outcome_of(span, view.span_index.parts_of(span))) is None:
                continue  # neither an error nor a correction
            if error:
                open_errors[used_by] = (span, (tool, error) not in seen)
                seen.add((tool, error))
            elif used_by in open_errors and open_errors[used_by][0].end_unix_nano <= span.start_unix_nano:
                _, new = open_errors.pop(used_by)
                if new:
                    evidence = Evidence(kind="span", id=span.event_id)
                    yield Signal(self.corrected, evidence, call_id=view.call_that_asked(span))
