"""Packing changes what is computed, never the result."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from leyden.events import SequenceCredited
from leyden.trainer.core.actions import pack_actions
from leyden.trainer.core.forward import action_logprobs, head_logprobs
from leyden.trainer.core.loss import Importance, LossTerms, row_loss
from leyden.trainer.core.objectives import OBJECTIVES, ActionTokens, objective_of
from leyden.trainer.core.prefix_tree import TreeRow, attention_blocks, pack
from leyden.trainer.core.sequences import TrainSequence, to_sequence
from leyden.trainer.core.tree_attention import TREE_ATTENTION

SEQUENCES = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8), min_size=1, max_size=8)


def visible(row: TreeRow, block_size: int) -> dict[int, list[int]]:
    """Each node with the nodes it attends to."""
    return {
        block.start + query: sorted(block.keys_K[allowed].tolist())
        for block in attention_blocks(row, block_size)
        for query, allowed in enumerate(block.allowed_QK)
    }


@given(SEQUENCES, st.integers(1, 30), st.integers(1, 9))
def test_every_path_spells_its_sequence_and_sees_exactly_its_prefix(
    lists: list[list[int]], budget: int, block_size: int
) -> None:
    sequences = [np.array(ids, np.int32) for ids in lists]
    rows = pack(sequences, budget)
    assert sorted(member for row in rows for member in row.members) == list(range(len(sequences)))
    for row in rows:
        assert row.tokens <= max(budget, *(len(sequences[member]) for member in row.members))
        seen = visible(row, block_size)
        assert sorted(seen) == list(range(row.tokens))
        for member, path in zip(row.members, row.paths, strict=True):
            assert row.token_ids_N[path].tolist() == lists[member]
            assert row.depths_N[path].tolist() == list(range(len(path)))
            for depth, node in enumerate(path):
                assert seen[int(node)] == sorted(path[: depth + 1].tolist())


@given(SEQUENCES)
def test_one_row_holds_each_distinct_prefix_once(lists: list[list[int]]) -> None:
    (row,) = pack([np.array(ids, np.int32) for ids in lists], 1_000)
    assert row.tokens == len({tuple(ids[: end + 1]) for ids in lists for end in range(len(ids))})


def gradient(
    model: Any, sequences: Sequence[TrainSequence], weights: np.ndarray, budget: int, terms: LossTerms
) -> tuple[float, torch.Tensor]:
    """Loss and gradient when `sequences` are packed together."""
    model.zero_grad()
    total = 0.0
    for row in pack_actions(sequences, weights, budget):
        found = action_logprobs(model, row, entropy_gradient=terms.entropy > 0)
        behaviour, advantages, token_weight = (
            torch.from_numpy(values) for values in (row.behaviour_A, row.advantages_A, row.weights_A)
        )
        tokens = ActionTokens(
            logprobs_A=found.logprobs_A,
            old_A=found.logprobs_A.detach(),
            behaviour_A=behaviour,
            advantages_A=advantages,
            sequence_A=torch.from_numpy(row.sequence_A),
        )
        loss, _ = row_loss(tokens, weights_A=token_weight, terms=terms, entropy_A=found.entropy_A)
        loss.backward()
        total += float(loss.detach())
    return total, torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def plain_logprobs(model: Any, sequence: TrainSequence) -> torch.Tensor:
    """What Hugging Face's own causal forward pass says, sequence by sequence."""
    logits = model(torch.from_numpy(sequence.token_ids_T.astype(np.int64))[None]).logits[0]
    at = sequence.action_positions
    scaled = logits[at - 1] / torch.from_numpy(sequence.temperature_T[at].astype(np.float64))[:, None]
    return scaled.log_softmax(-1)[range(len(at)), torch.from_numpy(sequence.token_ids_T[at].astype(np.int64))]


@pytest.fixture(scope="module")
def model(tiny_llama: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float64, attn_implementation=TREE_ATTENTION)


@pytest.fixture
def batch(group: Callable[..., list[SequenceCredited]]) -> list[TrainSequence]:
    return [to_sequence(event) for seed in range(3) for event in group(f"g{seed}", seed)]


