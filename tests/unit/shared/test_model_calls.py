"""Which spans are each one model call."""

from datetime import UTC, datetime

from leyden.events import LlmCall, SpanKind, SpanRecorded, model_calls

AT = datetime(2026, 1, 1, tzinfo=UTC)


def span(
    span_id: str, parent: str | None, kind: SpanKind = SpanKind.LLM_CALL, reply: str | None = None, trace: str = "t"
) -> SpanRecorded:
    llm = LlmCall(response_id=reply) if kind is SpanKind.LLM_CALL else None
    return SpanRecorded(
        event_id=trace + span_id, event_time=AT, producer="ingest", trace_id=trace, span_id=span_id,
        parent_span_id=parent, kind=kind, dialect="gen_ai", name=span_id, start_unix_nano=0, end_unix_nano=1, llm=llm,
    )  # fmt: skip


def names(*spans: SpanRecorded) -> list[str]:
    found = [one.name for one in model_calls(spans)]
    assert sorted(found) == sorted(one.name for one in model_calls(spans[::-1])), "the order does not matter"
    return found


def test_of_a_frameworks_span_and_its_clients_the_inner_one_is_the_call() -> None:
    chain = span("http", "outer", SpanKind.OTHER)
    assert names(span("outer", None), chain, span("inner", "http", reply="r1")) == ["inner"]
    assert names(span("outer", None, reply="r1"), chain, span("inner", "http", reply="r1")) == ["inner"]


def test_one_reply_is_one_call_in_whatever_traces() -> None:
    spans = [
        span("step", None, SpanKind.AGENT_STEP),
        span("a", "step", reply="r1"),
        span("b", None, reply="r1", trace="u"),
    ]
    assert names(*spans) == ["a"]


def test_a_model_that_a_tool_or_an_agent_inside_a_call_asks_is_another_call() -> None:
    for kind in (SpanKind.TOOL_CALL, SpanKind.AGENT_STEP):
        spans = [span("outer", None, reply="r1"), span("work", "outer", kind), span("inner", "work", reply="r2")]
        assert names(*spans) == ["outer", "inner"]


def test_calls_without_a_reply_are_each_their_own_and_a_ring_ends() -> None:
    assert names(span("a", None), span("b", None)) == ["a", "b"]
    assert names(span("a", "b"), span("b", "a")) == []
