"""Samples one token per row from logits. Axes: _B rows of the batch, _V vocabulary."""

from collections.abc import Sequence

import torch
from torch import Tensor

from leyden.policy.engines.transformers_engine.sequence import Sampling


def draw(
    logits_BV: Tensor, samplings: Sequence[Sampling], generators: Sequence[torch.Generator | None]
) -> tuple[Tensor, Tensor]:
    """(one token id per row [B], logprobs [B, V] of the distribution that it was sampled from).

    Temperature, then top_k and top_p, then sampling by the Gumbel trick. A greedy row takes the most likely token, and
    has the logprobs of temperature 1.
    """
    temperatures_B = logits_BV.new_tensor([1.0 if one.greedy else one.temperature for one in samplings])
    scores_BV = logits_BV / temperatures_B[:, None]
    tokens_B = logits_BV.argmax(-1)
    rows = [row for row, sampling in enumerate(samplings) if not sampling.greedy]
    if rows:
        for row in rows:
            truncate_(scores_BV[row], samplings[row].top_k, samplings[row].top_p)
        noise_BV = torch.empty_like(scores_BV[rows]).exponential_()
        for at, row in enumerate(rows):
            if (generator := generators[row]) is not None:
                noise_BV[at].exponential_(generator=generator)
        tokens_B[rows] = (scores_BV[rows] - noise_BV.log()).argmax(-1)
    return tokens_B, scores_BV.log_softmax(-1)


def truncate_(scores_V: Tensor, top_k: int, top_p: float) -> None:
    """Set to -inf, in place, tokens that are not among the top_k most likely or outside the nucleus of mass top_p."""
    if 0 < top_k < scores_V.numel():
        scores_V[scores_V < scores_V.topk(top_k).values[-1]] = -torch.inf
    if top_p < 1.0:
        ordered_V, order_V = scores_V.sort(descending=True)
        mass_V = ordered_V.softmax(-1)
        outside_V = mass_V.cumsum(-1) - mass_V >= top_p
        scores_V[order_V[outside_V]] = -torch.inf
