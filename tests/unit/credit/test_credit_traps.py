"""Traps that other systems fell into, from the events to what is trained."""

import math
from collections.abc import Sequence
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from credit_support import call, delivered, finished, reward, rollout
from leyden.credit.core.advantage import Advantage
from leyden.credit.core.assemble import assemble
from leyden.credit.core.evidence import Evidence
from leyden.credit.core.group_events import CreditedGroup, group_events
from leyden.credit.core.membership import member_of
from leyden.credit.core.section import CreditSection
from leyden.credit.core.strategies import Episode, StepCredit, Strategy
from leyden.events import Event, FailureClass, ModelCallRecorded, SequenceCredited, Transition, unpack_ints


def trained(*rollouts: list[Event], **section: Any) -> CreditedGroup:
    """What a group of these rollouts gives for their one policy."""
    rules = CreditSection.model_validate(section)
    evidence = ((Evidence(cast(Any, one.event), one.origin) for one in delivered(events)) for events in rollouts)
    members = [member_of(assemble(of_rollout), rules) for of_rollout in evidence]  # type: ignore[arg-type]
    [group] = group_events(members, rules)
    return group


def one(index: int, calls: Sequence[ModelCallRecorded], outcome: float, *more: Any, **changes: Any) -> list[Event]:
    """Rollout number `index`: its calls, its outcome and more rewards."""
    about: dict[str, Any] = {"rollout_id": rollout(index), "group_size": 2}
    return finished(calls, [reward(outcome, rollout_id=rollout(index)), *more], **about, **changes)


def turns(index: int, count: int) -> list[ModelCallRecorded]:
    """Calls that continue each other exactly."""
    prompts = [[index, *[10, 7] * turn] for turn in range(count)]
    return [call(f"{index}-{t}", p, [10], at=t, rollout_id=rollout(index)) for t, p in enumerate(prompts)]


def transitions(group: CreditedGroup, index: int) -> list[Transition]:
    mine = [t for s in group.sequences if s.rollout_id == rollout(index) for t in s.transitions]
    return sorted(mine, key=lambda transition: transition.call_id)


def trained_tokens(sequence: SequenceCredited) -> list[int]:
    tokens = unpack_ints(sequence.token_ids).tolist()
    return [token for t in sequence.transitions for token in tokens[t.start : t.end]]


def test_interleaved_sub_agents_give_two_sequences_and_not_five() -> None:
    a, b = [1, 1], [2, 2]
    calls = [
        call("A1", a, [10], at=1),
        call("B1", b, [20], at=2),
        call("A2", [*a, 10, 7], [11], at=3),
        call("B2", [*b, 20, 8], [21], at=4),
        call("A3", [*a, 10, 7, 11, 6], [12], at=5),
    ]
    group = trained(one(0, calls, 1.0))
    assert [[t.call_id for t in s.transitions] for s in group.sequences] == [["A1", "A2", "A3"], ["B1", "B2"]]
    assert [trained_tokens(sequence) for sequence in group.sequences] == [[10, 11, 12], [20, 21]]


@pytest.mark.parametrize("answers", [[[30], [31], [32], [33]], [[30], [30], [30], [30]]])
def test_four_samples_of_one_prompt_stay_four(answers: list[list[int]]) -> None:
    calls = [call(str(n), [1, 2], answer, at=n) for n, answer in enumerate(answers)]
    apart, together = trained(one(0, calls, 1.0)), trained(one(0, [call("0", [1, 2], *answers)], 1.0))
    for group in (apart, together):
        assert [trained_tokens(sequence) for sequence in group.sequences] == answers


def test_a_turn_without_new_prompt_tokens_never_duplicates_the_prompt() -> None:
    calls = [call("1", [1, 2], [3, 4], at=1), call("2", [1, 2, 3, 4], [5], at=2)]
    [sequence] = trained(one(0, calls, 1.0)).sequences
    assert unpack_ints(sequence.token_ids).tolist() == [1, 2, 3, 4, 5]
    assert [(t.start, t.end) for t in sequence.transitions] == [(2, 4), (4, 5)]


