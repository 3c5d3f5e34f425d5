"""The trainer's knobs: what is learnt and how is the run file's `trainer:` section; where it runs is environment."""

import hashlib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class LoraSettings(BaseModel):
    """The adapter; it goes on every linear layer but the output layer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rank: int = Field(default=16, ge=1)
    alpha: float = Field(default=32.0, gt=0)


class TrainerSettings(BaseModel):
    """Section `trainer:` of the run file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    policy: str = "policy"
    """Name of the policy that is trained; sequences of others are passed over."""
    credit: str = ""
    """Name of the credit service (`LEYDEN_CREDIT_NAME`) whose transitions are trained on; empty: the unnamed one."""
    mode: Literal["lora", "full"] = "lora"
    lora: LoraSettings = LoraSettings()
    learning_rate: float = Field(default=5e-4, gt=0)
    """AdamW's; 5e-4 suits LoRA, full fine-tuning wants about a tenth."""
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    groups_per_step: int = Field(default=8, ge=1)
    drop_zero_variance: bool = False
    """Leave groups without spread out of the count to `groups_per_step` (sample more tasks instead)."""
    max_staleness: int | None = Field(default=None, ge=0)
    """Drop groups with an action more than this many versions old."""
    max_steps: int | None = Field(default=None, ge=1)
    """Stop training after this many steps in all; later groups stay unread in the log."""
    advantage_scale: float = 1.0
    """Factor on every advantage; 0 is the control that must not learn."""
    whiten_advantages: bool = False
    """Centre and scale advantages over the batch, each token weighing what it weighs in the loss.

    For credit's `reinforce_plus_plus` (without it that has no baseline), `reinforce_plus_plus_baseline` and `gae`.
    """

    objective: str = "clipped"
    """The surrogate that is maximised: `clipped` (PPO's), or the name of an entry point of `leyden.objectives`."""
    aggregation: Literal["token", "sequence", "rollout"] = "rollout"
    ratio_base: Literal["trainer", "behaviour"] = "trainer"
    """Denominator of the clipped ratio. `trainer`: one step a batch, so the ratio is 1 and the engine's distance is a
    truncated weight. `behaviour`: the engine's logprobs, and the clips do the correcting."""
    clip_low: float = Field(default=0.2, ge=0)
    clip_high: float = Field(default=0.28, ge=0)
    dual_clip: float | None = Field(default=3.0, gt=1)
    importance_cap: float | None = Field(default=2.0, gt=0)
    kl: float = Field(default=0.0, ge=0)
    """Weight of the k3 KL to the model that training began with."""

    row_tokens: int = Field(default=2048, ge=16)
    """Budget of a packed row: what a step holds in memory at once grows with it, what prefixes cost again shrinks."""
    dtype: Literal["float32", "bfloat16", "float64"] = "float32"
    """Of the parameters in training; logits are float32 at least."""
    serving_dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """Of the merged weights that engines load."""
    gradient_checkpointing: bool = False
    seed: int = 0
    keep_checkpoints: int = Field(default=3, ge=1)

    @property
    def settings_hash(self) -> str:
        """16 hex digits that change with any setting that can change the weights."""
        operational = {"keep_checkpoints", "max_steps", "gradient_checkpointing"}
        # These came later, and checkpoints of runs without them go on.
        later = ("credit", "whiten_advantages", "objective")
        operational |= {name for name in later if getattr(self, name) == type(self).model_fields[name].default}
        return hashlib.sha256(self.model_dump_json(exclude=operational).encode()).hexdigest()[:16]


class TrainerEnvironment(BaseSettings):
    """Where the trainer runs: `LEYDEN_TRAINER_…`."""

    model_config = SettingsConfigDict(env_prefix="LEYDEN_TRAINER_", extra="ignore")

    model: str = "HuggingFaceTB/SmolLM2-135M-Instruct"
    """Folder or hub id of the model that training begins with."""
    name: str = Field(default="", pattern=r"^([a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?)?$")
    """Name of this trainer where several work side by side, one per policy; its consumer group is `trainer-<name>`."""
    checkpoint_dir: Path = Path("data/checkpoints")
    """Checkpoints stand in `<checkpoint_dir>/<policy>/step-<n>/`; engines must see the same path."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = None
    """Threads of one operation on the CPU; default: all cores."""
