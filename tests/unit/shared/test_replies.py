"""A span that does not name its reply is joined to the one call with that reply, or to none."""

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyden.events import JsonObject, LlmCall, ModelCallRecorded, SpanKind, SpanRecorded, Usage
from leyden.events.joins import joinable_span, same_replies
from leyden.events.replies import is_random, replies_of_call, replies_of_span
from unit.reward.reward_builders import a_call, a_span, asking

SAID: JsonObject = {"role": "assistant", "content": "It is 4."}
ASKED = asking(("call_1", "add", {"x": 1, "y": 2}))


def called(message: JsonObject, **fields: Any) -> ModelCallRecorded:
    usage = Usage(prompt_tokens=20, completion_tokens=4)
    said: dict[str, Any] = {"policy": "policy", "policy_version": 3, "usage": usage}
    return a_call(1, 1, message, **said | fields)


def told(message: JsonObject, model: str = "policy", **fields: Any) -> SpanRecorded:
    llm = LlmCall(**{"input_tokens": 20, "output_tokens": 4, "output_messages": [message]} | fields)
    return a_span(1, 0.9, SpanKind.LLM_CALL, llm=llm, model=model)


def joined(call: ModelCallRecorded, span: SpanRecorded) -> bool:
    return not set(replies_of_span(span)).isdisjoint(replies_of_call(call))


@pytest.mark.parametrize("model", ["policy", "policy@3", "as-asked"])
@pytest.mark.parametrize("message", [SAID, ASKED])
def test_a_span_with_the_calls_reply_is_recognised_under_every_name_of_the_model(
    message: JsonObject, model: str
) -> None:
    assert joined(called(message, requested_model="as-asked"), told(message, model))


@pytest.mark.parametrize("model", ["openai/policy", "hosted_vllm/policy", "a/b/policy", "openai/policy:completions"])
@pytest.mark.parametrize("asked", ["policy", "openai/policy", "other/policy"])
def test_a_providers_prefix_is_not_compared(model: str, asked: str) -> None:
    assert joined(called(SAID, requested_model=asked), told(SAID, model))
    assert joined(called(SAID, requested_model=asked, policy=None), told(SAID, model))
    assert not joined(called(SAID, requested_model=asked), told(SAID, "policy/other"))


@pytest.mark.parametrize(
    "span",
    [
        told(ASKED, input_tokens=None, output_tokens=None),
        told(ASKED, response_id="minted-by-the-client"),
        a_span(1, 0, SpanKind.OTHER, derived=True, llm=LlmCall(output_messages=[ASKED])),
    ],
)
def test_a_tool_calls_id_recognises_a_reply_without_counts_or_the_models_name(span: SpanRecorded) -> None:
    assert joined(called(ASKED), span)
    other = asking(("call_1", "add", {"x": 1, "y": 3}))
    assert not joined(called(other), span)


RANDOM = ["call_a1b2c3d4e5", "toolu_01A09q90qw90lq917835lq9", "chatcmpl-tool-9fb2a1c0d3e4f5a6", "D681PevKs9"]
COUNTED = [
    "call_0",
    "call_00000000000017",
    "functions.population:0",
    "population-call-12",
    "call_aaaaaaaaaaaa",
    "1767225600",
]


@pytest.mark.parametrize("id_", RANDOM)
@pytest.mark.parametrize("model", ["policy", "a-clients-own-name"])
def test_a_random_id_needs_neither_arguments_nor_the_models_name(id_: str, model: str) -> None:
    masked = asking((id_, "add", {"x": "[REDACTED]"}))
    assert joined(called(asking((id_, "add", {"x": 1}))), told(masked, model, input_tokens=None))


@pytest.mark.parametrize("id_", COUNTED)
def test_an_id_that_an_engine_counted_needs_the_arguments_and_the_models_name(id_: str) -> None:
    asked = asking((id_, "add", {"x": 1}))
    masked = asking((id_, "add", {"x": "[REDACTED]"}))
    assert joined(called(asked), told(asked, "openai/policy", input_tokens=None))
    assert not joined(called(asked), told(masked, input_tokens=None))
    assert not joined(called(asked), told(asked, "gpt-4o", input_tokens=None))


@given(
    prefix=st.sampled_from(["call_", "functions.add:", "", "tool-", "chatcmpl-tool-"]), number=st.integers(0, 10**20)
)
def test_no_counted_id_is_random(prefix: str, number: int) -> None:
    assert not is_random(f"{prefix}{number}")
    assert not is_random(f"{prefix}{number:016d}")


@given(uuid=st.uuids(version=4))
def test_an_id_with_a_random_number_in_hex_is_random(uuid: UUID) -> None:
    mixed = sum(character.isalpha() for character in uuid.hex) >= 2  # all but one in millions
    assert is_random(f"call_{uuid.hex}") is mixed


def test_a_long_text_needs_no_counts_where_the_span_has_none() -> None:
    long: JsonObject = {"role": "assistant", "content": "[[ ## answer ## ]]\nIt is 4.\n\n[[ ## completed ## ]]"}
    silent: dict[str, Any] = {"input_tokens": None, "output_tokens": None}
    assert joined(called(long), told(long, "openai/policy", **silent))
    assert not joined(called(long), told(long, "other", **silent))
    assert not joined(called(long), told(long, output_tokens=None))
    assert not joined(called(SAID), told(SAID, **silent))


