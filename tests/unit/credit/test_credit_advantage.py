"""Advantages by hand, as laws over ragged groups, and against the formulas of the field computed independently."""

import math
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyden.credit.core.advantage import ADVANTAGES
from leyden.credit.core.advantage.stats import centre, is_flat, mean, sample_std, spread, step_mean

COMPARING = [name for name, advantage in ADVANTAGES.items() if advantage.compares]

DOCS = Path(__file__).parents[3] / "docs" / "credit.md"
few = settings(max_examples=30, deadline=None)
returns = st.lists(st.floats(-100, 100), min_size=2, max_size=16).filter(lambda values: not is_flat(single(values)))
ragged = st.lists(
    st.lists(st.integers(-400, 400).map(lambda n: n / 8), min_size=1, max_size=6), min_size=2, max_size=8
).filter(lambda values: not is_flat(values))


def single(values_G: Sequence[float]) -> list[list[float]]:
    return [[value] for value in values_G]


def of_returns(name: str, values_G: Sequence[float]) -> list[float]:
    return [advantage for (advantage,) in ADVANTAGES[name](single(values_G))]


def test_grpo_by_hand() -> None:
    # mean 0.5, sample variance (4 * 0.25) / 3
    expected = 0.5 / ((1 / 3) ** 0.5 + 1e-6)
    assert of_returns("grpo", [0, 1, 0, 1]) == pytest.approx([-expected, expected, -expected, expected], abs=1e-12)


def test_dr_grpo_by_hand() -> None:
    assert of_returns("dr_grpo", [0, 1, 2]) == [-1, 0, 1]


def test_rloo_by_hand() -> None:
    assert of_returns("rloo", [1, 2, 6]) == [1 - 4, 2 - 3.5, 6 - 1.5]


def test_reinforce_plus_plus_by_hand_has_no_group_baseline() -> None:
    assert of_returns("reinforce_plus_plus", [1, 2, 6]) == [1, 2, 6]


def test_reinforce_plus_plus_baseline_by_hand_subtracts_the_mean() -> None:
    assert of_returns("reinforce_plus_plus_baseline", [1, 2, 6]) == [-2, -1, 3]


@pytest.mark.parametrize("name", ADVANTAGES)
def test_the_table_in_the_docs_holds(name: str) -> None:
    [row] = [line for line in DOCS.read_text().splitlines() if line.startswith((f"| `{name}` |", f"| `{name}` ("))]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert [float(cell) for cell in cells[2:]] == pytest.approx(of_returns(name, [0, 1, 1, 2]), abs=5e-6)


def test_a_rollout_weighs_the_same_whatever_its_number_of_steps() -> None:
    # Step means 1 and 4, so the mean is 2.5 and not (0 + 2 + 4) / 3.
    assert ADVANTAGES["dr_grpo"]([[0, 2], [4]]) == [[-2.5, -0.5], [1.5]]
    # The first rollout's variance term is (2.5² + 0.5²) / 2, the second's 1.5².
    scale = (6.5 / 2 + 2.25) ** 0.5 + 1e-6
    first, second = ADVANTAGES["grpo"]([[0, 2], [4]])
    assert [*first, *second] == pytest.approx([-2.5 / scale, -0.5 / scale, 1.5 / scale], abs=1e-12)
    assert ADVANTAGES["rloo"]([[0, 2], [4]]) == [[-4, -2], [3]]


@few
@given(returns)
def test_grpo_divides_by_the_sample_deviation_as_torch_std_does(values: list[float]) -> None:
    oracle = (np.array(values) - np.mean(values)) / (np.std(values, ddof=1) + 1e-6)
    np.testing.assert_allclose(of_returns("grpo", values), oracle, rtol=1e-9, atol=1e-6)


@few
@given(returns)
def test_rloo_compares_each_member_with_the_mean_of_the_others(values: list[float]) -> None:
    oracle = [value - mean([*values[:n], *values[n + 1 :]]) for n, value in enumerate(values)]
    assert of_returns("rloo", values) == pytest.approx(oracle, abs=1e-9)


@pytest.mark.parametrize("name", COMPARING)
@few
@given(values=ragged)
def test_advantages_of_a_group_sum_to_zero_when_each_rollout_counts_once(name: str, values: list[list[float]]) -> None:
    assert sum(map(step_mean, ADVANTAGES[name](values))) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", ADVANTAGES)
