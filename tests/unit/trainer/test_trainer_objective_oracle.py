"""Objectives, importance weights, KL estimates and aggregations against verl's own code, in float64."""

from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import verl_oracle
from leyden.trainer.core.loss import Aggregation, Importance, Kl, LossTerms, kl_estimate, row_loss, token_weights
from leyden.trainer.core.objectives import ActionTokens, Objective, objective_of

VERL = {"clipped": "vanilla", "gspo": "gspo", "cispo": "cispo"}
AGGREGATIONS = {
    Aggregation.TOKEN: "token-mean",
    Aggregation.SEQUENCE: "seq-mean-token-mean",
    Aggregation.CONSTANT: "seq-mean-token-sum-norm",
}


@pytest.fixture(scope="module")
def verl() -> ModuleType:
    return verl_oracle.load()


def verls_loss(
    verl: ModuleType,
    objective: Any,
    columns: dict[str, torch.Tensor],
    mask: torch.Tensor,
    how: str,
    weights: torch.Tensor,
) -> torch.Tensor:
    config = verl.ActorConfig()
    config.clip_ratio = config.clip_ratio_low = objective.clip_low
    config.clip_ratio_high = objective.clip_high
    config.get = lambda name, default: getattr(objective, "dual_clip", default)
    config.global_batch_info = {"loss_scale_factor": 50}
    loss, _ = verl.get_policy_loss_fn(VERL[objective.name])(
        old_log_prob=columns["old"],
        log_prob=columns["logprobs"],
        advantages=columns["advantages"],
        response_mask=mask,
        loss_agg_mode=how,
        config=config,
        rollout_is_weights=weights,
    )
    found: torch.Tensor = loss
    return found


@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    seed=st.integers(0, 2**32 - 1),
    spread=st.sampled_from([0.01, 0.5, 2.0]),
    said=st.sampled_from(
        [
            {"name": "clipped", "clip_low": 0.1, "clip_high": 0.3, "dual_clip": 2.0},
            {"name": "gspo", "clip_low": 0.02, "clip_high": 0.05},
            {"name": "cispo", "clip_low": 0.9, "clip_high": 0.2},
        ]
    ),
    how=st.sampled_from([*AGGREGATIONS]),
    importance=st.sampled_from(Importance),
)
def test_loss_and_gradient_are_verls(
    verl: ModuleType, lengths: list[int], seed: int, spread: float, said: dict[str, object], how: Aggregation,
    importance: Importance,
) -> None:  # fmt: skip
    random, objective = np.random.default_rng(seed), objective_of(said)
    mask = torch.tensor([[float(t < length) for t in range(max(lengths))] for length in lengths], dtype=torch.float64)
    columns = {
        name: torch.from_numpy(random.normal(0.0 if name == "advantages" else -3.0, spread, mask.shape)) * mask
        for name in ("logprobs", "old", "behaviour", "advantages")
    }
    columns["logprobs"].requires_grad_()
    gap = (columns["old"] - columns["behaviour"]) * mask
    gap = gap.sum(1, keepdim=True).expand_as(gap) if importance is Importance.SEQUENCE else gap
    ratio = gap.clamp(-20, 20).exp()
    weights = ratio * ((ratio >= 0.5) & (ratio <= 2.0)) if importance is Importance.BAND else ratio.clamp(max=2.0)
    expected = verls_loss(verl, objective, columns, mask, AGGREGATIONS[how], weights)
    (slope,) = torch.autograd.grad(expected, columns["logprobs"])

    at = mask.bool()
    tokens = ActionTokens(
        logprobs_A=columns["logprobs"][at],
        old_A=columns["old"][at],
        behaviour_A=columns["behaviour"][at],
        advantages_A=columns["advantages"][at],
        sequence_A=torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths)),
    )
    weights_S = token_weights(range(len(lengths)), lengths, how, 50)
    terms = LossTerms(objective, importance, importance_cap=2.0, importance_floor=0.5)
    loss, _ = row_loss(tokens, weights_A=torch.from_numpy(np.repeat(weights_S, lengths)), terms=terms)
    (found,) = torch.autograd.grad(loss, columns["logprobs"])
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-6, abs=1e-9)
    assert float((found - slope).abs().max()) < 1e-6 * max(1.0, float(slope.abs().max()))


@pytest.mark.parametrize("how", [*Kl])
def test_kl_estimates_and_their_slopes_are_verls(verl: ModuleType, how: Kl) -> None:
    logprobs = torch.linspace(-3.0, -0.1, 20, dtype=torch.float64, requires_grad=True)
    reference = torch.linspace(-1.0, -2.0, 20, dtype=torch.float64)
    expected, found = verl.kl_penalty(logprobs, reference, how.value), kl_estimate(logprobs, reference, how)
    slopes = [torch.autograd.grad(values.sum(), logprobs)[0] for values in (expected, found)]
    assert float((expected - found).detach().abs().max()) < 1e-12
    assert float((slopes[0] - slopes[1]).abs().max()) < 1e-12


def test_the_oracle_notices_a_wrong_sign_a_wrong_mask_and_zero_advantages(verl: ModuleType) -> None:
    """What the law above rests on: none of these planted faults gives verl's gradient."""
    columns = {name: torch.tensor([[-1.0, -2.0], [-0.5, -3.0]], dtype=torch.float64) for name in ("logprobs", "old")}
    columns |= {"advantages": torch.tensor([[1.0, -2.0], [0.5, 0.0]], dtype=torch.float64)}
    columns["logprobs"] = columns["logprobs"].requires_grad_()
    mask = torch.tensor([[1.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    objective = objective_of("clipped")
    expected = verls_loss(verl, objective, columns, mask, "token-mean", torch.ones_like(mask))
    (slope,) = torch.autograd.grad(expected, columns["logprobs"])

    def ours(at: torch.Tensor, advantages: torch.Tensor, used: Objective = objective) -> torch.Tensor:
        logprobs = columns["logprobs"][at]
        tokens = ActionTokens(
            logprobs_A=logprobs,
            old_A=columns["old"][at],
            behaviour_A=columns["old"][at],
            advantages_A=advantages[at],
            sequence_A=torch.tensor([0, 0, 1, 1])[at.flatten()],
        )
        weight = torch.full((len(logprobs),), 1.0 / len(logprobs), dtype=torch.float64)
        loss, _ = row_loss(tokens, weights_A=weight, terms=LossTerms(used))
        return torch.autograd.grad(loss, columns["logprobs"])[0]

    assert torch.allclose(ours(mask.bool(), columns["advantages"]), slope)
    assert not torch.allclose(ours(mask.bool(), -columns["advantages"]), slope)
    assert not torch.allclose(ours(torch.ones(2, 2, dtype=torch.bool), columns["advantages"]), slope)
    assert not torch.allclose(ours(mask.bool(), torch.zeros(2, 2, dtype=torch.float64)), slope)
