"""The loss and its objectives against numbers computed by hand."""

import math

import pytest
import torch

from leyden.trainer.core.learning_rate import Decay, learning_rate
from leyden.trainer.core.loss import (
    Aggregation,
    Importance,
    Kl,
    LossTerms,
    RatioBase,
    importance_weights,
    kl_estimate,
    row_loss,
    token_weights,
)
from leyden.trainer.core.objectives import ActionTokens, Clipped, Objective, objective_of
from leyden.trainer.core.objectives.base import clipped_value

LN = math.log


def of(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def tokens(
    *,
    logprobs: torch.Tensor,
    old: torch.Tensor | None = None,
    behaviour: torch.Tensor | None = None,
    advantages: torch.Tensor | None = None,
    sequence: tuple[int, ...] | None = None,
) -> ActionTokens:
    count = len(logprobs)
    old_A = old if old is not None else logprobs.detach()
    return ActionTokens(
        logprobs_A=logprobs,
        old_A=old_A,
        behaviour_A=behaviour if behaviour is not None else old_A,
        advantages_A=advantages if advantages is not None else torch.ones(count, dtype=torch.float64),
        sequence_A=torch.tensor(sequence or (0,) * count),
    )


def test_clip_holds_a_gain_at_the_high_bound_and_a_loss_at_the_low_bound() -> None:
    found = clipped_value(of(1.5, 1.1, 0.5, 0.9), of(2.0, 2.0, -1.0, -1.0), 0.2, 0.3, 3.0)
    assert found.value_A.tolist() == pytest.approx([2.6, 2.2, -0.8, -0.9])
    assert found.held_A.tolist() == [True, False, True, False]


def test_clip_never_hides_a_ratio_that_moved_the_wrong_way() -> None:
    found = clipped_value(of(0.5, 1.5), of(2.0, -1.0), 0.2, 0.3, 3.0)
    assert found.value_A.tolist() == pytest.approx([1.0, -1.5])
    assert found.held_A.tolist() == [False, False]


def test_dual_clip_bounds_a_negative_advantage() -> None:
    found = clipped_value(of(10.0, 10.0), of(-1.0, 1.0), 0.2, 0.3, 3.0)
    assert found.value_A.tolist() == pytest.approx([-3.0, 1.3])
    assert found.held_A.tolist() == [True, True]
    assert clipped_value(of(10.0), of(-1.0), 0.2, 0.3).value_A.tolist() == [-10.0]


def test_importance_weight_is_the_ratio_up_to_its_cap_and_has_no_gradient() -> None:
    logprobs = of(-1.0, -1.0).requires_grad_()
    given = tokens(logprobs=logprobs, behaviour=of(-1 - LN(1.5), -1 - LN(5)))
    weights, held = importance_weights(given, LossTerms())
    assert weights.tolist() == pytest.approx([1.5, 2.0])
    assert held.tolist() == [False, True]
    assert not weights.requires_grad


def test_importance_of_a_sequence_is_the_product_of_its_tokens() -> None:
    given = tokens(
        logprobs=of(-1.0, -1.0, -1.0), behaviour=of(-1 - LN(0.5), -1 - LN(3), -1 - LN(5)), sequence=(0, 0, 1)
    )
    weights, held = importance_weights(given, LossTerms(importance=Importance.SEQUENCE))
    assert weights.tolist() == pytest.approx([1.5, 1.5, 2])
    assert held.tolist() == [False, False, True]


def test_outside_the_band_a_token_does_not_count() -> None:
    given = tokens(logprobs=of(-1.0, -1.0, -1.0), behaviour=of(-1 - LN(0.4), -1 - LN(1.2), -1 - LN(6)))
    terms = LossTerms(importance=Importance.BAND, importance_floor=0.5, importance_cap=5.0)
    weights, held = importance_weights(given, terms)
    assert weights.tolist() == pytest.approx([0.0, 1.2, 0.0])
    assert held.tolist() == [True, False, True]


def test_one_step_gradient_is_weight_times_advantage_times_importance() -> None:
    logprobs = of(-1.0, -2.0).requires_grad_()
    given = tokens(logprobs=logprobs, behaviour=of(-1.0 - LN(1.5), -2.0 + LN(2.0)), advantages=of(2.0, -1.0))
    loss, terms = row_loss(given, weights_A=of(0.5, 0.25), terms=LossTerms())
    loss.backward()
    assert float(loss.detach()) == pytest.approx(-(0.5 * 1.5 * 2.0 + 0.25 * 0.5 * -1.0))
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == pytest.approx([-1.5, 0.125])
    assert terms.importance_A.tolist() == pytest.approx([1.5, 0.5])
    assert not terms.clipped_A.any()


@pytest.mark.parametrize("name", ["clipped", "gspo", "cispo", "reinforce"])
def test_on_policy_every_objective_has_the_gradient_of_the_policy_gradient(name: str) -> None:
    logprobs = of(-1.0, -2.0, -0.5).requires_grad_()
    loss, _ = row_loss(
        tokens(logprobs=logprobs, advantages=of(2.0, 2.0, -1.0), sequence=(0, 0, 1)),
        weights_A=of(0.5, 0.25, 1.0),
        terms=LossTerms(objective_of(name)),
    )
    loss.backward()
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == pytest.approx([-1.0, -0.5, 1.0])


def test_behaviour_base_clips_on_the_engines_probability_instead() -> None:
    logprobs = of(-1.0, -1.0).requires_grad_()
    behaviour = of(-1.0 - LN(2.0), -1.0 - LN(1.1))
    loss, terms = row_loss(
        tokens(logprobs=logprobs, old=behaviour),
        weights_A=of(1.0, 1.0),
        terms=LossTerms(Clipped(clip_high=0.3), ratio_base=RatioBase.BEHAVIOUR),
    )
    loss.backward()
    assert float(loss.detach()) == pytest.approx(-(1.3 + 1.1))
    assert logprobs.grad is not None and logprobs.grad.tolist() == pytest.approx([0.0, -1.1])
    assert terms.clipped_A.tolist() == [True, False]


def test_supervised_fine_tuning_raises_what_did_better_than_its_group_and_nothing_else() -> None:
    logprobs = of(-1.0, -2.0, -3.0).requires_grad_()
    given = tokens(logprobs=logprobs, behaviour=of(-1.5, -9.0, -3.0), advantages=of(0.1, 2.0, -5.0))
    loss, terms = row_loss(given, weights_A=of(1.0, 1.0, 1.0), terms=LossTerms(objective_of("sft")))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(3.0)
    assert logprobs.grad is not None and logprobs.grad.tolist() == [-1.0, -1.0, 0.0]
    assert terms.clipped_A.tolist() == [False, False, True]


def test_k3_is_zero_at_the_reference_and_positive_elsewhere() -> None:
    found = kl_estimate(of(-1.0, -1.0, -1.0), of(-1.0, -1.0 + LN(2.0), -1.0 - LN(2.0)), Kl.K3)
    assert found.tolist() == pytest.approx([0.0, 2.0 - LN(2.0) - 1.0, 0.5 + LN(2.0) - 1.0])
    assert kl_estimate(of(-1.0), of(-3.0), Kl.K2).tolist() == pytest.approx([2.0])


def test_kl_and_entropy_enter_the_loss_with_their_weights() -> None:
    terms = LossTerms(kl=0.1, entropy=0.01)
    loss, _ = row_loss(
        tokens(logprobs=of(-1.0), advantages=of(0.0)),
        weights_A=of(0.5),
        terms=terms,
        reference_A=of(-1.0 + LN(2.0)),
        entropy_A=of(3.0),
    )
    assert float(loss) == pytest.approx(0.5 * (0.1 * (1.0 - LN(2.0)) - 0.01 * 3.0))


def test_aggregations_weigh_tokens_as_their_names_say() -> None:
    rollouts, lengths = ["a", "a", "b"], [2, 6, 2]
    assert token_weights(rollouts, lengths, Aggregation.TOKEN).tolist() == pytest.approx([0.1, 0.1, 0.1])
    assert token_weights(rollouts, lengths, Aggregation.SEQUENCE).tolist() == pytest.approx([1 / 6, 1 / 18, 1 / 6])
    assert token_weights(rollouts, lengths, Aggregation.ROLLOUT).tolist() == pytest.approx([1 / 16, 1 / 16, 1 / 4])
    assert token_weights(rollouts, lengths, Aggregation.CONSTANT, 100).tolist() == pytest.approx([1 / 200] * 3)


def test_rollout_mean_does_not_depend_on_how_a_rollout_fell_into_sequences() -> None:
    whole = token_weights(["a", "b"], [8, 2], Aggregation.ROLLOUT)
    split = token_weights(["a", "a", "b"], [3, 5, 2], Aggregation.ROLLOUT)
    assert split.tolist() == pytest.approx([whole[0], whole[0], whole[1]])


def test_the_learning_rate_rises_then_falls_to_its_lowest_and_stays_there() -> None:
    linear = [
        learning_rate(step, 1.0, warmup_steps=2, decay=Decay.LINEAR, decay_steps=6, decay_to=0.2) for step in range(8)
    ]
    assert linear == pytest.approx([1 / 3, 2 / 3, 1.0, 0.8, 0.6, 0.4, 0.2, 0.2])
    cosine = [learning_rate(step, 2.0, decay=Decay.COSINE, decay_steps=2) for step in range(4)]
    assert cosine == pytest.approx([2.0, 1.1, 0.2, 0.2])
    assert {learning_rate(step, 0.1) for step in range(9)} == {0.1}


def solve(objective: Objective, flip: bool = False) -> tuple[float, float]:
    """(probability of the best arm of a bandit, of the best path of a two-step MDP), after some training."""
    torch.manual_seed(0)
    rewards, seconds = of(0.1, 0.3, 1.0, 0.2), torch.tensor([[0.0, 0.2], [0.1, 1.0]], dtype=torch.float64)
    arms = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    first = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    second = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([arms, first, second], lr=0.1)
    for _ in range(60):
        arm = torch.multinomial(arms.detach().softmax(0), 32, replacement=True)
        one = torch.multinomial(first.detach().softmax(0), 32, replacement=True)
        two = torch.multinomial(second.detach().softmax(1)[one], 1)[:, 0]
        gains = torch.cat([rewards[arm] - rewards[arm].mean(), *[seconds[one, two] - seconds[one, two].mean()] * 2])
        old_A: torch.Tensor | None = None
        for _ in range(2):  # epochs
            logprobs_A = torch.cat(
                [arms.log_softmax(0)[arm], first.log_softmax(0)[one], second.log_softmax(1)[one, two]]
            )
            old_A = logprobs_A.detach() if old_A is None else old_A
            given = ActionTokens(
                logprobs_A=logprobs_A,
                old_A=old_A,
                behaviour_A=old_A,
                advantages_A=-gains if flip else gains,
                sequence_A=torch.cat([torch.arange(32), *[32 + torch.arange(32)] * 2]),
            )
            loss, _ = row_loss(given, weights_A=torch.full((96,), 1 / 96), terms=LossTerms(objective))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    path = first.detach().softmax(0)[1] * second.detach().softmax(1)[1, 1]
    return float(arms.detach().softmax(0)[2]), float(path)


@pytest.mark.parametrize(
    "said", ["clipped", {"name": "gspo", "clip_low": 0.2, "clip_high": 0.28}, "cispo", "reinforce", "sft"]
)
def test_every_objective_finds_the_optimum_of_a_bandit_and_of_two_steps(said: str | dict[str, object]) -> None:
    objective = objective_of(said)
    assert min(solve(objective)) > 0.9
    assert max(solve(objective, flip=True)) < 0.1
