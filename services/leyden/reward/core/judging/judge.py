"""The judges that a run file can name. A judge is its own settings; what of them changes its opinion is hashed."""

from typing import ClassVar, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, model_validator

from leyden.events import JsonObject
from leyden.events.base import Reward
from leyden.ids import derive
from leyden.reward.core.evidence import SettledAttempt

PROMPTS = 1
"""Version of the prompts in this package; counts up with any change of their text, so that judges are asked anew."""


class JudgeSettings(BaseModel):
    """What all judges have: where they are, how they are asked, and what they weigh."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    unhashed: ClassVar[frozenset[str]] = frozenset(
        {"name", "base_url", "api_key_env", "weight", "cap", "timeout_s", "retries", "concurrency", "structured"}
    )
    """Fields that do not change what the judge thinks."""

    kind: str
    name: str
    """Of its rewards; unique in the run file."""
    base_url: str
    """Of an OpenAI-compatible API, with its version: `https://host/v1`."""
    model: str
    api_key_env: str | None = None
    """Name of the environment variable that holds the key; None: no key is sent."""
    weight: Reward = 1.0
    cap: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    rubric: str = Field(default="", max_length=20_000)
    """What counts, in words; the kind's own when empty."""
    temperature: float | None = Field(default=0.0, ge=0)
    """None: not sent, for models that refuse it."""
    parameters: JsonObject = Field(default_factory=dict)
    """Further fields of the request, such as `max_completion_tokens` or `reasoning_effort`."""
    max_chars: int = Field(default=60_000, ge=500)
    """How much of the transcripts one request holds, all candidates together; longer ones lose their middle."""
    show_metadata: bool = False
    """Whether the judge sees the task's metadata (a reference answer, say), which the agent never does."""
    structured: bool = True
    """Ask for the answer's JSON Schema (`response_format`); an endpoint that refuses it is asked without."""
    timeout_s: float = Field(default=60.0, gt=0)
    """Of one request."""
    retries: int = Field(default=5, ge=0)
    """Of one request, after 429, a server's error, a timeout or a broken connection."""
    concurrency: int = Field(default=8, ge=1)
    """Requests to it at a time, of one replica."""

    @property
    def settings_hash(self) -> str:
        """Changes with whatever may change an opinion: model, prompts, rubric, scale, parameters."""
        kept = self.model_dump(mode="json", exclude=set(self.unhashed))
        return derive("judge", PROMPTS, orjson.dumps(kept, option=orjson.OPT_SORT_KEYS).decode())


class AttemptJudge(JudgeSettings):
    """A judge that looks at one attempt alone and gives scores on a scale."""

    scale: tuple[float, float] = (0.0, 1.0)
    """Lowest and highest score; what lies outside is no answer."""

    @model_validator(mode="after")
    def _scale_rises(self) -> "AttemptJudge":
        if not self.scale[0] < self.scale[1]:
            raise ValueError(f"scale {list(self.scale)}: give the lowest score first, then the highest")
        return self


class RubricJudge(AttemptJudge):
    """One score for the whole rollout, by a rubric."""

    kind: Literal["rubric"]


class NextStateJudge(AttemptJudge):
    """One score for each action of the policy that had a consequence: what came next says how good it was."""

    kind: Literal["next_state"]
    scale: tuple[float, float] = (-1.0, 1.0)
    intermediate: bool = True
    """Whether its scores come under `intermediate_cap`; false where they are all the reward there is."""
    unhashed: ClassVar[frozenset[str]] = JudgeSettings.unhashed | {"intermediate"}


class RankingJudge(JudgeSettings):
    """Scores from 0 to 1 for a group's rollouts, in comparison with each other, in one request."""

    kind: Literal["ranking"]
    group_wait_s: float = Field(default=600.0, gt=0)
    """From when the first of a group is settled: how long the others are waited for."""
    unhashed: ClassVar[frozenset[str]] = JudgeSettings.unhashed | {"group_wait_s"}


def lacking(judges: tuple[JudgeSettings, ...], attempt: SettledAttempt) -> list[JudgeSettings]:
    """The judges whose verdict `attempt` still waits for; none for a failed one, which nobody judges."""
    if attempt.ended.status == "failed":
        return []
    return [judge for judge in judges if (judge.name, judge.settings_hash) not in attempt.evidence.verdicts]
