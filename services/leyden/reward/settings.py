"""Knobs of reward: the run file's section `reward:`, and what an operator may change (`LEYDEN_REWARD_…`)."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SerializeAsAny, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from leyden.events.base import Reward
from leyden.reward.air import air_rule
from leyden.reward.core.judging import NextStateJudge, RankingJudge, RubricJudge
from leyden.reward.core.rules import Emitted, IntermediateRule
from leyden.reward.graders import Grader, grader_of


class FunctionSettings(BaseModel):
    """One Python reward function, or one of the ready-made graders with its own fields beside these."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid", frozen=True)

    entry: str = ""
    """Name of an entry point of the group `leyden.reward_functions`, or `module:function`."""
    grader: SerializeAsAny[Grader] | None = None
    """Instead of `entry`: a grader's name. Fields that are not listed here are the grader's parameters."""
    name: str = ""
    """Name of its reward; the entry's last part, or the grader's name, when not given."""
    weight: Reward = 1.0
    cap: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    batched: bool = False
    """It takes a list of views and gives a list of results: called once for all attempts that are ready together."""
    isolated: bool | None = None
    """Run it in worker processes, where `timeout_s` and `memory_mb` hold; null: all but graders that only compare."""
    timeout_s: float | None = Field(default=None, gt=0)
    """Of one call; null: 10, or what the grader's own limits come to. Its worker is then killed."""
    memory_mb: int = Field(default=1024, ge=16)
    """Address space that a worker may take beyond what it holds with the function loaded."""
    retries: int = Field(default=2, ge=0)
    """Further tries of a call that failed, each alone, before the rollout's rewards name the rule as failed."""
    workers: int = Field(default=1, ge=1)
    """Worker processes that share its calls."""

    @property
    def rule_name(self) -> str:
        """What its rewards are called."""
        return self.name or (self.grader.grader if self.grader else self.entry.rpartition(":")[2])

    @property
    def runs_isolated(self) -> bool:
        """Whether it runs in processes of its own."""
        return self.isolated if self.isolated is not None else self.grader is None or self.grader.isolated

    @model_validator(mode="before")
    @classmethod
    def _grader_takes_the_rest(cls, entry: Any) -> Any:
        if not isinstance(entry, Mapping) or not isinstance(name := entry.get("grader"), str):
            return entry
        kind = grader_of(name)
        own = {key: value for key, value in entry.items() if key in cls.model_fields and key != "grader"}
        rest = {key: value for key, value in entry.items() if key not in own}
        return own | {"grader": kind.model_validate(rest)}

    @model_validator(mode="after")
    def _one_thing_within_limits_that_hold(self) -> "FunctionSettings":
        if bool(self.entry) == bool(self.grader):
            raise ValueError("a function has either an entry or a grader")
        if not self.runs_isolated and {"memory_mb", "workers"} & self.model_fields_set:
            raise ValueError(f"{self.rule_name}: memory_mb and workers mean nothing without isolated: true")
        return self


def _air_rule(entry: Any) -> Any:
    """The rule object of one entry of `air:`; the entry's `rule` says which."""
    if not isinstance(entry, Mapping):
        return entry
    return air_rule(str(entry.get("rule"))).model_validate(entry)


class RewardSection(BaseModel):
    """What an RL engineer chooses."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid", frozen=True)

    settle: Literal["live", "recorded"] = "live"
    """`live`: this service declares evidence complete. `recorded`: it follows settlements in the log (replay)."""
    grace_s: float = Field(default=30.0, gt=0)
    """How long a finished rollout waits for announced evidence before it is settled as incomplete."""
    emitted: Emitted | None = Emitted()
    """Rewards sent with the end, and evaluations; null to ignore them."""
    functions: tuple[FunctionSettings, ...] = ()
    judges: tuple[Annotated[RubricJudge | RankingJudge | NextStateJudge, Field(discriminator="kind")], ...] = ()
    """Language models as judges: `{kind, name, base_url, model, …the kind's own fields}`. See docs/rewards.md."""
    late_horizon_s: float = Field(default=0.0, ge=0)
    """How long after a rollout's end an evaluation still makes a new revision of its rewards, by the two events' times.
    0: late evaluations are counted and let go."""
    air: tuple[Annotated[IntermediateRule, BeforeValidator(_air_rule)], ...] = ()
    """Automatic Intermediate Rewarding: `{rule, name?, weight?, cap?, tool?, agent?, step?, signal?, shaping?, …the
    rule's own fields}`."""
    outcome_scale: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """How much a good outcome is over a bad one, before weights; the default fits rewards of 0 and 1."""
    intermediate_cap: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """The most that all AIR rewards of one rollout may weigh together (sum of absolute contributions).

    null: half of `outcome_scale` times the smallest weight of a rule that is not AIR, so that no intermediate rewards
    can make a bad outcome worth more than a good one.
    """

    @model_validator(mode="after")
    def _names_differ(self) -> "RewardSection":
        names = [f.rule_name for f in self.functions] + [j.name for j in self.judges] + [r.name for r in self.air]
        names += [self.emitted.name] if self.emitted else []
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two rules are called {repeated[0]}: give one of them another name")
        return self


class RewardSettings(BaseSettings):
    """What an operator may change; none of it changes a reward."""

    model_config = SettingsConfigDict(use_attribute_docstrings=True, env_prefix="LEYDEN_REWARD_", extra="ignore")

    max_records: int = Field(default=500, ge=1)
    """Records taken at a time."""
    sweep_interval_s: float = Field(default=1.0, gt=0)
    """How often deadlines are looked at."""
    sweep_limit: int = Field(default=200, ge=1)
    """Overdue attempts settled at a time."""
    judge_attempts: int = Field(default=64, ge=1)
    """Attempts and groups that one replica has judged at a time."""
    judge_backlog: int = Field(default=10_000, ge=1)
    """So many may wait for judges, of all replicas; beyond that each batch is held back for some seconds."""
    judge_lease_s: float = Field(default=30.0, ge=3)
    """After how long somebody else takes over what a killed replica had in hand."""
    judge_cache_ttl_s: int = Field(default=7 * 86_400, ge=60)
    """How long a judge's answer is kept for the same request."""
