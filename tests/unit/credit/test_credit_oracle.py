"""Advantages, GAE and whitening in float64 against verl's own functions, on random ragged groups.

verl writes an outcome on a response's last token and masks what the response did not write. So a group's rollouts are
rows of one batch, padded to the longest; a step of ours is a token of theirs.
"""

from collections.abc import Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import verl_oracle
from leyden.credit.core.advantage import ADVANTAGES
from leyden.credit.core.strategies import episode_of, strategy_of
from leyden.trainer.core.whiten import whiten

SEEDS = range(25)
CLOSE: Any = {"rtol": 0, "atol": 1e-9}


@pytest.fixture(scope="module")
def verl() -> ModuleType:
    return verl_oracle.load()


class Batch:
    """Several groups of rollouts with differing numbers of steps, as we have them and as verl does."""

    def __init__(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        sizes = random.integers(2, 7, size=4)
        self.groups = [[random.normal(size=random.integers(1, 9)) for _ in range(size)] for size in sizes]
        rows = [rewards_T for group in self.groups for rewards_T in group]
        self.lengths = [len(rewards_T) for rewards_T in rows]
        self.rewards = _padded(rows)
        self.mask = _padded([np.ones(length) for length in self.lengths])
        self.index = np.repeat([f"group {number}" for number in range(len(sizes))], sizes)

    def of_totals(self, name: str) -> torch.Tensor:
        """Our advantages of the rollouts' totals, at each of their steps."""
        rows: list[Sequence[float]] = []
        for group in self.groups:
            episodes = [episode_of([0.0] * len(rewards_T), float(rewards_T.sum())) for rewards_T in group]
            credited = strategy_of("identical").assign_credit(episodes, ADVANTAGES[name])
            rows += [[step.advantage for step in steps] for steps in credited]
        return _padded(rows)

    def whitened(self, values: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(whiten(values.numpy(), self.mask.numpy().astype(bool)))


def _padded(rows: Sequence[Any]) -> torch.Tensor:
    width = max(len(row) for row in rows)
    return torch.tensor(np.array([np.pad(np.asarray(row, np.float64), (0, width - len(row))) for row in rows]))


@pytest.mark.parametrize("seed", SEEDS)
def test_grpo_is_verls(verl: ModuleType, seed: int) -> None:
    batch = Batch(seed)
    theirs, _ = verl.compute_grpo_outcome_advantage(batch.rewards, batch.mask, batch.index)
    torch.testing.assert_close(batch.of_totals("grpo"), theirs, **CLOSE)


@pytest.mark.parametrize("seed", SEEDS)
def test_dr_grpo_is_verls_without_the_deviation(verl: ModuleType, seed: int) -> None:
    batch = Batch(seed)
    theirs, _ = verl.compute_grpo_outcome_advantage(
        batch.rewards, batch.mask, batch.index, norm_adv_by_std_in_grpo=False
    )
    torch.testing.assert_close(batch.of_totals("dr_grpo"), theirs, **CLOSE)


@pytest.mark.parametrize("seed", SEEDS)
def test_rloo_is_verls(verl: ModuleType, seed: int) -> None:
    batch = Batch(seed)
    theirs, _ = verl.compute_rloo_outcome_advantage(batch.rewards, batch.mask, batch.index)
    torch.testing.assert_close(batch.of_totals("rloo"), theirs, **CLOSE)


@pytest.mark.parametrize("gamma", [1.0, 0.9])
@pytest.mark.parametrize("seed", SEEDS)
def test_reinforce_plus_plus_and_the_trainers_whitening_are_verls(verl: ModuleType, seed: int, gamma: float) -> None:
    batch = Batch(seed)
    strategy = strategy_of({"name": "discounted", "gamma": gamma})
    rows: list[list[float]] = []
    for group in batch.groups:
        credited = strategy.assign_credit([episode_of(list(r), 0.0) for r in group], ADVANTAGES["reinforce_plus_plus"])
        rows += [[step.advantage for step in steps] for steps in credited]
    theirs, returns = verl.compute_reinforce_plus_plus_outcome_advantage(
        batch.rewards, batch.mask, config=SimpleNamespace(gamma=gamma)
    )
    torch.testing.assert_close(_padded(rows), returns, **CLOSE)
    torch.testing.assert_close(batch.whitened(_padded(rows)), theirs, **CLOSE)


@pytest.mark.parametrize("seed", SEEDS)
def test_reinforce_plus_plus_baseline_and_the_trainers_whitening_are_verls(verl: ModuleType, seed: int) -> None:
    batch = Batch(seed)
    theirs, _ = verl.compute_reinforce_plus_plus_baseline_outcome_advantage(batch.rewards, batch.mask, batch.index)
    torch.testing.assert_close(batch.whitened(batch.of_totals("reinforce_plus_plus_baseline")), theirs, **CLOSE)


@pytest.mark.parametrize(("gamma", "lambda_"), [(1.0, 0.95), (0.9, 0.5), (0.99, 1.0), (0.5, 0.0)])
@pytest.mark.parametrize("seed", SEEDS)
def test_gae_is_verls(verl: ModuleType, seed: int, gamma: float, lambda_: float) -> None:
    batch = Batch(seed)
    random = np.random.default_rng(1000 + seed)
    values = [random.normal(size=length) for length in batch.lengths]
    strategy = strategy_of({"name": "gae", "gamma": gamma, "lambda": lambda_, "values": "recorded"})
    rewards = [rewards_T for group in batch.groups for rewards_T in group]
    episodes = [episode_of(list(r), 0.0, values_T=list(v)) for r, v in zip(rewards, values, strict=True)]
    credited = strategy.assign_credit(episodes, ADVANTAGES["grpo"])
    advantages = _padded([[step.advantage for step in steps] for steps in credited])
    returns = _padded([[step.return_ for step in steps] for steps in credited])
    theirs, their_returns = verl.compute_gae_advantage_return(
        batch.rewards, _padded(values), batch.mask, gamma, lambda_
    )
    torch.testing.assert_close(returns, their_returns * batch.mask, **CLOSE)
    torch.testing.assert_close(advantages, (their_returns - _padded(values)) * batch.mask, **CLOSE)
    torch.testing.assert_close(batch.whitened(advantages), theirs * batch.mask, **CLOSE)
