"""Credit strategies by hand, on the worked example of docs/credit.md, and as laws over random groups."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from credit_support import call, delivered, finished, reward, rollout
from leyden.credit.core.advantage import ADVANTAGES
from leyden.credit.core.advantage.stats import step_mean
from leyden.credit.core.assemble import assemble
from leyden.credit.core.evidence import Evidence
from leyden.credit.core.group_events import group_events
from leyden.credit.core.member import Member, Part
from leyden.credit.core.membership import member_of
from leyden.credit.core.section import CreditSection
from leyden.credit.core.strategies import Episode, StepCredit, Strategy, episode_of, strategy_of
from leyden.events import Transition

DOCS = Path(__file__).parents[3] / "docs" / "credit.md"

SHORT = episode_of([0.25, 0.0], 1.0, ["s0", "s1"])
"""Two steps, the first worth 0.25 itself; solved."""
LONG = episode_of([0.25, 0.0, 0.5], 0.0, ["s0", "s2", "s1"])
"""Three steps through two of the same states; not solved."""

IDENTICAL = {"name": "identical"}
DISCOUNTED = {"name": "discounted", "gamma": 0.5}
STEP = {"name": "step"}
GAE = {"name": "gae", "gamma": 0.5, "lambda": 0.5}
STEP_GROUP = {"name": "step_group", "gamma": 0.5}

WORKED = [
    (IDENTICAL, [1.25, 1.25], [0.75, 0.75, 0.75], [0.25, 0.25], [-0.25, -0.25, -0.25]),
    (DISCOUNTED, [0.75, 1.0], [0.375, 0.25, 0.5], [0.125, 0.375], [-0.25, -0.375, -0.125]),
    (STEP, [1.25, 1.0], [0.25, 0.0, 0.5], [0.5625, 0.3125], [-0.4375, -0.6875, -0.1875]),
    (GAE, [0.625, 1.0], [0.59375, 0.375, 0.5], [0.25, 0.5], [-0.15625, -0.625, -0.5]),
    (STEP_GROUP, [0.75, 1.0], [0.375, 0.25, 0.5], [0.4375, 0.5], [-0.4375, -0.25, -0.5]),
]
"""Strategy, returns of both rollouts, advantages of both rollouts against the group's mean (`dr_grpo`)."""


def advantages(credited_GT: Sequence[Sequence[StepCredit]]) -> list[list[float]]:
    return [[step.advantage for step in credited_T] for credited_T in credited_GT]


def returns(credited_GT: Sequence[Sequence[StepCredit]]) -> list[list[float]]:
    return [[step.return_ for step in credited_T] for credited_T in credited_GT]


@pytest.mark.parametrize(("said", "short", "long", "short_advantages", "long_advantages"), WORKED)
def test_the_worked_example_by_hand(
    said: dict[str, object],
    short: list[float],
    long: list[float],
    short_advantages: list[float],
    long_advantages: list[float],
) -> None:
    credited = strategy_of(said).assign_credit([SHORT, LONG], ADVANTAGES["dr_grpo"])
    assert returns(credited) == [short, long]
    assert advantages(credited) == [short_advantages, long_advantages]


@pytest.mark.parametrize(("said", "short", "long", "short_advantages", "long_advantages"), WORKED)
def test_the_worked_example_is_the_one_in_the_docs(
    said: dict[str, object],
    short: list[float],
    long: list[float],
    short_advantages: list[float],
    long_advantages: list[float],
) -> None:
    cells = [
        ", ".join(f"{number:g}" for number in numbers) for numbers in (short, long, short_advantages, long_advantages)
    ]
    assert f"| `{said['name']}` | {' | '.join(cells)} |" in DOCS.read_text()


