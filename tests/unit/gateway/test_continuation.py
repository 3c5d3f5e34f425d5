import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from leyden.events import pack_ints
from leyden.gateway.core.continuation import MOST_LOOKED_UP, Conversation, EarlierCall

scalars = st.none() | st.booleans() | st.floats() | st.text()
anything = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)
USER, TOOL = {"role": "user", "content": "2+3?"}, {"role": "tool", "tool_call_id": "a", "content": "5"}


def calling(**about: Any) -> dict[str, Any]:
    call = {"id": "a", "type": "function", "function": {"name": "add", "arguments": '{"a": 2, "b": 3}'}}
    return {"role": "assistant", "content": None, "tool_calls": [call], **about}


def test_a_request_that_goes_on_finds_the_call_that_it_extends() -> None:
    first = Conversation.of([USER])
    assert first.answered == ()
    second = Conversation.of([USER, calling(), TOOL])
    assert second.answered == (first.with_answer(calling()),)
    third = Conversation.of([USER, calling(), TOOL, {"role": "assistant", "content": "5"}, USER])
    assert third.answered == (second.with_answer({"content": "5"}), first.with_answer(calling()))


def test_the_answer_is_known_however_it_is_written_back() -> None:
    kept = Conversation.of([USER]).with_answer(calling())
    respaced = {"id": "other", "function": {"arguments": '{"b":3,"a":2}', "name": "add"}}
    for back in (
        calling(content=""),
        calling(content=[{"type": "text", "text": ""}]),
        calling(refusal=None, audio=None, function_call=None, annotations=[]),
        calling(tool_calls=[respaced]),
    ):
        assert Conversation.of([USER, back]).answered == (kept,)


def test_another_text_another_argument_or_another_question_is_another_history() -> None:
    kept = Conversation.of([USER]).with_answer(calling())
    other = {"function": {"name": "add", "arguments": '{"a": 2, "b": 4}'}}
    for messages in (
        [USER, calling(content="let me see")],
        [USER, calling(tool_calls=[other])],
        [USER, calling(tool_calls=[])],
        [{"role": "user", "content": "2+4?"}, calling()],
        [USER, USER, calling()],
    ):
        assert kept not in Conversation.of(messages).answered


def test_only_the_last_answers_are_looked_for() -> None:
    messages = [USER, {"role": "assistant", "content": "x"}] * 40
    whole = Conversation.of(messages)
    assert len(set(whole.answered)) == MOST_LOOKED_UP
    assert whole.answered[0] == whole.digest


@given(anything)
def test_anything_may_stand_where_messages_should(messages: Any) -> None:
    Conversation.of(messages)
    Conversation.of([messages, {"role": messages, "content": messages, "tool_calls": messages}])
    Conversation.of([{"role": "assistant", "tool_calls": [messages, {"function": messages}]}])


@given(
    st.text(max_size=40),
    st.lists(st.integers(0, 2**31 - 1), max_size=20),
    st.text(max_size=60),
    st.booleans(),
)
def test_what_is_kept_comes_back(call_id: str, ids: list[int], rendered: str, truncated: bool) -> None:
    said = EarlierCall(call_id, pack_ints(ids), rendered, truncated)
    assert EarlierCall.unpack(said.pack()) == said
    assert json.loads(json.dumps(said.wish())) == {"token_ids": ids, "rendered": rendered, "truncated": truncated}
