"""Settings of reward: section `reward:` of the run file, and environment variables `LEYDEN_REWARD_…`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SerializeAsAny, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from leyden.events.base import Reward
from leyden.reward.air import air_rule
from leyden.reward.core.judging import NextStateJudge, RankingJudge, RubricJudge
from leyden.reward.core.rules import Emitted, IntermediateRule
from leyden.reward.graders import Grader, grader_of

OF_WORKERS = {"memory_mb", "workers", "writable", "environment"}
"""Fields that have a meaning in worker processes only."""


class FunctionSettings(BaseModel):
    """A Python reward function, or a grader with its own fields in addition to these."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid", frozen=True)

    entry: str = ""
    """Entry point of group `leyden.reward_functions`, or `module:function`."""
    grader: SerializeAsAny[Grader] | None = None
    """Name of a grader, instead of `entry`. Fields not listed here are the grader's parameters."""
    name: str = ""
    """Name of its reward; default: the last part of `entry`, or the grader's name."""
    weight: Reward = 1.0
    """Factor of its rewards in the return; 0 only measures."""
    cap: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Limit for its rewards of one attempt together (sum of absolute contributions)."""
    batched: bool = False
    """The function takes a list of views and returns a list of results; it is called once for many attempts."""
    isolated: bool | None = None
    """Run in worker processes, which enforce `timeout_s` and `memory_mb`. null: true, except for simple graders."""
    timeout_s: float | None = Field(default=None, gt=0)
    """Limit of one call, after which its worker is killed; null: 10, or the sum of the grader's own limits."""
    memory_mb: int = Field(default=1024, ge=16)
    """Address space that a worker may use in addition to what it uses once the function is loaded."""
    retries: int = Field(default=2, ge=0)
    """Retries of a failed call, each with one rollout, before the rule counts as failed for that rollout."""
    workers: int = Field(default=1, ge=1)
    """Number of worker processes."""
    writable: tuple[Path, ...] = ()
    """Folders in which it may write, besides a temporary one of its own (`HOME` and `TMPDIR`)."""
    environment: tuple[str, ...] = ()
    """Names of environment variables of the service that it gets, for example of an API key."""

    @property
    def rule_name(self) -> str:
        """Name of its rewards."""
        return self.name or (self.grader.grader if self.grader else self.entry.rpartition(":")[2])

    @property
    def runs_isolated(self) -> bool:
        """Whether it runs in worker processes."""
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
            raise ValueError("a function needs either an entry or a grader")
        if not self.runs_isolated and (useless := sorted(OF_WORKERS & self.model_fields_set)):
            raise ValueError(f"{self.rule_name}: {' and '.join(useless)}: only with isolated: true")
        return self


def _air_rule(entry: Any) -> Any:
    """The rule object for one entry of `air:`, by its field `rule`."""
    if not isinstance(entry, Mapping):
        return entry
    return air_rule(str(entry.get("rule"))).model_validate(entry)


class RewardSection(BaseModel):
    """Section `reward:` of the run file."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid", frozen=True)

    settle: Literal["live", "recorded"] = "live"
    """`live`: this service settles attempts. `recorded`: it follows the settlements in the log (replay)."""
    grace_s: float = Field(default=30.0, gt=0, le=1e9)
    """How long a finished rollout waits for missing evidence before it is settled as incomplete."""
    emitted: Emitted | None = Emitted()
    """Rewards sent with the rollout's end, and evaluations; null ignores them."""
    functions: tuple[FunctionSettings, ...] = ()
    """Python reward functions and graders: `{entry or grader, name?, weight?, cap?, timeout_s?, …}`."""
    judges: tuple[Annotated[RubricJudge | RankingJudge | NextStateJudge, Field(discriminator="kind")], ...] = ()
    """Language models as judges: `{kind, name, base_url, model, …fields of the kind}`. See docs/rewards.md."""
    late_horizon_s: float = Field(default=0.0, ge=0, le=1e9)
    """How long after a rollout's end an evaluation still revises its rewards, in seconds between the two events' times.
    0: late evaluations are counted and ignored. `RewardsCompleted` has it, so that credit keeps groups as long."""
    air: tuple[Annotated[IntermediateRule, BeforeValidator(_air_rule)], ...] = ()
    """Automatic Intermediate Rewarding: `{rule, name?, weight?, cap?, tool?, agent?, step?, signal?, shaping?, …fields
    of the rule}`."""
    outcome_scale: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Difference between the rewards of a good and a bad outcome, before weights. The default suits rewards 0 and 1."""
    intermediate_cap: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Limit for all AIR rewards of one rollout together (sum of absolute contributions).

    null: half of `outcome_scale` times the smallest weight of a rule that is not AIR, so that intermediate rewards
    cannot make a bad outcome worth more than a good one.
    """

    @model_validator(mode="after")
    def _names_differ(self) -> "RewardSection":
        names = [f.rule_name for f in self.functions] + [j.name for j in self.judges] + [r.name for r in self.air]
        names += [self.emitted.name] if self.emitted else []
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two rules are called {repeated[0]}; give one of them another name")
        return self


class RewardSettings(BaseSettings):
    """Operational settings. None of them changes a reward."""

    model_config = SettingsConfigDict(use_attribute_docstrings=True, env_prefix="LEYDEN_REWARD_", extra="ignore")

    max_records: int = Field(default=500, ge=1)
    """Records per batch."""
    sweep_interval_s: float = Field(default=0.25, gt=0)
    """Interval in seconds at which ended attempts are looked at."""
    sweep_limit: int = Field(default=200, ge=1)
    """Attempts settled at a time."""
    judge_attempts: int = Field(default=64, ge=1)
    """Attempts and groups that one replica judges concurrently."""
    judge_backlog: int = Field(default=10_000, ge=1)
    """If more attempts and groups wait for judges (over all replicas), each batch is delayed by some seconds."""
    judge_lease_s: float = Field(default=30.0, ge=3)
    """Seconds after which another replica takes over the jobs of a killed one."""
    judge_cache_ttl_s: int = Field(default=7 * 86_400, ge=60)
    """How long a judge's response is cached, in seconds."""
