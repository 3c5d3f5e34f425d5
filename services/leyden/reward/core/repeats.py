"""Finds spans that report one execution of a tool from beside each other, such as a framework's and an MCP client's."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from leyden.events import Json, SpanRecorded
from leyden.events.joins import Place, place_of
from leyden.events.masked import has_mask
from leyden.events.replies import is_random
from leyden.reward.core.json_values import canonical, parsed

COMPARED = 32
"""With how many earlier tool calls of the same id or arguments one is compared at most."""


@dataclass(slots=True)
class _Execution:
    """The spans of one execution so far."""

    spans: list[SpanRecorded]
    agent: str | None
    instrumentations: set[tuple[str, str]] = field(default_factory=set)
    until: int = 0


def repeated(tools: Sequence[SpanRecorded], agents: Mapping[Place, str | None]) -> Mapping[Place, SpanRecorded]:
    """Tool span → the one that counts instead of it, where several report the same execution beside each other.

    The same execution: reported by different instrumentations (or with an equal random id), at overlapping times, with
    all fields that both have equal, among them the call ids or the arguments. The span that ends last counts.
    """
    running: dict[tuple[str, ...], list[_Execution]] = defaultdict(list)
    executions: list[_Execution] = []
    for tool in sorted(tools, key=lambda tool: (tool.start_unix_nano, place_of(tool))):
        keys = list(_keys(tool))
        agent = agents.get(place_of(tool))
        candidates = [one for key in keys for one in running[key][-COMPARED:] if one.until >= tool.start_unix_nano]
        found = next((one for one in candidates if _belongs(tool, agent, one)), None)
        if found is None:
            found = _Execution([], agent)
            executions.append(found)
        found.spans.append(tool)
        found.agent = found.agent or agent
        found.instrumentations.add(_instrumentation(tool))
        found.until = max(found.until, tool.end_unix_nano)
        for key in keys:
            running[key] = [one for one in running[key] if one is not found and one.until >= tool.start_unix_nano]
            running[key].append(found)
    kept = {id(one): max(one.spans, key=_counts) for one in executions}
    return {place_of(span): kept[id(one)] for one in executions for span in one.spans if span is not kept[id(one)]}


def same_tool_call(one: SpanRecorded, other: SpanRecorded) -> bool:
    """Whether all fields of the tool call that both spans have are equal."""
    if one.tool is None or other.tool is None:
        return True
    said = [(one.tool.name, other.tool.name), (one.tool.call_id, other.tool.call_id)]
    return all(a == b for a, b in said if a is not None and b is not None) and same_arguments(
        one.tool.arguments, other.tool.arguments
    )


def same_arguments(one: Json, other: Json) -> bool:
    """Whether they are equal, as JSON text or parsed; true where one is absent or masked.

    A text equals an object whose only value it is: OpenInference for LangChain in Node has only the value.
    """
    unknown = one is None or other is None or has_mask(one) or has_mask(other)
    if unknown or one == other or canonical(one) == canonical(other):
        return True
    return _is_only_value(one, other) or _is_only_value(other, one)


def _is_only_value(value: Json, arguments: Json) -> bool:
    held = parsed(arguments)[1] if isinstance(arguments, str) else arguments
    return isinstance(value, str) and isinstance(held, dict) and list(held.values()) == [value]


def _belongs(tool: SpanRecorded, agent: str | None, execution: _Execution) -> bool:
    if agent is not None and execution.agent is not None and agent != execution.agent:
        return False
    if not all(same_tool_call(tool, span) for span in execution.spans):
        return False
    is_other = _instrumentation(tool) not in execution.instrumentations
    return is_other or (tool.tool is not None and tool.tool.call_id is not None and is_random(tool.tool.call_id))


def _counts(span: SpanRecorded) -> tuple[int, int, Place]:
    return span.end_unix_nano, -span.start_unix_nano, place_of(span)


def _instrumentation(span: SpanRecorded) -> tuple[str, str]:
    scope = span.attributes.get("otel.scope")
    name = scope.get("name") if isinstance(scope, dict) else None
    return span.dialect, name if isinstance(name, str) else ""


def _keys(tool: SpanRecorded) -> Iterator[tuple[str, ...]]:
    """What two spans of one execution have in common, beside their times: call id or arguments, with the name."""
    if tool.tool is None:
        return
    if tool.tool.call_id is not None:
        yield "id", tool.tool.name, tool.tool.call_id
    if tool.tool.arguments is not None and not has_mask(tool.tool.arguments):
        yield "arguments", tool.tool.name, canonical(tool.tool.arguments)
