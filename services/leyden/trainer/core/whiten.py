"""Whitens advantages over a batch, as in REINFORCE++ (arXiv 2501.03262) and for GAE. No torch."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from leyden.trainer.core.sequences import TrainSequence

Doubles = npt.NDArray[np.float64]
EPSILON = 1e-8
"""Added to the variance under the root, as in verl's `masked_whiten`."""
FLAT = 1e-9
"""Advantages that differ by less are equal. A baseline leaves rounding near 0, which no relative tolerance covers; next
to the root of `EPSILON`, 1e-4, so small a difference would be whitened to 1e-5 at most."""


def whiten(values: Doubles, mask: npt.NDArray[np.bool_], weights: Doubles | None = None) -> Doubles:
    """(value - mean) / sqrt(variance + 1e-8) where `mask` is true, 0 elsewhere. All arrays have the same shape.

    `weights` (default: equal) are used in the mean and in the sample variance, which divides by 1 - sum(w²) for weights
    that sum to 1 (n - 1 of n equal weights). With fewer than two entries, and where the entries differ by no more than
    rounding (float32's, of the largest entry, or `FLAT`), the result is exactly 0: rounding is no signal.
    """
    if _is_flat(values[mask]):
        return np.zeros(values.shape)
    shares = (np.ones(values.shape) if weights is None else weights) * mask
    total = shares.sum()
    if total <= 0.0:
        return np.zeros(values.shape)
    shares = shares / total
    freedom = 1.0 - float((shares**2).sum())
    centred = np.where(mask, values - (shares * values).sum(), 0.0)
    if freedom <= np.finfo(np.float64).eps:
        return np.zeros(values.shape)
    variance = float((shares * centred**2).sum()) / freedom
    found: Doubles = centred / math.sqrt(variance + EPSILON)
    return found


def _is_flat(values: Doubles) -> bool:
    """Whether the values differ by two float32 roundings of the largest at most, or by `FLAT`."""
    if not len(values):
        return True
    rounding = float(np.spacing(np.float32(np.abs(values).max())))
    return float(values.max() - values.min()) <= max(2.0 * rounding, FLAT)


def whitened(sequences: Sequence[TrainSequence], weights_S: Doubles, scale: float = 1.0) -> list[TrainSequence]:
    """`sequences` with advantages whitened over all their action tokens, then multiplied by `scale`.

    `weights_S` is the loss weight of each token of a sequence; mean and variance use the same weights.
    """
    if not sequences:
        return []
    lengths_S = [len(sequence.token_ids_T) for sequence in sequences]
    found = whiten(
        np.concatenate([sequence.advantages_T for sequence in sequences]).astype(np.float64),
        np.concatenate([sequence.mask_T for sequence in sequences]),
        np.repeat(weights_S, lengths_S),
    )
    parts = np.split((found * scale).astype(np.float32), np.cumsum(lengths_S)[:-1])
    return [replace(one, advantages_T=advantages_T) for one, advantages_T in zip(sequences, parts, strict=True)]
