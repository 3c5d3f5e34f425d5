"""Reward rules that failed are grouped by how they failed, whatever the order and however often an event comes."""

import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

import command_support as s
from leyden.analysis.failed_rules import read_rule_failures, rule_failures
from leyden.events import RewardsCompleted
from leyden.ids import rollout_id_of

KEY_ERROR = "outcome: exception: KeyError: 'answer'"


def completed(index: int, *failed: str, **changes: Any) -> RewardsCompleted:
    return s.completed(rollout_id_of("task", index), [], failed_rules=list(failed), **changes)


def test_a_function_that_raises_is_told_with_its_message_and_an_example() -> None:
    found = rule_failures([completed(0), completed(1, KEY_ERROR), completed(2, KEY_ERROR)])
    example = max(rollout_id_of("task", 1), rollout_id_of("task", 2))
    [line] = found.lines()
    assert line.startswith("reward rule outcome failed on 2 rollouts: exception: KeyError: 'answer' (example: `")
    assert f"inspect {example}0000`" in line
    assert found.completed == 3


def test_messages_that_differ_in_their_numbers_are_one_failure_and_other_kinds_and_rules_are_not() -> None:
    texts = [
        "a: exception: ValueError: no 17",
        "a: exception: ValueError: no 4",
        "a: timeout: no 4",
        "b: timeout: no 4",
    ]
    found = rule_failures(completed(index, text) for index, text in enumerate(texts))
    assert [(one.rule, one.kind, one.rollouts) for one in found.failed] == [
        ("a", "exception", 2), ("a", "timeout", 1), ("b", "timeout", 1),
    ]  # fmt: skip


def test_rules_that_all_returned_none_are_told_too() -> None:
    found = rule_failures([completed(0, outcome_missing=True), completed(1)])
    assert found.lines() == ["1 of 2 judged rollouts have no outcome: every rule for it returned None"]
    assert rule_failures([completed(0)]).lines() == []


def test_a_late_revision_takes_the_place_of_the_one_before() -> None:
    late = completed(0, revision=1)
    assert rule_failures([late, completed(0, KEY_ERROR)]).failed == ()


async def test_the_log_gives_the_same_as_its_events_and_counts_every_rollout() -> None:
    events = [completed(0), completed(1, KEY_ERROR), completed(2, outcome_missing=True), s.outcome(s.A, 1.0)]
    log: Any = s.FakeLog(events)
    found = await read_rule_failures(log)
    assert found == rule_failures(event for event in events if isinstance(event, RewardsCompleted))
    assert (found.completed, len(found.failed), found.without_outcome) == (3, 1, 1)


TEXTS = st.text(max_size=40) | st.builds("{}: {}: {}".format, st.sampled_from("ab"), st.text(max_size=9), st.text())


@given(st.lists(st.lists(TEXTS, max_size=3, unique=True), max_size=8), st.randoms(use_true_random=False))
def test_any_texts_in_any_order_and_twice_give_the_same_failures(lots: list[list[str]], rng: random.Random) -> None:
    events = [completed(index, *texts) for index, texts in enumerate(lots)]
    shuffled = events * 2
    rng.shuffle(shuffled)
    found = rule_failures(shuffled)
    assert found == rule_failures(events)
    assert found.completed == len(lots)
    assert max((one.rollouts for one in found.failed), default=0) <= sum(bool(texts) for texts in lots)
    assert bool(found.failed) == any(lots)
    assert all("\n" not in line for line in found.lines())