@pytest.mark.parametrize(("said", "short", "long", "short_advantages", "long_advantages"), WORKED)
def test_the_worked_example_comes_out_of_the_events(
    said: dict[str, object],
    short: list[float],
    long: list[float],
    short_advantages: list[float],
    long_advantages: list[float],
) -> None:
    states = {"s0": [1], "s1": [1, 10, 7], "s2": [2]}
    members = [
        rollout_member(0, SHORT, [states["s0"], states["s1"]], said),
        rollout_member(1, LONG, [states["s0"], states["s2"], states["s1"]], said),
    ]
    [group] = group_events(members, CreditSection.model_validate({"strategy": said, "advantage": "dr_grpo"}))
    found = [transitions_of(group.sequences, rollout(index)) for index in range(2)]
    assert [[t.return_ for t in of_rollout] for of_rollout in found] == [short, long]
    assert [[t.advantage for t in of_rollout] for of_rollout in found] == [short_advantages, long_advantages]
    assert [sum(t.reward for t in of_rollout) for of_rollout in found] == [SHORT.total, LONG.total]
    assert (group.group.reward_mean, group.group.zero_variance) == (1.0, False)


def rollout_member(index: int, episode: Episode, prompts: list[list[int]], said: object) -> Member:
    name = rollout(index)
    calls = [call(f"{index}-{t}", prompt, [10], rollout_id=name, at=t) for t, prompt in enumerate(prompts)]
    earned = [
        reward(step.own, rule=f"tool {t}", of=of, rollout_id=name)
        for t, (step, of) in enumerate(zip(episode.steps, calls, strict=True))
        if step.own
    ]
    events = finished(calls, [*earned, reward(episode.outcome, rollout_id=name)], rollout_id=name, group_size=2)
    rules = CreditSection.model_validate({"strategy": said, "advantage": "dr_grpo"})
    found = member_of(assemble(Evidence(one.event, one.origin) for one in delivered(events)), rules)  # type: ignore[arg-type]
    return Member.model_validate_json(found.model_dump_json())


def transitions_of(sequences: Sequence[object], rollout_id: str) -> list[Transition]:
    mine = [t for s in sequences if s.rollout_id == rollout_id for t in s.transitions]  # type: ignore[attr-defined]
    return sorted(mine, key=lambda transition: transition.call_id)


def test_identical_by_hand_with_grpo() -> None:
    # Mean 1, sample deviation sqrt(0.25² + 0.25²): every step ±0.25 / (0.3536 + 1e-6).
    expected = 0.25 / (0.125**0.5 + 1e-6)
    credited = advantages(strategy_of("identical").assign_credit([SHORT, LONG], ADVANTAGES["grpo"]))
    assert credited[0] == pytest.approx([expected] * 2, abs=1e-15)
    assert credited[1] == pytest.approx([-expected] * 3, abs=1e-15)


def test_identical_by_hand_with_rloo() -> None:
    credited = strategy_of("identical").assign_credit([SHORT, LONG], ADVANTAGES["rloo"])
    assert advantages(credited) == [[0.5, 0.5], [-0.5, -0.5, -0.5]]


def test_step_group_with_grpo_divides_rollouts_and_states_by_their_own_deviations() -> None:
    # Rollouts ±1/sqrt(2) from each other; so are the two visitors of s0 and of s1; nobody else was in s2.
    credited = advantages(strategy_of(STEP_GROUP).assign_credit([SHORT, LONG], ADVANTAGES["grpo"]))
    half = 0.5**0.5
    assert credited[0] == pytest.approx([2 * half, 2 * half], abs=2e-5)
    assert credited[1] == pytest.approx([-2 * half, -half, -2 * half], abs=2e-5)


def test_step_group_weighs_the_steps_part() -> None:
    credited = strategy_of(STEP_GROUP | {"step_weight": 2.0}).assign_credit([SHORT, LONG], ADVANTAGES["dr_grpo"])
    assert advantages(credited) == [[0.625, 0.75], [-0.625, -0.25, -0.75]]


def test_a_rollout_that_comes_back_to_a_state_weighs_as_much_there_as_one_that_does_not() -> None:
    # Returns to go in s: 1 for the first rollout; 0, 0 and 0 for the second: the mean is 1/2, not 1/4.
    back = [episode_of([0.0], 1.0, ["s"]), episode_of([0.0, 0.0, 0.0], 0.0, ["s", "s", "s"])]
    credited = strategy_of({"name": "step_group", "gamma": 1.0}).assign_credit(back, ADVANTAGES["dr_grpo"])
    assert advantages(credited) == [[1.0], [-1.0, -1.0, -1.0]]


