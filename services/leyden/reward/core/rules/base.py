"""Base classes of rules. A rule gives signals for a finished attempt; `weighing` applies weights and caps."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from leyden.events import Evidence, SpanRecorded
from leyden.events.base import Reward
from leyden.reward.core.calls import CallView
from leyden.reward.core.rules.filters import Names, Steps, holds, matches
from leyden.reward.core.view import RolloutView


@dataclass(frozen=True)
class Signal:
    """One value given by a rule. A rule gives at most one for the same `name` and `evidence`."""

    value: float
    evidence: Evidence
    name: str | None = None
    """Name of the signal; None: the rule's name."""
    call_id: str | None = None
    """Id of the rewarded model call; None: the whole rollout."""


class Rule(BaseModel):
    """A reward rule. Its fields are its parameters in the run file."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)
    intermediate: ClassVar[bool] = False
    """Whether its signals are intermediate rewards, limited by `intermediate_cap`."""
    rates_outcome: ClassVar[bool] = True
    """Whether its signals for the whole rollout rate the outcome (see `core/assess.py`)."""
    judges_late: ClassVar[bool] = False
    """Whether it also rates evaluations that arrive after the settlement, each alone (see `core/late.py`)."""

    name: str
    """Unique in the run file; written to `RewardAssigned.rule`."""
    weight: Reward = 1.0
    cap: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Limit for the rule's signals of one attempt together (sum of absolute contributions)."""

    @abstractmethod
    def signals(self, view: RolloutView) -> Iterable[Signal]:
        """The rule's signals, in a fixed order. An exception means that the rule failed, not a reward of 0."""


class Shaping(BaseModel):
    """Potential-based shaping of a rule (see `core.shaping`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gamma: float = Field(default=1.0, gt=0, le=1)
    """Discount factor of the trained return; 1 if credit does not discount."""


FilterName = Literal["tool", "agent", "step"]


class IntermediateRule(Rule):
    """A rule of Automatic Intermediate Rewarding: it uses runtime signals, not the outcome.

    Subclasses implement `observe`. Filters, names, weights, caps and shaping are applied outside of it.
    """

    intermediate: ClassVar[bool] = True
    rates_outcome: ClassVar[bool] = False
    filters: ClassVar[frozenset[FilterName]] = frozenset({"tool", "agent", "step"})
    """The filters that the rule supports; any other in the run file is an error."""

    rule: str
    """Name of a built-in rule, or of an entry point of group `leyden.air_rules`."""
    tool: Names = ()
    """Only these tools: a pattern (`search_*`) or a list of patterns; empty: all."""
    agent: Names = ()
    """Only these agents: a pattern or a list; empty: all, including agents without a name."""
    step: Steps = ()
    """Only these steps (answered calls of policies, from 0): `first`, `last`, an index, a slice (`1:`), or a list."""
    signal: str | None = None
    """Name of its signals, written to `RewardAssigned.name`; None: the rule's own name (or names)."""
    shaping: Shaping | None = None
    """Use the signals as a potential for shaping, which does not change the optimal policy."""

    @abstractmethod
    def observe(self, view: RolloutView) -> Iterable[Signal]:
        """All signals, in a fixed order. Signals for calls and spans that are filtered out are dropped afterwards."""

    @property
    def claimed_evaluations(self) -> Names:
        """Name patterns of the evaluations that this rule uses. `emitted` ignores them, so that none counts twice."""
        return ()

    def signals(self, view: RolloutView) -> Iterator[Signal]:
        """The observed signals that pass the filters, named `signal`."""
        for signal in self.observe(view):
            if self._wants(signal, view):
                yield signal if self.signal is None else replace(signal, name=self.signal)

    def wants_tool(self, name: str | None) -> bool:
        """Whether tools with this name pass the filter `tool`."""
        return matches(self.tool, name)

    def wants_call(self, call: CallView, view: RolloutView) -> bool:
        """Whether the call passes the filters `agent` and `step`."""
        in_step = holds(self.step, view.steps.get(call.call_id), len(view.steps))
        return in_step and (not self.agent or matches(self.agent, view.agent_of_call(call)))

    def wants_span(self, span: SpanRecorded, view: RolloutView, call_id: str | None) -> bool:
        """Whether a span caused by call `call_id` passes the filters."""
        if span.tool is not None and not self.wants_tool(span.tool.name):
            return False
        in_step = holds(self.step, view.steps.get(call_id or ""), len(view.steps))
        return in_step and (not self.agent or matches(self.agent, view.agent_of_span(span)))

    def _wants(self, signal: Signal, view: RolloutView) -> bool:
        """Signals for the whole rollout always pass: the rule has applied the filters itself."""
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
                raise ValueError(f"rule {self.rule} does not support the filter {name!r}")
        return self
