"""Logprobs of a row's action tokens: the decoder over the trie, the output layer only where an action is predicted."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint

from leyden.trainer.core.actions import PackedRow
from leyden.trainer.core.prefix_tree import TreeRow, ancestor_mask

HEAD_CHUNK = 256
"""Predictions whose logits are alive at once; 256 x 49,152 float32 is 50 MB."""


@dataclass(frozen=True)
class ActionLogprobs:
    """Per action token of a row."""

    logprobs_A: Tensor
    entropy_A: Tensor
    """Entropy of the distribution that the token was drawn from; no gradient."""


def action_logprobs(model: Any, row: PackedRow) -> ActionLogprobs:
    """Logprobs, at the sampling temperature, of the row's A action tokens under `model` (a Hugging Face causal LM)."""
    hidden_NH = _hidden(model, row.tree)
    device = hidden_NH.device
    precision = torch.promote_types(hidden_NH.dtype, torch.float32)
    selected_UH = hidden_NH.index_select(0, _on(device, row.nodes_U)).to(precision)
    weight_VH = model.get_output_embeddings().weight.to(precision)
    targets_U, temperature_U = _on(device, row.targets_U), _on(device, row.temperature_U).to(precision)
    chunks = [
        checkpoint(_head, *chunk, weight_VH, use_reentrant=False, preserve_rng_state=False)
        for chunk in zip(
            selected_UH.split(HEAD_CHUNK), targets_U.split(HEAD_CHUNK), temperature_U.split(HEAD_CHUNK), strict=True
        )
    ]
    prediction_A = _on(device, row.prediction_A)
    logprobs_U, entropy_U = (torch.cat([chunk[which] for chunk in chunks]) for which in (0, 1))
    return ActionLogprobs(logprobs_U.index_select(0, prediction_A), entropy_U.index_select(0, prediction_A))


def _hidden(model: Any, tree: TreeRow) -> Tensor:
    """Last hidden states [N, H] of the trie's nodes."""
    parameter = next(model.parameters())
    allowed_NN = _on(parameter.device, ancestor_mask(tree.parents_N))
    mask_NN = torch.zeros(allowed_NN.shape, dtype=parameter.dtype, device=parameter.device)
    mask_NN.masked_fill_(~allowed_NN, torch.finfo(parameter.dtype).min)
    output = model.get_decoder()(
        input_ids=_on(parameter.device, tree.token_ids_N)[None],
        attention_mask=mask_NN[None, None],
        position_ids=_on(parameter.device, tree.depths_N)[None],
        use_cache=False,
    )
    hidden_NH: Tensor = output.last_hidden_state[0]
    return hidden_NH


def _head(hidden_CH: Tensor, targets_C: Tensor, temperature_C: Tensor, weight_VH: Tensor) -> tuple[Tensor, Tensor]:
    """(logprobs of the targets [C], entropy [C] without gradient); recomputed in the backward pass, not stored."""
    logits_CV = linear(hidden_CH, weight_VH) / temperature_C[:, None]
    total_C = logits_CV.logsumexp(dim=-1)
    logprobs_C = logits_CV.gather(1, targets_C[:, None])[:, 0] - total_C
    with torch.no_grad():
        probabilities_CV = (logits_CV - total_C[:, None]).exp_()
        entropy_C = total_C - probabilities_CV.mul_(logits_CV).sum(dim=-1)
    return logprobs_C, entropy_C


def _on(device: torch.device, array: Any) -> Tensor:
    return torch.from_numpy(array).to(device)
