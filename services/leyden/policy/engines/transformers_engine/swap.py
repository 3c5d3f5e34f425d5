"""Loads weights into this engine's model: reads them while it serves, then copies them between two steps."""

import asyncio
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from leyden.policy.engines.swap import Commit
from leyden.policy.engines.transformers_engine.scheduler import Scheduler
from leyden.policy.engines.weights import UnusableWeightsError, WeightsFolder

State = dict[str, torch.Tensor]


class TransformersSwapper:
    """`Swapper` for full weights, or for an adapter merged into the base model. Serves one version at a time."""

    engine = "transformers"

    def __init__(self, model: Any, scheduler: Scheduler, base: str) -> None:
        self._model = model
        self._scheduler = scheduler
        self._base = base

    def misconfigured(self, app: Any) -> str | None:
        """Never: it has no settings that change the distribution."""
        return None

    def serves_adapters(self, app: Any) -> bool:
        """Never: adapters are merged."""
        return False

    async def add_adapter(self, app: Any, name: str, weights: WeightsFolder) -> None:
        """Not supported: always raises UnusableWeightsError."""
        raise UnusableWeightsError("the transformers engine serves one version at a time")

    async def prepare(self, app: Any, name: str, weights: WeightsFolder) -> Commit:
        """Read the new weights. Raises UnusableWeightsError unless their tensors have the model's names and shapes."""
        state = await asyncio.to_thread(self._read, weights)

        async def commit() -> None:
            await asyncio.wrap_future(self._scheduler.exclusive(lambda: self._copy(state)))

        return commit

    def _read(self, weights: WeightsFolder) -> State:
        source = self._base if weights.adapter else weights.path
        try:
            model, info = AutoModelForCausalLM.from_pretrained(
                source, dtype=self._model.dtype, output_loading_info=True
            )
            if weights.adapter:
                model = PeftModel.from_pretrained(model, str(weights.path)).merge_and_unload()
        except (OSError, ValueError, RuntimeError, KeyError) as problem:
            raise UnusableWeightsError(f"{weights.path}: {problem}") from problem
        for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
            if info[kind]:
                raise UnusableWeightsError(f"{weights.path} has {kind}: {sorted(map(str, info[kind]))[:3]}")
        return self._fitting(model.state_dict(), weights)

    def _fitting(self, new: State, weights: WeightsFolder) -> State:
        live = self._model.state_dict()
        if {name: tensor.shape for name, tensor in live.items()} != {name: t.shape for name, t in new.items()}:
            raise UnusableWeightsError(f"{weights.path} has a different architecture than the live model")
        return new

    def _copy(self, state: State) -> None:
        for name, tensor in self._model.state_dict().items():
            tensor.copy_(state[name])
