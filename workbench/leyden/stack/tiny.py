"""A Llama of three million random parameters with its own tokenizer, for tests.

A complete model folder, made in a second; the same seed gives the same weights.
"""

import json
from pathlib import Path
from typing import Any

VOCABULARY = 384
_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_NAMES = ("Tom", "Mia", "Ada", "Ben", "Eva", "Max")
_THINGS = ("apples", "books", "coins", "eggs", "pens", "stamps")
_SENTENCES = (
    "system\nYou are a helpful assistant with a calculator.",
    "{name} has {number} {thing} and buys {number} more. How many {thing} does {name} have now?",
    "{name} has {number} {thing} and gives {number} away. How many {thing} are left?",
    "CALC({number}+{number}) RESULT: {number} ANSWER: {number}",
    "user\nCALC({number}-{number}) assistant\nRESULT: {number}",
)


def make_tiny_model(folder: Path, seed: int = 0) -> Path:
    """Write the model and its tokenizer to `folder`, and return it. vLLM supports its head size, 32."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(folder)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=32,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = LlamaForCausalLM(config)
    model.to(torch.float32).save_pretrained(folder)
    return folder


def write_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(  # one token per digit, with which numbers are learned best
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(_SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "model_max_length": 2048,
        "clean_up_tokenization_spaces": False,
        "chat_template": _CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2))


def _corpus() -> list[str]:
    return [
        sentence.format(name=name, thing=thing, number=7 * index + place)
        for index, name in enumerate(_NAMES)
        for place, thing in enumerate(_THINGS)
        for sentence in _SENTENCES
    ]
