"""Rewards that somebody gave: with the rollout's end, or as an evaluation (span or event)."""

from collections.abc import Iterable
from typing import ClassVar

from leyden.events import Evidence, SpanKind
from leyden.reward.core.rules.base import Rule, Signal
from leyden.reward.core.rules.filters import Names, matches
from leyden.reward.core.view import RolloutView


class Emitted(Rule):
    """Passes given rewards on. An evaluation without a number (a label alone) is no reward."""

    judges_late: ClassVar[bool] = True

    name: str = "emitted"
    leaves: Names = ()
    """Patterns of evaluations' names that are no reward, or somebody else's: those of `human_feedback` are added."""

    def leaving(self, others: Names) -> "Emitted":
        """The same rule, leaving `others` alone too."""
        return self.model_copy(update={"leaves": (*self.leaves, *others)})

    def signals(self, view: RolloutView) -> Iterable[Signal]:
        if view.reward is not None:
            yield Signal(view.reward, Evidence(kind="rollout", id=view.rollout_id), name="outcome")
        for span in view.spans:
            found = span.evaluation if span.kind is SpanKind.EVALUATION else None
            if found is None or found.value is None or (self.leaves and matches(self.leaves, found.name)):
                continue
            yield Signal(found.value, Evidence(kind="span", id=span.event_id), name=found.name)
