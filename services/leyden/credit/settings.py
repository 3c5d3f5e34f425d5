"""The knobs of credit: what an RL engineer chooses is in the run file, how the process runs is in the environment."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from leyden.credit.core.advantage import ADVANTAGES
from leyden.credit.core.rules import Rules
from leyden.credit.core.strategies import STRATEGIES


class CreditSection(BaseModel):
    """Section `credit:` of the run file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    strategy: str = "identical"
    """How a rollout's rewards are shared among its actions."""
    advantage: str = "grpo"
    """How the rollouts of a group are compared: grpo, dr_grpo or rloo."""
    incomplete: Literal["drop", "train"] = "drop"
    """What becomes of a rollout whose evidence is not all there: left out, or trained with what there is."""
    policies: list[str] | None = Field(default=None, min_length=1)
    """Train the calls of these policies only; unset: of every policy."""
    max_sequence_tokens: int = Field(default=32_768, ge=2)
    """Longer sequences are not published, and are counted."""

    @field_validator("strategy")
    @classmethod
    def _known_strategy(cls, name: str) -> str:
        return _one_of(name, STRATEGIES)

    @field_validator("advantage")
    @classmethod
    def _known_advantage(cls, name: str) -> str:
        return _one_of(name, ADVANTAGES)

    def rules(self) -> Rules:
        """The same as the core takes it."""
        policies = frozenset(self.policies) if self.policies is not None else None
        return Rules(self.strategy, self.advantage, self.incomplete, policies, self.max_sequence_tokens)


def _one_of(name: str, known: object) -> str:
    assert isinstance(known, dict)
    if name not in known:
        raise ValueError(f"{name!r} is not one of {', '.join(known)}")
    return name


class CreditSettings(BaseSettings):
    """Environment, prefix `LEYDEN_CREDIT_`."""

    model_config = SettingsConfigDict(env_prefix="LEYDEN_CREDIT_", extra="ignore")

    max_records: int = Field(default=500, ge=1)
    """Records of one batch: bounds the memory of the process."""
    open_ttl_s: int = Field(default=7 * 86_400, ge=60)
    """Evidence of an attempt or group that nobody completes is forgotten after this long."""
    closed_ttl_s: int = Field(default=86_400, ge=60)
    """How long a finished attempt or group is remembered, so that a redelivery does not open it again."""
