"""Packs sequences with common prefixes into rows in which each shared token occurs once.

A row is a trie of token ids, flattened in depth-first order. A token attends only to its ancestors and its position is
its depth, so logits, loss and gradient are the same as for separate sequences, at a fraction of the compute. Sequences
of different groups may share a row, so a common system prompt is computed once per row. No torch: rows are arrays.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int32]
Index = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class TreeRow:
    """One trie of N nodes with some of the packed sequences."""

    token_ids_N: Index
    parents_N: Index
    """Index of each node's parent, always smaller than the node's own; -1 for roots."""
    depths_N: Index
    members: tuple[int, ...]
    """Indices of the packed sequences in this row."""
    paths: tuple[Index, ...]
    """For each member, the nodes of its tokens."""

    @property
    def tokens(self) -> int:
        """Number of nodes, i.e. tokens computed by the forward pass."""
        return len(self.token_ids_N)


def pack(sequences: Sequence[Ids], row_tokens: int) -> list[TreeRow]:
    """Pack into rows of at most `row_tokens` nodes (a longer sequence gets its own row), in a deterministic order.

    Sequences are sorted, so neighbours share the longest prefixes and each cut repeats only one common prefix.
    """
    order = sorted(range(len(sequences)), key=lambda index: (sequences[index].tolist(), index))
    return [_row(sequences, members) for members in _cut(sequences, order, row_tokens)]


@dataclass(frozen=True, eq=False)
class AttentionBlock:
    """Q consecutive nodes of a row and the K nodes that at least one of them attends to."""

    start: int
    stop: int
    keys_K: Index
    """The ancestors of the block's first node, followed by the block itself."""
    allowed_QK: npt.NDArray[np.bool_]
    """Whether the key is the query itself or one of its ancestors."""


def attention_blocks(row: TreeRow, size: int) -> list[AttentionBlock]:
    """Split the row's attention into blocks of `size` queries, leaving out keys that are fully masked.

    In depth-first order a subtree is contiguous. So an ancestor of any node in a block that lies before the block is
    also an ancestor of the block's first node: outside of itself, a block needs only the first node's ancestors.
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
    """Cut `order` into runs whose tries fit the budget."""
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
    """Build the trie of `members`, which are sorted, so each one branches off the one before."""
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
