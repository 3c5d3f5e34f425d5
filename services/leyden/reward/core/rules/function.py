"""The rule for reward functions: turns their results into signals. The functions run earlier, in `sandbox`."""

from collections.abc import Iterable, Mapping

from leyden.events import Evidence
from leyden.reward.core.answer import Answer
from leyden.reward.core.failures import FailureKind, RuleFailed
from leyden.reward.core.rules.base import Rule, Signal
from leyden.reward.core.view import RolloutView


class FunctionRule(Rule):
    """Gives the signals of `answer`, a reward function's result for the current attempt."""

    answer: Answer | None = None

    def signals(self, view: RolloutView) -> Iterable[Signal]:
        if self.answer is None:
            raise RuleFailed(FailureKind.LOST, "the function was not run")
        if self.answer.failure is not None:
            raise RuleFailed(self.answer.failure, self.answer.message)
        evidence = Evidence(kind="rollout", id=view.rollout_id)
        return [Signal(value, evidence, name or None) for name, value in self.answer.values.items()]


def answered(rules: Iterable[Rule], answers: Mapping[str, Answer]) -> tuple[Rule, ...]:
    """A copy of `rules` in which function rules hold their answers (by rule name) for one attempt."""
    return tuple(
        rule.model_copy(update={"answer": answers.get(rule.name)}) if isinstance(rule, FunctionRule) else rule
        for rule in rules
    )
