"""What a rule is: it looks at a finished attempt and gives signals. Weights and caps are applied by `assess`."""

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from leyden.events import Evidence
from leyden.reward.core.view import RolloutView


@dataclass(frozen=True)
class Signal:
    """One judgement. At most one of a rule, for the same `name` and `evidence`."""

    value: float
    evidence: Evidence
    name: str | None = None
    """The named signal; the rule's name when None."""
    call_id: str | None = None
    """The model call whose action earned it; None: the whole rollout."""


class Rule(BaseModel):
    """A rule is its own settings: what is in the run file are its fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)
    intermediate: ClassVar[bool] = False
    """Whether its signals are means to an end, and so come under `intermediate_cap`."""

    name: str
    """Unique in a run file; written to `RewardAssigned.rule`."""
    weight: float = Field(default=1.0, allow_inf_nan=False)
    cap: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """The most that the rule's signals of one attempt may weigh together (sum of absolute contributions)."""

    @abstractmethod
    def signals(self, view: RolloutView) -> Iterable[Signal]:
        """The rule's judgements, in a fixed order. Raising means that the rule failed: never a reward of 0."""


class IntermediateRule(Rule):
    """A rule of Automatic Intermediate Rewarding: it reads runtime signals, not the outcome."""

    intermediate: ClassVar[bool] = True

    rule: str
    """Which rule of `AIR_RULES` it is."""
