"""Agents that are told by the rollout's spans: credit waits for those, and their order changes nothing."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from credit_support import T0, CreditLoop, CreditPublisher, call, delivered, finished, reward, rollout
from leyden.credit.core.section import CreditSection
from leyden.events import Event, RolloutSettled, SpanKind, SpanRecorded
from leyden.ids import derive
from leyden.kafka import Delivered

SECTION = {
    "agents": [
        {"name": "planner", "policy": "planner", "strategy": "discounted"},
        {"name": "critic", "train": False},
    ]
}
WITH_AGENTS = CreditSection.model_validate(SECTION)


def one_rollout(index: int, value: float, size: int = 2) -> list[Event]:
    """A crew: the planner asks, the writer writes, the critic judges; each in a span inside the agent's own."""
    about: dict[str, Any] = {"rollout_id": rollout(index)}
    trace = f"{rollout(index)}0000"
    calls, spans = [], []
    for number, agent in enumerate(("planner", "writer", "critic"), 1):
        made = call(f"{index}-{agent}", [number, index], [number], at=number, **about)
        calls.append(made.model_copy(update={"trace_id": trace, "parent_span_id": f"llm-{agent}"}))
        for name, parent, said in ((f"llm-{agent}", f"step-{agent}", None), (f"step-{agent}", None, agent)):
            spans.append(
                SpanRecorded(
                    event_id=derive("span", trace, name),
                    event_time=T0,
                    producer="ingest",
                    trace_id=trace,
                    span_id=name,
                    parent_span_id=parent,
                    kind=SpanKind.AGENT_STEP,
                    dialect="genai",
                    name=name,
                    start_unix_nano=0,
                    end_unix_nano=1,
                    agent_name=said,
                    **about,
                )
            )
    events = finished(calls, [reward(value, **about)], group_size=size, ended_after_s=60 + index, **about)
    named = {"span_ids": sorted(one.event_id for one in spans)}
    return [*spans, *(e.model_copy(update=named) if isinstance(e, RolloutSettled) else e for e in events)]


async def run(batches: list[list[Delivered[Event]]], section: CreditSection = WITH_AGENTS) -> CreditPublisher:
    loop = CreditLoop(CreditPublisher(), section=section)
    for batch in batches:
        await loop.on_batch(batch)
    return loop.publisher


GROUP = delivered([*one_rollout(0, 1.0), *one_rollout(1, 0.0)])


async def test_each_policy_gets_the_calls_of_its_agents_under_its_own_key() -> None:
    publisher = await run([GROUP])
    calls = {s.policy: [t.call_id for one in publisher.sequences if one.policy == s.policy for t in one.transitions]
             for s in publisher.sequences}  # fmt: skip
    assert {policy: sorted(ids) for policy, ids in calls.items()} == {
        "planner": ["0-planner", "1-planner"],
        "p": ["0-writer", "1-writer"],
    }
    assert {t.agent_name for one in publisher.sequences for t in one.transitions} == {"planner", "writer"}
    keys = {outgoing.key: outgoing.event.type for outgoing in publisher.published}
    assert keys == {"planner/g": "group-credited", "p/g": "group-credited"}
    assert [group.reward_mean for group in publisher.groups] == [0.5, 0.5]


async def test_a_rollout_is_not_credited_before_its_spans_are_here() -> None:
    late = [one for one in GROUP if isinstance(one.event, SpanRecorded) and one.event.span_id == "step-critic"]
    rest = [one for one in GROUP if one not in late]
    assert (await run([rest])).published == []
    assert (await run([rest, late])).values == (await run([GROUP])).values


async def test_without_rules_about_agents_no_span_is_waited_for() -> None:
    rest = [one for one in GROUP if not isinstance(one.event, SpanRecorded)]
    publisher = await run([rest], WITH_AGENTS.model_copy(update={"agents": []}))
    assert sum(len(one.transitions) for one in publisher.sequences) == 6


@settings(max_examples=25, deadline=None)
@given(st.data())
async def test_any_order_duplication_and_batching_gives_the_same_bytes(data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(GROUP))))
    again = data.draw(st.lists(st.integers(0, len(GROUP) - 1), max_size=12))
    stream = [GROUP[n] for n in [*order, *again]]
    batches = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        batches.append(stream[:size])
        stream = stream[size:]
    assert (await run(batches)).values == (await run([GROUP])).values
