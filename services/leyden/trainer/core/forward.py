"""Computes the logprobs of a row's action tokens: the decoder on all nodes, the output layer only where needed."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint

from leyden.trainer.core.actions import PackedRow
from leyden.trainer.core.prefix_tree import TreeRow
from leyden.trainer.core.tree_attention import tensor_blocks

HEAD_CHUNK = 256
"""Predictions whose logits are in memory at once; 256 x 49,152 float32 is 50 MB."""


@dataclass(frozen=True)
class ActionLogprobs:
    """Results per action token of a row."""

    logprobs_A: Tensor
    entropy_A: Tensor
    """Entropy of the distribution from which the token was sampled."""


def action_logprobs(model: Any, row: PackedRow, entropy_gradient: bool = False) -> ActionLogprobs:
    """Logprobs of the row's A action tokens at their sampling temperature.

    `model` is a Hugging Face causal LM loaded with the attention implementation `TREE_ATTENTION`. `entropy_gradient`:
    the entropies have a gradient too, which costs about one more product with the output layer.
    """
    hidden_NH = _hidden(model, row.tree)
    device = hidden_NH.device
    precision = torch.promote_types(hidden_NH.dtype, torch.float32)
    selected_UH = hidden_NH.index_select(0, _on(device, row.nodes_U)).to(precision)
    weight_VH = model.get_output_embeddings().weight.to(precision)
    targets_U, temperature_U = _on(device, row.targets_U), _on(device, row.temperature_U).to(precision)
    logprobs_U, entropy_U = head_logprobs(selected_UH, targets_U, temperature_U, weight_VH, entropy_gradient)
    prediction_A = _on(device, row.prediction_A)
    return ActionLogprobs(logprobs_U.index_select(0, prediction_A), entropy_U.index_select(0, prediction_A))


def head_logprobs(
    hidden_UH: Tensor, targets_U: Tensor, temperature_U: Tensor, weight_VH: Tensor, entropy_gradient: bool = False
) -> tuple[Tensor, Tensor]:
    """(logprobs of the targets [U], entropy [U]); at most `HEAD_CHUNK` rows of logits in memory.

    The entropy has a gradient only where `entropy_gradient` asks for it.
    """
    pieces = zip(*(torch.split(values, HEAD_CHUNK) for values in (hidden_UH, targets_U, temperature_U)), strict=True)
    if weight_VH.requires_grad and torch.is_grad_enabled():
        again = partial(checkpoint, _head, use_reentrant=False, preserve_rng_state=False)
        found = [again(*piece, weight_VH, entropy_gradient) for piece in pieces]
    else:
        found = [_FrozenHead.apply(*piece, weight_VH, entropy_gradient) for piece in pieces]  # type: ignore[no-untyped-call]
    logprobs_U, entropy_U = (torch.cat(parts) for parts in zip(*found, strict=True))
    return logprobs_U, entropy_U


def _hidden(model: Any, tree: TreeRow) -> Tensor:
    """Last hidden states [N, H] of the trie's nodes."""
    parameter = next(model.parameters())
    output = model.get_decoder()(
        input_ids=_on(parameter.device, tree.token_ids_N)[None],
        position_ids=_on(parameter.device, tree.depths_N)[None],
        use_cache=False,
        tree_blocks=tensor_blocks(tree, parameter),
    )
    hidden_NH: Tensor = output.last_hidden_state[0]
    return hidden_NH


def _head(
    hidden_CH: Tensor, targets_C: Tensor, temperature_C: Tensor, weight_VH: Tensor, entropy_gradient: bool
) -> tuple[Tensor, Tensor]:
    """(logprobs of the targets [C], entropy [C]); recomputed in the backward pass, not stored."""
    logits_CV = linear(hidden_CH, weight_VH) / temperature_C[:, None]
    total_C = logits_CV.logsumexp(dim=-1)
    logprobs_C = logits_CV.gather(1, targets_C[:, None])[:, 0] - total_C
    with torch.set_grad_enabled(entropy_gradient and torch.is_grad_enabled()):
        probabilities_CV = (logits_CV - total_C[:, None]).exp_()
        product_CV = probabilities_CV * logits_CV if entropy_gradient else probabilities_CV.mul_(logits_CV)
        entropy_C = total_C - product_CV.sum(dim=-1)
    return logprobs_C, entropy_C


class _FrozenHead(torch.autograd.Function):
    """`_head` for a frozen output layer: the derivatives to the hidden states are computed in the forward pass already.

    With z the tempered logits and p their softmax, d logprob / d z = onehot - p, and d entropy / d z = -p (log p + H).
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_CH: Tensor,
        targets_C: Tensor,
        temperature_C: Tensor,
        weight_VH: Tensor,
        entropy_gradient: bool,
    ) -> tuple[Tensor, Tensor]:
        logits_CV = linear(hidden_CH, weight_VH).div_(temperature_C[:, None])
        total_C = logits_CV.logsumexp(dim=-1)
        logprobs_C = logits_CV.gather(1, targets_C[:, None])[:, 0] - total_C
        probabilities_CV = (logits_CV - total_C[:, None]).exp_()
        product_CV = probabilities_CV * logits_CV if entropy_gradient else logits_CV.mul_(probabilities_CV)
        entropy_C = total_C - product_CV.sum(dim=-1)
        if ctx.needs_input_grad[0]:
            slopes = [(weight_VH.index_select(0, targets_C) - probabilities_CV @ weight_VH) / temperature_C[:, None]]
            if entropy_gradient:
                surprise_CV = logits_CV.sub_((total_C - entropy_C)[:, None])  # log p + H
                slopes.append(probabilities_CV.mul_(surprise_CV).neg_() @ weight_VH / temperature_C[:, None])
            ctx.save_for_backward(*slopes)
        if not entropy_gradient:
            ctx.mark_non_differentiable(entropy_C)
        return logprobs_C, entropy_C

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        pairs = zip(gradients, ctx.saved_tensors, strict=False)  # the entropy has a slope only where it was asked for
        found = sum((gradient[:, None] * slope_CH for gradient, slope_CH in pairs), start=torch.zeros(()))
        return found, None, None, None, None


def _on(device: torch.device, array: Any) -> Tensor:
    return torch.from_numpy(array).to(device)
