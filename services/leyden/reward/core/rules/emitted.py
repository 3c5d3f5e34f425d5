"""Rewards that somebody gave: with the rollout's end, or as an evaluation (span or event)."""

from collections.abc import Iterable

from leyden.events import Evidence, SpanKind
from leyden.reward.core.rules.base import Rule, Signal
from leyden.reward.core.view import RolloutView


class Emitted(Rule):
    """Passes given rewards on. An evaluation without a number (a label alone) is no reward."""

    name: str = "emitted"

    def signals(self, view: RolloutView) -> Iterable[Signal]:
        if view.reward is not None:
            yield Signal(view.reward, Evidence(kind="rollout", id=view.rollout_id), name="outcome")
        for span in view.spans:
            if span.kind is SpanKind.EVALUATION and span.evaluation and span.evaluation.value is not None:
                evidence = Evidence(kind="span", id=span.event_id)
                yield Signal(span.evaluation.value, evidence, name=span.evaluation.name)
