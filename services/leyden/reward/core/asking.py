"""Which model call asked for which execution of a tool."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from leyden.events import Json, JsonObject, SpanRecorded
from leyden.events.joins import CLOCK_SLACK_NANO, Place, place_of, unix_nano
from leyden.events.masked import has_mask
from leyden.events.replies import is_random
from leyden.reward.core.calls import CallView, asked_of, message_tool_calls, request_messages, tool_calls
from leyden.reward.core.repeats import same_arguments, same_tool_call
from leyden.reward.core.spans import SpanIndex


@dataclass(frozen=True)
class Ask:
    """One tool call in a call's response."""

    call: CallView
    agent: str | None
    id_: str
    name: str | None
    arguments: Json
    started: int
    ended: int


@dataclass(frozen=True)
class ToolUse:
    """The executions of an attempt's tools, each with the call that asked for it."""

    index: SpanIndex
    """The spans; an execution of one tool call that was tried again is one."""
    asked_by: Mapping[Place, str | None]
    """Tool call, or a part of it → the call that asked for it; None if there is none, or more than one fits."""
    latest: "_LatestCall"
    answers: Mapping[Place, JsonObject]
    """Tool call, or a part of it with its id → the message with its result in the next request of the conversation."""

    def call_of(self, span: SpanRecorded) -> str | None:
        """The call whose action caused `span`: for spans of no tool call, the latest call before them."""
        place = place_of(span)
        return self.asked_by[place] if place in self.asked_by else self.latest.before(span)


def tool_use(index: SpanIndex, calls: Sequence[CallView], agent_of: Callable[[CallView], str | None]) -> ToolUse:
    """Find the call that asked for each tool call of `index`. `calls` are ordered by start.

    Engines reuse tool call ids. Of the calls with the id, those count that had ended, are of the same agent, have the
    same name and arguments, and whose tool was not executed yet; each condition only where some call meets it. Of what
    is left, the latest is taken if the others are in its conversation; else none. A tool call without an id, or with
    one that no call has, is caused by the latest call before it.
    """
    answered = [call for call in calls if call.error is None]
    asked: dict[str, list[Ask]] = defaultdict(list)
    for call in answered:
        for ask in _asks(call, agent_of(call)):
            asked[ask.id_].append(ask)
    latest = _LatestCall.of(answered, index, agent_of)
    later = _Requests.of(answered)
    answers: dict[Place, JsonObject] = {}
    done: dict[int, SpanRecorded] = {}
    repeats: dict[Place, SpanRecorded] = {}
    asked_by: dict[Place, str | None] = {}
    for tool in index.tools:
        spans = (tool, *index.parts_of(tool))
        id_ = next((span.tool.call_id for span in spans if span.tool is not None and span.tool.call_id), None)
        candidates = [ask for ask in asked.get(id_ or "", ()) if ask.started <= tool.start_unix_nano]
        call_id = latest.before(tool)
        if candidates:
            chosen = _chosen(candidates, tool, index.agents.get(place_of(tool)), done)
            call_id = chosen.call.call_id if chosen is not None else None
            if chosen is not None:
                if (earlier := done.get(id(chosen))) is not None and _again(chosen, tool, earlier):
                    repeats[place_of(earlier)] = tool
                done[id(chosen)] = tool
                if (message := later.answer(chosen, tool)) is not None:
                    answers |= {place_of(span): message for span in spans if _has_id(span, chosen.id_)}
        asked_by |= dict.fromkeys(map(place_of, spans), call_id)
    return ToolUse(index.merged(_last(repeats)), asked_by, latest, answers)


@dataclass(frozen=True)
class _LatestCall:
    """Finds the latest answered call before a span."""

    index: SpanIndex
    by_agent: Mapping[str | None, Sequence[tuple[int, str]]]
    """Agent → (start, call id) of its calls, in order; under None those of all agents."""

    @classmethod
    def of(
        cls, answered: Sequence[CallView], index: SpanIndex, agent_of: Callable[[CallView], str | None]
    ) -> "_LatestCall":
        by_agent: dict[str | None, list[tuple[int, str]]] = defaultdict(list)
        for call in answered:
            for agent in {None, agent_of(call)}:
                by_agent[agent].append((unix_nano(call.started_at), call.call_id))
        return cls(index, by_agent)

    def before(self, span: SpanRecorded) -> str | None:
        """The latest call that started before `span`: one of its agent if there is one. None if there is none."""
        for agent in (self.index.agents.get(place_of(span)), None):
            calls = self.by_agent.get(agent, ())
            if at := bisect_right(calls, span.start_unix_nano, key=lambda call: call[0]):
                return calls[at - 1][1]
        return None


