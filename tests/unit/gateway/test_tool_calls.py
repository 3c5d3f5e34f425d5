"""Tool calls of streams: whatever a server's habits, the calls are those that it meant."""

import re
import time
from copy import deepcopy
from dataclasses import dataclass
from itertools import zip_longest
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.lib.streaming._deltas import accumulate_delta

from leyden.gateway.core import tool_calls
from leyden.gateway.core.tool_calls import MAX_TOOL_CALLS, ToolCalls, arguments_text, own_id, whole_calls


@dataclass(frozen=True)
class Meant:
    """A call as the server means it, and the pieces of its arguments."""

    number: int
    id: str | None
    name: str
    pieces: tuple[str, ...]

    def merged(self) -> dict[str, Any]:
        """The call as clients get it: one that has no id of its own gets one."""
        function = {"name": self.name, "arguments": "".join(self.pieces)}
        return {"id": self.id or own_id(ORIGIN, self.number), "type": "function", "function": function}


@dataclass(frozen=True)
class Habits:
    """How a server writes its pieces."""

    index: str
    ids: str
    names: str
    """In the first piece only, in every one, in two pieces, or after the first piece of the arguments."""
    opens_empty: bool
    """Whether id and name come in a piece without arguments."""
    blank: Any
    """What stands for an id or a name that is not repeated: nothing, null or an empty text."""
    interleaved: bool = False
    empty_object: bool = False
    """Whether an empty object comes before the text of the arguments."""
    flat: bool = False
    """Whether name and arguments stand in the piece itself."""


