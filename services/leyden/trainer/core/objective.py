"""The GRPO objective on single tokens: clipped surrogate, dual clip, importance correction, KL, aggregation.

A package replaces the surrogate with an entry point of the group `leyden.objectives`: a `Surrogate`.

One optimiser step is made per batch, so the ratio's denominator is the trainer's own policy before the step (ratio 1,
gradient exact), and the distance to the engine that sampled is corrected by a truncated weight. With
`RatioBase.BEHAVIOUR` the engine's logprobs are the denominator instead, and the clip does the correcting.

Sources: PPO (1707.06347), dual clip (1912.09729), GRPO (2402.03300), clip-higher (DAPO, 2503.14476), truncated
importance sampling (Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL training").
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from torch import Tensor, where

from leyden.extensions import Extensions

LOG_RATIO_LIMIT = 20.0
"""Largest absolute log-ratio of two policies that is exponentiated, as in verl; e^20 is 5e8. Beyond it a ratio is
constant, without a gradient, so that no single token makes the loss or its gradient infinite."""


class Aggregation(StrEnum):
    """Over what a batch's loss is averaged."""

    TOKEN = "token"
    """All action tokens have the same weight, so long responses weigh more."""
    SEQUENCE = "sequence"
    """All training sequences have the same weight, whatever their length."""
    ROLLOUT = "rollout"
    """All rollouts have the same weight, however many sequences they have."""


class RatioBase(StrEnum):
    """Whose logprobs are the denominator of the clipped ratio."""

    TRAINER = "trainer"
    """The trainer's policy before the step. The engine's logprobs give a truncated importance weight."""
    BEHAVIOUR = "behaviour"
    """The serving engine's policy, as in plain PPO, without an importance weight."""


@dataclass(frozen=True)
class Objective:
    """Constants of the objective."""

    name: str = "clipped"
    """The surrogate: `clipped`, or one that a package brings."""
    clip_low: float = 0.2
    clip_high: float = 0.28
    dual_clip: float | None = 3.0
    """Dual clip: upper bound c of the ratio for negative advantages. None: no bound."""
    importance_cap: float | None = 2.0
    """Upper bound of the importance weight trainer / behaviour. None: no correction."""
    kl: float = 0.0
    aggregation: Aggregation = Aggregation.ROLLOUT
    ratio_base: RatioBase = RatioBase.TRAINER


@dataclass(frozen=True)
class TokenTerms:
    """Terms of the loss per action token, detached."""

    importance_T: Tensor
    """Untruncated ratio of the trainer's probability to the engine's."""
    clipped_T: Tensor
    """Whether a clip makes the surrogate's gradient zero."""
    kl_T: Tensor


def token_weights(
    rollouts_S: Sequence[object], action_tokens_S: Sequence[int], how: Aggregation
) -> npt.NDArray[np.float64]:
    """Weight of each token of each of S sequences: the loss is the weighted sum over tokens.

    Include sequences that are not computed (zero advantage): they count in every denominator.
    """
    lengths_S = np.asarray(action_tokens_S, np.float64)
    if how is Aggregation.TOKEN:
        return np.full(len(lengths_S), 1.0 / max(lengths_S.sum(), 1.0))
    names_S = list(range(len(lengths_S))) if how is Aggregation.SEQUENCE else list(rollouts_S)
    totals: dict[object, float] = {}
    for name, length in zip(names_S, lengths_S, strict=True):
        totals[name] = totals.get(name, 0.0) + float(length)
    return np.array([1.0 / (len(totals) * max(totals[name], 1.0)) for name in names_S], np.float64)


def bounded_log_ratio(logprobs_T: Tensor, base_T: Tensor) -> Tensor:
    """Logprobs - base, [T], within ±`LOG_RATIO_LIMIT`."""
    return (logprobs_T - base_T).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)


def importance_weights(logprobs_T: Tensor, behaviour_T: Tensor, cap: float | None) -> Tensor:
    """Truncated importance weights min(exp(trainer - behaviour), cap), [T], no gradient; ones when cap is None."""
    ratio_T = bounded_log_ratio(logprobs_T.detach(), behaviour_T).exp()
    return ratio_T.clamp(max=cap) if cap is not None else ratio_T.new_ones(ratio_T.shape)


def k3(logprobs_T: Tensor, reference_T: Tensor) -> Tensor:
    """The k3 estimate of KL(policy || reference) per token, [T]: unbiased and never negative (Schulman 2020)."""
    log_ratio_T = bounded_log_ratio(reference_T, logprobs_T)
    return log_ratio_T.exp() - log_ratio_T - 1.0


def surrogate(ratio_T: Tensor, advantages_T: Tensor, objective: Objective) -> tuple[Tensor, Tensor]:
    """(clipped surrogate [T] to be maximised, whether a clip is active [T])."""
    plain_T = ratio_T * advantages_T
    clipped_T = ratio_T.clamp(1.0 - objective.clip_low, 1.0 + objective.clip_high) * advantages_T
    value_T, held_T = plain_T.minimum(clipped_T), clipped_T < plain_T
    if objective.dual_clip is None:
        return value_T, held_T
    floor_T = objective.dual_clip * advantages_T
    bounded_T = (advantages_T < 0) & (value_T < floor_T)
    return where(bounded_T, floor_T, value_T), held_T | bounded_T


Surrogate = Callable[[Tensor, Tensor, Objective], tuple[Tensor, Tensor]]
"""From the ratios [T], the advantages [T] and the constants to (what is maximised [T], whether a clip holds it [T])."""
_SURROGATES = Extensions[Surrogate](
    "objective", "leyden.objectives", {"clipped": surrogate}, callable, "a function of ratios, advantages and constants"
)


def surrogate_of(name: str) -> Surrogate:
    """The surrogate of that name, built in or brought by a package; raises ValueError when there is no usable one."""
    return _SURROGATES.find(name)


def policy_loss(
    logprobs_T: Tensor,
    *,
    behaviour_T: Tensor,
    advantages_T: Tensor,
    weights_T: Tensor,
    objective: Objective,
    reference_T: Tensor | None = None,
) -> tuple[Tensor, TokenTerms]:
    """(scalar loss with gradient to `logprobs_T`, its terms) over T action tokens; all in float32 or wider.

    `logprobs_T`, `behaviour_T` and `reference_T` are logprobs of the sampled tokens at their sampling temperature.
    """
    on_trainer = objective.ratio_base is RatioBase.TRAINER
    old_T = logprobs_T.detach() if on_trainer else behaviour_T
    ratio_T = bounded_log_ratio(logprobs_T, old_T).exp()
    value_T, clipped_T = surrogate_of(objective.name)(ratio_T, advantages_T, objective)
    if on_trainer:
        value_T = value_T * importance_weights(logprobs_T, behaviour_T, objective.importance_cap)
    kl_T = k3(logprobs_T, reference_T) if reference_T is not None else logprobs_T.new_zeros(logprobs_T.shape)
    loss = (weights_T * (objective.kl * kl_T - value_T)).sum()
    importance_T = bounded_log_ratio(logprobs_T.detach(), behaviour_T).exp()
    return loss, TokenTerms(importance_T, clipped_T.detach(), kl_T.detach())
