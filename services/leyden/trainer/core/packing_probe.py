"""Does packing change what a model computes? Packed against plain logprobs of the same tokens. Run once, at load.

The packed forward pass needs a model in which tokens meet in attention alone, through the attention interface, at the
positions that it is given. Recurrent and convolutional layers, ALiBi and attention of a model's own do not keep to
that, and a model does not say so.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from leyden.trainer.core.actions import pack_actions
from leyden.trainer.core.forward import action_logprobs
from leyden.trainer.core.sequences import TrainSequence
from leyden.trainer.core.tree_attention import TREE_ATTENTION

PREFIX, BRANCHES = 12, (9, 17, 13)
"""Tokens of the probe's common prefix, and of the branches after it; one more sequence shares nothing."""
PLAIN_ATTENTION = "eager"
FULL_PRECISION, LOW_PRECISION = 1e-4, 0.25
"""Largest gap that is rounding, in standard deviations of the plain logprobs; the second for 16-bit weights. Measured:
1e-5 and 0.09 with SmolLM2-135M in float32 and bfloat16, 6e-6 with random Llamas; 4e-4 and more with what leaks."""


def packing_gap(model: Any) -> tuple[float, float]:
    """(Largest difference in nats between the probe's packed and plain logprobs, the largest that rounding explains).

    For the plain ones each sequence is computed alone, with the model's own attention. Raises what the model raises if
    it cannot be called packed.
    """
    sequences = _probe(int(model.get_input_embeddings().num_embeddings))
    with torch.no_grad():
        [row] = pack_actions(sequences, np.ones(len(sequences)), row_tokens=10_000)
        packed_A = action_logprobs(model, row).logprobs_A.double()
        model.set_attn_implementation(PLAIN_ATTENTION)
        try:
            plain_A = torch.cat([_plain(model, sequences[member]) for member in row.tree.members]).double()
        finally:
            model.set_attn_implementation(TREE_ATTENTION)
    bits = torch.finfo(next(model.parameters()).dtype).bits
    limit = (LOW_PRECISION if bits <= 16 else FULL_PRECISION) * float(plain_A.std())
    gap = float((packed_A - plain_A).abs().max())
    return (gap if np.isfinite(gap) else float("inf")), limit


def _plain(model: Any, sequence: TrainSequence) -> torch.Tensor:
    """The logprobs of all tokens but the first, each given those before it."""
    ids_T = torch.from_numpy(sequence.token_ids_T.astype(np.int64)).to(next(model.parameters()).device)
    logits_TV = model(input_ids=ids_T[None], use_cache=False).logits[0, :-1]
    precise_TV = logits_TV.to(torch.promote_types(logits_TV.dtype, torch.float32))
    logprobs_T: torch.Tensor = precise_TV.log_softmax(dim=-1).gather(1, ids_T[1:, None])[:, 0]
    return logprobs_T


def _probe(vocabulary: int) -> list[TrainSequence]:
    """Random tokens, always the same."""
    random = np.random.default_rng(0)
    prefix, other, *branches = (
        random.integers(0, vocabulary, size, dtype=np.int32) for size in (PREFIX, PREFIX, *BRANCHES)
    )
    return [_sequence(ids_T) for ids_T in (other, *(np.concatenate([prefix, branch]) for branch in branches))]


def _sequence(ids_T: npt.NDArray[np.int32]) -> TrainSequence:
    """A sequence of which all tokens but the first are actions."""
    length = len(ids_T)
    return TrainSequence(
        sequence_id="probe",
        group_id="probe",
        rollout=("probe", 0),
        token_ids_T=ids_T,
        mask_T=np.arange(length) > 0,
        behaviour_logprobs_T=np.zeros(length, np.float32),
        advantages_T=np.ones(length, np.float32),
        temperature_T=np.ones(length, np.float32),
        versions_T=np.zeros(length, np.int32),
        reward=0.0,
        origins=(),
    )
