"""The knobs of credit: what an RL engineer chooses is in the run file, how the process runs is in the environment."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from leyden.credit.core.advantage import advantage_of
from leyden.credit.core.agents import AgentRule
from leyden.credit.core.overlong import Overlong
from leyden.credit.core.rules import GroupRules, Rules
from leyden.credit.core.strategies import Identical, StrategySetting


class AgentSection(BaseModel):
    """One rule of `agents:`: shell patterns on the agent's name and role, and what becomes of its calls."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid", frozen=True)

    name: str = "*"
    """Pattern on the agent's name; the name of an unknown agent is the empty text."""
    role: str = "*"
    """Pattern on its role."""
    train: bool = True
    """False: its calls are context."""
    policy: str | None = Field(default=None, min_length=1)
    """Train its calls as this policy's data; unset: as the data of the policy that answered."""
    strategy: StrategySetting | None = None
    """How its calls are credited; unset: as the section's `strategy` says."""

    @model_validator(mode="after")
    def _trained_or_not(self) -> Self:
        if not self.train and (self.policy is not None or self.strategy is not None):
            raise ValueError("an agent that is not trained has no policy and no strategy")
        return self

    def rule(self) -> AgentRule:
        """The same as the core takes it."""
        return AgentRule(self.name, self.role, self.train, self.policy, self.strategy)


class GroupSection(BaseModel):
    """`group:`: who is compared with whom, and how long a group waits for its members."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid", frozen=True)

    by: Literal["given", "task"] = "given"
    """`given`: the groups that rollouts were started in. `task`: also those of one, by task and policy version."""
    size: int | None = Field(default=None, ge=2)
    """Members of a group by task."""
    quota: int | None = Field(default=None, ge=2)
    """Close an over-provisioned group with this many usable members; biased towards short rollouts."""
    deadline_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Close a group this long after its first member with those that are here; unset: wait for all."""
    min_members: int = Field(default=2, ge=2)
    """Usable members that a group closed by its deadline needs; with fewer it is published with all left out."""
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

    def rules(self) -> GroupRules:
        """The same as the core takes it."""
        return GroupRules(**self.model_dump(exclude={"close"}), decides=self.close == "live")


class CreditSection(BaseModel):
    """Section `credit:` of the run file."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid", frozen=True)

    strategy: StrategySetting = Identical()
    """How a rollout's rewards are shared among its actions: a name, or `{name: ..., <parameters>}`."""
    advantage: str = "grpo"
    """How the rollouts of a group are compared: grpo, dr_grpo or rloo.

    With `reinforce_plus_plus` (no comparison) and `reinforce_plus_plus_baseline` (less the group's mean) the rest is
    the trainer's: `whiten_advantages: true` in its section.
    """
    incomplete: Literal["drop", "train"] = "drop"
    """What becomes of a rollout whose evidence is not all there: left out, or trained with what there is."""
    policies: list[str] | None = Field(default=None, min_length=1)
    """Train the calls of these policies only; unset: of every policy."""
    max_sequence_tokens: int = Field(default=32_768, ge=2)
    """Longest training sequence; what becomes of longer ones is `overlong`."""
    overlong: Overlong = "drop"
    """`drop`: train nothing of it. `truncate`: take oldest tokens of the first state. `split`: cut between calls."""
    agents: list[AgentSection] = Field(default_factory=list)
    """By agent: whether, as whose data and by which strategy its calls are trained. The first that matches decides."""
    late_horizon_s: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Rewards that come this long after a rollout's end still change its group; 0: they are counted and let go."""
    group: GroupSection = GroupSection()

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

    def rules(self) -> Rules:
        """The same as the core takes it."""
        policies = frozenset(self.policies) if self.policies is not None else None
        return Rules(
            strategy=self.strategy,
            advantage=self.advantage,
            incomplete=self.incomplete,
            policies=policies,
            max_sequence_tokens=self.max_sequence_tokens,
            overlong=self.overlong,
            agents=tuple(agent.rule() for agent in self.agents),
            group=self.group.rules(),
            late_horizon_s=self.late_horizon_s,
        )


class CreditSettings(BaseSettings):
    """Environment, prefix `LEYDEN_CREDIT_`."""

    model_config = SettingsConfigDict(use_attribute_docstrings=True, env_prefix="LEYDEN_CREDIT_", extra="ignore")

    name: str = Field(default="", pattern=r"^([a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?)?$")
    """Name of this credit service where several work side by side: lower-case letters, digits and dashes, 32 at most.

    It enters the consumer group (`credit-<name>`), the Redis namespace, the events' ids and their `credit`.
    """
    max_records: int = Field(default=500, ge=1)
    """Records of one batch: bounds the memory of the process."""
    open_ttl_s: int = Field(default=7 * 86_400, ge=60)
    """Evidence of an attempt or group that nobody completes is forgotten after this long."""
    closed_ttl_s: int = Field(default=86_400, ge=60)
    """How long a finished attempt or group is remembered, so that a redelivery does not open it again."""
    sweep_interval_s: float = Field(default=1.0, gt=0)
    """How often deadlines and ages are looked at."""
    sweep_limit: int = Field(default=200, ge=1)
    """Groups closed, or attempts forgotten, at a time."""
    backlog_s: float = Field(default=30.0, gt=0)
    """No group is closed by its deadline for this long after a start, or after records older than this were read."""