def test_a_state_that_one_rollout_alone_visits_twice_compares_nothing() -> None:
    alone = [episode_of([1.0, 0.0], 0.0, ["s", "s"]), episode_of([0.0], 1.0, ["other"])]
    credited = strategy_of({"name": "step_group", "gamma": 1.0}).assign_credit(alone, ADVANTAGES["grpo"])
    assert advantages(credited) == [[0.0, 0.0], [0.0]]


def test_gae_by_hand_with_recorded_values() -> None:
    # d1 = 2 - 1 = 1; d0 = 1 + 0.5 * 1 - 0.5 = 1; A0 = 1 + 0.5 * 0.5 * 1.
    episode = episode_of([1.0, 2.0], 0.0, values_T=[0.5, 1.0])
    [credited] = strategy_of(GAE | {"values": "recorded"}).assign_credit([episode], ADVANTAGES["grpo"])
    assert credited == [StepCredit(1.75, 1.25, 0.5), StepCredit(2.0, 1.0, 1.0)]


def test_gae_takes_the_other_rollouts_returns_as_values_by_state_then_by_number_then_zero() -> None:
    credited = strategy_of(GAE).assign_credit([SHORT, LONG], ADVANTAGES["dr_grpo"])
    # s0 and s1 are in both; for s2 stands the other rollout's second step.
    assert [[step.value for step in of_rollout] for of_rollout in credited] == [[0.375, 0.5], [0.75, 1.0, 1.0]]
    longer = [episode_of([0.0], 1.0, ["a"]), episode_of([0.0, 0.0], 0.5, ["b", "c"])]
    values = strategy_of({"name": "gae", "gamma": 1.0}).assign_credit(longer, ADVANTAGES["grpo"])
    assert [step.value for step in values[1]] == [1.0, 0.0]


def test_gae_of_a_rollout_alone_in_its_group_compares_nothing() -> None:
    [credited] = strategy_of("gae").assign_credit([SHORT], ADVANTAGES["grpo"])
    assert [(step.advantage, step.value) for step in credited] == [(0.0, None), (0.0, None)]


def test_gae_says_how_many_recorded_values_are_missing() -> None:
    episode = episode_of([0.0, 0.0, 0.0], 1.0, values_T=[0.5, None, None])
    assert strategy_of("gae").missing(episode) is None
    assert (
        strategy_of({"name": "gae", "values": "recorded"}).missing(episode) == "2 of 3 calls without a recorded value"
    )


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ("gea", "strategy 'gea' is not one of identical, discounted, step, gae, step_group"),
        ({"gamma": 0.9}, "strategy None is not one of"),
        ({"name": ["gae"]}, "is not one of"),
        ({"name": "discounted", "gama": 0.9}, "strategy discounted (parameters: gamma): gama: Extra inputs"),
        ({"name": "discounted", "gamma": 1.5}, "gamma: Input should be less than or equal to 1"),
        ({"name": "identical", "gamma": 1.0}, "strategy identical (parameters: none): gamma"),
        ({"name": "gae", "values": "critic"}, "strategy gae (parameters: gamma, lambda, values): values"),
    ],
)
def test_an_unknown_name_or_parameter_is_told(said: object, complaint: str) -> None:
    with pytest.raises(ValidationError) as error:
        CreditSection.model_validate({"strategy": said})
    assert complaint in str(error.value)


def test_step_group_with_an_advantage_that_compares_nothing_is_refused_for_an_agent_too() -> None:
    with pytest.raises(
        ValidationError, match="step_group compares rollouts with each other, reinforce_plus_plus does not"
    ):
        CreditSection.model_validate({"strategy": "step_group", "advantage": "reinforce_plus_plus"})
    with pytest.raises(ValidationError, match="step_group compares"):
        CreditSection.model_validate(
            {"agents": [{"name": "a", "strategy": "step_group"}], "advantage": "reinforce_plus_plus"}
        )


