"""`--help` of every command: a summary of one line, every option described, and the bounds and defaults said."""

# ruff: noqa: SLF001 - argparse shows a parser's options in no public way

import argparse
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from leyden.cli import agents
from leyden.cli.app import app

OF_AGENTS = ("run", "runner")


def commands(group: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every command with its full name, groups that do something themselves included."""
    for own, command in group.commands.items():
        full = f"{name} {own}".strip()
        yield full, command
        if hasattr(command, "commands"):
            yield from commands(command, full)


COMMANDS = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("name", COMMANDS)
def test_the_summary_is_one_line_and_every_parameter_has_a_help_text(name: str) -> None:
    command = COMMANDS[name]
    summary = command.help.split("\n\n")[0]
    assert summary.endswith(".") and "\n" not in summary and len(summary) <= 100
    described = [parameter for parameter in command.params if parameter.name != "help"]
    assert [parameter.name for parameter in described if not (parameter.help or "").endswith((".", ")"))] == []


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in OF_AGENTS])
def test_the_lines_of_examples_stay_whole(name: str) -> None:
    shown = CliRunner().invoke(app, [*name.split(), "--help"], env={"COLUMNS": "130", "TERM": "dumb"}).output
    lines = {line.strip() for line in shown.splitlines()}
    examples = [line.strip() for line in (COMMANDS[name].help or "").splitlines() if line.startswith("  leyden ")]
    assert [line for line in examples if line not in lines] == []
    assert [line for line in examples if not line.startswith(f"leyden {name}")] == []


@pytest.mark.parametrize("name", OF_AGENTS)
def test_the_agents_commands_describe_every_option_and_its_default(name: str) -> None:
    top = agents.parser()
    (choices,) = [action.choices for action in top._actions if isinstance(action, argparse._SubParsersAction)]
    parser = choices[name]
    assert parser.description and parser.description.endswith(".")
    assert f"leyden {name} " in (parser.epilog or "")
    for action in parser._actions:
        assert action.help, action.dest
        if action.option_strings and action.default not in (None, False, argparse.SUPPRESS):
            assert f"default: {action.default:g}" if isinstance(action.default, float) else "default" in action.help
