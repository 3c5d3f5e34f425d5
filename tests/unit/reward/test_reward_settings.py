"""The run file's section `reward:`."""

from pathlib import Path

import pytest

from leyden.reward.app import rulebook
from leyden.reward.core.rules import Emitted, SchemaValidArguments, ToolStatus
from leyden.reward.functions import exact_match
from leyden.reward.sandbox.spec import UnusableFunctionError, load_function
from leyden.reward.settings import RewardSection
from leyden.settings import RunFileError, load_section

FULL = """
reward:
  settle: recorded
  intermediate_cap: 0.3
  emitted: {weight: 0.5}
  functions:
    - {entry: "leyden.reward.functions:exact_match", name: outcome, weight: 1.0}
  air:
    - {rule: tool_status, ok: 0.05, error: -0.1, cap: 0.2}
    - {rule: schema_valid_arguments, name: schemas, weight: 2}
"""


def section(tmp_path: Path, text: str) -> RewardSection:
    file = tmp_path / "run.yaml"
    file.write_text(text)
    return load_section(file, "reward", RewardSection)


def test_a_run_file_names_the_rules_in_order(tmp_path: Path) -> None:
    found = section(tmp_path, FULL)
    assert (found.settle, found.grace_s) == ("recorded", 30.0)
    book = rulebook(found)
    assert [rule.name for rule in book.rules] == ["emitted", "outcome", "tool_status", "schemas"]
    assert book.rules[0] == Emitted(weight=0.5)
    assert book.rules[2] == ToolStatus(ok=0.05, error=-0.1, cap=0.2)
    assert book.rules[3] == SchemaValidArguments(name="schemas", weight=2)
    assert book.intermediate_cap == 0.3


def test_without_a_run_file_emitted_rewards_count() -> None:
    assert rulebook(load_section(None, "reward", RewardSection)).rules == (Emitted(),)


def test_emitted_rewards_can_be_ignored(tmp_path: Path) -> None:
    assert rulebook(section(tmp_path, "reward: {emitted: null}")).rules == ()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("reward: {air: [{rule: nonsense}]}", "not one of tool_status, schema_valid_arguments"),
        ("reward: {air: [{rule: tool_status, okay: 1}]}", "okay"),
        ("reward: {air: [{rule: tool_status}, {rule: tool_status}]}", "two rules are called tool_status"),
        ("reward: {air: [{rule: tool_status, cap: -1}]}", "cap"),
        ("reward: {settle: sometimes}", "settle"),
        ("reward: {rulez: 1}", "rulez"),
    ],
)
def test_a_wrong_section_says_what_is_wrong(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(RunFileError, match=reason):
        section(tmp_path, text)


def test_functions_are_found_by_module_and_name() -> None:
    assert load_function("leyden.reward.functions:exact_match") is exact_match


@pytest.mark.parametrize(
    "entry", ["no_such_entry", "no.such.module:f", "leyden.reward.functions:missing", "leyden.ids:MAX_ATTEMPTS"]
)
def test_a_function_that_is_not_there_stops_the_start(entry: str) -> None:
    with pytest.raises(UnusableFunctionError, match=entry):
        load_function(entry)