def test_logprobs_in_a_tree_are_those_of_a_plain_forward_pass(model: Any, batch: list[TrainSequence]) -> None:
    (row,) = pack_actions(batch, np.ones(len(batch)), 10_000)
    found = action_logprobs(model, row).logprobs_A.detach()
    expected = torch.cat([plain_logprobs(model, batch[member]) for member in row.tree.members]).detach()
    assert float((found - expected).abs().max()) < 1e-6
    assert len(row.nodes_U) <= len(row.prediction_A)


def test_blocks_of_any_size_give_the_same_logprobs(
    model: Any, batch: list[TrainSequence], monkeypatch: pytest.MonkeyPatch
) -> None:
    (row,) = pack_actions(batch, np.ones(len(batch)), 10_000)
    whole = action_logprobs(model, row).logprobs_A.detach()
    monkeypatch.setattr("leyden.trainer.core.tree_attention.BLOCK", 7)
    assert float((action_logprobs(model, row).logprobs_A.detach() - whole).abs().max()) < 1e-9


@pytest.mark.parametrize(
    ("name", "importance"), [*((name, Importance.TOKEN) for name in OBJECTIVES), ("clipped", Importance.SEQUENCE)]
)
def test_a_packed_batch_has_the_loss_and_gradient_of_separate_sequences(
    model: Any, batch: list[TrainSequence], name: str, importance: Importance
) -> None:
    terms = LossTerms(objective_of(name), importance, importance_cap=50.0, entropy=0.1)
    weights = np.linspace(0.01, 0.05, len(batch))
    alone = [gradient(model, [sequence], weights[i : i + 1], 1, terms) for i, sequence in enumerate(batch)]
    expected = sum(loss for loss, _ in alone), torch.stack([grad for _, grad in alone]).sum(0)
    for budget in (60, 10_000):
        loss, grad = gradient(model, batch, weights, budget, terms)
        assert loss == pytest.approx(expected[0], abs=1e-6)
        assert float((grad - expected[1]).abs().max()) < 1e-6


def test_identical_samples_are_computed_once(group: Callable[..., list[SequenceCredited]]) -> None:
    same = [to_sequence(group("g0", 0)[0]) for _ in range(4)]
    (row,) = pack_actions(same, np.ones(4), 10_000)
    assert row.tree.tokens == len(same[0].token_ids_T) - 1
    assert (len(row.prediction_A), len(row.nodes_U)) == (4 * same[0].action_tokens, same[0].action_tokens)


def test_entropy_is_that_of_the_tempered_distribution(model: Any, group: Callable[..., list[SequenceCredited]]) -> None:
    sequence = to_sequence(group("g1", 1)[0])
    (row,) = pack_actions([sequence], np.ones(1), 10_000)
    logits = model(torch.from_numpy(sequence.token_ids_T.astype(np.int64))[None]).logits[
        0, sequence.action_positions - 1
    ]
    expected = torch.distributions.Categorical(logits=logits.detach() / np.float32(0.7)).entropy()
    found = action_logprobs(model, row).entropy_A.detach()
    assert float((found - expected).abs().max()) < 1e-6


def test_a_frozen_output_layer_gives_the_gradient_of_a_learning_one() -> None:
    random = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, 6, generator=random, dtype=torch.float64) for n in (5, 11))
    targets, temperature = torch.tensor([1, 2, 3, 4, 10]), torch.tensor([1.0, 0.5, 2.0, 1.0, 0.7], dtype=torch.float64)
    found = []
    for learns in (True, False):
        inputs = hidden.clone().requires_grad_()
        logprobs, entropy = head_logprobs(inputs, targets, temperature, weight.clone().requires_grad_(learns))
        (logprobs * torch.arange(1.0, 6.0)).sum().backward()
        assert inputs.grad is not None
        found.append(torch.cat([logprobs.detach()[:, None], entropy.detach()[:, None], inputs.grad], dim=1))
    assert float((found[0] - found[1]).abs().max()) < 1e-12
