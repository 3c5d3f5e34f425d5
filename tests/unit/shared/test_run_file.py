"""The run file: what is wrong with it is said with the file, the section and the field."""

import re
from difflib import SequenceMatcher
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from leyden.credit.core.section import CreditSection
from leyden.reward.adapters import unusable_functions
from leyden.reward.settings import RewardSection
from leyden.settings import RunFileError, environment_problems, load_section, section_problems
from leyden.trainer.settings import TrainerSettings


class Credit(BaseModel):
    model_config = ConfigDict(extra="forbid")
    strategy: str = "identical"


def write(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(text)
    return path


def test_without_a_file_or_a_section_the_defaults_hold(tmp_path: Path) -> None:
    assert load_section(None, "credit", Credit) == Credit()
    assert load_section(write(tmp_path, ""), "credit", Credit) == Credit()
    assert load_section(write(tmp_path, "reward: {}"), "credit", Credit) == Credit()


def test_a_section_is_read(tmp_path: Path) -> None:
    assert load_section(write(tmp_path, "credit: {strategy: step}"), "credit", Credit).strategy == "step"


TRAINER = """
trainer:
  mode: lorra
  lora: {rnk: 3}
  learning_rate: fast
  groups_per_stp: 8
  groups_per_step: 0
"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("credit: {strategi: step}", ["1: credit.strategi: there is no such field; did you mean strategy?"]),
        ("kredit: {}", ["1: kredit: there is no such section; did you mean credit?"]),
        ("x: {}", ["1: x: there is no such section; the sections are credit, policy, reward, trainer"]),
        ("- 1", ["1: expected the sections credit, policy, reward, trainer; found a list"]),
        ("a: 1\ncredit: [", ["2: cannot be read as YAML: expected the node content, but found '<stream end>'"]),
        ("credit: 3", ["1: credit: 3: input should be a valid dictionary or instance of Credit"]),
        ("? [a]\n: b", ["1: cannot be read as YAML: found unhashable key"]),
        ("kredit: {}\ncredit: {x: 1}", ["1: kredit: there is no", "2: credit.x: there is no such field"]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_all_at_once_with_line_and_nearest_name(
    tmp_path: Path, text: str, said: list[str]
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(RunFileError) as raised:
        load_section(path, "credit", Credit)
    lines = str(raised.value).splitlines()
    assert len(lines) == len(said)
    assert all(line.startswith(f"{path}:{expected}") for line, expected in zip(lines, said, strict=True)), lines


def problems(path: Path, section: str, model: Any) -> list[str]:
    return [one.removeprefix(f"{path}:") for one in section_problems(path, section, model, lambda _: ())]


def test_the_services_own_sections_name_the_wrong_value_and_the_right_name(tmp_path: Path) -> None:
    assert problems(write(tmp_path, TRAINER), "trainer", TrainerSettings) == [
        "3: trainer.mode: 'lorra': input should be 'lora' or 'full'; did you mean lora?",
        "4: trainer.lora.rnk: there is no such field; did you mean rank?",
        "5: trainer.learning_rate: 'fast': input should be a valid number, unable to parse string as a number",
        "6: trainer.groups_per_stp: there is no such field; did you mean groups_per_step?",
        "7: trainer.groups_per_step: 0: input should be greater than or equal to 1",
    ]
    (advantage,) = problems(write(tmp_path, "credit:\n  advantage: grop"), "credit", CreditSection)
    assert advantage.startswith("2: credit.advantage: 'grop': ") and advantage.endswith("; did you mean grpo?")
    reward = "reward:\n  air:\n    - {rule: tool_statu}\n  functions:\n    - {grader: exact_mach}\n"
    reward += "    - {entry: 'a:b', nam: 1}"
    found = problems(write(tmp_path, reward), "reward", RewardSection)
    assert [one.split("; ")[-1] for one in found] == [
        "did you mean tool_status?", "did you mean exact_match?", "did you mean name?",
    ]  # fmt: skip
    assert [one.split(": ")[1] for one in found] == ["reward.air[0]", "reward.functions[0]", "reward.functions[1].nam"]


@given(st.sampled_from(sorted(TrainerSettings.model_fields)), st.integers(0, 30), st.sampled_from("aeiorstx_"))
def test_a_mistyped_field_is_told_its_own_name_on_its_own_line(name: str, at: int, letter: str) -> None:
    wrong = name[: at % len(name)] + letter + name[at % len(name) :]
    if wrong in TrainerSettings.model_fields:
        return
    with TemporaryDirectory() as folder:
        path = write(Path(folder), f"# a comment\ntrainer:\n  seed: 1\n  {wrong}: 3")
        (told,) = problems(path, "trainer", TrainerSettings)
    assert told.startswith(f"4: trainer.{wrong}: there is no such field; did you mean ")
    near = told.removesuffix("?").rpartition(" ")[2]
    assert SequenceMatcher(None, wrong, near).ratio() >= SequenceMatcher(None, wrong, name).ratio()


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused_with_a_line(text: str) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "run.yaml"
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        for told in section_problems(path, "credit", CreditSection, lambda _: ()):
            assert re.match(re.escape(str(path)) + r":\d+: .", told)


def test_a_reward_function_that_does_not_exist_is_a_problem_of_its_line(tmp_path: Path) -> None:
    path = write(tmp_path, "reward:\n  functions:\n    - entry: leyden.reward.functions:exact_mach")
    (told,) = section_problems(path, "reward", RewardSection, unusable_functions)
    assert told.startswith(f"{path}:3: reward.functions[0].entry: reward function 'leyden.reward.functions:exact_mach'")
    assert "did you mean exact_match?" in told
    path = write(tmp_path, "kredit: {}\nreward:\n  functions:\n    - entry: no_such_module:score")
    assert len(section_problems(path, "reward", RewardSection, unusable_functions)) == 2


class Environment(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="LEYDEN_TEST_", use_attribute_docstrings=True)

    token: SecretStr = Field(min_length=8)
    """Signs the keys."""
    port: int = 1
    """Port of the routes."""
    url: str = Field(validation_alias="TEST_URL")
    """Where it is."""


def test_a_wrong_environment_is_told_by_variable_and_shows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEYDEN_TEST_TOKEN", "hidden")
    monkeypatch.setenv("LEYDEN_TEST_PORT", "x")
    with pytest.raises(ValidationError) as raised:
        Environment()
    told = environment_problems(raised.value, [Environment]).splitlines()
    assert [line.split()[0] for line in told] == ["LEYDEN_TEST_TOKEN", "LEYDEN_TEST_PORT", "TEST_URL"]
    assert told[2] == "TEST_URL is not set: Where it is."
    assert "it is 'x'" in told[1] and told[1].endswith(": Port of the routes.")
    assert "hidden" not in "".join(told)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunFileError, match=r"gone\.yaml"):
        load_section(tmp_path / "gone.yaml", "credit", Credit)
