"""An index of an attempt's spans: parents, agents, tool calls and their parts."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from leyden.events import SpanKind, SpanRecorded

_OWN_WORK = frozenset({SpanKind.AGENT_STEP, SpanKind.LLM_CALL, SpanKind.EVALUATION})
"""Kinds of spans inside a tool's span that are not part of the tool's own work: a sub-agent, a model, a score."""


@dataclass(frozen=True)
class SpanIndex:
    """Index of an attempt's spans, built in linear time."""

    by_event: Mapping[str, SpanRecorded]
    """Event id → span."""
    by_id: Mapping[str, SpanRecorded]
    """Span id → span."""
    agents: Mapping[str, str | None]
    """Span id → name of the nearest agent: the span's own, or that of an ancestor."""
    tools: Sequence[SpanRecorded]
    """Tool calls: tool spans, except those that repeat another span's tool call (see `parts_of`)."""
    parts: Mapping[str, Sequence[SpanRecorded]]
    """Span id of a tool call → its parts."""

    def parts_of(self, tool: SpanRecorded) -> Sequence[SpanRecorded]:
        """The spans of a tool call's own work, in order: a process, a request, or the same call reported by another
        instrumentation (an MCP client's or server's span inside the framework's).
        """
        return self.parts.get(tool.span_id, ())

    @classmethod
    def of(cls, spans: Sequence[SpanRecorded]) -> "SpanIndex":
        """The index of `spans`, which must be ordered by start time. A missing parent counts as no parent."""
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
    """`span` and its ancestors, innermost first, up to a known one. Stops at a cycle."""
    chain: dict[str, SpanRecorded] = {}
    at: SpanRecorded | None = span
    while at is not None and at.span_id not in known and at.span_id not in chain:
        chain[at.span_id] = at
        at = by_id.get(at.parent_span_id or "")
    return list(chain.values())


def _owner(span: SpanRecorded, around: SpanRecorded | None) -> SpanRecorded | None:
    """The tool call that `span` is part of; `around` is that of its parent. A tool call is part of itself."""
    if span.kind is SpanKind.TOOL_CALL:
        return around if around is not None and _same_tool_call(span, around) else span
    return None if span.kind in _OWN_WORK else around


def _same_tool_call(inner: SpanRecorded, outer: SpanRecorded) -> bool:
    """Whether two nested tool spans are one tool call: all fields that both have are equal."""
    one, other = inner.tool, outer.tool
    if one is None or other is None:
        return True
    said = [(one.name, other.name), (one.call_id, other.call_id), (one.arguments, other.arguments)]
    return all(a == b for a, b in said if a is not None and b is not None)
