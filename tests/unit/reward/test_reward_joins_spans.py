"""How reward joins spans to the calls that the gateway recorded, and reads what dialects say in one form."""

from typing import Any

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
from leyden.reward.core.rules.retrieval import Retrieval as RetrievalRule
from leyden.reward.core.settle import settle
from leyden.reward.core.view import RolloutView, view_of
from leyden.reward.graders.retrieval_overlap import documents_of
from unit.reward.reward_builders import a_call, a_span, an_end, evidence_of


def seen(*events: AnyEvent) -> RolloutView:
    calls = [event for event in events if event.type == "model-call-recorded"]
    ended = an_end(calls)  # type: ignore[arg-type]
    evidence = evidence_of([*events, ended])
    settled = settle(ended, evidence)
    assert isinstance(settled, RolloutSettled)
    return view_of(ended, settled, evidence)


def test_a_calls_agent_is_told_by_the_span_that_names_its_reply() -> None:
    step = a_span(1, 0, SpanKind.AGENT_STEP, agent_name="planner")
    told = {"llm": LlmCall(response_id="chatcmpl-1"), "parent_span_id": step.span_id}
    span = a_span(2, 0.5, SpanKind.LLM_CALL, **told)
    other = a_span(3, 0, SpanKind.AGENT_STEP, agent_name="crew")
    view = seen(
        step, span, other,
        a_call(1, 1, response_id="chatcmpl-1", parent_span_id=other.span_id),
        a_call(2, 2, response_id="chatcmpl-2", parent_span_id=other.span_id),
    )  # fmt: skip
    assert [view.agent_of_call(call) for call in view.calls] == ["planner", "crew"]
    assert view.calls_in_spans[span.span_id] == "call-1"


def test_a_span_may_name_the_request_id_that_the_client_saw_as_the_replys_id() -> None:
    step = a_span(1, 0, SpanKind.AGENT_STEP, agent_name="planner")
    llm = LlmCall(response_id="call-1")
    span = a_span(2, 0.5, SpanKind.LLM_CALL, llm=llm, model="openai/policy", parent_span_id=step.span_id)
    view = seen(step, span, a_call(1, 1, response_id="msg_1"), a_call(2, 2, response_id="msg_2"))
    assert [view.agent_of_call(call) for call in view.calls] == ["planner", None]
    assert view.calls_in_spans == {span.span_id: "call-1"}


def test_a_span_that_names_no_reply_is_joined_by_the_reply_itself_where_no_other_has_it() -> None:
    def told(n: int, parent: str) -> SpanRecorded:
        message: JsonObject = {"role": "assistant", "content": f"said {n}"}
        llm = LlmCall(input_tokens=n, output_tokens=1, output_messages=[message])
        return a_span(n, n, SpanKind.LLM_CALL, llm=llm, model="policy", parent_span_id=parent)

    def called(number: int, says: int, **fields: Any) -> ModelCallRecorded:
        usage = Usage(prompt_tokens=says, completion_tokens=1)
        return a_call(number, number, {"role": "assistant", "content": f"said {says}"}, usage=usage, **fields)

    steps = [a_span(n, 0, SpanKind.AGENT_STEP, agent_name=name) for n, name in ((10, "planner"), (11, "writer"))]
    spans = [told(1, steps[0].span_id), told(2, steps[1].span_id), told(3, steps[1].span_id)]
    calls = [called(1, 1), called(2, 2), called(3, 3), called(4, 3), called(5, 2, agent_name="named", error="no")]
    view = seen(*steps, *spans, *calls)
    assert [view.agent_of_call(call) for call in view.calls] == ["planner", "writer", None, None, "named"]
    assert view.calls_in_spans == {spans[0].span_id: "call-1", spans[1].span_id: "call-2"}


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