@pytest.mark.parametrize("said", ["identical", "discounted", "step", "gae", "step_group", GAE, STEP_GROUP])
def test_a_strategy_survives_the_store(said: object) -> None:
    strategy = strategy_of(said)  # type: ignore[arg-type]
    part = Part(strategy=strategy, episode=LONG)
    assert Part.model_validate_json(part.model_dump_json()) == part


@pytest.mark.parametrize("said", ["identical", "discounted", "step", "gae", "step_group"])
def test_rollouts_that_did_the_same_for_the_same_tell_nothing(said: str) -> None:
    same = [SHORT, SHORT, SHORT]
    assert not any(map(any, advantages(strategy_of(said).assign_credit(same, ADVANTAGES["grpo"]))))


# Laws

few = settings(max_examples=30, deadline=None)
numbers = st.integers(-8, 8).map(lambda n: n / 4)


@st.composite
def episodes(draw: st.DrawFn) -> Episode:
    own = draw(st.lists(numbers, min_size=1, max_size=5))
    states = draw(st.lists(st.sampled_from("abc"), min_size=len(own), max_size=len(own)))
    values = draw(st.lists(numbers, min_size=len(own), max_size=len(own)))
    return episode_of(own, draw(numbers), states, values)


groups = st.lists(episodes(), min_size=2, max_size=6)
parameters = st.sampled_from([0.0, 0.5, 0.9, 1.0])
every = st.one_of(
    st.sampled_from([strategy_of("identical"), strategy_of("step")]),
    parameters.map(lambda gamma: strategy_of({"name": "discounted", "gamma": gamma})),
    parameters.map(lambda gamma: strategy_of({"name": "step_group", "gamma": gamma})),
    st.tuples(parameters, parameters, st.sampled_from(["recorded", "group_state"])).map(
        lambda said: strategy_of({"name": "gae", "gamma": said[0], "lambda": said[1], "values": said[2]})
    ),
)
comparing = st.sampled_from([advantage for advantage in ADVANTAGES.values() if advantage.compares])


@few
@given(groups)
def test_identical_is_the_plain_formula_over_the_totals_to_the_bit(group: list[Episode]) -> None:
    totals = [episode.total for episode in group]
    middle = math.fsum(totals) / len(totals)
    std = math.sqrt(math.fsum((total - middle) ** 2 for total in totals) / (len(totals) - 1))
    credited = strategy_of("identical").assign_credit(group, ADVANTAGES["grpo"])
    for total, steps in zip(totals, credited, strict=True):
        expected = (total - middle) / (std + 1e-6) if max(totals) > min(totals) else 0.0
        assert steps == [StepCredit(total, expected)] * len(steps)


@few
@given(every, groups, comparing, st.data())
def test_permuting_the_rollouts_permutes_their_credit_to_the_bit(
    strategy: Strategy, group: list[Episode], baseline: object, data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(len(group))))
    straight = strategy.assign_credit(group, baseline)  # type: ignore[arg-type]
    assert strategy.assign_credit([group[n] for n in order], baseline) == [straight[n] for n in order]  # type: ignore[arg-type]


@few
@given(st.sampled_from(["identical", "discounted", "step"]), groups, comparing)
def test_advantages_sum_to_zero_when_each_rollout_counts_once(
    said: str, group: list[Episode], baseline: object
) -> None:
    credited = strategy_of(said).assign_credit(group, baseline)  # type: ignore[arg-type]
    assert math.fsum(map(step_mean, advantages(credited))) == pytest.approx(0, abs=1e-9)


@few
@given(groups, comparing, parameters)
def test_step_advantages_sum_to_zero_in_every_state_when_each_rollout_counts_once(
    group: list[Episode], baseline: object, gamma: float
) -> None:
    def credited(weight: float) -> list[list[float]]:
        said = {"name": "step_group", "gamma": gamma, "step_weight": weight}
        return advantages(strategy_of(said).assign_credit(group, baseline))  # type: ignore[arg-type]

    rollouts, both = credited(0.0), credited(1.0)
    assert rollouts == advantages(strategy_of("identical").assign_credit(group, baseline))  # type: ignore[arg-type]
    for state in "abc":
        of_rollouts = [
            [
                whole - part
                for whole, part, step in zip(both[g], rollouts[g], episode.steps, strict=True)
                if step.state == state
            ]
            for g, episode in enumerate(group)
        ]
        assert math.fsum(step_mean(found) for found in of_rollouts if found) == pytest.approx(0, abs=1e-9)


