"""How reward joins spans to the calls that the gateway recorded, and reads what dialects say in one form."""

from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyden.events import Event as AnyEvent
from leyden.events import (
    Json,
    JsonObject,
    LlmCall,
    ModelCallRecorded,
    Retrieval,
    RolloutSettled,
    SpanKind,
    SpanRecorded,
    Usage,
)
from leyden.events.joins import place_of
from leyden.reward.core.calls import call_view
from leyden.reward.core.rules.retrieval import Retrieval as RetrievalRule
from leyden.reward.core.settle import settle
from leyden.reward.core.view import RolloutView, view_of
from leyden.reward.graders.retrieval_overlap import documents_of
from unit.reward.reward_builders import a_call, a_span, an_end, asking, evidence_of


def seen(*events: AnyEvent) -> RolloutView:
    calls = [event for event in events if event.type == "model-call-recorded"]
    ended = an_end(calls)  # type: ignore[arg-type]
    evidence = evidence_of([*events, ended])
    settled = settle(ended, evidence)
    assert isinstance(settled, RolloutSettled)
    return view_of(ended, settled, evidence)


def test_a_calls_agent_is_told_by_the_span_that_names_its_reply() -> None:
    step = a_span(1, 0, SpanKind.AGENT_STEP, agent_name="planner", parent_span_id=f"{3:016x}")
    told = {"llm": LlmCall(response_id="chatcmpl-1"), "parent_span_id": step.span_id}
    span = a_span(2, 0.5, SpanKind.LLM_CALL, **told)
    other = a_span(3, 0, SpanKind.AGENT_STEP, agent_name="crew")
    view = seen(
        step, span, other,
        a_call(1, 1, response_id="chatcmpl-1", parent_span_id=other.span_id),
        a_call(2, 2, response_id="chatcmpl-2", parent_span_id=other.span_id),
    )  # fmt: skip
    assert [view.agent_of_call(call) for call in view.calls] == ["planner", "crew"]
    assert view.calls_in_spans[place_of(span)] == "call-1"


def test_a_span_may_name_the_request_id_that_the_client_saw_as_the_replys_id() -> None:
    step = a_span(1, 0, SpanKind.AGENT_STEP, agent_name="planner")
    llm = LlmCall(response_id="call-1")
    span = a_span(2, 0.5, SpanKind.LLM_CALL, llm=llm, model="openai/policy", parent_span_id=step.span_id)
    view = seen(step, span, a_call(1, 1, response_id="msg_1"), a_call(2, 2, response_id="msg_2"))
    assert [view.agent_of_call(call) for call in view.calls] == ["planner", None]
    assert view.calls_in_spans == {place_of(span): "call-1"}


def test_a_span_that_names_no_reply_is_joined_by_the_reply_itself_where_no_other_has_it() -> None:
    def told(n: int, parent: str) -> SpanRecorded:
        message: JsonObject = {"role": "assistant", "content": f"said {n}"}
        llm = LlmCall(input_tokens=n, output_tokens=1, output_messages=[message])
        return a_span(n, n, SpanKind.LLM_CALL, llm=llm, model="policy", parent_span_id=parent)

    def called(number: int, says: int, **fields: Any) -> ModelCallRecorded:
        usage = Usage(prompt_tokens=says, completion_tokens=1)
        return a_call(number, says, {"role": "assistant", "content": f"said {says}"}, usage=usage, **fields)

    steps = [a_span(n, 0, SpanKind.AGENT_STEP, agent_name=name) for n, name in ((10, "planner"), (11, "writer"))]
    spans = [told(1, steps[0].span_id), told(2, steps[1].span_id), told(3, steps[1].span_id)]
    calls = [called(1, 1), called(2, 2), called(3, 3), called(4, 3), called(5, 2, agent_name="named", error="no")]
    view = seen(*steps, *spans, *calls)
    assert [view.agent_of_call(call) for call in view.calls] == ["planner", "writer", "named", None, None]
    assert view.calls_in_spans == {place_of(spans[0]): "call-1", place_of(spans[1]): "call-2"}


def test_documents_are_read_in_the_form_of_every_dialect() -> None:
    documents: list[Json] = [{"id": "a", "content": "x", "score": 0.5}, {"content": "y"}]
    span = a_span(1, 1, SpanKind.RETRIEVAL, retrieval=Retrieval(query="q", documents=documents))
    assert documents_of(span) == ["a"]
    again = a_span(2, 2, SpanKind.RETRIEVAL, retrieval=Retrieval(documents=documents[:1]))
    empty = a_span(3, 3, SpanKind.RETRIEVAL, retrieval=Retrieval(documents=[]))
    silent = a_span(4, 4, SpanKind.RETRIEVAL, retrieval=Retrieval(query="q"))
    rule = RetrievalRule(found=0.2, empty=-0.1, repeated=-0.2)
    signals = list(rule.observe(seen(a_call(1, 0), span, again, empty, silent)))
    assert [signal.value for signal in signals] == [0.2, -0.2, -0.1]


