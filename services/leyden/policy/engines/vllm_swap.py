"""Loads weights into the vLLM in this process through its engine client. vLLM is never imported by name.

Because the engine client is called directly, vLLM's development endpoints (any RPC, without authentication) stay off.
Tested with vLLM 0.32.
"""

import importlib
from pathlib import Path
from typing import Any

from leyden.policy.engines.launch import LOGPROBS_MODE
from leyden.policy.engines.swap import Commit, EngineBrokenError
from leyden.policy.engines.weights import UnusableWeightsError, WeightsFolder, require_same_tensors


class VllmSwapper:
    """`Swapper` for vLLM: loads adapters if it was started with LoRA, else reloads full weights in place."""

    engine = "vllm"

    def __init__(self) -> None:
        self._folder: Path | None = None

    def misconfigured(self, app: Any) -> str | None:
        """Refuses logprobs that are not those of the sampled distribution (vLLM's default: before temperature)."""
        mode = getattr(app.state.engine_client.vllm_config.model_config, "logprobs_mode", "raw_logprobs")
        if mode == LOGPROBS_MODE:
            return None
        return f"vLLM was started with --logprobs-mode {mode}; training needs --logprobs-mode {LOGPROBS_MODE}"

    def serves_adapters(self, app: Any) -> bool:
        """Whether vLLM runs with `--enable-lora`."""
        return app.state.engine_client.vllm_config.lora_config is not None

    async def add_adapter(self, app: Any, name: str, weights: WeightsFolder) -> None:
        """Load an adapter, to be selected by `model`. Raises UnusableWeightsError with vLLM's message."""
        protocol = importlib.import_module("vllm.entrypoints.serve.lora.protocol")
        request = protocol.LoadLoRAAdapterRequest(lora_name=name, lora_path=str(weights.path))
        answer = await app.state.openai_serving_models.load_lora_adapter(request)
        if not isinstance(answer, str):
            raise UnusableWeightsError(f"vLLM refused the adapter: {answer.error.message}")

    async def prepare(self, app: Any, name: str, weights: WeightsFolder) -> Commit:
        """Check that the new files have the same tensors as the live ones. Raises UnusableWeightsError."""
        if weights.adapter:
            raise UnusableWeightsError(
                "vLLM runs without LoRA; merge the adapter, or start the engine with --lora-rank"
            )
        engine = app.state.engine_client
        live = self._folder or Path(engine.vllm_config.model_config.model)
        if live.is_dir():
            require_same_tensors(live, weights.path)

        async def commit() -> None:
            await self._reload_or_roll_back(engine, name, live, weights.path)

        return commit

    async def _reload_or_roll_back(self, engine: Any, name: str, live: Path, new: Path) -> None:
        # The gate has drained, so any request still running has no client: abort it.
        await engine.pause_generation(mode="abort", clear_cache=True)
        try:
            await _reload(engine, new)
            await engine.update_weight_version(name)
            self._folder = new
        except Exception as cause:
            await _roll_back(engine, live, cause)
            raise
        finally:
            await engine.resume_generation()


async def _reload(engine: Any, folder: Path) -> None:
    await engine.collective_rpc("reload_weights", kwargs={"weights_path": str(folder)})
    if not await engine.reset_prefix_cache():
        raise RuntimeError("vLLM did not clear its prefix cache, which was computed with the old weights")


async def _roll_back(engine: Any, live: Path, cause: Exception) -> None:
    try:
        await _reload(engine, live)
    except Exception as second:
        raise EngineBrokenError(f"reload failed ({cause}), and rolling back to {live} failed ({second})") from second