ORIGIN = "a model call's choice"
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
    more_ids = ["late", "fresh", "same"] if is_key else ["fresh"] if index == "zero" else []
    ids = draw(st.sampled_from(["first", "every", "none", *more_ids]))
    more_names = ["pieces", *(["late"] if ids in ("first", "every") else [])] if is_key else []
    names = draw(st.sampled_from(["first"] if ids in ("fresh", "same") else ["first", "every", *more_names]))
    habits = Habits(
        index=index,
        ids=ids,
        names=names,
        opens_empty=draw(st.booleans()) or ids in ("late", "same") or names == "pieces",
        blank=draw(st.sampled_from([NOTHING, None, ""])),
        interleaved=draw(st.booleans()) and (is_key or ids == "every"),
        empty_object=draw(st.booleans()) and names == "first",
        flat=draw(st.booleans()),
    )
    # Without ids and a usable index only whole arguments tell where a call ends.
    arguments = OBJECTS.map(lambda value: orjson.dumps(value).decode())
    if is_key or ids != "none":
        arguments |= st.sampled_from(["", '{"a', "no JSON"])
    meant = [
        Meant(
            number,
            None if ids == "none" or (ids == "same" and number) else f"c{number}",
            draw(NAMES),
            draw(cut(draw(arguments))),
        )
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
    pieces = ("{}", *call.pieces) if habits.empty_object and "".join(call.pieces)[:1] == "{" else call.pieces
    pieces = ("", *pieces) if habits.opens_empty else pieces
    pieces = ("", *pieces) if habits.names == "pieces" and habits.ids == "late" else pieces
    pieces = (*pieces, "", "") if habits.names in ("pieces", "late") else pieces
    half = len(call.name) // 2
    names = {"first": [call.name], "every": [call.name] * len(pieces), "late": ["", call.name]}
    names["pieces"] = [call.name[:half], call.name[half:]]
    if habits.ids in ("none", "first") and habits.names == "every":  # a name alone would begin another call
        pieces = (pieces[0], *filter(None, pieces[1:]))
    for number, text in enumerate(pieces):
        has_id = {"first": number == 0, "late": number == 1, "none": False}.get(habits.ids, True)
        call_id = {"fresh": f"c{call.number}{f'-{number}' * bool(number)}", "same": "c0"}.get(habits.ids, call.id)
        name = names[habits.names][number] if number < len(names[habits.names]) else None
        delta = {"index": index, "id": call_id if has_id else habits.blank}
        function = {"name": name or habits.blank, "arguments": text}
        function = {name: value for name, value in function.items() if value is not NOTHING}
        delta = {name: value for name, value in delta.items() if value is not NOTHING}
        yield delta | (function if habits.flat else {"function": function})


@given(streams())
@settings(max_examples=300, deadline=None)
def test_the_calls_are_those_that_the_server_meant(stream: tuple[list[Meant], list[dict[str, Any]]]) -> None:
    meant, deltas = stream
    calls = ToolCalls(ORIGIN)
    canonical = [piece for delta in deltas for piece in calls.add([delta])] + calls.end()
    assert calls.whole() == [call.merged() for call in meant]
    # What the official client makes of the canonical pieces, which it merges by index.
    client: dict[object, object] = {}
    for piece in canonical:
        client = accumulate_delta(client, {"tool_calls": [deepcopy(piece)]})
    seen: Any = client["tool_calls"]
    assert [{name: call[name] for name in call if name != "index"} for call in seen] == calls.whole()
    assert [call["index"] for call in seen] == list(range(len(meant)))
    firsts = {piece["index"]: piece for piece in reversed(canonical)}.values()
    assert all(piece["id"] and piece["function"]["name"] for piece in firsts), "clients need both in the first piece"
    again = ToolCalls("another")
    assert again.add(canonical) + again.end() == canonical
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
    calls = ToolCalls(ORIGIN)
    try:
        canonical = calls.add(deltas) + calls.end()
    except (ValueError, TypeError):  # an integer that JSON cannot have in arguments
        return
    assert len(calls) <= len(canonical) <= 2 * len(deltas)
    for piece in canonical:
        assert 0 <= piece["index"] < len(calls)
    for call in calls.whole():
        assert isinstance(call["function"]["arguments"], str) and isinstance(call["function"]["name"], str)
    orjson.dumps([call["function"] for call in calls.whole()])
    assert len({call["id"] for call in calls.whole()}) == len(calls)


def test_numbers_of_a_server_are_no_sizes() -> None:
    calls = ToolCalls(ORIGIN)
    calls.add([{"index": 10**15, "id": "c", "function": {"name": "f"}}])
    assert len(calls) == 1
    with pytest.raises(ValueError, match=f"more than {MAX_TOOL_CALLS}"):
        calls.add([{"id": f"c{number}"} for number in range(MAX_TOOL_CALLS + 1)])


def test_calls_of_a_plain_reply_are_never_merged_and_have_text_as_arguments_and_ids() -> None:
    same: dict[str, Any] = {"id": "c", "index": 0, "function": {"name": "f", "arguments": {"a": 1}}}
    flat: dict[str, Any] = {"name": "f", "arguments": '{"a":1}'}
    calls = whole_calls([same, None, same, flat], ORIGIN)
    function = {"name": "f", "arguments": '{"a":1}'}
    ids = ["c", own_id(ORIGIN, 1), own_id(ORIGIN, 2)]
    assert calls == [{"id": one, "type": "function", "function": function} for one in ids]
    custom = {"id": "c", "type": "custom", "custom": {"name": "patch", "input": "***"}}
    assert whole_calls([custom], ORIGIN) == [custom]
    assert arguments_text(None) == ""
    with pytest.raises(ValueError, match="at most"):
        whole_calls({"id": "c"}, ORIGIN)


def test_ids_of_our_own_differ_between_calls_and_are_short_enough_for_every_server() -> None:
    ids = {own_id(origin, number) for origin in ("a", "b", "a/1") for number in range(9)}
    assert len(ids) == 27
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,40}", one) for one in ids)


