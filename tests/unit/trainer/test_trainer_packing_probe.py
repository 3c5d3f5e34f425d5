"""A model whose packed logprobs are not its own is refused when it is loaded, and what is trained has no dropout."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from leyden.events import SequenceCredited
from leyden.trainer.core.actions import pack_actions
from leyden.trainer.core.forward import action_logprobs
from leyden.trainer.core.loss import Aggregation, token_weights
from leyden.trainer.core.packing_probe import packing_gap
from leyden.trainer.core.sequences import to_sequence
from leyden.trainer.model import PolicyModel, UnsupportedModelError
from leyden.trainer.settings import TrainerEnvironment, TrainerSettings

SIZES: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
GPT2 = {"vocab_size": 97, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LINEAR = {
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
    "shared_expert_intermediate_size": 16,
}  # fmt: skip
PACKED: dict[str, dict[str, Any]] = {
    "llama": SIZES,
    "qwen2": SIZES,
    "qwen3": SIZES | {"head_dim": 8},
    "mistral": SIZES | {"sliding_window": None},
    "smollm3": SIZES | {"no_rope_layers": [1, 0]},
    "olmo2": SIZES,
    "phi3": SIZES,
    "gpt2": GPT2 | {"bos_token_id": 1, "eos_token_id": 2},
    "opt": SIZES | {"ffn_dim": 48, "word_embed_proj_dim": 32, "dropout": 0.5},
    "qwen3_moe": SIZES | EXPERTS | {"head_dim": 8},
}
REFUSED: dict[str, dict[str, Any]] = {
    "bloom": {"vocab_size": 97, "hidden_size": 32, "n_layer": 2, "n_head": 4},
    "mamba": {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
    "mamba2": {
        "vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8, "num_heads": 8, "head_dim": 8,
        "n_groups": 1,
    },
    "lfm2": SIZES | {"layer_types": ["conv", "full_attention"]},
    "qwen3_next": SIZES | EXPERTS | LINEAR | {"head_dim": 8, "layer_types": ["linear_attention", "full_attention"]},
    "mistral": SIZES | {"sliding_window": 64},
    "falcon": {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
    "gptj": GPT2 | {"rotary_dim": 4},
}  # fmt: skip


def saved(folder: Path, kind: str, fields: dict[str, Any], seed: int = 0) -> Path:
    """A random model of that kind."""
    torch.manual_seed(seed)
    AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **fields)).save_pretrained(str(folder))
    return folder


def opened(folder: Path, **settings: Any) -> PolicyModel:
    chosen = TrainerSettings.model_validate({"mode": "full", **settings})
    return PolicyModel(chosen, TrainerEnvironment(model=str(folder), device="cpu", threads=1))


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("kind", PACKED)
def test_a_model_that_computes_the_same_when_packed_is_taken(tmp_path: Path, kind: str, seed: int) -> None:
    model = opened(saved(tmp_path, kind, PACKED[kind], seed))
    gap, limit = packing_gap(model.causal)
    assert gap <= limit
    assert packing_gap(model.causal) == (gap, limit), "the probe leaves the model as it was"


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("kind", REFUSED)
def test_a_model_that_computes_something_else_when_packed_is_refused(tmp_path: Path, kind: str, seed: int) -> None:
    folder = saved(tmp_path, kind, REFUSED[kind], seed)
    with pytest.raises(UnsupportedModelError, match=f"model {folder}"):
        opened(folder)


def test_the_refusal_says_what_differs_and_by_how_much(tmp_path: Path) -> None:
    folder = saved(tmp_path, "mamba", REFUSED["mamba"])
    with pytest.raises(UnsupportedModelError, match=r"\(mamba\) .* packing changes its logprobs by 0\.\d+ nats"):
        opened(folder)


def test_a_model_in_bfloat16_is_taken(tmp_path: Path) -> None:
    model = opened(saved(tmp_path, "llama", PACKED["llama"]), dtype="bfloat16")
    gap, limit = packing_gap(model.causal)
    assert 0 < gap <= limit


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("gpt2", {}),
        ("gpt2", {"gradient_checkpointing": True}),
        ("opt", {}),
        ("opt", {"gradient_checkpointing": True}),
        ("opt", {"mode": "lora"}),
    ],
)
def test_what_is_trained_has_no_dropout(
    tmp_path: Path, group: Callable[..., list[SequenceCredited]], kind: str, settings: dict[str, Any]
) -> None:
    """Both have dropout in their configuration: logprobs and gradients of two passes are the same."""
    model = opened(saved(tmp_path, kind, PACKED[kind]), **settings)
    sequences = [to_sequence(event) for event in group("g", 1)]
    weights_S = token_weights([1] * 3, [one.action_tokens for one in sequences], Aggregation.TOKEN)
    [row] = pack_actions(sequences, weights_S, 1000)

    def once() -> tuple[torch.Tensor, list[torch.Tensor]]:
        model.optimiser.zero_grad()
        found = action_logprobs(model.causal, row).logprobs_A
        found.sum().backward()  # type: ignore[no-untyped-call]
        return found.detach(), [p.grad.clone() for p in model.trained.values() if p.grad is not None]

    (first, gradients), (second, again) = once(), once()
    assert torch.equal(first, second)
    assert gradients and all(torch.equal(one, other) for one, other in zip(gradients, again, strict=True))
