"""One law across the services: what an engine says of its tokens is what the trainer computes with the same weights.

A test class inherits it and gives the fixtures `engine` and `direct`.
"""

from typing import Any

import pytest

from credit_support import CreditLoop, CreditPublisher, delivered, finished, reward
from integration.engine_api_laws import HELLO, Door, DoorLaws
from leyden.credit.core.section import CreditSection
from leyden.events import ModelCallRecorded
from leyden.ids import rollout_id_of
from leyden.trainer.core.revisions import ReadyGroup
from leyden.trainer.core.sequences import to_sequence
from leyden.trainer.core.step_metrics import StepMetric
from leyden.trainer.learner import Learner
from leyden.trainer.model import PolicyModel
from leyden.trainer.settings import TrainerEnvironment, TrainerSettings

CHOICES, TOKENS = 8, 32
GAP = 1e-3
"""Largest mean difference of two float32 implementations' logprobs of the tiny model."""


class BehaviourLogprobLaws(DoorLaws):
    @pytest.mark.parametrize("temperature", [0.5, 0.7, 1.0, 1.5])
    async def test_on_policy_the_importance_ratio_is_one_at_any_temperature(
        self, door: Door, temperature: float
    ) -> None:
        calls = [await self._sampled(door, temperature, seed) for seed in (1, 2)]
        folder = door.engine.folders[door.version]
        settings = TrainerSettings(policy="tiny", mode="full", ratio_base="behaviour", aggregation="token")
        model = PolicyModel(settings, TrainerEnvironment(model=str(folder), device="cpu", threads=1))
        outcome = Learner(model, settings).step([await credited(calls)], version=calls[0].policy_version or 0)
        metrics = outcome.metrics
        assert metrics[StepMetric.ACTION_TOKENS] == 2 * CHOICES * TOKENS
        assert metrics[StepMetric.IMPORTANCE_MEAN] == pytest.approx(1.0, abs=GAP)
        assert metrics[StepMetric.IMPORTANCE_MAX] == pytest.approx(1.0, abs=20 * GAP)
        assert metrics[StepMetric.LOGPROB_GAP] < GAP
        assert metrics[StepMetric.CLIPPED] == metrics[StepMetric.SKIPPED] == 0.0

    @staticmethod
    async def _sampled(door: Door, temperature: float, seed: int) -> ModelCallRecorded:
        """A recorded call of many choices; nothing but the temperature shapes its distribution."""
        more = {"ignore_eos": True}
        await door.openai.chat.completions.create(
            model="tiny",
            messages=HELLO,
            n=CHOICES,
            seed=seed,
            max_tokens=TOKENS,
            temperature=temperature,
            extra_body=more,
        )
        return door.call("/v1/chat/completions", choices=CHOICES)


async def credited(calls: list[ModelCallRecorded]) -> ReadyGroup:
    """A group with one rollout for each call, of which the first alone was good; as the trainer reads it."""
    loop = CreditLoop(CreditPublisher(), section=CreditSection(advantage="rloo"))
    for index, call in enumerate(calls):
        about: Any = {"rollout_id": rollout_id_of("task", index), "attempt": 0}
        told = reward(float(index == 0), **about)
        events = finished([call.model_copy(update=about)], [told], group_size=len(calls), **about)
        await loop.on_batch(delivered(events))
    sequences = tuple(to_sequence(event) for event in loop.publisher.sequences)
    assert len(sequences) == len(calls) * CHOICES
    return ReadyGroup(group_id="g", sequences=sequences, left_out=0, zero_variance=False)
