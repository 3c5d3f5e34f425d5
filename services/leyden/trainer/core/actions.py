"""The action tokens of a packed row: where each is predicted, and its inputs to the objective. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from leyden.trainer.core.prefix_tree import Index, TreeRow, pack
from leyden.trainer.core.sequences import TrainSequence

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PackedRow:
    """A row with its A action tokens, and the U distinct predictions they need.

    Samples with equal prefixes share nodes; equal tokens at one node and temperature are predicted once (U <= A).
    """

    tree: TreeRow
    nodes_U: Index
    """Node whose hidden state predicts each token."""
    targets_U: Index
    temperature_U: Doubles
    prediction_A: Index
    """Index of the prediction (of U) of each action token."""
    behaviour_A: Doubles
    advantages_A: Doubles
    weights_A: Doubles
    sequence_A: Index
    """Which of the row's sequences each action token is of, from 0."""


def pack_actions(sequences: Sequence[TrainSequence], weights_S: Doubles, row_tokens: int) -> list[PackedRow]:
    """Pack `sequences` into rows; `weights_S` is the loss weight of each token of each sequence.

    A sequence is in the trie only up to the token before its last action: no action depends on later tokens.
    """
    contexts = [sequence.token_ids_T[: sequence.action_positions[-1]] for sequence in sequences]
    return [_packed(tree, sequences, weights_S) for tree in pack(contexts, row_tokens)]


def _packed(tree: TreeRow, sequences: Sequence[TrainSequence], weights_S: Doubles) -> PackedRow:
    parts: list[Doubles] = []
    for path, member in zip(tree.paths, tree.members, strict=True):
        sequence = sequences[member]
        at = sequence.action_positions
        columns = (
            path[at - 1],
            sequence.token_ids_T[at],
            sequence.temperature_T[at],
            sequence.behaviour_logprobs_T[at],
            sequence.advantages_T[at],
            np.full(len(at), weights_S[member]),
        )
        parts.append(np.stack([column.astype(np.float64) for column in columns], axis=1))
    table = np.concatenate(parts)
    distinct, inverse = np.unique(table[:, :3], axis=0, return_inverse=True)
    return PackedRow(
        tree=tree,
        nodes_U=distinct[:, 0].astype(np.int64),
        targets_U=distinct[:, 1].astype(np.int64),
        temperature_U=distinct[:, 2],
        prediction_A=inverse.reshape(-1).astype(np.int64),
        behaviour_A=table[:, 3],
        advantages_A=table[:, 4],
        weights_A=table[:, 5],
        sequence_A=np.repeat(np.arange(len(parts)), [len(part) for part in parts]).astype(np.int64),
    )