@pytest.mark.parametrize("advantage", ["grpo", "dr_grpo", "rloo", "reinforce_plus_plus_baseline"])
@pytest.mark.parametrize("strategy", ["identical", "step", {"name": "step_group", "step_weight": 0.0}])
def test_a_long_rollout_does_not_outweigh_a_short_one(strategy: object, advantage: str) -> None:
    even = trained(one(0, turns(0, 2), 1.0), one(1, turns(1, 2), 0.0), strategy=strategy, advantage=advantage)
    uneven = trained(one(0, turns(0, 2), 1.0), one(1, turns(1, 12), 0.0), strategy=strategy, advantage=advantage)
    assert [t.advantage for t in transitions(uneven, 0)] == [t.advantage for t in transitions(even, 0)]
    assert {t.advantage for t in transitions(uneven, 1)} == {t.advantage for t in transitions(even, 1)}
    assert uneven.group.reward_mean == 0.5


@pytest.mark.parametrize("failure", FailureClass)
def test_a_failed_rollout_is_not_silently_a_zero(failure: FailureClass) -> None:
    failed = one(2, turns(2, 2), 0.0, failure=failure)
    with_it = trained(one(0, turns(0, 1), 1.0), one(1, turns(1, 1), 0.5), failed)
    without = trained(one(0, turns(0, 1), 1.0), one(1, turns(1, 1), 0.5))
    assert with_it.group.left_out == {rollout(2): f"failed: {failure}"}
    assert (with_it.group.members, with_it.group.reward_mean) == (2, 0.75)
    assert [s.transitions for s in with_it.sequences] == [s.transitions for s in without.sequences]


@pytest.mark.parametrize("strategy", ["discounted", "step", "gae", {"name": "gae", "lambda": 0.0}])
def test_an_intermediate_reward_shows_in_the_advantage_of_its_own_step(strategy: object) -> None:
    def advantages(*more: Any) -> list[float]:
        group = trained(one(0, turns(0, 3), 1.0, *more), one(1, turns(1, 3), 0.0), strategy=strategy, advantage="rloo")
        return [t.advantage for t in transitions(group, 0)]

    calls = turns(0, 3)
    plain = advantages()
    earned = advantages(reward(0.5, rule="tool", of=calls[1], rollout_id=rollout(0)))
    assert earned[1] == pytest.approx(plain[1] + 0.5)
    assert earned[2] == pytest.approx(plain[2]), "what came before an action is not its doing"


def test_an_intermediate_reward_counts_in_every_return_under_identical() -> None:
    more = reward(0.5, rule="tool", of=turns(0, 3)[1], rollout_id=rollout(0))
    group = trained(one(0, turns(0, 3), 1.0, more), one(1, turns(1, 3), 0.0), advantage="rloo")
    assert [(t.reward, t.return_, t.advantage) for t in transitions(group, 0)] == [
        (0.0, 1.5, 1.5),
        (0.5, 1.5, 1.5),
        (1.0, 1.5, 1.5),
    ]


def test_a_missing_reward_is_not_filled_with_a_zero() -> None:
    unjudged = finished(turns(1, 2), [], rollout_id=rollout(1), group_size=2)
    group = trained(one(0, turns(0, 2), 1.0), unjudged)
    assert group.group.left_out == {rollout(1): "no reward"}
    assert group.group.reward_mean == 1.0


def test_a_group_without_differences_trains_nothing_and_says_so() -> None:
    group = trained(one(0, turns(0, 2), 1.0), one(1, turns(1, 3), 1.0))
    assert group.group.zero_variance
    assert {t.advantage for index in range(2) for t in transitions(group, index)} == {0.0}


def test_equal_outcomes_with_other_steps_are_not_without_differences_where_steps_count() -> None:
    more = reward(0.5, rule="tool", of=turns(0, 2)[0], rollout_id=rollout(0))
    less = one(1, turns(1, 2), 1.5)
    assert trained(one(0, turns(0, 2), 1.0, more), less).group.zero_variance
    assert not trained(one(0, turns(0, 2), 1.0, more), less, strategy="step").group.zero_variance


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_without_a_comparison_in_the_group_equal_returns_are_left_to_the_batch(value: float) -> None:
    group = trained(one(0, turns(0, 2), value), one(1, turns(1, 2), value), advantage="reinforce_plus_plus")
    assert not group.group.zero_variance
    assert {t.advantage for index in range(2) for t in transitions(group, index)} == {value}


