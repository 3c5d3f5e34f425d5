"""What the trainer's tests share: events of known numbers and a Llama of a few thousand parameters."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from leyden.events import GroupCredited, SequenceCredited, Transition, pack_floats, pack_ints

TIME = datetime(2030, 1, 1, tzinfo=UTC)


def make_sequence(
    tokens: Sequence[int],
    spans: Sequence[tuple[int, int]],
    *,
    group: str = "g0",
    index: int = 0,
    of: int = 1,
    rollout: str | None = None,
    advantage: float = 1.0,
    version: int = 0,
    temperature: float = 1.0,
    behaviour: Sequence[float] | None = None,
    policy: str = "policy",
) -> SequenceCredited:
    """A sequence with an action on each of `spans`."""
    return SequenceCredited(
        event_id=f"{group}-{index}", event_time=TIME, producer="test", rollout_id=rollout or f"{group}-r{index}",
        attempt=0, policy=policy, group_id=group, group_sequences=of, sequence_index=index,
        token_ids=pack_ints(tokens), behaviour_logprobs=pack_floats(behaviour or [-1.0] * len(tokens)),
        transitions=[
            Transition(
                call_id=f"{group}-{index}-{start}", start=start, end=end, policy_version=version,
                temperature=temperature, reward=0.0, return_=0.0, advantage=advantage,
                origin=f"model-calls.v1/0/{start}",
            )
            for start, end in spans
        ],
        rollout_reward=advantage,
    )  # fmt: skip


def make_closing(group: str, sequences: int, *, zero_variance: bool = False, policy: str = "policy") -> GroupCredited:
    """The record that closes a group."""
    return GroupCredited(
        event_id=f"{group}-closed", event_time=TIME, producer="test", policy=policy, group_id=group,
        sequences=sequences, members=sequences, zero_variance=zero_variance,
    )  # fmt: skip


def make_group(group: str, seed: int, samples: int = 3, vocabulary: int = 97) -> list[SequenceCredited]:
    """A group of two-turn samples: a prompt common to all groups, one common to the group, then answers that differ."""
    common = np.random.default_rng(0).integers(3, vocabulary, 11).tolist()
    random = np.random.default_rng(seed)
    prompt = common + random.integers(3, vocabulary, 5).tolist()
    found = []
    for index in range(samples):
        tokens = (
            prompt + random.integers(3, 6, 4).tolist() + [7, 8, 9] + random.integers(3, vocabulary, 3 + index).tolist()
        )
        spans = [(len(prompt), len(prompt) + 4), (len(prompt) + 7, len(tokens))]
        behaviour = random.uniform(-6.0, -3.0, len(tokens)).tolist()
        advantage = float(random.normal())
        found.append(make_sequence(tokens, spans, group=group, index=index, of=samples, advantage=advantage,
                                   temperature=0.7 if seed % 2 else 1.0, behaviour=behaviour))  # fmt: skip
    return found


@pytest.fixture
def sequence() -> Callable[..., SequenceCredited]:
    return make_sequence


@pytest.fixture
def closing() -> Callable[..., GroupCredited]:
    return make_closing


@pytest.fixture
def group() -> Callable[..., list[SequenceCredited]]:
    return make_group


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random Llama of 97 tokens."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=True,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("tiny-llama")
    LlamaForCausalLM(config).save_pretrained(str(folder))
    return folder
