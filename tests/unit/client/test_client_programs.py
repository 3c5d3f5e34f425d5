"""Programs as agents: what their end and their output mean."""

import signal

import pytest

from leyden.client.errors import ConfigurationError
from leyden.client.executors import Command, outcome_of
from leyden.client.processes import ProgramEnd


def test_a_json_object_on_the_last_line_is_the_output() -> None:
    outcome = outcome_of(ProgramEnd(0, 'thinking\n{"answer": 4, "score": 0.5}\n', ""), "score")
    assert (outcome.status, outcome.output, outcome.reward) == ("succeeded", {"answer": 4, "score": 0.5}, 0.5)


def test_any_other_output_is_text() -> None:
    assert outcome_of(ProgramEnd(0, "four\n", "")).output == "four"
    assert outcome_of(ProgramEnd(0, "", "")).output is None


@pytest.mark.parametrize(
    ("stdout", "path", "reward"),
    [
        ("0.25", ".", 0.25),
        ('{"a": {"b": 1}}', "a.b", 1.0),
        ('{"a": true}', "a", 1.0),
        ('{"a": "1"}', "a", None),
        ('{"a": NaN}', "a", None),
        ("no json", "a", None),
        ("[1]", "a", None),
    ],
)
def test_a_reward_is_read_where_it_was_said_to_be(stdout: str, path: str, reward: float | None) -> None:
    outcome = outcome_of(ProgramEnd(0, stdout, ""), path)
    assert (outcome.status, outcome.reward) == ("succeeded", reward)


def test_a_failure_tells_its_exit_code_and_its_last_words() -> None:
    trace = "Traceback (most recent call last):\n  …\npage.NotFoundError: 404"
    outcome = outcome_of(ProgramEnd(1, "", trace))
    assert (outcome.failure_class, outcome.error_type) == ("agent_exception", "page.NotFoundError")
    assert outcome.message.startswith("the program ended with exit code 1")
    assert outcome.message.endswith("404")
    assert outcome_of(ProgramEnd(-11, "", "")).error_type == "signal_11"


def test_what_the_program_is_not_to_blame_for_is_infrastructure_or_interrupted() -> None:
    assert outcome_of(ProgramEnd(-9, "", "")).failure_class == "infrastructure"
    assert outcome_of(ProgramEnd(1, "", ""), stopped_by=signal.SIGTERM).failure_class == "interrupted"


def test_a_command_is_split_as_a_shell_would_and_named_after_its_script() -> None:
    assert Command.parse("python -u agents/my_agent.py --x 'a b'").argv == (
        "python", "-u", "agents/my_agent.py", "--x", "a b",
    )  # fmt: skip
    assert Command.parse("python -u agents/my_agent.py").__name__ == "my_agent"
    assert Command.parse("/usr/bin/agent --fast").__name__ == "agent"
    with pytest.raises(ConfigurationError):
        Command.parse(" ")
