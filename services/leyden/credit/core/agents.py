"""Which agent made a call, and the rule of the run file for that agent's calls."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from leyden.credit.core.strategies import StrategySetting
from leyden.events import ModelCallRecorded, Record, SpanRecorded
from leyden.events.replies import replies_of_span, told_by

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

    @classmethod
    def of(cls, span: SpanRecorded) -> "SpanLink":
        """The link for `span`."""
        role = span.attributes.get(ROLE_ATTRIBUTE)
        return cls(
            event_id=span.event_id,
            trace_id=span.trace_id,
            span_id=span.span_id,
            parent_span_id=span.parent_span_id,
            agent_name=span.agent_name,
            agent_role=role if isinstance(role, str) else None,
            response_id=span.llm.response_id if span.llm is not None else None,
            replies=replies_of_span(span),
            told_by=told if (told := told_by(span)[1]) != span.span_id else None,
            unfinished=span.unfinished,
        )


Trace = Mapping[tuple[str, str], SpanLink]
"""(trace id, span id) → span."""


def by_response(trace: Trace) -> Mapping[str, Sequence[SpanLink]]:
    """Reply id → spans of that model call: both the framework's and its HTTP client's may be there."""
    found: dict[str, list[SpanLink]] = {}
    for span in trace.values():
        if span.response_id is not None:
            found.setdefault(span.response_id, []).append(span)
    return {reply: sorted(spans, key=lambda span: span.event_id) for reply, spans in found.items()}


def agent_of(
    call: ModelCallRecorded,
    trace: Trace,
    replies: Mapping[str, Sequence[SpanLink]] | None = None,
    same_reply: tuple[str, str] | None = None,
) -> Agent:
    """The agent of `call`: as the call says, else as the nearest enclosing span says.

    The search starts from the spans with the call's reply id or request id (`replies`, see `by_response`), then from
    the span in which the call was made, then from `same_reply`, the span with the same reply.
    """
    known = replies or {}
    named = [span for id_ in (call.response_id or "", call.call_id) for span in known.get(id_, ())]
    starts = [(span.trace_id, span.span_id) for span in named]
    if call.trace_id is not None and call.parent_span_id is not None:
        starts.append((call.trace_id, call.parent_span_id))
    if same_reply is not None:
        starts.append(same_reply)
    return Agent(
        call.agent_name or _first(starts, trace, lambda span: span.agent_name),
        call.agent_role or _first(starts, trace, lambda span: span.agent_role),
    )


def _first(starts: Sequence[tuple[str, str]], trace: Trace, said: Callable[[SpanLink], str | None]) -> str | None:
    return next((answer for start in starts if (answer := _nearest(start, trace, said))), None)


def _nearest(start: tuple[str, str], trace: Trace, said: Callable[[SpanLink], str | None]) -> str | None:
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