@few
@given(values=ragged, data=st.data())
def test_the_order_of_the_members_changes_no_bit_of_an_advantage(
    name: str, values: list[list[float]], data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(len(values))))
    straight = ADVANTAGES[name](values)
    assert ADVANTAGES[name]([values[n] for n in order]) == [straight[n] for n in order]


@pytest.mark.parametrize("name", ADVANTAGES)
@few
@given(values=returns, steps=st.lists(st.integers(1, 50), min_size=16, max_size=16))
def test_equal_returns_within_a_rollout_give_the_numbers_of_one_step_to_the_bit(
    name: str, values: list[float], steps: list[int]
) -> None:
    repeated = ADVANTAGES[name]([[value] * count for value, count in zip(values, steps, strict=False)])
    expected = of_returns(name, values)
    assert repeated == [[value] * count for value, count in zip(expected, steps, strict=False)]


@pytest.mark.parametrize("name", ADVANTAGES)
@few
@given(values=ragged, times=st.integers(2, 5))
def test_a_longer_rollout_of_the_same_returns_changes_nobody_elses_advantage(
    name: str, values: list[list[float]], times: int
) -> None:
    straight, longer = ADVANTAGES[name](values), ADVANTAGES[name]([values[0] * times, *values[1:]])
    for before, after in zip([straight[0] * times, *straight[1:]], longer, strict=True):
        assert after == pytest.approx(before, abs=1e-9)


@pytest.mark.parametrize("name", COMPARING)
@few
@given(values=ragged, shift=st.integers(-64, 64))
def test_a_constant_for_everybody_changes_no_advantage(name: str, values: list[list[float]], shift: int) -> None:
    shifted = ADVANTAGES[name]([[value + shift for value in values_T] for values_T in values])
    for before, after in zip(ADVANTAGES[name](values), shifted, strict=True):
        assert after == pytest.approx(before, abs=1e-9)


@pytest.mark.parametrize("name", ADVANTAGES)
@few
@given(values=ragged, power=st.integers(0, 6))
def test_the_scale_of_the_rewards_scales_the_advantages_and_those_of_grpo_not_at_all(
    name: str, values: list[list[float]], power: int
) -> None:
    factor = 2.0**power
    scaled = ADVANTAGES[name]([[value * factor for value in values_T] for values_T in values])
    expected = 1.0 if name == "grpo" else factor
    for before, after in zip(ADVANTAGES[name](values), scaled, strict=True):
        assert after == pytest.approx([advantage * expected for advantage in before], rel=1e-4, abs=1e-9)


@few
@given(returns)
def test_the_spread_is_that_of_a_sample(values: list[float]) -> None:
    assert sample_std(values) == pytest.approx(statistics.stdev(values), rel=1e-9)


@few
@given(ragged)
def test_mean_and_spread_are_those_of_a_sample_in_which_each_rollout_weighs_one(values: list[list[float]]) -> None:
    flattened = np.concatenate(values)
    weights = np.concatenate([np.full(len(values_T), 1 / len(values_T)) for values_T in values])
    middle = np.average(flattened, weights=weights)
    variance = np.average((flattened - middle) ** 2, weights=weights) * len(values) / (len(values) - 1)
    assert centre(values) == pytest.approx(middle, abs=1e-9)
    assert spread(values) == pytest.approx(math.sqrt(variance), abs=1e-9)


@pytest.mark.parametrize("values", [[], [1.0], [0.0, 0.0], [0.1 + 0.2, 0.3], [1e9, 1e9 + 0.1]])
def test_what_differs_by_rounding_only_is_flat(values: list[float]) -> None:
    assert is_flat(single(values))


@pytest.mark.parametrize("values", [[0.0, 1e-6], [1.0, 2.0]])
def test_what_differs_is_not_flat(values: list[float]) -> None:
    assert not is_flat(single(values))


def test_rollouts_with_the_same_series_are_flat_though_their_steps_differ() -> None:
    assert is_flat([[0.5, 1.0], [0.5, 1.0]])
    assert not is_flat([[0.5, 1.0], [1.0, 0.5]])
    assert not is_flat([[0.5, 1.0], [1.0]])


@pytest.mark.parametrize("name", COMPARING)
@pytest.mark.parametrize("values", [[[3.0, 4.0]], [[1.0], [1.0, 1.0]], [[0.5, 1.0], [0.5, 1.0]]])
def test_a_group_without_differences_gives_zero(name: str, values: list[list[float]]) -> None:
    assert not any(advantage for advantages in ADVANTAGES[name](values) for advantage in advantages)
