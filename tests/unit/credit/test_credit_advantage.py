"""Advantages by hand, as laws, and against the formulas of the field computed independently."""

import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyden.credit.core.advantage import ADVANTAGES
from leyden.credit.core.advantage.stats import is_flat, mean, sample_std

returns = st.lists(st.floats(-100, 100), min_size=2, max_size=16).filter(lambda values: not is_flat(values))


def test_grpo_by_hand() -> None:
    # mean 0.5, sample variance (4 * 0.25) / 3
    expected = 0.5 / ((1 / 3) ** 0.5 + 1e-6)
    assert ADVANTAGES["grpo"]([0, 1, 0, 1]) == pytest.approx([-expected, expected, -expected, expected], abs=1e-12)


def test_dr_grpo_by_hand() -> None:
    assert ADVANTAGES["dr_grpo"]([0, 1, 2]) == [-1, 0, 1]


def test_rloo_by_hand() -> None:
    assert ADVANTAGES["rloo"]([1, 2, 6]) == [1 - 4, 2 - 3.5, 6 - 1.5]


@given(returns)
def test_grpo_divides_by_the_sample_deviation_as_torch_std_does(values: list[float]) -> None:
    oracle = (np.array(values) - np.mean(values)) / (np.std(values, ddof=1) + 1e-6)
    np.testing.assert_allclose(ADVANTAGES["grpo"](values), oracle, rtol=1e-9, atol=1e-6)


@given(returns)
def test_rloo_compares_each_member_with_the_mean_of_the_others(values: list[float]) -> None:
    oracle = [value - mean([*values[:n], *values[n + 1 :]]) for n, value in enumerate(values)]
    assert ADVANTAGES["rloo"](values) == pytest.approx(oracle, abs=1e-9)


@pytest.mark.parametrize("name", ADVANTAGES)
@given(values=returns)
def test_advantages_of_a_group_sum_to_zero(name: str, values: list[float]) -> None:
    assert sum(ADVANTAGES[name](values)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", ADVANTAGES)
@given(values=returns, data=st.data())
def test_the_order_of_the_members_changes_no_bit_of_an_advantage(
    name: str, values: list[float], data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(len(values))))
    straight = ADVANTAGES[name](values)
    assert ADVANTAGES[name]([values[n] for n in order]) == [straight[n] for n in order]


@given(returns)
def test_the_spread_is_that_of_a_sample(values: list[float]) -> None:
    assert sample_std(values) == pytest.approx(statistics.stdev(values), rel=1e-9)


@pytest.mark.parametrize("values", [[], [1.0], [0.0, 0.0], [0.1 + 0.2, 0.3], [1e9, 1e9 + 0.1]])
def test_what_differs_by_rounding_only_is_flat(values: list[float]) -> None:
    assert is_flat(values)


@pytest.mark.parametrize("values", [[0.0, 1e-6], [1.0, 2.0]])
def test_what_differs_is_not_flat(values: list[float]) -> None:
    assert not is_flat(values)