@dataclass(frozen=True)
class _Requests:
    """The tool messages in the calls' requests."""

    answered: Mapping[str, Sequence[tuple[CallView, JsonObject]]]
    """Tool call id → the calls whose requests have a message with its result, in order, with the last such message."""

    @classmethod
    def of(cls, calls: Iterable[CallView]) -> "_Requests":
        found: dict[str, list[tuple[CallView, JsonObject]]] = defaultdict(list)
        for call in calls:
            held = request_messages(call)
            last = {id_: one for one in held if isinstance(id_ := one.get("tool_call_id"), str)}
            for id_, message in last.items():
                found[id_].append((call, message))
        return cls(found)

    def answer(self, ask: Ask, tool: SpanRecorded) -> JsonObject | None:
        """The result of `tool` as the next call of the conversation of `ask` has it."""
        for call, message in self.answered.get(ask.id_, ()):
            if unix_nano(call.started_at) + CLOCK_SLACK_NANO < tool.end_unix_nano or call is ask.call:
                continue
            if _is_in_conversation(ask, call):
                return message
        return None


def _asks(call: CallView, agent: str | None) -> Iterable[Ask]:
    started, ended = unix_nano(call.started_at), unix_nano(call.ended_at)
    for item in tool_calls(call):
        if (asked := asked_of(item)) is not None:
            yield Ask(call, agent, *asked, started, ended)


def _chosen(
    candidates: Sequence[Ask], tool: SpanRecorded, agent: str | None, done: Mapping[int, SpanRecorded]
) -> Ask | None:
    conditions: list[Callable[[Ask], bool]] = [
        lambda ask: ask.ended <= tool.start_unix_nano + CLOCK_SLACK_NANO,
        lambda ask: agent is not None and ask.agent == agent,
        lambda ask: tool.tool is not None and ask.name == tool.tool.name,
        lambda ask: tool.tool is not None and same_arguments(ask.arguments, tool.tool.arguments),
        lambda ask: id(ask) not in done,
    ]
    left = list(candidates)
    for condition in conditions if len(left) > 1 else ():
        left = [ask for ask in left if condition(ask)] or left
    latest = left[-1]
    others = [ask for ask in left if ask.call is not latest.call]
    return latest if all(_is_in_conversation(ask, latest.call) for ask in others) else None


def _has_id(span: SpanRecorded, id_: str) -> bool:
    return span.tool is not None and span.tool.call_id == id_


def _again(ask: Ask, tool: SpanRecorded, earlier: SpanRecorded) -> bool:
    """Whether `tool` and `earlier`, both asked for by `ask`, are one tool call: told twice, or tried again."""
    if not (same_tool_call(tool, earlier) and tool.tool is not None and ask.name == tool.tool.name):
        return False
    known = tool.tool.arguments is not None and not has_mask(tool.tool.arguments)
    overlap = tool.start_unix_nano <= earlier.end_unix_nano
    return (known or overlap or is_random(ask.id_)) and same_arguments(ask.arguments, tool.tool.arguments)


def _is_in_conversation(ask: Ask, call: CallView) -> bool:
    """Whether the request of `call` has the tool call, so that its answer is there too."""
    shown = (asked_of(item) for message in request_messages(call) for item in message_tool_calls(message))
    return any(
        one is not None and one[:2] == (ask.id_, ask.name) and same_arguments(one[2], ask.arguments) for one in shown
    )


def _last(repeats: Mapping[Place, SpanRecorded]) -> Mapping[Place, SpanRecorded]:
    """`repeats` with the last execution for each, where one was repeated more than once."""
    found: dict[Place, SpanRecorded] = {}
    for place, tool in repeats.items():
        seen = {place}
        while (later := repeats.get(place_of(tool))) is not None and place_of(tool) not in seen:
            seen.add(place_of(tool))
            tool = later
        found[place] = tool
    return found
