"""The rule `emitted`: rewards sent with the rollout's end, or as an evaluation (span or event)."""

from collections.abc import Iterable
from typing import ClassVar

from leyden.events import Evidence, SpanKind
from leyden.reward.core.rules.base import Rule, Signal
from leyden.reward.core.rules.filters import Names, matches
from leyden.reward.core.view import RolloutView


class Emitted(Rule):
    """Uses rewards that were sent. An evaluation without a number (only a label) gives no reward."""

    judges_late: ClassVar[bool] = True

    name: str = "emitted"
    leaves: Names = ()
    """Name patterns of evaluations to ignore. Those used by `human_feedback` are added."""

    def leaving(self, others: Names) -> "Emitted":
        """A copy that also ignores `others`."""
        return self.model_copy(update={"leaves": (*self.leaves, *others)})

    def signals(self, view: RolloutView) -> Iterable[Signal]:
        if view.reward is not None:
            yield Signal(view.reward, Evidence(kind="rollout", id=view.rollout_id), name="outcome")
        for span in view.spans:
            found = span.evaluation if span.kind is SpanKind.EVALUATION else None
            if found is None or found.value is None or (self.leaves and matches(self.leaves, found.name)):
                continue
            yield Signal(found.value, Evidence(kind="span", id=span.event_id), name=found.name)
