"""Attention over a packed row, as a Hugging Face attention implementation that works block by block.

A row of N nodes costs about N x (depth + block size) pairs instead of N x N, so a whole batch fits in one row.
Without blocks it is plain causal attention.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from leyden.trainer.core.prefix_tree import TreeRow, attention_blocks

TREE_ATTENTION = "leyden_tree"
BLOCK = 128
"""Queries per block. Larger blocks mean fewer, larger products, but more masked pairs."""


@dataclass(frozen=True, eq=False)
class TensorBlock:
    """An `AttentionBlock` as tensors on the model's device."""

    start: int
    stop: int
    keys_K: Tensor
    bias_QK: Tensor
    """0 where the query attends to the key, -inf elsewhere."""


def tensor_blocks(row: TreeRow, like: Tensor) -> list[TensorBlock]:
    """The row's attention blocks, in the dtype and on the device of `like`; shared by all layers."""
    found = []
    for block in attention_blocks(row, BLOCK):
        hidden_QK = torch.from_numpy(~block.allowed_QK).to(like.device)
        bias_QK = torch.zeros(hidden_QK.shape, dtype=like.dtype, device=like.device)
        keys_K = torch.from_numpy(block.keys_K).to(like.device)
        found.append(TensorBlock(block.start, block.stop, keys_K, bias_QK.masked_fill_(hidden_QK, float("-inf"))))
    return found


def tree_attention(  # noqa: PLR0917 - transformers calls it
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    tree_blocks: list[TensorBlock] | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention output [1, N, heads, D] of query [1, heads, N, D], key and value [1, key heads, N, D].

    Raises ValueError for unsupported kinds of attention: sliding windows, soft caps, sinks.
    """
    if unsupported := [name for name in ("sliding_window", "softcap", "s_aux") if options.get(name) is not None]:
        raise ValueError(f"attention with {unsupported[0]} cannot be packed into a prefix tree")
    attend = partial(scaled_dot_product_attention, scale=scaling, enable_gqa=key.shape[1] != query.shape[1])
    if tree_blocks is None:
        whole = attend(query, key, value, is_causal=True)
        return whole.transpose(1, 2).contiguous(), None
    parts = [
        attend(
            query[:, :, block.start : block.stop],
            key.index_select(2, block.keys_K),
            value.index_select(2, block.keys_K),
            attn_mask=block.bias_QK,
        )
        for block in tree_blocks
    ]
    return torch.cat(parts, dim=2).transpose(1, 2).contiguous(), None


AttentionInterface.register(TREE_ATTENTION, tree_attention)
