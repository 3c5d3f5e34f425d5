"""AIR: did the agent get out of its own errors?"""

from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from leyden.events import Evidence, SpanRecorded
from leyden.reward.core.rules.base import IntermediateRule, Signal
from leyden.reward.core.rules.failure import failure_of
from leyden.reward.core.view import RolloutView


class SelfCorrection(IntermediateRule):
    """A tool call that succeeds after an error of the same tool in the same agent's hands earns `corrected`.

    It must have started after the error was known, and the error must be new: one that the rollout has seen before
    earns nothing, however it ends, or failing on purpose would pay.
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
            if (error := failure_of(span, view.span_index.parts_of(span))) is not None:
                open_errors[used_by] = (span, (tool, error) not in seen)
                seen.add((tool, error))
            elif used_by in open_errors and open_errors[used_by][0].end_unix_nano <= span.start_unix_nano:
                _, new = open_errors.pop(used_by)
                if new:
                    evidence = Evidence(kind="span", id=span.event_id)
                    yield Signal(self.corrected, evidence, call_id=view.call_that_asked(span))
