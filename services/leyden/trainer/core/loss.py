"""The loss of a row: its objective, weighted, corrected for the engine that sampled, with KL and entropy terms.

The ratio's denominator is the trainer's own policy before the step, and the distance to the engine that sampled is
corrected by a truncated weight. With `RatioBase.BEHAVIOUR` the engine's logprobs are the denominator instead, and the
clip does the correcting.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from torch import Tensor

from leyden.trainer.core.objectives import ActionTokens, Clipped, Objective
from leyden.trainer.core.objectives.base import bounded_log_ratio


class Aggregation(StrEnum):
    """Over what a batch's loss is averaged."""

    TOKEN = "token"
    """All action tokens have the same weight, so long responses weigh more."""
    SEQUENCE = "sequence"
    """All training sequences have the same weight, whatever their length."""
    ROLLOUT = "rollout"
    """All rollouts have the same weight, however many sequences they have."""
    CONSTANT = "constant"
    """A rollout's sum is divided by a constant, so that no token's weight depends on a length (Dr.GRPO, 2503.20783)."""


class RatioBase(StrEnum):
    """Whose logprobs are the denominator of the clipped ratio."""

    TRAINER = "trainer"
    """The trainer's policy before the step. The engine's logprobs give a truncated importance weight."""
    BEHAVIOUR = "behaviour"
    """The serving engine's policy, as in plain PPO, without an importance weight."""


class Importance(StrEnum):
    """How the distance between trainer and engine is corrected; r is their ratio before the step."""

    TOKEN = "token"
    """min(r, cap) per token (Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL")."""
    SEQUENCE = "sequence"
    """min(product of a sequence's r, cap) for all its tokens: unbiased up to the cap, with more variance."""
    BAND = "band"
    """r where floor <= r <= cap, and 0 elsewhere: tokens on which both disagree do not count (IcePop, 2510.18855)."""


class Kl(StrEnum):
    """Estimates of the KL divergence from the reference per token, by d = log pi - log pi_ref (Schulman 2020).

    k1 = d is missing: as a loss its gradient is 0 on average.
    """

    K2 = "k2"
    """d^2 / 2; its gradient is that of KL(pi || reference) on the policy's own samples."""
    K3 = "k3"
    """e^-d - 1 + d: unbiased and never negative."""


@dataclass(frozen=True)
class LossTerms:
    """Which terms the loss has, besides its objective's own settings."""

    objective: Objective = field(default_factory=Clipped)
    importance: Importance = Importance.TOKEN
    importance_cap: float | None = 2.0
    """None: no correction."""
    importance_floor: float = 0.5
    """Of `Importance.BAND`."""
    kl: float = 0.0
    kl_estimate: Kl = Kl.K3
    entropy: float = 0.0
    """Weight of the entropy bonus."""
    ratio_base: RatioBase = RatioBase.TRAINER


@dataclass(frozen=True)
class TokenTerms:
    """Terms of the loss per action token, detached."""

    importance_A: Tensor
    """Ratio of the trainer's probability to the engine's, as it is."""
    truncated_A: Tensor
    """Whether a bound of the importance weight holds the token."""
    clipped_A: Tensor
    """Whether the objective gives the token no gradient."""
    kl_A: Tensor


def token_weights(
    rollouts_S: Sequence[object], action_tokens_S: Sequence[int], how: Aggregation, constant: int | None = None
) -> npt.NDArray[np.float64]:
    """Weight of each token of each of S sequences: the loss is the weighted sum over tokens.

    Include sequences that are not computed (zero advantage): they count in every denominator. `constant` is the divisor
    of `Aggregation.CONSTANT`, in tokens.
    """
    lengths_S = np.asarray(action_tokens_S, np.float64)
    if how is Aggregation.TOKEN:
        return np.full(len(lengths_S), 1.0 / max(lengths_S.sum(), 1.0))
    if how is Aggregation.CONSTANT:
        assert constant is not None, "aggregation by a constant has one"
        return np.full(len(lengths_S), 1.0 / (max(len(set(rollouts_S)), 1) * constant))
    names_S = list(range(len(lengths_S))) if how is Aggregation.SEQUENCE else list(rollouts_S)
    totals: dict[object, float] = {}
    for name, length in zip(names_S, lengths_S, strict=True):
        totals[name] = totals.get(name, 0.0) + float(length)
    return np.array([1.0 / (len(totals) * max(totals[name], 1.0)) for name in names_S], np.float64)


def importance_weights(tokens: ActionTokens, terms: LossTerms) -> tuple[Tensor, Tensor]:
    """(weights for the distance between `old_A` and the engine [A], whether a bound holds them [A]); no gradient.

    Ones when the cap is None.
    """
    log_ratio_A = bounded_log_ratio(tokens.old_A, tokens.behaviour_A).detach()
    if terms.importance_cap is None:
        return log_ratio_A.new_ones(log_ratio_A.shape), log_ratio_A.new_zeros(log_ratio_A.shape).bool()
    if terms.importance is Importance.SEQUENCE:
        log_ratio_A = bounded_log_ratio(tokens.sums(log_ratio_A), log_ratio_A.new_zeros(()))
    ratio_A = log_ratio_A.exp()
    if terms.importance is Importance.BAND:
        inside_A = (ratio_A >= terms.importance_floor) & (ratio_A <= terms.importance_cap)
        return ratio_A * inside_A, ~inside_A
    return ratio_A.clamp(max=terms.importance_cap), ratio_A > terms.importance_cap


def kl_estimate(logprobs_A: Tensor, reference_A: Tensor, how: Kl) -> Tensor:
    """The estimate of KL(policy || reference) per token, [A]."""
    log_ratio_A = bounded_log_ratio(reference_A, logprobs_A)
    return log_ratio_A.square() / 2.0 if how is Kl.K2 else log_ratio_A.exp() - log_ratio_A - 1.0


def row_loss(
    tokens: ActionTokens,
    *,
    weights_A: Tensor,
    terms: LossTerms,
    reference_A: Tensor | None = None,
    entropy_A: Tensor | None = None,
) -> tuple[Tensor, TokenTerms]:
    """(scalar loss with gradient to `tokens.logprobs_A` and `entropy_A`, its terms); all in float32 or wider.

    `reference_A` holds the reference's logprobs, needed where `kl` is above 0; `entropy_A` the entropies of the
    distributions, needed with their gradient where `entropy` is not 0.
    """
    found = terms.objective.maximise(tokens)
    value_A, truncated_A = found.value_A, found.held_A.new_zeros(found.held_A.shape)
    if terms.ratio_base is RatioBase.TRAINER and terms.objective.is_corrected:
        importance_A, truncated_A = importance_weights(tokens, terms)
        value_A = value_A * importance_A
    kl_A = tokens.logprobs_A.new_zeros(tokens.logprobs_A.shape)
    if reference_A is not None:
        kl_A = kl_estimate(tokens.logprobs_A, reference_A, terms.kl_estimate)
    loss_A = terms.kl * kl_A - value_A
    if terms.entropy and entropy_A is not None:
        loss_A = loss_A - terms.entropy * entropy_A
    ratio_A = bounded_log_ratio(tokens.logprobs_A.detach(), tokens.behaviour_A).exp()
    return (weights_A * loss_A).sum(), TokenTerms(ratio_A, truncated_A, found.held_A, kl_A.detach())
