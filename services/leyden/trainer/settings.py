"""The trainer's settings: the run file's `trainer:` section (what and how to train) and environment (where it runs)."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from leyden.trainer.core.objectives import OBJECTIVES, Clipped, ObjectiveSetting

DEFAULTS = 1
"""Number of the defaults that can change the weights; raise it when one is changed, so that no checkpoint made with the
old one is resumed with the new one."""


class LoraSettings(BaseModel):
    """The LoRA adapter, on every linear layer except the output layer."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid", frozen=True)

    rank: int = Field(default=16, ge=1)
    """Rank of the adapter's matrices; a higher one can learn more and needs more memory."""
    alpha: float = Field(default=32.0, gt=0)
    """Scale: the adapter's output is multiplied by `alpha / rank`."""


class TrainerSettings(BaseModel):
    """Section `trainer:` of the run file."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid", frozen=True)

    policy: str = "policy"
    """Name of the policy to train. Sequences of other policies are skipped."""
    credit: str = ""
    """Name of the credit service (`LEYDEN_CREDIT_NAME`) whose transitions are used. Empty: the unnamed one."""
    mode: Literal["lora", "full"] = "lora"
    """`lora`: train an adapter, which is merged into the weights that are served. `full`: train all weights."""
    lora: LoraSettings = LoraSettings()
    """The adapter, with `mode: lora`: `{rank, alpha}`."""
    learning_rate: float = Field(default=5e-4, gt=0)
    """AdamW's learning rate. 5e-4 suits LoRA; for full fine-tuning use about a tenth."""
    warmup_steps: int = Field(default=0, ge=0)
    """Versions over which the learning rate rises to `learning_rate`."""
    decay: Literal["none", "linear", "cosine"] = "none"
    """How the learning rate falls after the warm-up, until version `decay_steps`."""
    decay_steps: int | None = Field(default=None, ge=1)
    """Version from which on the learning rate stays at its lowest, with `decay`."""
    decay_to: float = Field(default=0.1, gt=0, lt=1)
    """The lowest learning rate, as a share of `learning_rate`."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's weight decay."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Larger gradients are scaled down to this norm."""
    groups_per_step: int = Field(default=8, ge=1)
    """Groups (tasks with all their samples) in the batch of one optimiser step."""
    drop_zero_variance: bool = False
    """Do not count groups with equal rewards towards `groups_per_step` (sample more tasks instead)."""
    max_staleness: int | None = Field(default=None, ge=0)
    """Drop groups with an action older than this many versions."""
    incomplete_after: int = Field(default=20_000, ge=1)
    """Drop a group that is still incomplete this many records of its partition after its first one: some are lost."""
    max_steps: int | None = Field(default=None, ge=1)
    """Stop after this many steps in total, skipped ones included. Later groups stay unread in the log."""
    advantage_scale: float = 1.0
    """Factor on every advantage. 0 is the control run, which must not learn."""
    whiten_advantages: bool = False
    """Whiten advantages over the batch, with each token's weight in the loss.

    Use with credit's `reinforce_plus_plus` (which has no baseline otherwise), `reinforce_plus_plus_baseline` and `gae`.
    """

    objective: ObjectiveSetting = Clipped()
    """What is maximised: a name, or `name` with its parameters. `clipped`, `gspo`, `cispo`, `reinforce`, `sft`, or the
    name of an entry point of `leyden.objectives`."""
    epochs: int = Field(default=1, ge=1)
    """Optimiser steps on each batch. From the second on the ratio differs from 1, and the clips hold."""
    aggregation: Literal["token", "sequence", "rollout", "constant"] = "rollout"
    """Over what the loss is averaged. `constant`: a rollout's sum is divided by `constant_tokens` (Dr.GRPO)."""
    constant_tokens: int | None = Field(default=None, ge=1)
    """Divisor of `aggregation: constant`, in tokens: the longest response, as a rule."""
    ratio_base: Literal["trainer", "behaviour"] = "trainer"
    """Denominator of the clipped ratio. `trainer`: the policy before the step, so the ratio is 1; the gap to the engine
    is corrected by a truncated importance weight. `behaviour`: the engine's logprobs; only the clips correct."""
    importance: Literal["token", "sequence", "band"] = "token"
    """How the gap to the engine is corrected. `token`: each token's ratio, up to `importance_cap`. `sequence`: the
    ratio of the whole sequence. `band`: tokens whose ratio is outside `importance_floor` … `importance_cap` count 0."""
    importance_cap: float | None = Field(default=2.0, gt=0)
    """Upper bound of the importance weight. null: no correction."""
    importance_floor: float = Field(default=0.5, gt=0)
    """Lower bound of `importance: band`."""
    kl: float = Field(default=0.0, ge=0)
    """Weight of the KL to the base model."""
    kl_estimate: Literal["k2", "k3"] = "k3"
    """Estimate of the KL per token: `k3` is unbiased and never negative; `k2` has the gradient of the KL."""
    entropy: float = Field(default=0.0, ge=0)
    """Weight of the entropy bonus: keeps the policy from settling on one answer too early."""

    row_tokens: int = Field(default=2048, ge=16)
    """Largest number of tokens in a packed row. More tokens need more memory, but repeat fewer prefixes."""
    dtype: Literal["float32", "bfloat16", "float64"] = "float32"
    """dtype of the trained parameters. Logits are at least float32."""
    serving_dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """dtype of the merged weights for engines."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, more time, the same weights."""
    seed: int = 0
    """Random seed of the adapter's first weights and of the training."""
    keep_checkpoints: int = Field(default=3, ge=1)
    """Number of newest checkpoints that are kept; older ones are deleted."""

    @model_validator(mode="after")
    def _refuse_what_has_no_effect(self) -> Self:
        """A setting without effect is a mistake: it was written for another run."""
        if conflicts := list(self._conflicts()):
            raise ValueError("; ".join(conflicts))
        return self

    def _conflicts(self) -> Iterator[str]:
        said, objective = self.model_fields_set, self.objective
        clips = objective.clips & objective.model_fields_set
        if clips and self.epochs == 1 and self.ratio_base == "trainer":
            yield (
                f"{_named(clips)} of objective {objective.name}: with one step a batch the ratio is 1, and nothing is "
                "clipped; set `epochs` above 1 or `ratio_base: behaviour`"
            )
        if "ratio_base" in said and not objective.uses_ratio:
            yield f"`ratio_base`: objective {objective.name} has no ratio"
        correction = said & {"importance", "importance_cap", "importance_floor"}
        if correction and self.importance_cap is not None:
            if not objective.is_corrected:
                yield f"{_named(correction)}: objective {objective.name} is not corrected"
            elif self.ratio_base == "behaviour":
                yield f"{_named(correction)}: with `ratio_base: behaviour` the ratio itself corrects"
        if "lora" in said and self.mode != "lora":
            yield "`lora` needs `mode: lora`"
        if "decay_to" in said and self.decay == "none":
            yield "`decay_to` needs `decay: linear` or `decay: cosine`"
        if self.importance == "sequence" and self.importance_cap is None:
            yield "`importance: sequence` needs an `importance_cap`"
        if self.importance == "band" and not (self.importance_cap or 0.0) > self.importance_floor:
            yield "`importance: band` needs an `importance_cap` above `importance_floor`"
        if "importance_floor" in said and self.importance != "band":
            yield "`importance_floor` needs `importance: band`"
        if "kl_estimate" in said and not self.kl:
            yield "`kl_estimate` needs `kl` above 0"
        if (self.aggregation == "constant") != (self.constant_tokens is not None):
            yield "`aggregation: constant` and `constant_tokens` need each other"
        if (self.decay != "none") != (self.decay_steps is not None):
            yield "`decay` and `decay_steps` need each other"
        if self.decay_steps is not None and self.decay_steps <= self.warmup_steps:
            yield "`decay_steps` must be above `warmup_steps`"

    @property
    def learns_without_advantages(self) -> bool:
        """Whether a batch whose advantages are all 0 has a gradient."""
        return self.kl > 0 or self.entropy > 0

    @property
    def settings_hash(self) -> str:
        """16 hex digits that depend on every setting that can change the weights and is not at its default.

        So a setting that is added later changes no hash. `DEFAULTS` stands for the defaults.
        """
        operational = {"keep_checkpoints", "max_steps", "gradient_checkpointing"}
        changed = self.model_dump(mode="json", exclude_defaults=True, exclude=operational)
        if "objective" in changed:
            is_ours = self.objective.name in OBJECTIVES  # `DEFAULTS` does not stand for another package's
            changed["objective"] = self.objective.model_dump(mode="json", exclude_defaults=is_ours)
            changed["objective"]["name"] = self.objective.name
        return hashlib.sha256(json.dumps([DEFAULTS, changed], sort_keys=True).encode()).hexdigest()[:16]


def _named(settings: Iterable[str]) -> str:
    return " and ".join(f"`{name}`" for name in sorted(settings))


class TrainerEnvironment(BaseSettings):
    """Where the trainer runs: `LEYDEN_TRAINER_…`."""

    model_config = SettingsConfigDict(use_attribute_docstrings=True, env_prefix="LEYDEN_TRAINER_", extra="ignore")

    model: str = "HuggingFaceTB/SmolLM2-135M-Instruct"
    """Folder or hub id of the base model."""
    name: str = Field(default="", pattern=r"^([a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?)?$")
    """Name of this trainer if there are several, one per policy. Its consumer group is `trainer-<name>`."""
    checkpoint_dir: Path = Path("data/checkpoints")
    """Checkpoints are in `<checkpoint_dir>/<policy>/step-<n>/`. Engines must see the same path."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where it computes; `auto` takes a GPU if there is one."""
    threads: int | None = None
    """CPU threads per operation. Default: `OMP_NUM_THREADS`, else all cores."""