def test_a_log_record_tells_the_reply_of_the_span_that_it_names() -> None:
    llm = LlmCall(input_tokens=20, output_tokens=4, output_messages=[SAID])
    record = a_span(2, 1, SpanKind.OTHER, derived=True, parent_span_id="b" * 16, llm=llm)
    assert joined(called(SAID), record)
    assert joinable_span(record).told_by == (record.trace_id, "b" * 16)
    assert joinable_span(told(SAID)).told_by is None


def test_of_spans_inside_each_other_the_innermost_is_the_calls() -> None:
    spans = [("outer", ("1", "2")), ("inner", ("1",)), ("alone", ("3",))]
    parents = {"inner": "between", "between": "outer", "outer": "inner"}
    del parents["outer"]
    assert same_replies({"a": ("1",), "b": ("2",), "c": ("3",)}, spans, parents) == {
        "a": "inner",
        "b": "outer",
        "c": "alone",
    }
    assert same_replies({"a": ("1",)}, spans, {"x": "y"}) == {}
    looped = {"inner": "outer", "outer": "inner"}
    assert same_replies({"c": ("3",)}, spans, looped) == {"c": "alone"}


def test_a_call_that_fits_two_spans_and_a_span_that_fits_two_calls_are_joined_to_nothing() -> None:
    assert same_replies({"a": ("1", "2")}, [("A", ("1",)), ("B", ("2",))]) == {}
    assert same_replies({"a": ("1",), "b": ("2",)}, [("A", ("1", "2"))]) == {}


def test_arguments_are_the_same_however_they_are_written() -> None:
    assert joined(called(ASKED), told(asking(("call_1", "add", '{"y":2,  "x":1}'))))
    none = asking(("call_1", "add", {}))
    none["tool_calls"][0]["function"]["arguments"] = None  # type: ignore[index, call-overload]
    assert joined(called(asking(("call_1", "add", {}))), told(none))


@pytest.mark.parametrize(
    "span",
    [
        told(SAID, "other-model"),
        told(SAID, input_tokens=21),
        told(SAID, output_tokens=5),
        told(SAID, output_tokens=None),
        told(SAID, response_id="chatcmpl-1"),
        told(SAID, output_messages=[]),
        told(SAID, output_messages=[SAID, SAID]),
        told({"role": "assistant", "content": "It is 5."}),
        told({"role": "assistant", "content": [{"type": "text", "text": "It is 4."}]}),
        told(ASKED),
        a_span(1, 0.9, SpanKind.AGENT_STEP, model="policy"),
    ],
)
def test_what_differs_or_is_not_told_joins_nothing(span: SpanRecorded) -> None:
    assert not joined(called(SAID), span)


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": None},
        {"role": "assistant", "content": ""},
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "add", "arguments": "{}"}}]},
        {"role": "assistant", "content": None, "tool_calls": [None]},
        {"role": "assistant", "content": None, "tool_calls": "none"},
    ],
)
def test_a_reply_that_says_nothing_or_has_no_ids_is_none(message: JsonObject) -> None:
    assert replies_of_call(called(message)) == ()


def test_a_call_that_failed_or_was_answered_twice_has_no_reply() -> None:
    [choice] = called(SAID).choices
    assert replies_of_call(called(SAID, error="engine 500: no")) == ()
    assert replies_of_call(called(SAID, choices=[choice, choice])) == ()


def test_a_reply_of_two_calls_or_of_two_spans_joins_neither() -> None:
    calls = {"a": ("1",), "b": ("2",), "c": ("2",), "d": ("3", "4"), "e": ("5",)}
    spans = [("A", "1"), ("B", "2"), ("D", "4"), ("E", "5"), ("F", "5"), ("G", "6")]
    assert same_replies(calls, spans) == {"a": "A", "d": "D"}


@given(st.permutations([("A", "1"), ("B", "2"), ("C", "2"), ("D", "3")]), st.permutations(["a", "b", "c"]))
def test_no_order_of_arrival_changes_what_is_joined(spans: list[tuple[str, str]], order: list[str]) -> None:
    replies = {"a": ("1",), "b": ("2",), "c": ("3",)}
    assert same_replies({call: replies[call] for call in order}, spans) == {"a": "A", "c": "D"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
DEEP = st.sampled_from(["[" * 400 + "]" * 400, '{"a":' * 900 + "1" + "}" * 900, "9" * 400, "{"])
CALLS = st.lists(st.fixed_dictionaries({"id": JSON, "function": st.fixed_dictionaries({"name": JSON})}) | JSON)


@given(content=JSON, calls=CALLS | JSON, arguments=DEEP | JSON)
def test_no_message_raises(content: object, calls: object, arguments: object) -> None:
    call: Any = {"id": "1", "function": {"name": "n", "arguments": arguments}}
    for asked in (calls, [call], [call, calls]):
        joined(called(SAID), told({"content": content, "tool_calls": asked}))  # type: ignore[dict-item]
