"""The event becomes arrays, or says why not."""

from collections.abc import Callable

import pytest

from leyden.events import SequenceCredited
from leyden.trainer.core.sequences import to_sequence

Make = Callable[..., SequenceCredited]


def test_only_actions_are_in_the_mask_and_carry_credit(sequence: Make) -> None:
    found = to_sequence(sequence([1, 2, 3, 4, 5, 6], [(2, 3), (4, 6)], advantage=0.5, version=3, temperature=0.8))
    assert found.mask_T.tolist() == [False, False, True, False, True, True]
    assert found.advantages_T.tolist() == [0.0, 0.0, 0.5, 0.0, 0.5, 0.5]
    assert found.temperature_T[4] == pytest.approx(0.8)
    assert (found.action_tokens, found.oldest_version, found.has_signal) == (3, 3, True)
    assert found.origins == ("model-calls.v1/0/2", "model-calls.v1/0/4")


def test_advantage_scale_of_zero_leaves_no_signal(sequence: Make) -> None:
    assert not to_sequence(sequence([1, 2, 3], [(1, 3)]), advantage_scale=0.0).has_signal


def test_a_greedy_action_is_context(sequence: Make) -> None:
    found = to_sequence(sequence([1, 2, 3], [(1, 3)], temperature=0.0))
    assert (found.action_tokens, found.oldest_version) == (0, None)


@pytest.mark.parametrize(
    ("spans", "reason"),
    [
        ([(0, 2)], "does not fit"),
        ([(1, 4)], "does not fit"),
        ([(2, 1)], "does not fit"),
        ([(1, 3), (2, 3)], "overlaps"),
    ],
)
def test_spans_that_cannot_be_are_refused(sequence: Make, spans: list[tuple[int, int]], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        to_sequence(sequence([1, 2, 3], spans))


def test_logprobs_must_match_the_tokens(sequence: Make) -> None:
    with pytest.raises(ValueError, match="2 behaviour logprobs for 3 tokens"):
        to_sequence(sequence([1, 2, 3], [(1, 3)], behaviour=[-1.0, -1.0]))
