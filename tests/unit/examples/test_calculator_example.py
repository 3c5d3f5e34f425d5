"""The calculator demo: its tasks, its tool, its reward and its run files."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from calculator import agent, reward, tasks
from calculator.tool import calculate, final_answer, tool_call
from hypothesis import given
from hypothesis import strategies as st

from leyden.settings import RUN_FILE_SECTIONS

FOLDER = Path(__file__).parents[3] / "examples" / "calculator"


def recorded(answer: int, *lines: str) -> Any:
    calls = [SimpleNamespace(choices=[SimpleNamespace(message={"role": "assistant", "content": x})]) for x in lines]
    return SimpleNamespace(task=SimpleNamespace(metadata={"answer": answer}), calls=calls)


@given(seed=st.integers(0, 10_000))
def test_every_problem_has_a_right_expression_and_only_its_own_numbers(seed: int) -> None:
    for problem in tasks.generate(5, seed):
        question, expression = problem["input"]["question"], problem["metadata"]["expression"]
        assert calculate(expression) == problem["metadata"]["answer"] > 0
        assert [word.strip(".") for word in question.split() if word.strip(".").isdigit()] == re.split(
            r"[-+*]", expression
        )


def test_a_seed_gives_the_same_problems_and_another_seed_others() -> None:
    assert tasks.generate(20, 1) == tasks.generate(30, 1)[:20]
    assert tasks.generate(20, 1) != tasks.generate(20, 2)
    assert len({problem["input"]["question"] for problem in tasks.generate(100, 1)}) > 95
    assert {"+", "-", "*"} <= set("".join(problem["metadata"]["expression"] for problem in tasks.generate(50, 1)))


@pytest.mark.parametrize(
    ("lines", "score"),
    [
        (("CALC(23+45)", "ANSWER: 68"), 1.0),
        (("ANSWER: 68",), 1.0),
        (("CALC(23+45)", "ANSWER: 67"), 0.2),
        (("CALC(45+23)", "It is 68"), 0.2),
        (("CALC(23-45)", "ANSWER: -22"), 0.1),
        (("CALC(23+)",), 0.0),
        (("It is 68",), 0.0),
        ((), 0.0),
    ],
)
def test_the_score_rises_with_what_was_got_right(lines: tuple[str, ...], score: float) -> None:
    assert reward.score(recorded(68, *lines)) == score


def test_only_the_last_line_answers() -> None:
    assert reward.score(recorded(68, "CALC(1+1)", "ANSWER: 68", "ANSWER: 2")) == 0.1


@given(a=st.integers(0, 999), b=st.integers(0, 999))
def test_the_calculator_calculates(a: int, b: int) -> None:
    assert calculate(f"{a}+{b}") == a + b
    assert calculate(f" {a} - {b}".strip()) == a - b
    assert calculate(f"{a}*{b}") == a * b


@pytest.mark.parametrize(
    "text",
    ["7", "", "2**9", "4/2", "a+1", "True+1", "1.5+1", "-1+2", "f(1)+1", "1+" * 40 + "1", "(1+2", "0x10+", "\x00+1"],
)
def test_the_calculator_refuses_everything_else(text: str) -> None:
    with pytest.raises(ValueError):
        calculate(text)


@given(st.text(max_size=40))
def test_no_text_breaks_the_tool_or_the_score(text: str) -> None:
    reward.score(recorded(1, text, f"CALC({text})", f"ANSWER: {text}"))
    agent.observe(f"CALC({text})")


def test_lines_are_read_as_the_model_writes_them() -> None:
    assert tool_call("CALC(2*3) x") == "2*3"
    assert tool_call("CALC 2*3") is None
    assert final_answer("So ANSWER: -4.") == -4
    assert final_answer("ANSWER: " + "9" * 13) is None


def test_the_run_file_has_only_known_sections_and_names_the_score() -> None:
    document = yaml.safe_load((FOLDER / "run.yaml").read_text())
    assert set(document) == RUN_FILE_SECTIONS
    assert document["reward"]["functions"][0]["entry"] == "calculator.reward:score"


@pytest.mark.parametrize(
    ("lines", "value"), [(["CALC(2*3)", "ANSWER: 6"], 1.0), (["CALC(2*3)"], 0.0), (["ANSWER: 7"], 0.0), ([], 0.0)]
)
def test_the_strict_score_knows_a_right_answer_and_nothing_else(lines: list[str], value: float) -> None:
    assert reward.strict(recorded(6, *lines)) == value


def test_the_other_run_file_differs_from_the_first_in_its_reward_alone() -> None:
    live, shaped = (yaml.safe_load((FOLDER / name).read_text()) for name in ("run.yaml", "shaped.yaml"))
    assert shaped["reward"]["functions"][0]["entry"] == "calculator.reward:strict"
    assert {section: live[section] for section in ("credit", "trainer")} == {
        section: shaped[section] for section in ("credit", "trainer")
    }
