"""Knobs of reward: the run file's section `reward:`, and what an operator may change (`LEYDEN_REWARD_…`)."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from leyden.reward.core.rules import AIR_RULES, Emitted, IntermediateRule


class FunctionSettings(BaseModel):
    """One Python reward function."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    entry: str
    """Name of an entry point of the group `leyden.reward_functions`, or `module:function`."""
    name: str = ""
    """Name of its reward; the entry's last part when not given."""
    weight: float = Field(default=1.0, allow_inf_nan=False)
    cap: float | None = Field(default=None, ge=0, allow_inf_nan=False)

    @property
    def rule_name(self) -> str:
        """What its rewards are called."""
        return self.name or self.entry.rpartition(":")[2]


def _air_rule(entry: Any) -> Any:
    """The rule object of one entry of `air:`; the entry's `rule` says which."""
    if not isinstance(entry, Mapping):
        return entry
    kind = AIR_RULES.get(str(entry.get("rule")))
    if kind is None:
        raise ValueError(f"rule {entry.get('rule')!r} is none of {', '.join(AIR_RULES)}")
    return kind.model_validate(entry)


class RewardSection(BaseModel):
    """What an RL engineer chooses."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    settle: Literal["live", "recorded"] = "live"
    """`live`: this service declares evidence complete. `recorded`: it follows settlements in the log (replay)."""
    grace_s: float = Field(default=30.0, gt=0)
    """How long a finished rollout waits for announced evidence before it is settled as incomplete."""
    emitted: Emitted | None = Emitted()
    """Rewards sent with the end, and evaluations; null to ignore them."""
    functions: tuple[FunctionSettings, ...] = ()
    air: tuple[Annotated[IntermediateRule, BeforeValidator(_air_rule)], ...] = ()
    """Automatic Intermediate Rewarding: `{rule, name?, weight?, cap?, …the rule's own fields}`."""
    intermediate_cap: float = Field(default=0.5, ge=0, allow_inf_nan=False)
    """The most that all AIR rewards of one rollout may weigh together (sum of absolute contributions)."""

    @model_validator(mode="after")
    def _names_differ(self) -> "RewardSection":
        names = [f.rule_name for f in self.functions] + [r.name for r in self.air]
        names += [self.emitted.name] if self.emitted else []
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two rules are called {repeated[0]}: give one of them another name")
        return self


class RewardSettings(BaseSettings):
    """What an operator may change; none of it changes a reward."""

    model_config = SettingsConfigDict(env_prefix="LEYDEN_REWARD_", extra="ignore")

    max_records: int = Field(default=500, ge=1)
    """Records taken at a time."""
    sweep_interval_s: float = Field(default=1.0, gt=0)
    """How often deadlines are looked at."""
    sweep_limit: int = Field(default=200, ge=1)
    """Overdue attempts settled at a time."""
