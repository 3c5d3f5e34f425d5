"""Section `credit:` of the run file: what an RL engineer chooses. The core uses it as it was read."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from leyden.credit.core.advantage import advantage_of
from leyden.credit.core.agents import AgentRule
from leyden.credit.core.overlong import Overlong
from leyden.credit.core.strategies import Identical, Strategy, StrategySetting

LONGEST_S = 1e9
"""Longest time that can be set, about 30 years: dates hold it, so that no comparison overflows."""


class GroupSection(BaseModel):
    """`group:`: which rollouts are compared with each other, and how long a group waits for its members."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid", frozen=True)

    by: Literal["given", "task"] = "given"
    """`given`: the groups that rollouts were started in. `task`: also groups rollouts that were started alone, by task
    and window of policy versions."""
    size: int | None = Field(default=None, ge=2)
    """Members of a group by task. A given group has the size that its rollouts were started with."""
    quota: int | None = Field(default=None, ge=2)
    """Close an over-provisioned group once it has this many usable members; biased towards short rollouts."""
    deadline_s: float | None = Field(default=None, gt=0, le=LONGEST_S)
    """Close a group this many seconds after its first member, with the members it has; unset: wait for all."""
    min_members: int = Field(default=2, ge=2)
    """Usable members that a group closed by its deadline needs; with fewer, all its members are left out."""
    version_window: int | None = Field(default=None, ge=1)
    """By task: policy versions per window. Given groups: leave out members further behind the newest than this."""
    close: Literal["live", "recorded"] = "live"
    """`live`: this service closes groups. `recorded`: it follows the closings in the log (replay)."""

    @model_validator(mode="after")
    def _by_task_is_whole(self) -> Self:
        if self.by == "task" and (self.size is None or self.version_window is None):
            raise ValueError("by: task needs size and version_window")
        if self.by == "given" and self.size is not None:
            raise ValueError("size is for by: task; a given group has the size that its rollouts were started with")
        return self

    @property
    def closes_by_deadline(self) -> bool:
        """Whether this service closes groups when their deadline passes."""
        return self.deadline_s is not None and self.close == "live"


class ShapedBy(BaseModel):
    """`shaping:` of a rule in section `reward:`."""

    gamma: float = 1.0


class RewardRule(BaseModel):
    """What credit needs to know of an entry of `reward.air`."""

    rule: str = ""
    name: str = ""
    shaping: ShapedBy | None = None


class RewardRules(BaseModel):
    """What credit needs to know of section `reward:` of the run file."""

    air: list[RewardRule] = Field(default_factory=list)


class CreditSection(BaseModel):
    """Section `credit:` of the run file."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid", frozen=True)

    strategy: StrategySetting = Identical()
    """How a rollout's rewards are shared among its actions: a name, or `{name: ..., <parameters>}`."""
    advantage: str = "grpo"
    """How the rollouts of a group are compared: grpo, dr_grpo or rloo.

    With `reinforce_plus_plus` (no comparison) and `reinforce_plus_plus_baseline` (minus the group's mean) the trainer
    does the rest: set `whiten_advantages: true` in its section.
    """
    incomplete: Literal["drop", "train"] = "drop"
    """A rollout whose evidence is incomplete is left out (`drop`), or trained with what there is (`train`)."""
    policies: list[str] | None = Field(default=None, min_length=1)
    """Train the calls of these policies only; unset: of every policy."""
    max_sequence_tokens: int = Field(default=32_768, ge=2)
    """Longest training sequence; `overlong` says what happens to longer ones."""
    overlong: Overlong = "drop"
    """`drop`: train nothing of it. `truncate`: cut the oldest tokens of the first state. `split`: cut between calls."""
    agents: list[AgentRule] = Field(default_factory=list)
    """By agent: whether its calls are trained, as which policy's data, by which strategy. The first match decides."""
    group: GroupSection = GroupSection()
    """Which rollouts are compared, and when their group is closed: `{by, size, quota, deadline_s, …}`."""

    @field_validator("advantage")
    @classmethod
    def _known_advantage(cls, name: str) -> str:
        advantage_of(name)
        return name

    @model_validator(mode="after")
    def _strategies_fit_the_advantage(self) -> Self:
        for strategy in (self.strategy, *(agent.strategy for agent in self.agents)):
            if strategy is not None and (conflict := strategy.conflict(advantage_of(self.advantage))):
                raise ValueError(conflict)
        return self

    def shaping_conflict(self, rules: RewardRules) -> str | None:
        """Why the run file's shaped rewards would change what is optimal under a strategy; None if they do not."""
        for rule in rules.air:
            for strategy in (self.strategy, *(agent.strategy for agent in self.agents)):
                if rule.shaping is not None and strategy is not None and strategy.shaping_gamma != rule.shaping.gamma:
                    return _conflict(rule, rule.shaping.gamma, strategy)
        return None

    @property
    def needs_spans(self) -> bool:
        """Whether spans are needed: they tell which agent made a call."""
        return bool(self.agents)


def _conflict(rule: RewardRule, gamma: float, strategy: Strategy) -> str:
    allowed = strategy.shaping_gamma
    remedy = "remove the shaping" if allowed is None else f"set its gamma to {allowed:g}, or remove it"
    return (
        f"reward.air rule {rule.name or rule.rule} has shaping with gamma {gamma:g}, which changes the optimal policy "
        f"under credit's strategy {strategy.name}; {remedy}, or use a strategy whose discount is {gamma:g} "
        "(see docs/rewards.md)"
    )
