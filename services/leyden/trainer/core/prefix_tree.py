"""Packs sequences that share prefixes into rows in which every shared token stands once.

A row is a trie of token ids, flattened in depth-first order. A token attends to its ancestors only and its position is
its depth, so every sequence sees exactly what it would see alone: same logits, loss and gradient, for a fraction of the
compute. Sequences of different groups share a row too: a system prompt common to all is computed once per row.
No torch: rows are arrays.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int32]
Index = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class TreeRow:
    """One trie of N nodes that holds some of the packed sequences."""

    token_ids_N: Index
    parents_N: Index
    """Index of each node's parent, always smaller than its own; -1 for a root."""
    depths_N: Index
    members: tuple[int, ...]
    """Which of the packed sequences are in this row."""
    paths: tuple[Index, ...]
    """For each member, the node of each of its tokens."""

    @property
    def tokens(self) -> int:
        """Nodes in the row: what the forward pass computes."""
        return len(self.token_ids_N)


def pack(sequences: Sequence[Ids], row_tokens: int) -> list[TreeRow]:
    """Rows of at most `row_tokens` nodes (one sequence that is longer has a row of its own), in a deterministic order.

    Sorted, neighbours share the longest prefixes, so that a greedy cut loses only one common prefix per row.
    """
    order = sorted(range(len(sequences)), key=lambda index: (sequences[index].tolist(), index))
    return [_row(sequences, members) for members in _cut(sequences, order, row_tokens)]


@dataclass(frozen=True, eq=False)
class AttentionBlock:
    """Q consecutive nodes of a row, and the K nodes that any of them may attend to."""

    start: int
    stop: int
    keys_K: Index
    """The ancestors of the block's first node, then the block itself."""
    allowed_QK: npt.NDArray[np.bool_]
    """Whether the key is the query or one of its ancestors."""


def attention_blocks(row: TreeRow, size: int) -> list[AttentionBlock]:
    """The row's attention, `size` queries at a time, without the pairs that no mask would let through.

    In depth-first order a subtree is one run of nodes. So an ancestor that stands before a block has the block's first
    node in its subtree too: the first node's ancestors are all that the whole block can see outside of itself.
    """
    return [_block(row, start, min(start + size, row.tokens)) for start in range(0, row.tokens, size)]


def _block(row: TreeRow, start: int, stop: int) -> AttentionBlock:
    above = _ancestors(row.parents_N, start)
    allowed_QK = np.zeros((stop - start, len(above) + stop - start), np.bool_)
    for query in range(stop - start):
        parent = int(row.parents_N[start + query])
        if parent >= start:
            allowed_QK[query] = allowed_QK[parent - start]
        else:
            allowed_QK[query, : row.depths_N[start + query]] = True
        allowed_QK[query, len(above) + query] = True
    return AttentionBlock(start, stop, np.concatenate([above, np.arange(start, stop, dtype=np.int64)]), allowed_QK)


def _ancestors(parents_N: Index, node: int) -> Index:
    """The ancestors of `node`, from the root down; the n-th has depth n."""
    found: list[int] = []
    while (node := int(parents_N[node])) >= 0:
        found.append(node)
    return np.array(found[::-1], np.int64)


def _cut(sequences: Sequence[Ids], order: Sequence[int], row_tokens: int) -> Iterator[list[int]]:
    """`order` in runs whose tries fit the budget."""
    members: list[int] = []
    used = 0
    for index in order:
        shared = _shared(sequences[members[-1]], sequences[index]) if members else 0
        if members and used + len(sequences[index]) - shared > row_tokens:
            yield members
            members, used, shared = [], 0, 0
        members.append(index)
        used += len(sequences[index]) - shared
    if members:
        yield members


def _shared(left: Ids, right: Ids) -> int:
    """Length of the common prefix."""
    length = min(len(left), len(right))
    different = np.flatnonzero(left[:length] != right[:length])
    return int(different[0]) if len(different) else length


def _row(sequences: Sequence[Ids], members: Sequence[int]) -> TreeRow:
    """The trie of `members`, which are sorted: each branches off the one before it."""
    tokens: list[Ids] = []
    parents: list[Index] = []
    depths: list[Index] = []
    paths: list[Index] = []
    used = 0
    for position, index in enumerate(members):
        ids = sequences[index]
        shared = _shared(sequences[members[position - 1]], ids) if position else 0
        fresh = np.arange(used, used + len(ids) - shared, dtype=np.int64)
        path = np.concatenate([paths[-1][:shared], fresh]) if shared else fresh
        tokens.append(ids[shared:])
        parents.append(np.concatenate([[-1], path[:-1]])[shared:])
        depths.append(np.arange(shared, len(ids), dtype=np.int64))
        paths.append(path)
        used += len(fresh)
    return TreeRow(
        np.concatenate(tokens).astype(np.int64),
        np.concatenate(parents).astype(np.int64),
        np.concatenate(depths),
        tuple(members),
        tuple(paths),
    )
