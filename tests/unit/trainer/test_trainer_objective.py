"""The objective against numbers computed by hand."""

import math

import pytest
import torch

from leyden.trainer.core.objective import (
    Aggregation,
    Objective,
    RatioBase,
    importance_weights,
    k3,
    policy_loss,
    surrogate,
    token_weights,
)

PLAIN = Objective(clip_low=0.2, clip_high=0.3, dual_clip=3.0)


def of(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_clip_holds_a_gain_at_the_high_bound_and_a_loss_at_the_low_bound() -> None:
    value, held = surrogate(of(1.5, 1.1, 0.5, 0.9), of(2.0, 2.0, -1.0, -1.0), PLAIN)
    assert value.tolist() == pytest.approx([2.6, 2.2, -0.8, -0.9])
    assert held.tolist() == [True, False, True, False]


def test_clip_never_hides_a_ratio_that_moved_the_wrong_way() -> None:
    value, held = surrogate(of(0.5, 1.5), of(2.0, -1.0), PLAIN)
    assert value.tolist() == pytest.approx([1.0, -1.5])
    assert held.tolist() == [False, False]


def test_dual_clip_bounds_a_negative_advantage() -> None:
    value, held = surrogate(of(10.0, 10.0), of(-1.0, 1.0), PLAIN)
    assert value.tolist() == pytest.approx([-3.0, 1.3])
    assert held.tolist() == [True, True]
    unbounded, _ = surrogate(of(10.0), of(-1.0), Objective(dual_clip=None))
    assert unbounded.tolist() == [-10.0]


def test_importance_weight_is_the_ratio_up_to_its_cap_and_has_no_gradient() -> None:
    logprobs = of(-1.0, -1.0).requires_grad_()
    weights = importance_weights(logprobs, of(-1.0 - math.log(1.5), -1.0 - math.log(5.0)), 2.0)
    assert weights.tolist() == pytest.approx([1.5, 2.0])
    assert not weights.requires_grad


def test_one_step_gradient_is_weight_times_advantage_times_importance() -> None:
    logprobs = of(-1.0, -2.0).requires_grad_()
    loss, terms = policy_loss(
        logprobs,
        behaviour_T=of(-1.0 - math.log(1.5), -2.0 + math.log(2.0)),
        advantages_T=of(2.0, -1.0),
        weights_T=of(0.5, 0.25),
        objective=PLAIN,
    )
    loss.backward()
    assert float(loss.detach()) == pytest.approx(-(0.5 * 1.5 * 2.0 + 0.25 * 0.5 * -1.0))
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == pytest.approx([-1.5, 0.125])
    assert terms.importance_T.tolist() == pytest.approx([1.5, 0.5])
    assert not terms.clipped_T.any()


def test_behaviour_base_clips_on_the_engines_probability_instead() -> None:
    logprobs = of(-1.0, -1.0).requires_grad_()
    behaviour = of(-1.0 - math.log(2.0), -1.0 - math.log(1.1))
    loss, terms = policy_loss(
        logprobs,
        behaviour_T=behaviour,
        advantages_T=of(1.0, 1.0),
        weights_T=of(1.0, 1.0),
        objective=Objective(clip_high=0.3, ratio_base=RatioBase.BEHAVIOUR),
    )
    loss.backward()
    assert float(loss.detach()) == pytest.approx(-(1.3 + 1.1))
    assert logprobs.grad is not None and logprobs.grad.tolist() == pytest.approx([0.0, -1.1])
    assert terms.clipped_T.tolist() == [True, False]


def test_k3_is_zero_at_the_reference_and_positive_elsewhere() -> None:
    assert k3(of(-1.0, -1.0, -1.0), of(-1.0, -1.0 + math.log(2.0), -1.0 - math.log(2.0))).tolist() == pytest.approx(
        [0.0, 2.0 - math.log(2.0) - 1.0, 0.5 + math.log(2.0) - 1.0]
    )


def test_kl_enters_the_loss_with_its_weight() -> None:
    logprobs, reference = of(-1.0), of(-1.0 + math.log(2.0))
    loss, _ = policy_loss(
        logprobs,
        behaviour_T=of(-1.0),
        advantages_T=of(0.0),
        weights_T=of(0.5),
        objective=Objective(kl=0.1),
        reference_T=reference,
    )
    assert float(loss) == pytest.approx(0.5 * 0.1 * (1.0 - math.log(2.0)))


def test_aggregations_weigh_tokens_as_their_names_say() -> None:
    rollouts, lengths = ["a", "a", "b"], [2, 6, 2]
    assert token_weights(rollouts, lengths, Aggregation.TOKEN).tolist() == pytest.approx([0.1, 0.1, 0.1])
    assert token_weights(rollouts, lengths, Aggregation.SEQUENCE).tolist() == pytest.approx([1 / 6, 1 / 18, 1 / 6])
    assert token_weights(rollouts, lengths, Aggregation.ROLLOUT).tolist() == pytest.approx([1 / 16, 1 / 16, 1 / 4])


def test_rollout_mean_does_not_depend_on_how_a_rollout_fell_into_sequences() -> None:
    whole = token_weights(["a", "b"], [8, 2], Aggregation.ROLLOUT)
    split = token_weights(["a", "a", "b"], [3, 5, 2], Aggregation.ROLLOUT)
    assert split.tolist() == pytest.approx([whole[0], whole[0], whole[1]])
