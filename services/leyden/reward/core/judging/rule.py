"""A judge as a rule: its signals are those of its recorded verdict, whoever gave it and whenever."""

from collections.abc import Iterable
from typing import ClassVar

from leyden.reward.core.failures import FailureKind, RuleFailed
from leyden.reward.core.judging.judge import JudgeSettings, NextStateJudge
from leyden.reward.core.rules.base import Rule, Signal
from leyden.reward.core.view import RolloutView


class JudgeRule(Rule):
    """Reads the verdict that was given under the same settings; one that failed is a rule that failed."""

    settings_hash: str

    def signals(self, view: RolloutView) -> Iterable[Signal]:
        verdict = view.verdicts[self.name, self.settings_hash]
        if verdict.failure is not None:
            kind, _, message = verdict.failure.partition(": ")
            raise RuleFailed(FailureKind(kind), message)
        return [Signal(j.value, j.evidence, name=j.name, call_id=j.call_id) for j in verdict.judgements]


class StepJudgeRule(JudgeRule):
    """The same for a judge of single actions, whose signals are means to an end."""

    intermediate: ClassVar[bool] = True


def rule_of(judge: JudgeSettings) -> JudgeRule:
    """The rule that follows `judge`'s verdicts."""
    kind = StepJudgeRule if isinstance(judge, NextStateJudge) and judge.intermediate else JudgeRule
    return kind(name=judge.name, weight=judge.weight, cap=judge.cap, settings_hash=judge.settings_hash)
