"""The trainer's settings: the run file's `trainer:` section (what and how to train) and environment (where it runs)."""

import hashlib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import BaseSettings, SettingsConfigDict


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

    objective: str = "clipped"
    """The surrogate that is maximised: `clipped` (PPO's), or the name of an entry point of `leyden.objectives`."""
    aggregation: Literal["token", "sequence", "rollout"] = "rollout"
    """What weighs the same in the loss: every token, every sequence, or every rollout however long it is."""
    ratio_base: Literal["trainer", "behaviour"] = "trainer"
    """Denominator of the clipped ratio. `trainer`: the policy before the step, so the ratio is 1; the gap to the engine
    is corrected by a truncated importance weight. `behaviour`: the engine's logprobs; only the clips correct."""
    clip_low: float = Field(default=0.2, ge=0)
    """The probability ratio is clipped at 1 - `clip_low` below."""
    clip_high: float = Field(default=0.28, ge=0)
    """The probability ratio is clipped at 1 + `clip_high` above."""
    dual_clip: float | None = Field(default=3.0, gt=1)
    """For negative advantages the ratio counts up to this much at most; null: without limit."""
    importance_cap: float | None = Field(default=2.0, gt=0)
    """Truncates the importance weight between the engine's and the trainer's logprobs; null: no such weight."""
    kl: float = Field(default=0.0, ge=0)
    """Weight of the k3 KL to the base model."""

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

    @property
    def settings_hash(self) -> str:
        """16 hex digits that depend on every setting that can change the weights."""
        operational = {"keep_checkpoints", "max_steps", "gradient_checkpointing"}
        # Added later: left out at their defaults, so that older checkpoints can be resumed.
        later = ("credit", "whiten_advantages", "objective", "incomplete_after")
        operational |= {name for name in later if getattr(self, name) == type(self).model_fields[name].default}
        return hashlib.sha256(self.model_dump_json(exclude=operational).encode()).hexdigest()[:16]


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
    """CPU threads per operation. Default: all cores."""
