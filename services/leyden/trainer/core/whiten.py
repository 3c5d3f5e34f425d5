"""Advantages centred and scaled over a whole batch, as REINFORCE++ (arXiv 2501.03262) and GAE want them. No torch."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from leyden.trainer.core.sequences import TrainSequence

Doubles = npt.NDArray[np.float64]
EPSILON = 1e-8
"""Under the root; verl's `masked_whiten` has the same."""


def whiten(values: Doubles, mask: npt.NDArray[np.bool_], weights: Doubles | None = None) -> Doubles:
    """(value - mean) / sqrt(variance + 1e-8) where `mask` is true, 0 elsewhere; all three of one shape.

    `weights` (default: all the same) weigh the entries in mean and variance, which is the sample's: divided by n - 1
    of n equal weights, and by 1 - sum(w²) in general. Fewer than two entries have no spread: 0.
    """
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


def whitened(sequences: Sequence[TrainSequence], weights_S: Doubles, scale: float = 1.0) -> list[TrainSequence]:
    """`sequences` with their advantages whitened over all of their action tokens, then multiplied by `scale`.

    `weights_S` is the weight of each token of a sequence in the loss: what the loss counts once, the mean does too.
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
