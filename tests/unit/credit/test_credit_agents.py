"""Which agent made a call, and what the run file says about its calls."""

import itertools
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from credit_support import T0, call, delivered, finished, reward, rollout
from leyden.credit.core.agents import Agent, AgentRule, SpanLink, agent_of, rule_for
from leyden.credit.core.assemble import Attempt, State, assemble
from leyden.credit.core.evidence import Evidence, pack, subject_of, unpack
from leyden.credit.core.member import Member
from leyden.credit.core.membership import member_of
from leyden.credit.core.section import CreditSection
from leyden.events import (
    Event,
    JsonObject,
    LlmCall,
    ModelCallRecorded,
    RolloutSettled,
    SpanKind,
    SpanRecorded,
    Usage,
)
from leyden.events.joins import join, joinable_call, unix_nano
from leyden.events.replies import replies_of_call
from leyden.ids import derive

TRACE = f"{rollout(0)}0000"


def span(
    span_id: str, parent: str | None = None, agent: str | None = None, trace: str = TRACE, **attributes: Any
) -> SpanRecorded:
    return SpanRecorded(
        event_id=derive("span", trace, span_id), event_time=T0, producer="ingest", trace_id=trace, span_id=span_id,
        parent_span_id=parent, rollout_id=rollout(0), kind=SpanKind.AGENT_STEP, dialect="openinference", name="step",
        start_unix_nano=0, end_unix_nano=1, agent_name=agent, attributes={"input.value": "long text", **attributes},
    )  # fmt: skip


def traced(call_id: str, parent: str | None, **changes: Any) -> ModelCallRecorded:
    """A call inside the span `parent`, with a prompt of its own."""
    number = sum(call_id.encode())
    made = call(call_id, [number, 1], [number, 2], at=number)
    return made.model_copy(update={"trace_id": TRACE, "parent_span_id": parent, **changes})


def with_spans(events: list[Event], spans: Sequence[SpanRecorded]) -> list[Event]:
    """The attempt's events with `spans`, which its settlement names."""
    named = {"span_ids": sorted(one.event_id for one in spans)}
    return [*spans, *(e.model_copy(update=named) if isinstance(e, RolloutSettled) else e for e in events)]


def attempt(events: list[Event], needs_spans: bool = True) -> Attempt:
    return assemble((unpack(pack(Evidence(r.event, r.origin))) for r in delivered(events)), needs_spans)  # type: ignore[arg-type]


def member(events: list[Event], rules: CreditSection) -> Member:
    found = attempt(events, bool(rules.agents))
    assert found.state is State.COMPLETE
    return member_of(found, rules)


def rules(*agents: dict[str, Any], **section: Any) -> CreditSection:
    return CreditSection.model_validate({"agents": list(agents), **section})


def trained(found: Member) -> dict[str, list[str]]:
    """Policy → the calls that are trained as its data."""
    return {t.policy: sorted(s.call_id for q in t.sequences for s in q.transitions) for t in found.trajectories}


def agent_in(made: ModelCallRecorded, trace: dict[tuple[str, str], SpanLink], *others: ModelCallRecorded) -> Agent:
    """The agent of `made`, of an attempt with `others` and the spans of `trace`."""
    calls = [joinable_call(one, replies_of_call(one)) for one in (made, *others)]
    return agent_of(made, trace, join(calls, [link.joinable for link in trace.values()]).spans[made.call_id])


def during(one: SpanRecorded, *calls: ModelCallRecorded) -> SpanRecorded:
    """`one` with the time of `calls`."""
    starts = [unix_nano(made.started_at) for made in calls]
    return one.model_copy(update={"start_unix_nano": min(starts) - 1000, "end_unix_nano": max(starts) + 10**9})


def links(*spans: SpanRecorded) -> dict[tuple[str, str], SpanLink]:
    return {(one.trace_id, one.span_id): SpanLink.of(one) for one in spans}


