"""Judges and late rewards in the run file."""

from pathlib import Path

import pytest

from leyden.reward.app import rulebook
from leyden.reward.core.judging import JudgeRule, NextStateJudge, RankingJudge, RubricJudge, StepJudgeRule
from leyden.reward.settings import RewardSection
from leyden.settings import RunFileError, load_section

EXAMPLE = Path(__file__).parents[3] / "examples" / "rewards" / "judges.yaml"
PLACE = "name: q, base_url: http://j/v1, model: m"


def section(tmp_path: Path, text: str) -> RewardSection:
    file = tmp_path / "run.yaml"
    file.write_text(f"reward: {text}")
    return load_section(file, "reward", RewardSection)


def test_the_example_names_one_judge_of_each_kind() -> None:
    found = load_section(EXAMPLE, "reward", RewardSection)
    assert [type(judge) for judge in found.judges] == [RubricJudge, RankingJudge, NextStateJudge]
    assert found.late_horizon_s == 86_400
    rules = rulebook(found).rules
    assert [rule.name for rule in rules] == ["emitted", "quality", "rank", "reaction"]
    assert [type(rule) for rule in rules[1:]] == [JudgeRule, JudgeRule, StepJudgeRule]
    assert rules[3].weight == 0.1


def test_a_judge_of_actions_can_be_all_the_reward_there_is(tmp_path: Path) -> None:
    found = section(tmp_path, f"{{emitted: null, judges: [{{kind: next_state, {PLACE}, intermediate: false}}]}}")
    assert not rulebook(found).rules[0].intermediate


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"{{judges: [{{kind: oracle, {PLACE}}}]}}", "oracle"),
        ("{judges: [{kind: rubric, name: q}]}", "base_url"),
        (f"{{judges: [{{kind: ranking, {PLACE}, scale: [0, 1]}}]}}", "scale"),
        (f"{{judges: [{{kind: rubric, {PLACE}, scale: [1, 1]}}]}}", "the lowest score must come first"),
        (f"{{judges: [{{kind: rubric, {PLACE}, api_key: sk}}]}}", "api_key"),
        (f"{{judges: [{{kind: rubric, {PLACE}}}], air: [{{rule: tool_status, name: q}}]}}", "two rules are called q"),
        ("{late_horizon_s: -1}", "late_horizon_s"),
    ],
)
def test_a_wrong_judge_says_what_is_wrong(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(RunFileError, match=reason):
        section(tmp_path, text)
