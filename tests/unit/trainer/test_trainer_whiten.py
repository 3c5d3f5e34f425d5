"""Advantages whitened over a batch, and where the trainer does it."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyden.events import SequenceCredited
from leyden.trainer.core.revisions import ReadyGroup
from leyden.trainer.core.sequences import TrainSequence, to_sequence
from leyden.trainer.core.whiten import whiten, whitened
from leyden.trainer.learner import Learner
from leyden.trainer.model import PolicyModel
from leyden.trainer.settings import TrainerEnvironment, TrainerSettings


def arrays(advantages: list[float], mask: list[bool], name: str = "r") -> TrainSequence:
    tokens = len(mask)
    return TrainSequence(
        sequence_id=name,
        group_id="g",
        rollout=(name, 0),
        token_ids_T=np.arange(tokens, dtype=np.int32),
        mask_T=np.array(mask),
        behaviour_logprobs_T=np.zeros(tokens, np.float32),
        advantages_T=np.array(advantages, np.float32),
        temperature_T=np.ones(tokens, np.float32),
        versions_T=np.zeros(tokens, np.int32),
        reward=0.0,
        origins=(),
    )


def test_by_hand() -> None:
    # Mean 2 and sample variance 1 of 1, 2, 3; what the mask leaves out counts for nothing and becomes 0.
    found = whiten(np.array([1.0, 9.0, 2.0, 3.0]), np.array([True, False, True, True]))
    assert found.tolist() == pytest.approx([-1, 0, 0, 1], abs=1e-7)


def test_weights_by_hand() -> None:
    # A short rollout of one token worth 1, a long one of three worth 0: the mean is 1/2 and not 1/4.
    found = whiten(np.array([1.0, 0.0, 0.0, 0.0]), np.ones(4, bool), np.array([1 / 2, 1 / 6, 1 / 6, 1 / 6]))
    scale = (0.25 / (1 - (1 / 4 + 3 / 36)) + 1e-8) ** 0.5
    assert found.tolist() == pytest.approx([0.5 / scale, *[-0.5 / scale] * 3])


@pytest.mark.parametrize("mask", [[False, False], [True, False]])
def test_fewer_than_two_entries_have_no_spread(mask: list[bool]) -> None:
    assert whiten(np.array([3.0, 4.0]), np.array(mask)).tolist() == [0.0, 0.0]


def test_equal_advantages_become_nothing() -> None:
    assert not whiten(np.full(5, 0.7), np.ones(5, bool)).any()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-10, 10), min_size=2, max_size=20), st.data())
def test_mean_is_zero_under_any_weights(values: list[float], data: st.DataObject) -> None:
    weights = np.array(data.draw(st.lists(st.floats(0.1, 1), min_size=len(values), max_size=len(values))))
    found = whiten(np.array(values), np.ones(len(values), bool), weights)
    assert float((found * weights).sum()) == pytest.approx(0, abs=1e-6)


def test_a_batch_is_whitened_as_one_and_context_stays_zero() -> None:
    first = arrays([0.0, 1.0, 1.0], [False, True, True], "a")
    second = arrays([0.0, 3.0], [False, True], "b")
    found = whitened([first, second], np.array([0.25, 0.5]))
    together = np.concatenate([one.advantages_T for one in found])
    assert together[[0, 3]].tolist() == [0.0, 0.0]
    assert together[1] == together[2] == pytest.approx(-together[4])
    assert [one.sequence_id for one in found] == ["a", "b"]
    assert first.advantages_T.tolist() == [0.0, 1.0, 1.0], "the group that waits is not changed"


def test_the_control_with_scale_zero_stays_without_advantages() -> None:
    found = whitened([arrays([1.0, 3.0], [True, True])], np.array([0.5]), scale=0.0)
    assert not found[0].advantages_T.any()


def test_a_batch_without_a_sequence_stays_one() -> None:
    assert whitened([], np.zeros(0)) == []


def batch_of(make: Callable[..., SequenceCredited], advantages: Sequence[float], name: str = "g") -> list[ReadyGroup]:
    events = [
        make([5 + n, 6, 7], [(1, 3)], group=name, index=n, of=len(advantages), advantage=advantage)
        for n, advantage in enumerate(advantages)
    ]
    return [ReadyGroup(group_id=name, sequences=tuple(map(to_sequence, events)), left_out=0, zero_variance=False)]


def test_the_learner_whitens_when_told_so_and_only_then(
    tiny_llama: Path, sequence: Callable[..., SequenceCredited]
) -> None:
    def step(advantages: Sequence[float], **changes: bool) -> dict[str, float]:
        settings = TrainerSettings.model_validate({"row_tokens": 64, **changes})
        model = PolicyModel(settings, TrainerEnvironment(model=str(tiny_llama), device="cpu", threads=1))
        return Learner(model, settings).step(batch_of(sequence, advantages), 0).metrics

    assert step([0.0, 1.0, 1.0])["sequences/computed"] == 2.0
    assert step([0.0, 1.0, 1.0], whiten_advantages=True)["sequences/computed"] == 3.0, "the 0 is worse than the mean"
    alike = step([1.0, 1.0, 1.0], whiten_advantages=True)
    assert (alike["sequences/computed"], alike["optimiser/skipped"]) == (0.0, 1.0)


@settings(max_examples=200, deadline=None)
@given(
    value=st.floats(-1e9, 1e9, width=32),
    count=st.integers(2, 400),
    data=st.data(),
)
def test_a_flat_batch_is_exactly_nothing_whatever_its_value_and_weights(
    value: float, count: int, data: st.DataObject
) -> None:
    """Also where float32 rounds some of the values up and others down."""
    weights = np.array(data.draw(st.lists(st.floats(1e-6, 1), min_size=count, max_size=count)))
    up = np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    values = np.full(count, np.float32(value))
    values[up] = np.nextafter(values[up], np.float32(np.inf))
    assert not whiten(values.astype(np.float64), np.ones(count, bool), weights).any()


def test_small_differences_that_are_no_rounding_are_whitened() -> None:
    values = np.array([0.3, 0.3001, 0.3002], np.float32).astype(np.float64)
    assert whiten(values, np.ones(3, bool)).tolist() == pytest.approx([-1, 0, 1], abs=0.5)


def test_a_flat_batch_makes_no_step(tiny_llama: Path, sequence: Callable[..., SequenceCredited]) -> None:
    settings = TrainerSettings.model_validate({"row_tokens": 64, "whiten_advantages": True})
    model = PolicyModel(settings, TrainerEnvironment(model=str(tiny_llama), device="cpu", threads=1))
    outcome = Learner(model, settings).step(batch_of(sequence, [0.3] * 7), 0)
    assert (outcome.skipped, outcome.untrained) == (True, {"g": "no_signal"})


@given(
    st.floats(-1e3, 1e3),
    st.lists(st.floats(-4.0, 4.0), min_size=2, max_size=20),
    st.sampled_from([0.0, 1e-17, 1e-16, 1e-12, 1e-10]),
)
def test_rounding_is_no_signal_wherever_it_lies(centre: float, noise: list[float], size: float) -> None:
    """Around 0 too, where a baseline leaves it."""
    values = np.array([float(np.float32(centre)) + size * one for one in noise])
    assert not whiten(values, np.ones(len(noise), bool)).any()


@given(st.floats(1e-6, 1e3), st.sampled_from([0.0, 1.0, -1.0]))
def test_a_difference_above_rounding_is_a_signal(size: float, centre: float) -> None:
    found = whiten(np.array([centre * size, (centre + 1.0) * size]), np.ones(2, bool))
    assert found[0] < 0 < found[1]
