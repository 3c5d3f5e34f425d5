"""AIR rules that a package brings, beside the built-in ones."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import extension_support
from leyden.reward.air import AIR_RULES, air_rule
from leyden.reward.app import rulebook
from leyden.reward.settings import RewardSection
from leyden.settings import RunFileError, load_section
from unit.reward.reward_builders import a_call, judged

EXAMPLES = Path(__file__).parents[3] / "examples"

CODE = '''
from collections.abc import Iterable
from typing import Literal
from leyden.reward.air import Evidence, IntermediateRule, RolloutView, Signal

class Brevity(IntermediateRule):
    """Short answers are good."""
    rule: Literal["brevity"] = "brevity"
    name: str = "brevity"
    limit: int = 10

    def observe(self, view: RolloutView) -> Iterable[Signal]:
        for call in view.calls:
            text = str(call.choices[0].message["content"])
            yield Signal(float(len(text) <= self.limit), Evidence(kind="call", id=call.call_id), call_id=call.call_id)

NOT_A_RULE = 3
'''
POINTS = {
    "leyden.air_rules": {
        "brevity": "brevity_rules:Brevity",
        "broken": "no_such_module:Rule",
        "number": "brevity_rules:NOT_A_RULE",
        "tool_status": "brevity_rules:Brevity",
    }
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with extension_support.package(tmp_path, monkeypatch, "brevity-rules", CODE, POINTS):
        yield


@pytest.mark.usefixtures("package")
def test_a_rule_of_another_package_stands_beside_the_built_in_ones() -> None:
    entries = [
        {"rule": "brevity", "limit": 3, "weight": 0.1, "step": "last"},
        {"rule": "brevity", "name": "terse", "limit": 0},
        {"rule": "budget", "measure": "calls", "limit": 3},
    ]
    book = rulebook(RewardSection.model_validate({"air": entries}))
    assert [rule.name for rule in book.rules] == ["emitted", "brevity", "terse", "budget"]
    rewards = judged(book.rules, a_call(1, 1, policy="p"), a_call(2, 2, policy="p")).rewards
    assert [(r.rule, r.value, r.call_id) for r in rewards] == [
        ("brevity", 1.0, "call-2"),
        ("terse", 0.0, "call-1"),
        ("terse", 0.0, "call-2"),
    ]


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("broken", "cannot be imported"),
        ("number", "of package brevity-rules is not a subclass of IntermediateRule"),
        ("tool_status", "more than once"),
        ("nonsense", "not one of tool_status, .*brevity"),
    ],
)
def test_a_rule_that_cannot_be_used_stops_the_start(tmp_path: Path, name: str, reason: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({"reward": {"air": [{"rule": name}]}}))
    with pytest.raises(RunFileError, match=reason):
        load_section(file, "reward", RewardSection)


def test_built_in_rules_need_no_installed_package() -> None:
    assert {name: air_rule(name) for name in AIR_RULES} == dict(AIR_RULES)
    assert all(kind.model_fields["rule"].default == name for name, kind in AIR_RULES.items())


def test_the_example_shows_every_built_in_rule() -> None:
    section = load_section(EXAMPLES / "rewards" / "air.yaml", "reward", RewardSection)
    assert {rule.rule for rule in section.air} == set(AIR_RULES)
    assert any(rule.shaping for rule in section.air)


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*/*.yaml")), ids=lambda file: f"{file.parent.name}/{file.name}")
def test_every_example_run_file_has_a_reward_section_that_is_valid(file: Path) -> None:
    load_section(file, "reward", RewardSection)
