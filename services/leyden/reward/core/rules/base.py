"""What a rule is: it looks at a finished attempt and gives signals. Weights and caps are applied by `weighing`."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from leyden.events import Evidence, SpanRecorded
from leyden.events.base import Reward
from leyden.reward.core.rules.filters import Names, Steps, holds, matches
from leyden.reward.core.view import CallView, RolloutView


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
    judges_late: ClassVar[bool] = False
    """Whether it also looks at evaluations that come after the settlement, each alone (see `core/late.py`)."""

    name: str
    """Unique in a run file; written to `RewardAssigned.rule`."""
    weight: Reward = 1.0
    cap: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """The most that the rule's signals of one attempt may weigh together (sum of absolute contributions)."""

    @abstractmethod
    def signals(self, view: RolloutView) -> Iterable[Signal]:
        """The rule's judgements, in a fixed order. Raising means that the rule failed: never a reward of 0."""


class Shaping(BaseModel):
    """Potential-based shaping of a rule (see `core.shaping`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gamma: float = Field(default=1.0, gt=0, le=1)
    """The discount of the return that is trained on: 1 for credit that does not discount."""


FilterName = Literal["tool", "agent", "step"]


class IntermediateRule(Rule):
    """A rule of Automatic Intermediate Rewarding: it reads runtime signals, not the outcome.

    A subclass says what it sees (`observe`); filters, names, weights, caps and shaping are not its business.
    """

    intermediate: ClassVar[bool] = True
    filters: ClassVar[frozenset[FilterName]] = frozenset({"tool", "agent", "step"})
    """The filters that mean something to the rule; a run file that gives another is wrong."""

    rule: str
    """Which rule it is: a built-in one's name, or an entry point of the group `leyden.air_rules`."""
    tool: Names = ()
    """Only these tools: patterns (`search_*`), one or a list; none: all."""
    agent: Names = ()
    """Only these agents: patterns, one or a list; none: all, the nameless too."""
    step: Steps = ()
    """Only these steps (answered calls of policies, from 0): `first`, `last`, an index, a slice (`1:`), or a list."""
    signal: str | None = None
    """Name of its signals, written to `RewardAssigned.name`; the rule's own name (or names) when None."""
    shaping: Shaping | None = None
    """Make the signals a potential: what is given then changes no optimal policy."""

    @abstractmethod
    def observe(self, view: RolloutView) -> Iterable[Signal]:
        """Every judgement, in a fixed order. Those for calls and spans that are filtered out are dropped afterwards."""

    @property
    def claimed_evaluations(self) -> Names:
        """Patterns of the evaluations that are the rule's: `emitted` leaves them alone, so that none counts twice."""
        return ()

    def signals(self, view: RolloutView) -> Iterator[Signal]:
        """What it observed and the filters let through, under the signal's name."""
        for signal in self.observe(view):
            if self._wants(signal, view):
                yield signal if self.signal is None else replace(signal, name=self.signal)

    def wants_tool(self, name: str | None) -> bool:
        """Whether the filter `tool` lets tools of this name through."""
        return matches(self.tool, name)

    def wants_call(self, call: CallView, view: RolloutView) -> bool:
        """Whether the filters `agent` and `step` let the call through."""
        in_step = holds(self.step, view.steps.get(call.call_id), len(view.steps))
        return in_step and (not self.agent or matches(self.agent, view.agent_of_call(call)))

    def wants_span(self, span: SpanRecorded, view: RolloutView, call_id: str | None) -> bool:
        """Whether the filters let a span through that call `call_id` led to."""
        if span.tool is not None and not self.wants_tool(span.tool.name):
            return False
        in_step = holds(self.step, view.steps.get(call_id or ""), len(view.steps))
        return in_step and (not self.agent or matches(self.agent, view.agent_of_span(span)))

    def _wants(self, signal: Signal, view: RolloutView) -> bool:
        """A signal for the whole rollout is of no call: the rule itself has looked at what the filters let through."""
        id_ = signal.evidence.id
        match signal.evidence.kind:
            case "call" if id_ in view.calls_by_id:
                return self.wants_call(view.calls_by_id[id_], view)
            case "span" if id_ in view.span_index.by_event:
                return self.wants_span(view.span_index.by_event[id_], view, signal.call_id)
        return True

    @model_validator(mode="after")
    def _filters_mean_something(self) -> "IntermediateRule":
        for name, value in (("tool", self.tool), ("agent", self.agent), ("step", self.step)):
            if value and name not in self.filters:
                raise ValueError(f"rule {self.rule} has no filter {name!r}: it would filter nothing")
        return self