def test_the_agent_is_the_one_of_the_nearest_span_around_the_call() -> None:
    trace = links(span("root", None, "crew"), span("step", "root", "planner"), span("llm", "step"))
    assert agent_in(traced("a", "llm"), trace) == Agent("planner")
    assert agent_in(traced("a", "step"), trace) == Agent("planner")
    assert agent_in(traced("a", "root"), trace) == Agent("crew")


def test_what_the_call_itself_says_comes_first() -> None:
    trace = links(span("llm", None, "planner", **{"leyden.agent.role": "lead"}))
    assert agent_in(traced("a", "llm", agent_name="critic"), trace) == Agent("critic", "lead")
    assert agent_in(traced("a", "llm", agent_role="judge"), trace) == Agent("planner", "judge")


def test_a_call_whose_spans_say_nothing_has_no_agent() -> None:
    trace = links(span("llm", "gone"), span("other", None, "planner", trace="f" * 32))
    for parent in ("llm", "other", "unknown", None):
        assert agent_in(traced("a", parent), trace) == Agent()
    assert agent_in(call("a", [1], [2]), trace) == Agent()


def answered(one: SpanRecorded, reply: str) -> SpanRecorded:
    return one.model_copy(update={"kind": SpanKind.LLM_CALL, "llm": LlmCall(response_id=reply)})


def test_a_span_with_the_calls_reply_inside_the_one_that_it_was_made_in_is_nearer() -> None:
    framework = answered(span("llm", "step"), "chatcmpl-1")
    client = answered(span("client", None, trace="f" * 32), "chatcmpl-1")
    trace = links(span("root", None, "crew"), span("step", "root", "planner"), framework, client)
    made = traced("a", "root", response_id="chatcmpl-1")
    assert agent_in(made, trace) == Agent("planner")
    alone = made.model_copy(update={"trace_id": None, "parent_span_id": None})
    assert agent_in(alone, trace) == Agent("planner")
    assert agent_in(traced("a", "root", response_id="chatcmpl-2"), trace) == Agent("crew")
    assert agent_in(traced("a", "root"), trace) == Agent("crew")


def test_the_span_in_which_a_call_was_made_comes_before_an_id_elsewhere() -> None:
    """A model that the gateway does not serve may have counted its replies as ours does."""
    foreign = answered(span("llm", "step"), "chatcmpl-1")
    trace = links(span("p", None, "writer"), span("step", None, "critic"), foreign)
    made = traced("a", "p", response_id="chatcmpl-1")
    assert agent_in(made, trace) == Agent("writer")
    assert agent_in(made.model_copy(update={"parent_span_id": "gone"}), trace) == Agent("critic")


def test_an_id_that_two_calls_have_joins_neither() -> None:
    trace = links(span("step", None, "planner"), answered(span("llm", "step"), "chatcmpl-1"))
    a, b = (traced(name, None, response_id="chatcmpl-1") for name in "ab")
    assert agent_in(a, trace, b) == agent_in(b, trace, a) == Agent()
    assert agent_in(a, trace) == Agent("planner")
    inside = a.model_copy(update={"parent_span_id": "llm"})
    assert (agent_in(inside, trace, b), agent_in(b, trace, inside)) == (Agent("planner"), Agent())
    request_id = traced("chatcmpl-1", None)
    assert agent_in(a, trace, request_id) == Agent()


def test_a_span_in_which_another_call_was_made_is_not_joined_by_its_id() -> None:
    trace = links(span("step", None, "critic"), answered(span("llm", "step"), "chatcmpl-1"))
    ours, foreign = traced("a", None, response_id="chatcmpl-1"), traced("b", "llm", response_id="chatcmpl-7")
    assert agent_in(ours, trace, foreign) == Agent()
    assert agent_in(foreign, trace, ours) == Agent("critic")


