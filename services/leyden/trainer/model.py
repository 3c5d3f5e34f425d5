"""The model in training: loading, adapters, optimiser, and export for engines. Knows nothing of batches."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from leyden.settings import RunFileError
from leyden.trainer.core.packing_probe import packing_gap
from leyden.trainer.core.tree_attention import TREE_ATTENTION
from leyden.trainer.settings import TrainerEnvironment, TrainerSettings

ADAPTER = "default"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)


class UnsupportedModelError(RunFileError):
    """The packed forward pass does not support this model."""


class PolicyModel:
    """A causal LM and its trained parameters. `causal` is the Hugging Face model, including adapters."""

    def __init__(self, settings: TrainerSettings, environment: TrainerEnvironment) -> None:
        self.base_model = environment.model
        self.lora = settings.mode == "lora"
        self.serving_dtype: torch.dtype = getattr(torch, settings.serving_dtype)
        _make_deterministic(settings.seed, environment.threads)
        disable_progress_bar()
        base = _loaded(environment.model, getattr(torch, settings.dtype))
        _check_head(base)
        self._reference = deepcopy(base).requires_grad_(False) if settings.kl > 0 and not self.lora else None
        self.wrapper: Any = get_peft_model(base, _lora_config(settings)) if self.lora else base
        self.causal: Any = self.wrapper.get_base_model() if self.lora else base
        device = _device(environment.device)
        self.wrapper.to(device)
        if self._reference is not None:
            self._reference.to(device)
        self.wrapper.eval()
        if settings.gradient_checkpointing:
            self.causal.gradient_checkpointing_enable({"use_reentrant": False})
            self.causal.enable_input_require_grads()
            _train_checkpointed_layers(self.causal)
        _check_packing(self.causal, environment.model)
        self.optimiser = torch.optim.AdamW(
            self.trained.values(), lr=settings.learning_rate, weight_decay=settings.weight_decay, foreach=True
        )

    @property
    def trained(self) -> dict[str, torch.nn.Parameter]:
        """The trained parameters by name, in the optimiser's order."""
        return {name: parameter for name, parameter in self.wrapper.named_parameters() if parameter.requires_grad}

    @property
    def vocabulary(self) -> int:
        """Rows of the input embedding: token ids are below this."""
        return int(self.causal.get_input_embeddings().num_embeddings)

    @contextmanager
    def reference(self) -> Iterator[Any]:
        """The base model, as the KL reference: adapters disabled, or a frozen copy."""
        off: AbstractContextManager[Any] = self.wrapper.disable_adapter() if self.lora else nullcontext()
        with off, torch.no_grad():
            yield self._reference if self._reference is not None else self.causal

    def load_trained(self, weights: dict[str, Tensor]) -> None:
        """Load `weights` (as in `trained`). Raises ValueError if the parameters are not the same."""
        trained = self.trained
        if set(weights) != set(trained):
            raise ValueError("the checkpoint has other parameters: `mode` or `lora.rank` differ from the settings")
        with torch.no_grad():
            for name, parameter in trained.items():
                parameter.copy_(weights[name])

    def save_serving(self, folder: Path) -> None:
        """Write the files for engines: `merged/` (whole model, config, tokenizer) and, with LoRA, `adapter/`.

        The weights in training are not changed: merging and unmerging in place would not restore them bit for bit.
        """
        if self.lora:
            self.wrapper.save_pretrained(str(folder / "adapter"), safe_serialization=True)
        merged = folder / "merged"
        self.causal.save_pretrained(str(merged), state_dict=self._merged())
        _set_dtype(merged / "config.json", self.serving_dtype)
        _copy_tokenizer(self.base_model, merged)

    def _merged(self) -> dict[str, Tensor]:
        with torch.no_grad():
            deltas = {
                name: module.get_delta_weight(ADAPTER)
                for name, module in self.causal.named_modules()
                if isinstance(module, LoraLayer)
            }
            merged: dict[str, Tensor] = {}
            for name, value in self.causal.state_dict().items():
                if ".lora_" in name:
                    continue
                module, _, leaf = name.rpartition(".base_layer.")
                plain = f"{module}.{leaf}" if module else name
                whole = value + deltas[module] if module in deltas and leaf == "weight" else value
                merged[plain] = whole.to(self.serving_dtype).cpu().contiguous()
        return merged


