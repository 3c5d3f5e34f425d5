"""Which agent made a call, and the rule of the run file for that agent's calls."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from leyden.credit.core.strategies import StrategySetting
from leyden.events import ModelCallRecorded, Record, SpanRecorded
from leyden.events.joins import JoinableSpan, Place, joinable_span

ROLE_ATTRIBUTE = "leyden.agent.role"
"""Span attribute with the agent's role; the conventions name agents, not roles."""


@dataclass(frozen=True, slots=True)
class Agent:
    """Name and role of an agent; None where unknown."""

    name: str | None = None
    role: str | None = None


UNKNOWN_AGENT = Agent()
"""An agent whose name and role are unknown."""


class AgentRule(BaseModel):
    """One entry of `agents:`: shell patterns on an agent's name and role, and what becomes of its calls."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid", frozen=True)

    name: str = "*"
    """Pattern on the agent's name; an unknown name is the empty text."""
    role: str = "*"
    """Pattern on its role; an unknown role is the empty text."""
    train: bool = True
    """False: its calls are context."""
    policy: str | None = Field(default=None, min_length=1)
    """Train its calls as this policy's data; unset: as data of the policy that answered."""
    strategy: StrategySetting | None = None
    """How its calls are credited; unset: by the section's `strategy`."""

    @model_validator(mode="after")
    def _trained_or_not(self) -> Self:
        if not self.train and (self.policy is not None or self.strategy is not None):
            raise ValueError("an agent that is not trained has no policy and no strategy")
        return self

    def matches(self, agent: Agent) -> bool:
        """Whether both patterns match `agent`."""
        return fnmatchcase(agent.name or "", self.name) and fnmatchcase(agent.role or "", self.role)


DEFAULT_RULE = AgentRule()
"""For an agent that no rule matches."""


def rule_for(agent: Agent, rules: Sequence[AgentRule]) -> AgentRule:
    """The first rule that matches `agent`."""
    return next((rule for rule in rules if rule.matches(agent)), DEFAULT_RULE)


class SpanLink(Record):
    """What credit keeps of a span: its position in the trace, and its agent."""

    event_id: str
    trace_id: str
    span_id: str
    parent_span_id: str | None = None
    agent_name: str | None = None
    agent_role: str | None = None
    response_id: str | None = None
    """Id of the reply, for the span of a model call."""
    replies: tuple[str, ...] = ()
    """The reply itself (see `leyden.events.replies`)."""
    told_by: str | None = None
    """Id of the span that `replies` belong to, where it is another one."""
    unfinished: bool = False
    """The finished span, where it is there too, replaces this one."""
    model: str | None = None
    """The model's name without a provider's prefix."""
    started_unix_nano: int = 0
    ended_unix_nano: int = 0

    @classmethod
    def of(cls, span: SpanRecorded) -> "SpanLink":
        """The link for `span`."""
        role = span.attributes.get(ROLE_ATTRIBUTE)
        joinable = joinable_span(span)
        return cls(
            event_id=span.event_id,
            trace_id=span.trace_id,
            span_id=span.span_id,
            parent_span_id=span.parent_span_id,
            agent_name=span.agent_name,
            agent_role=role if isinstance(role, str) else None,
            response_id=joinable.response_id,
            replies=tuple(joinable.replies),
            told_by=joinable.told_by[1] if joinable.told_by is not None else None,
            unfinished=span.unfinished,
            model=joinable.model,
            started_unix_nano=span.start_unix_nano,
            ended_unix_nano=span.end_unix_nano,
        )

    @property
    def joinable(self) -> JoinableSpan:
        """What joins need to know of it."""
        return JoinableSpan(
            place=(self.trace_id, self.span_id),
            parent=(self.trace_id, self.parent_span_id) if self.parent_span_id else None,
            response_id=self.response_id,
            replies=self.replies,
            told_by=(self.trace_id, self.told_by) if self.told_by is not None else None,
            model=self.model,
            started_unix_nano=self.started_unix_nano,
            ended_unix_nano=self.ended_unix_nano,
        )


Trace = Mapping[Place, SpanLink]
"""(Trace id, span id) → span."""


def agent_of(call: ModelCallRecorded, trace: Trace, spans: Sequence[Place] = ()) -> Agent:
    """The agent of `call`: as the call says, else as the nearest span around it says that names one.

    The search starts from each of `spans`, the call's spans in the order of their evidence (see `leyden.events.joins`).
    """
    return Agent(
        call.agent_name or _first(spans, trace, lambda span: span.agent_name),
        call.agent_role or _first(spans, trace, lambda span: span.agent_role),
    )


def _first(starts: Sequence[Place], trace: Trace, said: Callable[[SpanLink], str | None]) -> str | None:
    return next((answer for start in starts if (answer := _nearest(start, trace, said))), None)


def _nearest(start: Place, trace: Trace, said: Callable[[SpanLink], str | None]) -> str | None:
    """What the span at `start` says, else its parent, and so on; stops if parents form a cycle."""
    seen: set[str] = set()
    trace_id, at = start[0], start[1]
    while at not in seen:
        span = trace.get((trace_id, at))
        if span is None:
            return None
        if answer := said(span):
            return answer
        seen.add(at)
        at = span.parent_span_id or ""
    return None
