"""Every model call of the recorded agents is joined to its span, as the gateway and reward would join them.

The calls are what the scripted model answered, written by hand; of token counts the gateway knows its own.
"""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from golden import scripted_engine
from golden.test_golden_spans import spans_of
from leyden.events import (
    Event,
    JsonObject,
    LlmCall,
    ModelCallRecorded,
    RolloutSettled,
    SpanKind,
    SpanRecorded,
    Usage,
    model_calls,
)
from leyden.events.joins import place_of
from leyden.reward.core.settle import settle
from leyden.reward.core.view import RolloutView, view_of
from unit.reward.reward_builders import ROLLOUT, a_call, an_end, asking, evidence_of

HERE = Path(__file__).parent
ANSWER: JsonObject = {"role": "assistant", "content": "It is 106000."}
LAST = {
    "adk_agent": 122, "adk_legacy": 122, "agentscope_agent": 122, "agno_agent": 49, "ai_sdk_7_agent": 51,
    "ai_sdk_agent": 49, "haystack_agent": 70, "langchain_js_agent": 52, "litellm_loop": 51, "mirascope_agent": 49,
    "openai_agents_js_agent": 53, "openinference_anthropic": 51, "smolagents_agent": 971, "strands_agent": 51,
    "strands_current": 51, "traceloop_anthropic": 51,
}  # fmt: skip
"""Recording → tokens of the last call's prompt, as the scripted model counted them."""
PREFIX = {"openai_agents_js_agent": "resp_", "openinference_anthropic": "msg_", "traceloop_anthropic": "msg_"}
"""Recording → what its API's reply ids begin with."""
TWICE = {"openinference_anthropic", "traceloop_anthropic"}
"""Recordings in which two spans with the reply's id are of one call: Anthropic's client makes one of its own."""
ONLY_BY_ID = {"litellm_loop", "traceloop_anthropic"}
"""Recordings with spans that tell nothing but the reply's id."""
NAMED = LAST.keys() - {
    "haystack_agent", "litellm_loop", "mirascope_agent", "openinference_anthropic", "traceloop_anthropic",
}  # fmt: skip
"""Recordings that name their agent."""


def recorded_calls(name: str) -> list[ModelCallRecorded]:
    second = "call_0" if name == "smolagents_agent" else "call_1"  # its history has no messages of the role tool
    last = asking(("call_0", "final_answer", {"answer": "It is 106000."})) if name == "smolagents_agent" else ANSWER
    replies = [
        asking(("call_0", "population", {"city": "Atlantis"})), asking((second, "population", {"city": "Delft"})), last,
    ]  # fmt: skip
    usage = [Usage(), Usage(), Usage(prompt_tokens=LAST[name], completion_tokens=5)]
    return [
        a_call(n, n, reply, usage=used, requested_model="policy-2026" if name == "haystack_agent" else "policy",
               response_id=f"{PREFIX.get(name, 'chatcmpl-')}{n}")
        for n, (reply, used) in enumerate(zip(replies, usage, strict=True), 1)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "by_id"),
    [(name, by_id) for name in LAST for by_id in (True, False) if by_id or name not in ONLY_BY_ID],
)
def test_every_call_is_joined_to_its_span_and_agent(name: str, by_id: bool) -> None:
    """With the spans' reply ids where they have them, and without any."""
    spans = [one.model_copy(update={"rollout_id": ROLLOUT}) for one in spans_of(HERE / "spans" / f"{name}.json")]
    if not by_id:
        spans = [without_reply_id(one) for one in spans]
    calls = in_time(recorded_calls(name), spans)
    view = view_of_attempt([*spans, *calls], calls)
    joined = view.calls_in_spans
    kinds = {place_of(span): span.kind for span in view.spans}
    times = 2 if name in TWICE and by_id else 1
    assert sorted(joined.values()) == sorted(["call-1", "call-2", "call-3"] * times)
    assert {kinds[place] for place in joined} == {SpanKind.LLM_CALL}
    starts = {place_of(span): span.start_unix_nano for span in view.spans}
    assert [joined[at] for at in sorted(joined, key=starts.__getitem__)] == sorted(joined.values())
    agents = {view.agent_of_call(call) for call in view.calls}
    assert agents == {"geographer" if name in NAMED else None}


def test_calls_of_dspy_whose_spans_have_neither_ids_nor_counts_are_joined_by_their_text() -> None:
    """The script: ask for Atlantis, ask for Delft, finish, answer; DSPy calls the tools from the model's text."""
    texts = [
        scripted_engine.in_fields("[[ ## next_tool_name ## ]]", said)["content"]
        for said in ("", "observation_0", "observation_0 observation_1")
    ]
    texts.append(scripted_engine.in_fields("", "")["content"])
    spans = [one.model_copy(update={"rollout_id": ROLLOUT}) for one in spans_of(HERE / "spans" / "dspy_react.json")]
    calls = [
        a_call(n, n, {"role": "assistant", "content": text}, usage=Usage(prompt_tokens=n, completion_tokens=n))
        for n, text in enumerate(texts)
    ]
    calls = in_time(calls, spans)
    view = view_of_attempt([*spans, *calls], calls)
    assert sorted(view.calls_in_spans.values()) == [f"call-{n}" for n in range(4)]


def in_time(calls: list[ModelCallRecorded], spans: list[SpanRecorded]) -> list[ModelCallRecorded]:
    """`calls` at the times at which the agent made them, one after the other."""
    made = sorted(span.start_unix_nano for span in model_calls(spans))
    assert len(made) == len(calls)
    times = [datetime.fromtimestamp(at / 1e9, UTC) for at in made]
    return [one.model_copy(update={"started_at": at, "latency_s": 0}) for one, at in zip(calls, times, strict=True)]


def view_of_attempt(events: list[Event], calls: list[ModelCallRecorded]) -> RolloutView:
    end = an_end(calls)
    evidence = evidence_of([*events, end])
    settled = settle(end, evidence)
    assert isinstance(settled, RolloutSettled)
    return view_of(end, settled, evidence)


def without_reply_id(span: SpanRecorded) -> SpanRecorded:
    if not isinstance(span.llm, LlmCall):
        return span
    model = "openai/policy" if span.model == "policy-2026" and span.dialect != "haystack" else span.model
    return span.model_copy(update={"llm": span.llm.model_copy(update={"response_id": None}), "model": model})
