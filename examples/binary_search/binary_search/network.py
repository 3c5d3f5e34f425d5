"""A Llama of about 100,000 parameters with random weights, as a folder that the trainer loads like any other model."""

from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils.logging import disable_progress_bar

from binary_search.game import PROMPT_TOKENS, VOCABULARY


def write_network(folder: Path, seed: int) -> int:
    """Write the model of `seed` into `folder` and give the number of its parameters."""
    disable_progress_bar()
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=176,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=PROMPT_TOKENS + 1,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(str(folder))
    return sum(parameter.numel() for parameter in model.parameters())
