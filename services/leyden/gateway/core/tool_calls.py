"""Tool calls of a reply as servers really send them. The only place that decides which call a piece belongs to.

In OpenAI's streams each piece has the index of its call, and the first one has id and name. Servers reuse an index,
leave it out, send null, jump, and repeat ids and names. So an index is a hint: a new id starts a call, and so does a
name once the call before it can take no more. Numbers from a server are only compared, never used as sizes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from leyden.gateway.core.request import JsonDict

MAX_TOOL_CALLS = 1024
"""Maximum number of calls in one choice; a reply with more is malformed."""


@dataclass(slots=True, eq=False)
class _Call:
    """One call so far."""

    number: int
    id: str | None = None
    kind: str = "function"
    name: str | None = None
    repeats_name: bool = False
    arguments: list[str] = field(default_factory=list)

    def is_whole(self) -> bool:
        """Whether its arguments are a complete JSON object, so that a name that comes now is another call's."""
        text = "".join(self.arguments)
        if not text.rstrip().endswith("}"):
            return False
        try:
            return isinstance(orjson.loads(text), dict)
        except orjson.JSONDecodeError:
            return False

    def ends_before(self, name: str | None, arguments: str) -> bool:
        """Whether a piece with this name and these arguments, without a new id, belongs to another call."""
        if name is None or self.name is None:
            return False
        if name != self.name:
            return True
        return (bool(arguments.strip()) or not self.repeats_name) and self.is_whole()

    def whole(self) -> JsonDict:
        call: JsonDict = {} if self.id is None else {"id": self.id}
        return call | {"type": self.kind, "function": {"name": self.name or "", "arguments": "".join(self.arguments)}}


class ToolCalls:
    """The tool calls of one choice of a stream. Give it every delta's `tool_calls` in order."""

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._at: dict[int, _Call] = {}
        """The newest call of each index that the server sent."""

    def add(self, deltas: object) -> list[JsonDict]:
        """The pieces in canonical form, which clients merge by index alone.

        Calls are numbered from 0 as they begin; id, type and name come once; arguments are text. Adding the result to
        another `ToolCalls` changes nothing. Raises ValueError for anything but a list, and for too many calls.
        """
        if not isinstance(deltas, list):
            raise ValueError("`tool_calls` is not a list")
        return [self._canonical(delta) for delta in deltas if isinstance(delta, dict)]

    def whole(self) -> list[JsonDict]:
        """The calls so far."""
        return [call.whole() for call in self._calls]

    def __len__(self) -> int:
        return len(self._calls)

    def _canonical(self, delta: JsonDict) -> JsonDict:
        function = delta.get("function")
        function = function if isinstance(function, dict) else {}
        call_id, name = _text(delta.get("id")), _text(function.get("name"))
        index, arguments = _index(delta.get("index")), arguments_text(function.get("arguments"))
        call = self._call_of(index, call_id, name, arguments)
        if index is not None:
            self._at[index] = call
        piece = {key: value for key, value in delta.items() if key not in ("id", "type", "function")}
        piece["index"] = call.number
        said = {key: value for key, value in function.items() if key not in ("name", "arguments")}
        if call_id is not None and call.id is None:
            call.id = piece["id"] = call_id
        if call.name is None and not call.arguments:
            call.kind = piece["type"] = _text(delta.get("type")) or call.kind
        if name is not None:
            call.repeats_name = call.name is not None
            call.name = call.name or name
            said |= {} if call.repeats_name else {"name": name}
        if "arguments" in function:
            call.arguments.append(arguments)
            said["arguments"] = arguments
        return piece | ({"function": said} if said else {})

    def _call_of(self, index: int | None, call_id: str | None, name: str | None, arguments: str) -> _Call:
        """The call of a piece; a new one if it begins one."""
        here = self._at.get(index) if index is not None else None
        last = self._calls[-1] if self._calls else None
        if call_id is not None:
            known = next((call for call in reversed(self._calls) if call.id == call_id), None)
            if known is not None:
                return self._begin() if name is not None and known.name not in (None, name) else known
            # An id may come after its call's name; else a new id is a new call, whatever the index says.
            unidentified = here if index is not None else last
            late = (
                unidentified is not None and unidentified.id is None and not unidentified.ends_before(name, arguments)
            )
            return unidentified if unidentified is not None and late else self._begin()
        if here is None and index is not None and name is not None:
            return self._begin()
        open_ = here or last
        return self._begin() if open_ is None or open_.ends_before(name, arguments) else open_

    def _begin(self) -> _Call:
        if len(self._calls) >= MAX_TOOL_CALLS:
            raise ValueError(f"more than {MAX_TOOL_CALLS} tool calls in one choice")
        self._calls.append(_Call(len(self._calls)))
        return self._calls[-1]


def whole_calls(calls: object) -> list[JsonDict]:
    """The tool calls of a reply that is not streamed, with arguments as text. Raises ValueError for anything else."""
    if not isinstance(calls, list) or len(calls) > MAX_TOOL_CALLS:
        raise ValueError(f"`tool_calls` is not a list of at most {MAX_TOOL_CALLS}")
    return [_whole_call(call) for call in calls if isinstance(call, dict)]


def _whole_call(call: JsonDict) -> JsonDict:
    function = call.get("function")
    if not isinstance(function, Mapping) or isinstance(function.get("arguments"), str):
        return call
    return call | {"function": dict(function) | {"arguments": arguments_text(function.get("arguments"))}}


def arguments_text(arguments: object) -> str:
    """A call's arguments as text; some servers send the object itself, or null."""
    if isinstance(arguments, str):
        return arguments
    return "" if arguments is None else orjson.dumps(arguments).decode()


def _text(value: Any) -> str | None:
    """A text that is not empty, else None."""
    return value if isinstance(value, str) and value else None


def _index(value: Any) -> int | None:
    """A whole number, also as text; None for anything else."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
