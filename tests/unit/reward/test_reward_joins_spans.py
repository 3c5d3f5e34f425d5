"""How reward joins spans to the calls that the gateway recorded, and reads what dialects say in one form."""

from leyden.events import Event as AnyEvent
from leyden.events import Json, LlmCall, Retrieval, RolloutSettled, SpanKind
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