def llm_span(n: int, at_s: float, model: str | None = "policy", lasts_s: float = 1.0, **told: Any) -> SpanRecorded:
    start = a_span(n, at_s).start_unix_nano
    return a_span(
        n, at_s, SpanKind.LLM_CALL, llm=LlmCall(**told), model=model, parent_span_id=f"{90:016x}",
        end_unix_nano=start + int(lasts_s * 1e9),
    )  # fmt: skip


CRITIC = a_span(90, 0, SpanKind.AGENT_STEP, agent_name="critic")
LONG: JsonObject = {"role": "assistant", "content": "The population of Delft is 106000 as far as is known."}


@pytest.mark.parametrize("message", [asking(("call_00000017", "add", {"x": 1})), LONG])
def test_a_reply_of_another_model_or_time_is_not_the_calls(message: JsonObject) -> None:
    call = a_call(1, 5, message)
    foreign = llm_span(1, 4.9, "gpt-4o", output_messages=[message])
    earlier, later = (llm_span(1, at, output_messages=[message]) for at in (1, 9))
    short = llm_span(1, 5, lasts_s=-0.5, output_messages=[message])
    for span in (foreign, earlier, later, short):
        assert seen(CRITIC, span, call).agent_of_call(call_view(call)) is None
    own = llm_span(1, 4.9, "openai/policy", output_messages=[message])
    assert seen(CRITIC, own, call).agent_of_call(call_view(call)) == "critic"


def test_an_id_in_a_span_of_another_served_model_joins_nothing() -> None:
    ours, other = a_call(1, 5, response_id="chatcmpl-1"), a_call(2, 7, requested_model="judge", response_id="x")
    assert seen(CRITIC, llm_span(1, 5, "judge", response_id="chatcmpl-1"), ours, other).calls_in_spans == {}
    alias = llm_span(1, 5, "a-clients-own-name", response_id="chatcmpl-1")
    assert seen(CRITIC, alias, ours, other).calls_in_spans == {place_of(alias): "call-1"}


def test_equal_span_ids_of_two_traces_are_two_spans() -> None:
    here = a_span(1, 1, SpanKind.AGENT_STEP, agent_name="here")
    there = a_span(1, 1, SpanKind.AGENT_STEP, agent_name="there", trace_id="f" * 32, event_id="f" * 32)
    calls = [a_call(n, 2, trace_id=one.trace_id, parent_span_id=one.span_id) for n, one in ((1, here), (2, there))]
    view = seen(here, there, *calls)
    assert [view.agent_of_call(call) for call in view.calls] == ["here", "there"]
    assert [view.agent_of_span(span) for span in view.spans] == ["here", "there"]


def test_the_span_in_which_a_call_was_made_comes_before_an_id_elsewhere() -> None:
    writer = a_span(80, 0, SpanKind.AGENT_STEP, agent_name="writer")
    foreign = llm_span(1, 5, response_id="chatcmpl-1")
    view = seen(CRITIC, writer, foreign, a_call(1, 5, response_id="chatcmpl-1", parent_span_id=writer.span_id))
    assert view.agent_of_call(view.calls[0]) == "writer"


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["policy", "gpt-4o", None]), st.booleans()), max_size=6),
    st.randoms(use_true_random=False),
)
def test_no_span_is_joined_to_a_call_outside_its_time_or_of_another_model(
    story: list[tuple[int, str | None, bool]], shuffle: Random
) -> None:
    """Spans (at which call's time, model, is its text long) with the reply of call 0, which was made at 0 s."""
    messages = [asking(("call_0", "add", {"x": 1})), LONG]
    for message in messages:
        calls = [a_call(n, 10 * n, message if n == 0 else {"role": "assistant", "content": f"{n}"}) for n in range(4)]
        spans = [
            llm_span(
                n + 1, 10 * at, model, output_messages=[message if same else {"role": "assistant", "content": "-"}]
            )
            for n, (at, model, same) in enumerate(story)
        ]
        right = [
            place_of(span)
            for span, (at, model, same) in zip(spans, story, strict=True)
            if at == 0 and same and (model == "policy" or (model is None and message is not LONG))
        ]
        events = [*spans, *calls]
        shuffle.shuffle(events)
        assert seen(*events).calls_in_spans == ({right[0]: "call-0"} if len(right) == 1 else {})