@given(
    st.lists(
        st.tuples(st.sampled_from("xyz"), st.booleans(), st.sampled_from(["r0", "r1", "r2"])), min_size=1, max_size=6
    ),
    st.randoms(use_true_random=False),
)
def test_no_ids_of_other_calls_change_the_agent_of_a_call_whose_span_is_known(
    story: list[tuple[str, bool, str]], shuffle: Random
) -> None:
    """Each call (agent, is its parent span known, response id) has an LLM span with its id under its agent's span."""
    calls, spans = [], []
    for n, (agent, has_parent, reply) in enumerate(story):
        step, llm = span(f"s{n}", None, agent), answered(span(f"l{n}", f"s{n}"), reply)
        spans += [step, llm]
        calls.append(traced(f"c{n}", f"l{n}" if has_parent else None, response_id=reply))
    shuffled, order = list(spans), list(calls)
    shuffle.shuffle(shuffled)
    shuffle.shuffle(order)
    trace = links(*shuffled)
    for n, (agent, has_parent, reply) in enumerate(story):
        found = agent_in(calls[n], trace, *(one for one in order if one is not calls[n]))
        alone = sum(other == reply for *_, other in story) == 1
        assert found == Agent(agent if has_parent or alone else None)


def test_a_settled_calls_agent_is_found_by_its_reply() -> None:
    spans = [span("step", None, "planner"), answered(span("llm", "step"), "chatcmpl-1")]
    events = with_spans(finished([traced("a", None, response_id="chatcmpl-1")], [reward(1.0)]), spans)
    assert [found.agent for found in attempt(events).settled_calls()] == [Agent("planner")]


def test_a_settled_calls_agent_is_found_by_its_request_id() -> None:
    spans = [span("s1", agent="planner"), answered(span("s2", "s1"), "a")]
    found = attempt(
        with_spans(finished([traced("a", None, response_id="msg_1"), traced("b", None)], [reward(1.0)]), spans)
    )
    assert {call.event.call_id: call.agent.name for call in found.settled_calls()} == {"a": "planner", "b": None}


def test_a_settled_calls_agent_is_found_by_a_tool_calls_id_told_by_a_log_record() -> None:
    message: JsonObject = {
        "role": "assistant",
        "tool_calls": [{"id": "t1", "type": "function", "function": {"name": "add", "arguments": "{}"}}],
    }
    told = span("s2", "s1").model_copy(update={"kind": SpanKind.LLM_CALL, "llm": LlmCall(response_id="minted")})
    record = span("s3", "s2").model_copy(
        update={"kind": SpanKind.OTHER, "derived": True, "llm": LlmCall(output_messages=[message])}
    )
    made = traced("a", None)
    made = made.model_copy(update={"choices": [made.choices[0].model_copy(update={"message": message})]})
    spans = [span("s1", agent="planner"), during(told, made), record]
    found = attempt(with_spans(finished([made, traced("b", None)], [reward(1.0)]), spans))
    assert {call.event.call_id: call.agent.name for call in found.settled_calls()} == {"a": "planner", "b": None}


def test_a_settled_calls_agent_is_found_by_what_its_span_says_of_the_reply() -> None:
    """`call` answers "text"; the span of "b" says it too, but so does a second one."""

    def told(span_id: str, parent: str, tokens: int) -> SpanRecorded:
        message: JsonObject = {"role": "assistant", "content": "text"}
        llm = LlmCall(input_tokens=tokens, output_tokens=0, output_messages=[message])
        changes = {"kind": SpanKind.LLM_CALL, "llm": llm, "model": "m"}
        return span(span_id, parent).model_copy(update=changes)

    calls = [traced(name, None, usage=Usage(prompt_tokens=n)) for name, n in (("a", 7), ("b", 8), ("c", 9))]
    reported = [during(told(str(n), "step", tokens), *calls) for n, tokens in ((1, 7), (2, 8), (3, 8))]
    spans = [span("step", None, "planner"), *reported]
    found = attempt(with_spans(finished(calls, [reward(1.0)]), spans)).settled_calls()
    assert {call.event.call_id: call.agent for call in found} == {"a": Agent("planner"), "b": Agent(), "c": Agent()}