class Overflowing(Strategy):
    """A strategy that a package brings, with arithmetic that no float holds."""

    name: str = "overflowing"
    how: str = "raises"

    def assign_credit(self, episodes_G: Sequence[Episode], estimator: Advantage) -> list[list[StepCredit]]:
        number = 10.0**400 if self.how == "raises" else float(self.how)
        return [[StepCredit(number, number) for _ in episode.steps] for episode in episodes_G]


@pytest.mark.parametrize("how", ["raises", "inf", "-inf", "nan"])
def test_a_group_whose_arithmetic_overflows_is_published_with_all_its_members_left_out(how: str) -> None:
    group = trained(one(0, turns(0, 1), 1.0), one(1, turns(1, 1), 0.0), strategy=Overflowing(how=how))
    assert (group.sequences, group.group.members, group.group.reward_mean) == ([], 0, 0.0)
    assert set(group.group.left_out) == {rollout(0), rollout(1)}
    assert all(reason.startswith("not finite: overflowing, grpo: ") for reason in group.group.left_out.values())


EVERY_STRATEGY: list[object] = [
    "identical",
    {"name": "discounted", "gamma": 1.0},
    {"name": "discounted", "gamma": 0.5},
    "step",
    "gae",
    {"name": "gae", "gamma": 0.5, "lambda": 0.5},
    "step_group",
]


def test_the_choices_of_one_call_are_alternatives_and_not_successive() -> None:
    both = one(0, [call("0", [1, 2], [30], [31])], 1.0)
    group = trained(both, strategy={"name": "discounted", "gamma": 1.0}, advantage="dr_grpo")
    assert [t.return_ for t in transitions(group, 0)] == [1.0, 1.0]
    assert [t.reward for t in transitions(group, 0)] == [1.0, 0.0], "immediate rewards add up to the total"


@settings(max_examples=60, deadline=None)
@given(
    strategy=st.sampled_from(EVERY_STRATEGY),
    advantage=st.sampled_from(["grpo", "dr_grpo", "rloo", "reinforce_plus_plus", "reinforce_plus_plus_baseline"]),
    choices=st.lists(st.integers(1, 4), min_size=2, max_size=5),
    rewards=st.lists(st.floats(-1, 1), min_size=10, max_size=10),
)
def test_more_choices_of_a_call_change_the_credit_of_no_call(
    strategy: object, advantage: str, choices: list[int], rewards: list[float]
) -> None:
    """Each choice has the credit that its call has when it is the only one, and so has every other call."""
    if strategy == "step_group" and advantage == "reinforce_plus_plus":
        return

    def group(counts: Sequence[int]) -> CreditedGroup:
        calls = []
        for turn, count in enumerate(counts):
            answers = [[10, *([n] if n else [])] for n in range(count)]
            calls.append(call(f"0-{turn}", [0, *[10, 7] * turn], *answers, at=turn, rollout_id=rollout(0)))
        own = [reward(rewards[n], rule=f"r{n}", of=one, rollout_id=rollout(0)) for n, one in enumerate(calls)]
        return trained(
            one(0, calls, rewards[-1], *own), one(1, turns(1, 3), rewards[-2]), strategy=strategy, advantage=advantage
        )

    many, single = group(choices), group([1] * len(choices))
    alone = {t.call_id: (t.return_, t.advantage) for t in transitions(single, 0)}
    assert [(t.call_id, t.return_, t.advantage) for t in transitions(many, 0)] == [
        (f"0-{turn}", *alone[f"0-{turn}"]) for turn, count in enumerate(choices) for _ in range(count)
    ]
    assert [t.advantage for t in transitions(many, 1)] == [t.advantage for t in transitions(single, 1)]
    assert math.fsum(t.reward for t in transitions(many, 0)) == pytest.approx(
        next(s.rollout_reward for s in many.sequences if s.rollout_id == rollout(0))
    )
