"""What a package may add from outside by an entry point, used by the service that it is for."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

from extension_support import package
from leyden.credit.core.advantage import advantage_of
from leyden.credit.core.section import CreditSection
from leyden.credit.core.strategies import episode_of
from leyden.events import SpanKind
from leyden.extensions import ExtensionError
from leyden.ingest.core.normalise import Normalised, normalise_traces
from leyden.ingest.dialects import DIALECTS, known_dialects
from leyden.reward.sandbox.spec import CallSpec
from leyden.reward.settings import RewardSection
from leyden.settings import RunFileError, load_section
from leyden.trainer.core.loss import row_loss
from leyden.trainer.core.objectives import ActionTokens, objective_of
from leyden.trainer.learner import loss_terms
from leyden.trainer.settings import TrainerSettings
from unit.ingest.otlp_builders import otlp_request, otlp_span
from unit.reward.reward_builders import a_call, judged

CODE = '''
from collections.abc import Iterable, Sequence
from typing import Literal

from leyden.credit.core.advantage import Advantage
from leyden.credit.core.strategies.base import StepCredit, Episode, Strategy
from leyden.events import JsonObject, SpanKind
from leyden.ingest.core.dialect import Meaning
from leyden.reward.air import Evidence, IntermediateRule, RolloutView, Signal
from leyden.reward.graders import Grader
from leyden.trainer.core.objectives import Maximised, Objective


class Brevity(IntermediateRule):
    """Short answers are good."""
    rule: Literal["brevity"] = "brevity"
    name: str = "brevity"
    limit: int = 10

    def observe(self, view: RolloutView) -> Iterable[Signal]:
        for call in view.calls:
            text = str(call.choices[0].message["content"])
            yield Signal(float(len(text) <= self.limit), Evidence(kind="call", id=call.call_id), call_id=call.call_id)


class Shout(Grader):
    """Graded 1 when the answer is in capitals."""
    grader: Literal["shout"] = "shout"
    mark: str = ""

    def __call__(self, view: RolloutView) -> float:
        return float(view.final_text.isupper() and view.final_text.endswith(self.mark))


class FirstTakesAll(Strategy):
    """The first action gets the whole reward times a factor."""
    name: Literal["first"] = "first"
    factor: float = 1.0

    def assign_credit(self, episodes_G: Sequence[Episode], estimator: Advantage) -> list[list[StepCredit]]:
        totals = [[self.factor * e.total, *[0.0] * (len(e.steps) - 1)] for e in episodes_G]
        return [[StepCredit(t, a) for t, a in zip(ts, as_)] for ts, as_ in zip(totals, estimator(totals))]


def best_of(values_GT: list[list[float]]) -> list[list[float]]:
    best = max(max(values_T) for values_T in values_GT)
    return [[value - best for value in values_T] for values_T in values_GT]


BEST_OF = Advantage("best_of", best_of)


class Plain(Objective):
    """The ratio, without a clip."""
    name: Literal["plain"] = "plain"
    factor: float = 1.0

    def maximise(self, tokens):
        value_A = self.factor * tokens.ratios() * tokens.advantages_A
        return Maximised(value_A, value_A != value_A)


class Acme:
    """Spans with `acme.tool`."""
    name = "acme"

    def recognises(self, span) -> bool:
        return "acme.tool" in span.attributes

    def meaning(self, span) -> Meaning:
        return Meaning(SpanKind.TOOL_CALL, agent_name="acme", understood={"acme.tool"})

    def evaluations(self, span) -> list[tuple[int, JsonObject]]:
        return []
'''
POINTS = {
    "leyden.air_rules": {"brevity": "acme_rl:Brevity"},
    "leyden.graders": {"shout": "acme_rl:Shout"},
    "leyden.credit_strategies": {"first": "acme_rl:FirstTakesAll"},
    "leyden.advantages": {"best_of": "acme_rl:BEST_OF"},
    "leyden.objectives": {"plain": "acme_rl:Plain"},
    "leyden.dialects": {"acme": "acme_rl:Acme"},
}


@pytest.fixture(autouse=True)
def acme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with package(tmp_path, monkeypatch, "acme-rl", CODE, POINTS):
        yield


def test_adding_a_reward_rule() -> None:
    section = RewardSection.model_validate({"air": [{"rule": "brevity", "limit": 0}]})
    rewards = judged(section.air, a_call(1, 1, policy="p")).rewards
    assert [(reward.rule, reward.value) for reward in rewards] == [("brevity", 0.0)]


def test_adding_a_grader() -> None:
    [function] = RewardSection.model_validate({"functions": [{"grader": "shout", "mark": "!"}]}).functions
    assert function.rule_name == "shout"
    assert function.grader is not None
    spec = CallSpec(grader="shout", parameters={"mark": "!"})
    assert CallSpec.decode(spec.encode()).load() == function.grader


def test_adding_a_credit_strategy_and_an_advantage() -> None:
    section = CreditSection.model_validate({"strategy": {"name": "first", "factor": 2.0}, "advantage": "best_of"})
    assert CreditSection.model_validate(section.model_dump()) == section
    group = [episode_of((0.0, 0.0), 1.0), episode_of((0.0, 0.0), 0.0)]
    credited = section.strategy.assign_credit(group, advantage_of(section.advantage))
    assert [[step.advantage for step in steps] for steps in credited] == [[0.0, -2.0], [-2.0, -2.0]]


def test_adding_an_objective() -> None:
    settings = TrainerSettings(objective={"name": "plain", "factor": 2.0}, importance_cap=None)
    assert settings.settings_hash != TrainerSettings(importance_cap=None).settings_hash
    assert settings.settings_hash != TrainerSettings(objective="plain", importance_cap=None).settings_hash
    zero = torch.zeros(1, requires_grad=True)
    loss, terms = row_loss(
        ActionTokens(
            logprobs_A=zero,
            old_A=torch.zeros(1),
            behaviour_A=torch.zeros(1),
            advantages_A=torch.tensor([3.0]),
            sequence_A=torch.zeros(1, dtype=torch.int64),
        ),
        weights_A=torch.ones(1),
        terms=loss_terms(settings),
    )
    assert loss.item() == -6.0
    assert terms.clipped_A.tolist() == [False]


def test_adding_a_dialect() -> None:
    [found] = normalise_traces(otlp_request(otlp_span({"acme.tool": "x"})), known_dialects())
    assert isinstance(found, Normalised)
    span = found.event()
    assert (span.dialect, span.kind, span.agent_name) == ("acme", SpanKind.TOOL_CALL, "acme")
    assert known_dialects()[1:] == DIALECTS


@pytest.mark.parametrize(
    ("section", "kind", "content", "reason"),
    [
        ("reward", RewardSection, {"air": [{"rule": "nope"}]}, "rule 'nope' is not one of tool_status, .*brevity"),
        ("reward", RewardSection, {"functions": [{"grader": "nope"}]}, "grader 'nope' is not one of .*shout"),
        ("credit", CreditSection, {"strategy": "nope"}, "strategy 'nope' is not one of identical, .*first"),
        ("trainer", TrainerSettings, {"objective": "nope"}, "objective 'nope' is not one of clipped, .*plain"),
        ("credit", CreditSection, {"advantage": "nope"}, "advantage 'nope' is not one of grpo, .*best_of"),
    ],
)
def test_an_unknown_name_is_refused_with_the_known_ones(
    tmp_path: Path, section: str, kind: type, content: object, reason: str
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({section: content}))
    with pytest.raises(RunFileError, match=reason):
        load_section(file, section, kind)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("no_such_module:f", "no_such_module:f of package broken cannot be imported"),
        ("broken:missing", "broken:missing of package broken cannot be imported"),
        ("broken:NUMBER", "broken:NUMBER of package broken is not a class under Objective"),
    ],
)
def test_an_entry_point_that_cannot_be_used_is_refused_with_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, reason: str
) -> None:
    folder = tmp_path / "second"
    folder.mkdir()
    with (
        package(folder, monkeypatch, "broken", "NUMBER = 3\n", {"leyden.objectives": {"bad": value}}),
        pytest.raises(ExtensionError, match=reason),
    ):
        objective_of("bad")


def test_two_packages_with_one_name_are_both_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "second"
    folder.mkdir()
    points = {"leyden.objectives": {"plain": "other_rl:f", "clipped": "other_rl:f"}}
    with package(folder, monkeypatch, "other-rl", "def f(): ...\n", points):
        for name, owners in (("plain", "other-rl, acme-rl|acme-rl, other-rl"), ("clipped", "other-rl, leyden")):
            with pytest.raises(ExtensionError, match=f"more than once: by ({owners})"):
                objective_of(name)


def test_only_the_package_that_is_asked_for_is_imported() -> None:
    sys.modules.pop("acme_rl", None)
    CreditSection.model_validate({"strategy": "step", "advantage": "rloo"})
    assert "acme_rl" not in sys.modules
