"""An index of an attempt's spans: parents, agents, tool calls and their parts."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from leyden.events import SpanKind, SpanRecorded
from leyden.events.joins import Place, parent_of, place_of
from leyden.reward.core.repeats import repeated, same_tool_call

_OWN_WORK = frozenset({SpanKind.AGENT_STEP, SpanKind.LLM_CALL, SpanKind.EVALUATION})
"""Kinds of spans inside a tool's span that are not part of the tool's own work: a sub-agent, a model, a score."""


@dataclass(frozen=True)
class SpanIndex:
    """Index of an attempt's spans, built in linear time."""

    by_event: Mapping[str, SpanRecorded]
    """Event id → span."""
    by_place: Mapping[Place, SpanRecorded]
    """(Trace id, span id) → span."""
    agents: Mapping[Place, str | None]
    """Span → name of the nearest agent: the span's own, or that of an ancestor."""
    tools: Sequence[SpanRecorded]
    """Tool calls: tool spans, except those that repeat another span's tool call (see `parts_of`)."""
    parts: Mapping[Place, Sequence[SpanRecorded]]
    """Tool call → its parts."""

    def parts_of(self, tool: SpanRecorded) -> Sequence[SpanRecorded]:
        """The spans of a tool call's own work, in order: a process, a request, or the same call reported by another
        instrumentation (an MCP client's or server's span inside the framework's, or beside it).
        """
        return self.parts.get(place_of(tool), ())

    @classmethod
    def of(cls, spans: Sequence[SpanRecorded]) -> "SpanIndex":
        """The index of `spans`, which must be ordered by start time. A missing parent counts as no parent."""
        by_place = {place_of(span): span for span in spans}
        agents: dict[Place | None, str | None] = {}
        owners: dict[Place | None, SpanRecorded | None] = {}
        parts: dict[Place, list[SpanRecorded]] = defaultdict(list)
        for span in spans:
            for link in reversed(_unknown_chain(span, by_place, owners)):
                above = parent_of(link)
                agents[place_of(link)] = link.agent_name or agents.get(above)
                owners[place_of(link)] = _owner(link, owners.get(above))
        for span in spans:
            owner = owners[place_of(span)]
            if owner is not None and place_of(owner) != place_of(span):
                parts[place_of(owner)].append(span)
        called = [span for span in spans if span.kind is SpanKind.TOOL_CALL]
        tools = [span for span in called if owners[place_of(span)] is by_place[place_of(span)]]
        known = {place: agent for place, agent in agents.items() if place is not None}
        index = cls({span.event_id: span for span in spans}, by_place, known, tools, parts)
        return index.merged(repeated(tools, known))

    def merged(self, repeats: Mapping[Place, SpanRecorded]) -> "SpanIndex":
        """The index with each tool call in `repeats` as a part of the one that counts instead of it.

        One that had ended before the other began is an earlier try: it is left out, with its parts.
        """
        if not repeats:
            return self
        parts = {place: list(found) for place, found in self.parts.items()}
        for tool in self.tools:
            kept = repeats.get(place_of(tool))
            if kept is not None and tool.end_unix_nano >= kept.start_unix_nano:
                parts.setdefault(place_of(kept), []).extend([tool, *self.parts_of(tool)])
        return replace(self, tools=[tool for tool in self.tools if place_of(tool) not in repeats], parts=parts)


def _unknown_chain(
    span: SpanRecorded, by_place: Mapping[Place, SpanRecorded], known: Mapping[Place | None, SpanRecorded | None]
) -> list[SpanRecorded]:
    """`span` and its ancestors, innermost first, up to a known one. Stops at a cycle."""
    chain: dict[Place, SpanRecorded] = {}
    at: SpanRecorded | None = span
    while at is not None and place_of(at) not in known and place_of(at) not in chain:
        chain[place_of(at)] = at
        parent = parent_of(at)
        at = by_place.get(parent) if parent is not None else None
    return list(chain.values())


def _owner(span: SpanRecorded, around: SpanRecorded | None) -> SpanRecorded | None:
    """The tool call that `span` is part of; `around` is that of its parent. A tool call is part of itself."""
    if span.kind is SpanKind.TOOL_CALL:
        return around if around is not None and same_tool_call(span, around) else span
    return None if span.kind in _OWN_WORK else around
