"""Which agent of a rollout made a call, and what an RL engineer says about that agent's calls. No assembly."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from leyden.credit.core.strategies import Strategy
from leyden.events import ModelCallRecorded, Record, SpanRecorded
from leyden.events.replies import reply_of_span

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
    response_id: str | None = None
    """Of a model call's span: the reply's id."""
    reply: str | None = None
    """Of one that does not name its reply: the reply itself (`leyden.events.replies`)."""

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
            response_id=span.llm.response_id if span.llm is not None else None,
            reply=reply_of_span(span),
        )


Trace = Mapping[tuple[str, str], SpanLink]
"""(trace id, span id) → span."""


def by_response(trace: Trace) -> Mapping[str, Sequence[SpanLink]]:
    """Reply's id → the spans of that model call: a framework's and its client's may both be here."""
    found: dict[str, list[SpanLink]] = {}
    for span in trace.values():
        if span.response_id is not None:
            found.setdefault(span.response_id, []).append(span)
    return {reply: sorted(spans, key=lambda span: span.event_id) for reply, spans in found.items()}


def agent_of(
    call: ModelCallRecorded,
    trace: Trace,
    replies: Mapping[str, Sequence[SpanLink]] | None = None,
    same_reply: SpanLink | None = None,
) -> Agent:
    """The agent that the call itself names, else the one of the nearest span around it that names one: around the
    spans that name the call's reply (`replies`, see `by_response`), the span that it was made in, or else `same_reply`.
    """
    starts = [(span.trace_id, span.span_id) for span in (replies or {}).get(call.response_id or "", ())]
    if call.trace_id is not None and call.parent_span_id is not None:
        starts.append((call.trace_id, call.parent_span_id))
    if same_reply is not None:
        starts.append((same_reply.trace_id, same_reply.span_id))
    return Agent(
        call.agent_name or _first(starts, trace, lambda span: span.agent_name),
        call.agent_role or _first(starts, trace, lambda span: span.agent_role),
    )


def _first(starts: Sequence[tuple[str, str]], trace: Trace, said: Callable[[SpanLink], str | None]) -> str | None:
    return next((answer for start in starts if (answer := _nearest(start, trace, said))), None)


def _nearest(start: tuple[str, str], trace: Trace, said: Callable[[SpanLink], str | None]) -> str | None:
    """What the span at `start` says, else its parent, and so on; a ring of parents ends where it closes."""
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
