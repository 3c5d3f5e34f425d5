"""Judges of the run file, as their settings. Settings that can change a verdict are part of `settings_hash`."""

from typing import ClassVar, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, model_validator

from leyden.events import JsonObject
from leyden.events.base import Reward
from leyden.ids import derive
from leyden.reward.core.evidence import SettledAttempt

PROMPTS = 1
"""Version of this package's prompts. Increment it with any change of their text, so that judges are asked again."""


class JudgeSettings(BaseModel):
    """Settings of all kinds of judges: endpoint, request parameters, weight."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    unhashed: ClassVar[frozenset[str]] = frozenset(
        {"name", "base_url", "api_key_env", "weight", "cap", "timeout_s", "retries", "concurrency", "structured"}
    )
    """Fields that cannot change a verdict."""

    kind: str
    name: str
    """Name of its rewards. Must be unique in the run file."""
    base_url: str
    """Base URL of an OpenAI-compatible API, with the version: `https://host/v1`."""
    model: str
    api_key_env: str | None = None
    """Name of the environment variable with the API key; None: no key is sent."""
    weight: Reward = 1.0
    cap: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    rubric: str = Field(default="", max_length=20_000)
    """Criteria for the score, as text; empty: the default of the kind."""
    temperature: float | None = Field(default=0.0, ge=0)
    """None: not sent, for models that reject it."""
    parameters: JsonObject = Field(default_factory=dict)
    """Further request fields, such as `max_completion_tokens` or `reasoning_effort`."""
    max_chars: int = Field(default=60_000, ge=500)
    """Maximum length of all transcripts in one request; the middle of longer ones is omitted."""
    show_metadata: bool = False
    """Whether the judge sees the task's metadata (a reference answer, say). The agent never sees it."""
    structured: bool = True
    """Send a JSON Schema for the response (`response_format`). If the endpoint rejects it, it is not sent again."""
    timeout_s: float = Field(default=60.0, gt=0)
    """Limit of one request, in seconds."""
    retries: int = Field(default=5, ge=0)
    """Retries of one request after 429, a server error, a timeout or a connection error."""
    concurrency: int = Field(default=8, ge=1)
    """Concurrent requests from one replica."""

    @property
    def settings_hash(self) -> str:
        """Hash of everything that can change a verdict: model, prompts, rubric, scale, parameters."""
        kept = self.model_dump(mode="json", exclude=set(self.unhashed))
        return derive("judge", PROMPTS, orjson.dumps(kept, option=orjson.OPT_SORT_KEYS).decode())


class AttemptJudge(JudgeSettings):
    """A judge that scores each attempt separately, on a scale."""

    scale: tuple[float, float] = (0.0, 1.0)
    """Lowest and highest score. A score outside is an invalid response."""

    @model_validator(mode="after")
    def _scale_rises(self) -> "AttemptJudge":
        if not self.scale[0] < self.scale[1]:
            raise ValueError(f"scale {list(self.scale)}: the lowest score must come first, then the highest")
        return self


class RubricJudge(AttemptJudge):
    """Gives one score for the whole rollout, by a rubric."""

    kind: Literal["rubric"]


class NextStateJudge(AttemptJudge):
    """Gives one score for each action of the policy that had a consequence, judging it by that consequence."""

    kind: Literal["next_state"]
    scale: tuple[float, float] = (-1.0, 1.0)
    intermediate: bool = True
    """Whether `intermediate_cap` applies to its scores. Set it to false if there are no other rewards."""
    unhashed: ClassVar[frozenset[str]] = JudgeSettings.unhashed | {"intermediate"}


class RankingJudge(JudgeSettings):
    """Compares the rollouts of a group in one request and gives each a score from 0 to 1."""

    kind: Literal["ranking"]
    group_wait_s: float = Field(default=600.0, gt=0)
    """How long to wait for the other members after the first one of a group is settled."""
    unhashed: ClassVar[frozenset[str]] = JudgeSettings.unhashed | {"group_wait_s"}


def lacking(judges: tuple[JudgeSettings, ...], attempt: SettledAttempt) -> list[JudgeSettings]:
    """The judges whose verdicts `attempt` lacks; empty for a failed attempt, which is not judged."""
    if attempt.ended.status == "failed":
        return []
    return [judge for judge in judges if (judge.name, judge.settings_hash) not in attempt.evidence.verdicts]