def _lora_config(settings: TrainerSettings) -> LoraConfig:
    return LoraConfig(
        r=settings.lora.rank,
        lora_alpha=settings.lora.alpha,
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def _make_deterministic(seed: int, threads: int | None) -> None:
    """Fix the seed and the order of summation for the whole process."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads or _openmp_threads() or len(os.sched_getaffinity(0)))
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.manual_seed(seed)


def _openmp_threads() -> int:
    """The first number of `OMP_NUM_THREADS`, which may list one for each level of nesting; 0 if there is none."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdecimal() else 0


def _device(wanted: str) -> torch.device:
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


def _loaded(model: str, dtype: torch.dtype) -> Any:
    """The causal LM in `model`. Raises `UnsupportedModelError` if it does not take our attention."""
    try:
        return AutoModelForCausalLM.from_pretrained(model, dtype=dtype, attn_implementation=TREE_ATTENTION)
    except (KeyError, ValueError) as error:
        raise UnsupportedModelError(f"model {model} cannot be loaded for training: {error}") from error


def _train_checkpointed_layers(model: Any) -> None:
    """Put the layers that recompute their activations in training mode, in which alone they do so; without dropout.

    The rest of the model stays in evaluation mode: dropout would make every importance ratio noise.
    """
    for module in model.modules():
        if getattr(module, "gradient_checkpointing", False):
            module.training = True
            for name, value in vars(module).items():
                if "drop" in name and isinstance(value, float):
                    setattr(module, name, 0.0)


def _check_packing(model: Any, name: str) -> None:
    """Raises `UnsupportedModelError` if packed logprobs are not those of the sequences alone."""
    kind = model.config.get_text_config().model_type
    try:
        gap, limit = packing_gap(model)
    except Exception as error:
        raise UnsupportedModelError(
            f"model {name} ({kind}) cannot be trained on packed sequences: {type(error).__name__}: {error}"
        ) from error
    if gap > limit:
        raise UnsupportedModelError(
            f"model {name} ({kind}) cannot be trained on packed sequences: packing changes its logprobs by {gap:.2g} "
            f"nats (rounding explains {limit:.2g}). Tokens must meet in plain causal attention alone: no recurrent or "
            "convolutional layers, sliding windows or ALiBi"
        )


def _check_head(model: Any) -> None:
    """Raises `UnsupportedModelError` if the logits are not just one matrix product."""
    config = model.config.get_text_config()
    scaled = getattr(config, "logits_scaling", 1.0) != 1.0 or getattr(config, "logit_scale", None) is not None
    capped = getattr(config, "final_logit_softcapping", None) is not None
    if scaled or capped or getattr(model.get_output_embeddings(), "bias", None) is not None:
        raise UnsupportedModelError(f"{config.model_type}: logits with a bias, a scale or a soft cap are not supported")


def _set_dtype(config: Path, dtype: torch.dtype) -> None:
    """Set the dtype of the exported weights in `config`, instead of the training dtype."""
    content = json.loads(config.read_text())
    content["dtype"] = str(dtype).removeprefix("torch.")
    config.write_text(json.dumps(content, indent=2, sort_keys=True))


def _copy_tokenizer(model: str, folder: Path) -> None:
    """Copy the base model's tokenizer to the weights' folder; byte for byte if the model is a local folder."""
    if Path(model).is_dir():
        for name in TOKENIZER_FILES:
            if (Path(model) / name).is_file():
                shutil.copyfile(Path(model) / name, folder / name)
    else:
        AutoTokenizer.from_pretrained(model).save_pretrained(str(folder))