@few
@given(groups, comparing, st.integers(1, 20))
def test_more_steps_of_one_rollout_change_no_bit_of_the_others_credit(
    group: list[Episode], baseline: object, more: int
) -> None:
    first = group[0]
    longer = episode_of([step.own for step in first.steps] + [0.0] * more, first.outcome)
    for said in ("identical", {"name": "step_group", "step_weight": 0.0}):
        straight = strategy_of(said).assign_credit(group, baseline)  # type: ignore[arg-type]
        changed = strategy_of(said).assign_credit([longer, *group[1:]], baseline)  # type: ignore[arg-type]
        assert advantages(changed)[1:] == advantages(straight)[1:]
        assert advantages(changed)[0][0] == advantages(straight)[0][0]


@few
@given(st.sampled_from(["identical", "step"]), groups, comparing, numbers)
def test_an_outcome_that_is_better_for_everybody_changes_no_advantage(
    said: str, group: list[Episode], baseline: object, shift: float
) -> None:
    shifted = [
        episode_of([step.own for step in episode.steps], episode.outcome + shift, [s.state for s in episode.steps])
        for episode in group
    ]
    before = advantages(strategy_of(said).assign_credit(group, baseline))  # type: ignore[arg-type]
    after = advantages(strategy_of(said).assign_credit(shifted, baseline))  # type: ignore[arg-type]
    for one, other in zip(before, after, strict=True):
        assert other == pytest.approx(one, abs=1e-9)


@few
@given(every, groups, st.sampled_from([0.5, 2.0, 4.0]))
def test_rewards_and_values_in_another_unit_give_advantages_in_that_unit(
    strategy: Strategy, group: list[Episode], factor: float
) -> None:
    scaled = [
        episode_of(
            [step.own * factor for step in episode.steps],
            episode.outcome * factor,
            [step.state for step in episode.steps],
            [None if step.value is None else step.value * factor for step in episode.steps],
        )
        for episode in group
    ]
    before = advantages(strategy.assign_credit(group, ADVANTAGES["dr_grpo"]))
    after = advantages(strategy.assign_credit(scaled, ADVANTAGES["dr_grpo"]))
    for one, other in zip(before, after, strict=True):
        assert other == pytest.approx([advantage * factor for advantage in one], abs=1e-9)


@few
@given(groups, parameters)
def test_gae_with_lambda_one_is_the_return_to_go_less_the_value(group: list[Episode], gamma: float) -> None:
    togo = strategy_of({"name": "discounted", "gamma": gamma}).assign_credit(group, ADVANTAGES["dr_grpo"])
    found = strategy_of({"name": "gae", "gamma": gamma, "lambda": 1.0, "values": "recorded"}).assign_credit(
        group, ADVANTAGES["dr_grpo"]
    )
    for episode, plain, estimated in zip(group, togo, found, strict=True):
        expected = [step.return_ - (own.value or 0.0) for step, own in zip(plain, episode.steps, strict=True)]
        assert [step.advantage for step in estimated] == pytest.approx(expected, abs=1e-9)


@few
@given(groups, comparing)
def test_without_a_discount_and_intermediate_rewards_all_returns_are_identical(
    group: list[Episode], baseline: object
) -> None:
    plain = [episode_of([0.0] * len(e.steps), e.outcome, [s.state for s in e.steps]) for e in group]
    identical = strategy_of("identical").assign_credit(plain, baseline)  # type: ignore[arg-type]
    assert strategy_of({"name": "discounted", "gamma": 1.0}).assign_credit(plain, baseline) == identical  # type: ignore[arg-type]
    assert strategy_of("step").assign_credit(plain, baseline) == identical  # type: ignore[arg-type]