SAME_INDEX: list[tuple[list[dict[str, Any]], list[tuple[str, str, str]]]] = [
    (  # an id alone, before the name
        [{"id": "c1", "name": "f", "arguments": '{"a":1}'}, {"id": "c2"}, {"name": "f", "arguments": '{"b":2}'}],
        [("c1", "f", '{"a":1}'), ("c2", "f", '{"b":2}')],
    ),
    (  # the whole call once more in the last piece
        [{"id": "c1", "name": "f", "arguments": '{"a"'}, {"arguments": ":1}"},
         {"id": "c1", "name": "f", "arguments": '{"a":1}'}],
        [("c1", "f", '{"a":1}')],
    ),
    (  # one id for all calls
        [{"id": "c", "name": "f", "arguments": '{"a":1}'}, {"id": "c", "name": "f", "arguments": '{"b":2}'}],
        [("c", "f", '{"a":1}'), (own_id(ORIGIN, 1), "f", '{"b":2}')],
    ),
    ([{"id": "c", "name": "f", "arguments": {}}], [("c", "f", "{}")]),
    ([{"id": "c", "name": "f"}], [("c", "f", "")]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("deltas", "meant", "with_index"),
    [(*case, with_index) for case in SAME_INDEX for with_index in (True, {"id": "c2"} in case[0])],
)
def test_calls_that_follow_each_other_under_one_index(
    deltas: list[dict[str, Any]], meant: list[tuple[str, str, str]], with_index: bool
) -> None:
    """Without an index, too; but there an id alone begins a call."""
    calls = ToolCalls(ORIGIN)
    for delta in deltas:
        calls.add([delta | ({"index": 0} if with_index else {})])
    assert [(one["id"], one["function"]["name"], one["function"]["arguments"]) for one in calls.whole()] == meant


def test_custom_tools_calls_are_merged_too() -> None:
    calls = ToolCalls(ORIGIN)
    first = {"index": 0, "id": "c", "type": "custom", "custom": {"name": "patch", "input": "*"}}
    pieces = calls.add([first, {"index": 0, "custom": {"input": "**"}}])
    assert pieces == [first, {"index": 0, "custom": {"input": "**"}}]
    assert calls.whole() == [{"id": "c", "type": "custom", "custom": {"name": "patch", "input": "***"}}]


def seconds_of(rows: list[str], said: dict[str, Any], inner: dict[str, Any]) -> float:
    """Processor time to take a call in these pieces, each of which says `said` and `inner` too."""
    calls = ToolCalls("c")
    started = time.process_time()
    calls.add([{"index": 0, "id": "x", "function": {"name": "f", "arguments": rows[0]}}])
    for row in rows[1:]:
        calls.add([{"index": 0} | said | {"function": inner | {"arguments": row}}])
    took = time.process_time() - started
    assert calls.whole()[0]["function"]["arguments"] == "".join(rows)
    return took


@pytest.mark.parametrize(("said", "inner"), [({"id": "x"}, {}), ({"id": "x"}, {"name": "f"}), ({}, {"name": "f"})])
def test_a_long_call_is_not_copied_again_with_every_piece(said: dict[str, Any], inner: dict[str, Any]) -> None:
    """Although the server repeats its id or name in each."""
    rows = ['{"rows":["a"', *[f',"{"a" * 200}"'] * 20_000, "]}"]
    assert seconds_of(rows, said, inner) < 10 * seconds_of(rows, {}, {})


def test_a_long_call_is_not_parsed_again_with_every_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its time would grow with the square of its length, on the loop that serves everybody."""
    parsed: list[str] = []

    def loads(text: str) -> Any:
        parsed.append(text)
        return orjson.loads(text)

    counting = SimpleNamespace(loads=loads, dumps=orjson.dumps, JSONDecodeError=orjson.JSONDecodeError)
    monkeypatch.setattr(tool_calls, "orjson", counting)
    calls = ToolCalls("c")
    rows = ['{"rows":[{"a":1}', *[',{"a":1}'] * 1000, "]}"]
    calls.add([{"index": 0, "id": "x", "function": {"name": "f", "arguments": rows[0]}}])
    for row in rows[1:]:
        calls.add([{"index": 0, "function": {"arguments": row}}])
    assert calls.whole()[0]["function"]["arguments"] == "".join(rows)
    assert len(parsed) < 5
