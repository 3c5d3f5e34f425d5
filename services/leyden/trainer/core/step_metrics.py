"""Metrics of a training step: all names, and how they are computed. No clock: durations are passed in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from leyden.trainer.core.revisions import ReadyGroup

Doubles = npt.NDArray[np.float64]


class StepMetric(StrEnum):
    """All keys of `TrainingStepCompleted.metrics`, besides `groups/dropped/<reason>`."""

    REWARD_MEAN = "reward/mean"
    """Mean reward of the batch's rollouts."""
    REWARD_STD = "reward/std"
    REWARD_MAX = "reward/max"
    GROUP_SPREAD = "reward/group_std"
    """Standard deviation of rewards within a group, averaged over groups."""
    GROUPS = "groups/count"
    ZERO_VARIANCE = "groups/zero_variance_share"
    ROLLOUTS = "rollouts/count"
    LEFT_OUT = "rollouts/left_out"
    SEQUENCES = "sequences/count"
    SEQUENCES_COMPUTED = "sequences/computed"
    """Sequences with a nonzero advantage; only these are computed."""
    RESPONSE_TOKENS = "tokens/per_sequence"
    """Mean number of action tokens of a sequence."""
    ACTION_TOKENS = "tokens/trained"
    TOKENS_UNPACKED = "tokens/unpacked"
    """Tokens of the computed sequences before packing."""
    TOKENS_PACKED = "tokens/packed"
    """Tokens computed by the decoder after packing."""
    ROWS = "tokens/rows"
    STALENESS_MEAN = "staleness/mean"
    """Staleness in versions, averaged over action tokens."""
    STALENESS_MAX = "staleness/max"
    IMPORTANCE_MEAN = "importance/mean"
    """Importance ratio trainer / engine, before truncation."""
    IMPORTANCE_MAX = "importance/max"
    IMPORTANCE_TRUNCATED = "importance/truncated_share"
    """Share of the action tokens whose importance weight was cut to its bound, or to 0 outside the band."""
    LOGPROB_GAP = "importance/logprob_gap"
    """Mean |trainer - engine| logprob."""
    CLIPPED = "loss/clip_share"
    """Share of the action tokens that a clip holds, or the objective leaves out, in the last epoch."""
    LOSS = "loss/policy"
    KL = "loss/kl"
    ENTROPY = "policy/entropy"
    """Mean entropy (nats) of the distributions from which the trained tokens were sampled."""
    GRAD_NORM = "optimiser/grad_norm"
    LEARNING_RATE = "optimiser/learning_rate"
    EPOCHS = "optimiser/epochs"
    """Optimiser steps made on the batch: fewer than the settings' where a later gradient was not finite."""
    SKIPPED = "optimiser/skipped"
    """1 if no weight was changed: all advantages were 0 or the gradient was not finite."""
    SECONDS_PACK = "seconds/pack"
    SECONDS_FORWARD = "seconds/forward"
    SECONDS_BACKWARD = "seconds/backward"
    SECONDS_OPTIMISER = "seconds/optimiser"
    SECONDS_STEP = "seconds/step"


Metrics = dict[str, float]


@dataclass(frozen=True, eq=False, kw_only=True)
class TokenRecord:
    """Numbers of one row's action tokens after the forward pass."""

    importance_A: Doubles
    truncated_A: Doubles
    gap_A: Doubles
    clipped_A: Doubles
    kl_A: Doubles
    entropy_A: Doubles


def batch_metrics(batch: Sequence[ReadyGroup], version: int) -> Metrics:
    """Metrics of a batch that are known before the forward pass."""
    sequences = [sequence for group in batch for sequence in group.sequences]
    by_group = [list({s.rollout: s.reward for s in group.sequences}.values()) for group in batch]
    rewards = np.array([reward for group in by_group for reward in group], np.float64)
    spreads = np.array([np.std(group) for group in by_group if group], np.float64)
    lengths = np.array([sequence.action_tokens for sequence in sequences], np.float64)
    ages = np.concatenate([version - s.versions_T[s.mask_T] for s in sequences] or [np.zeros(0, np.int32)])
    return {
        StepMetric.REWARD_MEAN: _mean(rewards),
        StepMetric.REWARD_STD: float(rewards.std()) if len(rewards) else 0.0,
        StepMetric.REWARD_MAX: _max(rewards),
        StepMetric.GROUP_SPREAD: _mean(spreads),
        StepMetric.GROUPS: float(len(batch)),
        StepMetric.ZERO_VARIANCE: _mean(np.array([group.zero_variance for group in batch], np.float64)),
        StepMetric.ROLLOUTS: float(len(rewards)),
        StepMetric.LEFT_OUT: float(sum(group.left_out for group in batch)),
        StepMetric.SEQUENCES: float(len(sequences)),
        StepMetric.RESPONSE_TOKENS: _mean(lengths),
        StepMetric.STALENESS_MEAN: _mean(ages),
        StepMetric.STALENESS_MAX: _max(ages),
    }


def token_metrics(records: Sequence[TokenRecord]) -> Metrics:
    """Means over all action tokens of a step; empty if there are none."""
    if not records:
        return {StepMetric.ACTION_TOKENS: 0.0}
    importance_A = np.concatenate([record.importance_A for record in records])
    return {
        StepMetric.ACTION_TOKENS: float(len(importance_A)),
        StepMetric.IMPORTANCE_MEAN: _mean(importance_A),
        StepMetric.IMPORTANCE_MAX: _max(importance_A),
        StepMetric.IMPORTANCE_TRUNCATED: _mean(np.concatenate([record.truncated_A for record in records])),
        StepMetric.LOGPROB_GAP: _mean(np.concatenate([record.gap_A for record in records])),
        StepMetric.CLIPPED: _mean(np.concatenate([record.clipped_A for record in records])),
        StepMetric.KL: _mean(np.concatenate([record.kl_A for record in records])),
        StepMetric.ENTROPY: _mean(np.concatenate([record.entropy_A for record in records])),
    }


def dropped_metrics(dropped: Mapping[str, int]) -> Metrics:
    """Groups dropped since the previous step, by reason."""
    return {f"groups/dropped/{reason}": float(count) for reason, count in sorted(dropped.items())}


def _mean(values: npt.NDArray[np.generic]) -> float:
    return float(np.mean(values.astype(np.float64))) if len(values) else 0.0


def _max(values: npt.NDArray[np.generic]) -> float:
    return float(np.max(values.astype(np.float64))) if len(values) else 0.0
