"""How an attempt's spans hang together: built once, asked often. Says nothing about what is good or bad."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from leyden.events import SpanKind, SpanRecorded

_OWN_WORK = frozenset({SpanKind.AGENT_STEP, SpanKind.LLM_CALL, SpanKind.EVALUATION})
"""Inside a tool's span, but not part of the tool's own work: a sub-agent, a model, somebody's score."""


@dataclass(frozen=True)
class SpanIndex:
    """Every span's parent, agent and tool, found in one pass each."""

    by_event: Mapping[str, SpanRecorded]
    """Event id → span."""
    by_id: Mapping[str, SpanRecorded]
    """Span id → span."""
    agents: Mapping[str, str | None]
    """Span id → name of the nearest agent: its own, or that of a span around it."""
    tools: Sequence[SpanRecorded]
    """Tool calls: tool spans, without those that show one tool call a second time (see `parts_of`)."""
    parts: Mapping[str, Sequence[SpanRecorded]]
    """Span id of a tool call → what `parts_of` gives."""

    def parts_of(self, tool: SpanRecorded) -> Sequence[SpanRecorded]:
        """The spans of a tool call's own work, in order: a process, a request, the same call seen by another
        instrumentation (an MCP client's or server's span inside the framework's).
        """
        return self.parts.get(tool.span_id, ())

    @classmethod
    def of(cls, spans: Sequence[SpanRecorded]) -> "SpanIndex":
        """The index of `spans`, which are in the order in which they started. A parent that is not here is none."""
        by_id = {span.span_id: span for span in spans}
        agents: dict[str, str | None] = {}
        owners: dict[str, SpanRecorded | None] = {}
        parts: dict[str, list[SpanRecorded]] = defaultdict(list)
        for span in spans:
            for link in reversed(_unknown_chain(span, by_id, owners)):
                above = link.parent_span_id or ""
                agents[link.span_id] = link.agent_name or agents.get(above)
                owners[link.span_id] = _owner(link, owners.get(above))
        for span in spans:
            owner = owners[span.span_id]
            if owner is not None and owner.span_id != span.span_id:
                parts[owner.span_id].append(span)
        called = [span for span in spans if span.kind is SpanKind.TOOL_CALL]
        tools = [span for span in called if owners[span.span_id] is by_id[span.span_id]]
        return cls({span.event_id: span for span in spans}, by_id, agents, tools, parts)


def _unknown_chain(
    span: SpanRecorded, by_id: Mapping[str, SpanRecorded], known: Mapping[str, SpanRecorded | None]
) -> list[SpanRecorded]:
    """`span` and the spans around it, inside out, up to one that is known; spans that are their own parents end it."""
    chain: dict[str, SpanRecorded] = {}
    at: SpanRecorded | None = span
    while at is not None and at.span_id not in known and at.span_id not in chain:
        chain[at.span_id] = at
        at = by_id.get(at.parent_span_id or "")
    return list(chain.values())


def _owner(span: SpanRecorded, around: SpanRecorded | None) -> SpanRecorded | None:
    """The tool call whose work `span` is, `around` being that of its parent; a tool call's is itself."""
    if span.kind is SpanKind.TOOL_CALL:
        return around if around is not None and _same_tool_call(span, around) else span
    return None if span.kind in _OWN_WORK else around


def _same_tool_call(inner: SpanRecorded, outer: SpanRecorded) -> bool:
    """Whether two tool spans, one inside the other, are one tool call: nothing that both say differs."""
    one, other = inner.tool, outer.tool
    if one is None or other is None:
        return True
    said = [(one.name, other.name), (one.call_id, other.call_id), (one.arguments, other.arguments)]
    return all(a == b for a, b in said if a is not None and b is not None)
