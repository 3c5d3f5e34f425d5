"""Which agent of a rollout made a call, and what an RL engineer says about that agent's calls. No assembly."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from leyden.credit.core.strategies import Strategy
from leyden.events import ModelCallRecorded, Record, SpanRecorded

ROLE_ATTRIBUTE = "leyden.agent.role"
"""Span attribute with the agent's role; the conventions name agents, not roles."""


@dataclass(frozen=True, slots=True)
class Agent:
    """Name and role of an agent, as far as they are known."""

    name: str | None = None
    role: str | None = None


NOBODY = Agent()
"""An agent of which nothing is known."""


@dataclass(frozen=True)
class AgentRule:
    """What becomes of the calls of the agents that both patterns match; an unknown name or role is the empty text."""

    name: str = "*"
    role: str = "*"
    train: bool = True
    """False: the calls are context."""
    policy: str | None = None
    """Train the calls as this policy's data; None: as the data of the policy that answered."""
    strategy: Strategy | None = None
    """None: the run's own."""

    def matches(self, agent: Agent) -> bool:
        """Whether the rule is about `agent`."""
        return fnmatchcase(agent.name or "", self.name) and fnmatchcase(agent.role or "", self.role)


UNRULED = AgentRule()
"""What holds for an agent that no rule is about."""


def rule_for(agent: Agent, rules: Sequence[AgentRule]) -> AgentRule:
    """The first rule that is about `agent`."""
    return next((rule for rule in rules if rule.matches(agent)), UNRULED)


class SpanLink(Record):
    """What credit keeps of a span: its place in the trace, and the agent whose work it is."""

    event_id: str
    trace_id: str
    span_id: str
    parent_span_id: str | None = None
    agent_name: str | None = None
    agent_role: str | None = None

    @classmethod
    def of(cls, span: SpanRecorded) -> "SpanLink":
        """The link that `span` is."""
        role = span.attributes.get(ROLE_ATTRIBUTE)
        return cls(
            event_id=span.event_id,
            trace_id=span.trace_id,
            span_id=span.span_id,
            parent_span_id=span.parent_span_id,
            agent_name=span.agent_name,
            agent_role=role if isinstance(role, str) else None,
        )


Trace = Mapping[tuple[str, str], SpanLink]
"""(trace id, span id) → span."""


def agent_of(call: ModelCallRecorded, trace: Trace) -> Agent:
    """The agent that the call itself names, else the one of the nearest span around the call that names one."""
    return Agent(
        call.agent_name or _nearest(call, trace, lambda span: span.agent_name),
        call.agent_role or _nearest(call, trace, lambda span: span.agent_role),
    )


def _nearest(call: ModelCallRecorded, trace: Trace, said: Callable[[SpanLink], str | None]) -> str | None:
    """What the call's parent span says, else that one's parent, and so on; a ring of parents ends where it closes."""
    seen: set[str] = set()
    at = call.parent_span_id
    while call.trace_id is not None and at is not None and at not in seen:
        span = trace.get((call.trace_id, at))
        if span is None:
            return None
        if answer := said(span):
            return answer
        seen.add(at)
        at = span.parent_span_id
    return None