def test_a_ring_of_parents_ends() -> None:
    assert agent_in(traced("a", "x"), links(span("x", "y"), span("y", "x"))) == Agent()


def test_the_first_rule_whose_patterns_both_match_decides() -> None:
    planner, critics, rest = AgentRule(name="plan*"), AgentRule(role="critic"), AgentRule(name="?*")
    found = [planner, critics, rest]
    assert rule_for(Agent("planner-2", "critic"), found) is planner
    assert rule_for(Agent("x", "critic"), found) is critics
    assert rule_for(Agent("Planner"), found) is rest, "patterns are exact about case"
    assert rule_for(Agent(), found) == AgentRule(), "an unknown agent has the empty name"
    assert rule_for(Agent(None, "critic"), found) is critics


def test_an_agent_that_is_not_trained_is_context_and_its_rewards_stay_in_the_return() -> None:
    planner, critic = traced("a", "p"), traced("b", "c")
    events = finished([planner, critic], [reward(1.0), reward(0.5, rule="tool", of=critic)])
    events = with_spans(events, [span("p", None, "planner"), span("c", None, "critic")])
    found = member(events, rules({"name": "critic", "train": False}))
    assert trained(found) == {"p": ["a"]}
    assert found.calls == {"no_trained_agent": 1, "started": 1}
    assert found.trajectories[0].total == 1.5


def test_several_policies_are_trained_from_one_system_at_once() -> None:
    calls = [traced("a", "p"), traced("b", "w"), traced("c", "w"), traced("d", None)]
    events = with_spans(finished(calls, [reward(1.0)]), [span("p", None, "planner"), span("w", None, "writer-1")])
    found = member(events, rules({"name": "planner", "policy": "planner"}, {"name": "writer*", "policy": "writer"}))
    assert trained(found) == {"p": ["d"], "planner": ["a"], "writer": ["b", "c"]}
    assert found.policies == ["p", "planner", "writer"]
    assert {t.total for t in found.trajectories} == {1.0}


def test_policies_to_train_are_those_that_the_calls_are_trained_as() -> None:
    events = with_spans(finished([traced("a", "p"), traced("b", None)], [reward(1.0)]), [span("p", None, "planner")])
    found = member(events, rules({"name": "planner", "policy": "planner"}, policies=["planner"]))
    assert trained(found) == {"planner": ["a"]}
    assert found.calls["other_policy"] == 1


def test_a_model_that_is_not_trained_has_no_versions_to_train_whatever_the_rules_say() -> None:
    events = with_spans(finished([traced("a", "p", policy=None)], [reward(1.0)]), [span("p", None, "planner")])
    assert member(events, rules({"name": "planner", "policy": "planner"})).left_out == "no policy call"


def test_each_agent_is_credited_by_its_own_strategy() -> None:
    calls = [traced("a", "p"), traced("b", "w"), traced("c", "p")]
    events = with_spans(finished(calls, [reward(1.0)]), [span("p", None, "planner"), span("w", None, "writer")])
    found = member(events, rules({"name": "planner", "strategy": {"name": "discounted", "gamma": 0.5}}))
    [trajectory] = found.trajectories
    names = {s.call_id: trajectory.parts[s.part].strategy.name for q in trajectory.sequences for s in q.transitions}
    assert names == {"a": "discounted", "b": "identical", "c": "discounted"}


def test_a_transition_names_its_agent() -> None:
    events = with_spans(finished([traced("a", "p"), traced("b", None)], [reward(1.0)]), [span("p", None, "planner")])
    [trajectory] = member(events, rules({"name": "nobody", "train": False})).trajectories
    assert {s.call_id: s.agent_name for q in trajectory.sequences for s in q.transitions} == {"a": "planner", "b": None}


