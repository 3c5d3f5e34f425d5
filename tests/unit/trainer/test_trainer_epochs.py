"""Several optimiser steps on a batch against the same written out: plain forward passes, one sequence at a time."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from leyden.events import SequenceCredited
from leyden.trainer.core.forward import head_logprobs
from leyden.trainer.core.revisions import ReadyGroup
from leyden.trainer.core.sequences import TrainSequence, to_sequence
from leyden.trainer.core.step_metrics import StepMetric
from leyden.trainer.learner import Learner
from leyden.trainer.model import PolicyModel
from leyden.trainer.settings import TrainerEnvironment, TrainerSettings
from unit.trainer.test_trainer_prefix_tree import plain_logprobs

RATE, LOW, HIGH, CAP, BONUS = 0.05, 0.1, 0.2, 1.5, 0.02


def by_hand(folder: Path, sequences: list[TrainSequence], epochs: int) -> dict[str, torch.Tensor]:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)
    old = [plain_logprobs(model, sequence).detach() for sequence in sequences]
    for _ in range(epochs):
        optimiser.zero_grad()
        for sequence, old_T in zip(sequences, old, strict=True):
            at = sequence.action_positions
            logits_TV = model(torch.from_numpy(sequence.token_ids_T.astype(np.int64))[None]).logits[0, at - 1]
            log_TV = (logits_TV / torch.from_numpy(sequence.temperature_T[at].astype(np.float64))[:, None]).log_softmax(
                -1
            )
            new_T = log_TV[range(len(at)), torch.from_numpy(sequence.token_ids_T[at].astype(np.int64))]
            behaviour_T = torch.from_numpy(sequence.behaviour_logprobs_T[at].astype(np.float64))
            advantage = float(sequence.advantages_T[at][0])
            ratio_T = (new_T - old_T).exp()
            held_T = ratio_T.clamp(1 - LOW, 1 + HIGH)
            value_T = torch.minimum(ratio_T * advantage, held_T * advantage)
            value_T = value_T * (old_T - behaviour_T).exp().clamp(max=CAP)
            entropy_T = -(log_TV.exp() * log_TV).sum(-1)
            (-(value_T + BONUS * entropy_T).mean() / len(sequences)).backward()
        optimiser.step()
    return dict(model.named_parameters())


@pytest.mark.parametrize("mode", ["full", "lora"])
@pytest.mark.parametrize("epochs", [1, 3])
def test_epochs_are_steps_against_the_logprobs_from_before_the_first(
    tiny_llama: Path, group: Callable[..., list[SequenceCredited]], mode: str, epochs: int
) -> None:
    objective = {"name": "clipped", "clip_low": LOW, "clip_high": HIGH, "dual_clip": None}
    settings = TrainerSettings.model_validate(
        {"mode": mode, "dtype": "float64", "learning_rate": RATE, "max_grad_norm": 1e9, "aggregation": "sequence",
         "importance_cap": CAP, "entropy": BONUS, "epochs": epochs, "row_tokens": 64}
        | ({"objective": objective} if epochs > 1 else {"objective": {"name": "clipped"}})
    )  # fmt: skip
    environment = TrainerEnvironment(model=str(tiny_llama), checkpoint_dir=tiny_llama, device="cpu", threads=1)
    policy = PolicyModel(settings, environment)
    sequences = [to_sequence(event) for event in group("g1", 1)]
    before = {name: parameter.detach().clone() for name, parameter in policy.trained.items()}
    ready = ReadyGroup(group_id="g1", sequences=tuple(sequences), left_out=0, zero_variance=False)
    outcome = Learner(policy, settings).step([ready], 0)
    assert outcome.metrics[StepMetric.EPOCHS] == epochs
    assert (outcome.metrics[StepMetric.CLIPPED] > 0) == (epochs > 1)
    assert any(not torch.equal(parameter, before[name]) for name, parameter in policy.trained.items())
    if mode == "full":
        for name, expected in by_hand(tiny_llama, sequences, epochs).items():
            assert float((policy.trained[name] - expected).detach().abs().max()) < 1e-6, name


def test_a_frozen_output_layer_gives_the_gradient_of_one_that_is_trained() -> None:
    random = np.random.default_rng(0)
    hidden = torch.from_numpy(random.normal(size=(5, 8))).requires_grad_()
    weight = torch.from_numpy(random.normal(size=(11, 8)))
    targets, temperature = torch.tensor([0, 3, 10, 3, 7]), torch.tensor([0.5, 1.0, 2.0, 0.7, 1.0], dtype=torch.float64)
    slopes = torch.from_numpy(random.normal(size=(2, 5)))
    found = []
    for is_trained in (True, False):
        logprobs, entropy = head_logprobs(hidden, targets, temperature, weight.clone().requires_grad_(is_trained), True)
        total = (slopes[0] * logprobs + slopes[1] * entropy).sum()
        found.append((total.detach(), torch.autograd.grad(total, hidden)[0]))
    expected = torch.distributions.Categorical(logits=hidden.detach() @ weight.T / temperature[:, None])
    plain = (slopes[0] * expected.log_prob(targets) + slopes[1] * expected.entropy()).sum()
    assert all(float((total - plain).abs()) < 1e-10 for total, _ in found)
    assert float((found[0][1] - found[1][1]).abs().max()) < 1e-10
