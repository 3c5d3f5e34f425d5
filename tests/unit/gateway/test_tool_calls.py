"""Tool calls of streams: whatever a server's habits, the calls are those that it meant."""

from copy import deepcopy
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.lib.streaming._deltas import accumulate_delta

from leyden.gateway.core.tool_calls import MAX_TOOL_CALLS, ToolCalls, arguments_text, whole_calls


@dataclass(frozen=True)
class Meant:
    """A call as the server means it, and the pieces of its arguments."""

    id: str | None
    name: str
    pieces: tuple[str, ...]

    def merged(self) -> dict[str, Any]:
        head = {} if self.id is None else {"id": self.id}
        return head | {"type": "function", "function": {"name": self.name, "arguments": "".join(self.pieces)}}


@dataclass(frozen=True)
class Habits:
    """How a server writes its pieces."""

    index: str
    ids: str
    names: str
    """In the first piece only, or in every one."""
    opens_empty: bool
    """Whether id and name come in a piece without arguments."""
    blank: Any
    """What stands for an id or a name that is not repeated: nothing, null or an empty text."""
    interleaved: bool = False


NOTHING = object()
NAMES = st.sampled_from(["look", "find", "look_up"])
OBJECTS = st.dictionaries(st.text(max_size=3), st.integers(-9, 9) | st.text(max_size=3), max_size=3)


@st.composite
def cut(draw: st.DrawFn, text: str) -> tuple[str, ...]:
    """The text in pieces, some of them empty."""
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=4)))
    return tuple(text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True))


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[Meant], list[dict[str, Any]]]:
    """What a server means, and the deltas that it sends."""
    index = draw(st.sampled_from(["right", "jumps", "text", "zero", "null", "missing", "wrong type"]))
    is_key = index in ("right", "jumps", "text")
    ids = draw(st.sampled_from(["first", "every", "none", *(["late"] if is_key else [])]))
    habits = Habits(
        index=index,
        ids=ids,
        names=draw(st.sampled_from(["first", "every"])),
        opens_empty=draw(st.booleans()) or ids == "late",
        blank=draw(st.sampled_from([NOTHING, None, ""])),
        interleaved=draw(st.booleans()) and (is_key or ids == "every"),
    )
    # Without ids and a usable index only whole arguments tell where a call ends.
    arguments = OBJECTS.map(lambda value: orjson.dumps(value).decode())
    if is_key or ids != "none":
        arguments |= st.sampled_from(["", '{"a', "no JSON"])
    meant = [
        Meant(None if ids == "none" else f"c{number}", draw(NAMES), draw(cut(draw(arguments))))
        for number in range(draw(st.integers(1, 4)))
    ]
    jumps = draw(st.lists(st.integers(-5, 10**30), min_size=4, max_size=4, unique=True))
    written = [list(_pieces(one, habits, _index(habits.index, number, jumps))) for number, one in enumerate(meant)]
    if not habits.interleaved:
        return meant, [piece for pieces in written for piece in pieces]
    opened, rest = [pieces[0] for pieces in written], [pieces[1:] for pieces in written]
    return meant, opened + [piece for row in zip_longest(*rest) for piece in row if piece is not None]


def _index(habit: str, number: int, jumps: list[int]) -> Any:
    match habit:
        case "right":
            return number
        case "jumps":
            return jumps[number]
        case "text":
            return str(number)
        case "zero":
            return 0
        case "wrong type":
            return [1.5, True, {}, "x"][number]
    return None if habit == "null" else NOTHING


def _pieces(call: Meant, habits: Habits, index: Any) -> Any:
    pieces = ("", *call.pieces) if habits.opens_empty else call.pieces
    if habits.ids in ("none", "first") and habits.names == "every":  # a name alone would begin another call
        pieces = (pieces[0], *filter(None, pieces[1:]))
    for number, text in enumerate(pieces):
        has_id = {"first": number == 0, "every": True, "late": number == 1, "none": False}[habits.ids]
        has_name = habits.names == "every" or number == 0
        delta = {"index": index, "id": call.id if has_id else habits.blank}
        function = {"name": call.name if has_name else habits.blank, "arguments": text}
        function = {name: value for name, value in function.items() if value is not NOTHING}
        yield {name: value for name, value in delta.items() if value is not NOTHING} | {"function": function}


@given(streams())
@settings(max_examples=200, deadline=None)
def test_the_calls_are_those_that_the_server_meant(stream: tuple[list[Meant], list[dict[str, Any]]]) -> None:
    meant, deltas = stream
    calls = ToolCalls()
    canonical = [calls.add([delta])[0] for delta in deltas]
    assert calls.whole() == [call.merged() for call in meant]
    # What the official client makes of the canonical pieces, which it merges by index.
    client: dict[object, object] = {}
    for piece in canonical:
        client = accumulate_delta(client, {"tool_calls": [deepcopy(piece)]})
    seen: Any = client["tool_calls"]
    assert [{name: call[name] for name in call if name != "index"} for call in seen] == calls.whole()
    assert [call["index"] for call in seen] == list(range(len(meant)))
    again = ToolCalls()
    assert again.add(canonical) == canonical
    assert again.whole() == calls.whole()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
FUNCTIONS = st.fixed_dictionaries({}, optional={"name": JSON, "arguments": JSON, "more": JSON})
DELTAS = st.lists(
    JSON
    | st.fixed_dictionaries(
        {}, optional={"index": JSON, "id": JSON, "type": JSON, "function": JSON | FUNCTIONS, "extra": JSON}
    ),
    max_size=6,
)


@given(DELTAS | JSON)
@settings(max_examples=200, deadline=None)
def test_anything_else_is_merged_or_refused_and_stays_bounded(deltas: Any) -> None:
    calls = ToolCalls()
    try:
        canonical = calls.add(deltas)
    except (ValueError, TypeError):  # an integer that JSON cannot have in arguments
        return
    assert len(calls) <= len(canonical) <= len(deltas)
    for piece in canonical:
        assert 0 <= piece["index"] < len(calls)
    for call in calls.whole():
        assert isinstance(call["function"]["arguments"], str) and isinstance(call["function"]["name"], str)
    orjson.dumps([call["function"] for call in calls.whole()])


def test_numbers_of_a_server_are_no_sizes() -> None:
    calls = ToolCalls()
    calls.add([{"index": 10**15, "id": "c", "function": {"name": "f"}}])
    assert len(calls) == 1
    with pytest.raises(ValueError, match=f"more than {MAX_TOOL_CALLS}"):
        calls.add([{"id": f"c{number}"} for number in range(MAX_TOOL_CALLS + 1)])


def test_calls_of_a_plain_reply_are_never_merged_and_have_text_as_arguments() -> None:
    same: dict[str, Any] = {"id": "c", "index": 0, "function": {"name": "f", "arguments": {"a": 1}}}
    assert [call["function"]["arguments"] for call in whole_calls([same, None, same])] == ['{"a":1}'] * 2
    assert arguments_text(None) == ""
    with pytest.raises(ValueError, match="at most"):
        whole_calls({"id": "c"})
