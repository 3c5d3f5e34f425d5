"""A judge as a rule: its signals come from its recorded verdict."""

from collections.abc import Iterable
from typing import ClassVar

from leyden.reward.core.failures import FailureKind, RuleFailed
from leyden.reward.core.judging.judge import JudgeSettings, NextStateJudge
from leyden.reward.core.rules.base import Rule, Signal
from leyden.reward.core.view import RolloutView


class JudgeRule(Rule):
    """Gives the signals of the verdict with the same settings hash. If the judge failed, the rule fails."""

    settings_hash: str

    def signals(self, view: RolloutView) -> Iterable[Signal]:
        verdict = view.verdicts[self.name, self.settings_hash]
        if verdict.failure is not None:
            kind, _, message = verdict.failure.partition(": ")
            raise RuleFailed(FailureKind(kind), message)
        return [Signal(j.value, j.evidence, name=j.name, call_id=j.call_id) for j in verdict.judgements]


class StepJudgeRule(JudgeRule):
    """`JudgeRule` for a judge of single actions; `intermediate_cap` applies to its signals."""

    intermediate: ClassVar[bool] = True
    rates_outcome: ClassVar[bool] = False


def rule_of(judge: JudgeSettings) -> JudgeRule:
    """The rule for verdicts of `judge`."""
    kind = StepJudgeRule if isinstance(judge, NextStateJudge) and judge.intermediate else JudgeRule
    return kind(name=judge.name, weight=judge.weight, cap=judge.cap, settings_hash=judge.settings_hash)