def test_without_rules_spans_are_not_waited_for_and_the_calls_own_word_is_kept() -> None:
    events = finished([traced("a", "p", agent_name="said")], [reward(1.0)])
    events = [e for e in with_spans(events, [span("p")]) if not isinstance(e, SpanRecorded)]
    assert attempt(events, needs_spans=False).state is State.COMPLETE
    assert attempt(events, needs_spans=True).state is State.ENDED
    [trajectory] = member(events, CreditSection()).trajectories
    assert trajectory.sequences[0].transitions[0].agent_name == "said"


def test_a_span_that_was_not_settled_names_nobody() -> None:
    """It may come before or after the decision: what it says must not depend on that."""
    events = with_spans(finished([traced("a", "p")], [reward(1.0)]), [])
    found = member([span("p", None, "critic"), *events], rules({"name": "critic", "train": False}))
    assert trained(found) == {"p": ["a"]}


def test_of_a_span_only_its_place_time_and_agent_are_kept() -> None:
    kept = pack(Evidence(span("p", "root", "planner", **{"leyden.agent.role": "lead"}), "spans.v1/0/1"))
    assert len(kept) < 250
    assert b"long text" not in kept
    assert unpack(kept).event == SpanLink(
        event_id=derive("span", TRACE, "p"), trace_id=TRACE, span_id="p", parent_span_id="root",
        agent_name="planner", agent_role="lead", ended_unix_nano=1,
    )  # fmt: skip


def test_a_span_of_no_rollout_is_evidence_for_nothing() -> None:
    assert subject_of(span("p")) == f"{rollout(0)}:0"
    assert subject_of(span("p").model_copy(update={"rollout_id": None})) is None


def test_order_and_duplication_of_spans_and_calls_change_nothing() -> None:
    twin = span("p", None, "critic").model_copy(update={"event_id": "f" * 32})
    events = finished([traced("a", "l")], [reward(1.0)])
    events = with_spans(events, [span("p", None, "planner"), span("l", "p"), twin])
    chosen = rules({"name": "planner", "policy": "planner"})
    orders = itertools.islice(itertools.permutations(events), 0, None, 101)
    seen = {member_of(attempt([*order, *order[:3]]), chosen).model_dump_json() for order in orders}
    assert len(seen) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"nam": "x"},
        {"train": False, "policy": "p"},
        {"train": False, "strategy": "step"},
        {"policy": ""},
        {"strategy": "gut feeling"},
        {"name": 3},
    ],
)
def test_a_wrong_rule_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        rules(wrong)


names = st.one_of(st.none(), st.sampled_from(["planner", "critic", "writer"]))
patterns = st.sampled_from(["*", "planner", "c*", "?*", "nobody"])
agent_rules = st.lists(
    st.builds(
        AgentRule,
        name=patterns,
        policy=st.sampled_from([None, "x", "y"]),
    )
    | st.builds(AgentRule, name=patterns, train=st.just(False)),
    max_size=4,
)


@given(st.lists(st.tuples(names, names), min_size=1, max_size=8), agent_rules)
def test_every_call_is_trained_once_as_its_rule_says_or_is_context(
    spec: list[tuple[str | None, str | None]], chosen: list[AgentRule]
) -> None:
    """Each call is in a span of its own, with (the call's own word, the span's)."""
    calls = [traced(f"c{n}", f"s{n}", agent_name=own) for n, (own, _) in enumerate(spec)]
    spans = [span(f"s{n}", None, said) for n, (_, said) in enumerate(spec)]
    found = member_of(attempt(with_spans(finished(calls, [reward(1.0)]), spans)), CreditSection(agents=chosen))
    expected: dict[str, list[str]] = {}
    for n, (own, said) in enumerate(spec):
        rule = next((r for r in chosen if r.matches(Agent(own or said))), AgentRule())
        if rule.train:
            expected.setdefault(rule.policy or "p", []).append(f"c{n}")
    assert trained(found) == expected
    assert found.left_out == (None if expected else "no policy call")
