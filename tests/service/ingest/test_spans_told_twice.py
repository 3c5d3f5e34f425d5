"""A span exported when it began and again when it ended: the finished one counts, in whatever order they come."""

import random
from datetime import UTC, datetime

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from fakes import FakePublisher
from leyden.clock import ManualClock
from leyden.credit.core.assemble import assemble
from leyden.credit.core.evidence import Evidence, EvidenceEvent, pack, unpack
from leyden.events import RolloutSettled, SpanRecorded
from leyden.events.codec import SPANS, decode
from leyden.ingest.core.limits import Limits
from leyden.ingest.dialects import DIALECTS
from leyden.ingest.handlers import IngestHandlers
from leyden.kafka.delivered import Delivered
from leyden.reward.core.settle import settle
from leyden.reward.core.view import view_of
from unit.ingest.otlp_builders import END, otlp_request, otlp_span
from unit.reward.reward_builders import ROLLOUT, a_call, an_end, evidence_of

TRACE = f"{ROLLOUT}0000"
NOW = datetime.fromtimestamp(END / 1e9 + 1, UTC)


def tool(number: int, error: str | None = None) -> Span:
    attributes = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "search", "gen_ai.agent.name": "finder"}
    return otlp_span(attributes, f"tool {number}", TRACE, f"{number:016x}", error=error)


def begun(span: Span) -> Span:
    """`span` as it is exported at its start: no end, no status, and less known of it."""
    early = Span.FromString(span.SerializeToString())
    early.end_time_unix_nano = 0
    early.ClearField("status")
    del early.attributes[2:]
    return early


async def published(batches: list[list[Span]]) -> list[SpanRecorded]:
    publisher = FakePublisher()
    handlers = IngestHandlers(publisher, DIALECTS, ManualClock(NOW), Limits())
    for number, batch in enumerate(batches):
        records = [Delivered(otlp_request(s).SerializeToString(), "otlp.v1", "k", 0, number, "o", {}) for s in batch]
        await handlers.on_otlp(records)
    return [span for value in publisher.values if isinstance(span := decode(SPANS, value), SpanRecorded)]


@pytest.mark.parametrize("seed", range(40))
async def test_the_finished_span_counts_at_every_order_of_arrival(seed: int) -> None:
    ended = [tool(1, error="no such page"), tool(2), tool(3, error="no such page")]
    told = [*ended, *ended[:1], *map(begun, ended[:2]), begun(ended[0])]
    shuffled = random.Random(seed)
    shuffled.shuffle(told)
    cuts = sorted(shuffled.sample(range(1, len(told)), shuffled.randint(0, 3)))
    batches = [told[a:b] for a, b in zip([0, *cuts], [*cuts, len(told)], strict=True)]
    spans = await published(batches)
    assert {span.span_id for span in spans if not span.unfinished} == {f"{n:016x}" for n in (1, 2, 3)}
    call = a_call(1, 0)
    end = an_end([call], span_count=3)
    evidence = evidence_of([call, *spans, end])
    settled = settle(end, evidence)
    assert isinstance(settled, RolloutSettled)
    view = view_of(end, settled, evidence)
    found = [(span.span_id[-1], span.status, span.agent_name, span.unfinished) for span in view.spans]
    assert found == [("1", "error", "finder", False), ("2", "unset", "finder", False), ("3", "error", "finder", False)]
    events: list[EvidenceEvent] = [call, *spans, end, settled]
    packed = [unpack(pack(Evidence(event, "t/0/0"))) for event in events]
    calls_from_credit = assemble(packed, needs_spans=True).settled_calls()
    assert [recorded.event.call_id for recorded in calls_from_credit] == [call.call_id]


async def test_a_span_that_only_began_is_there_but_not_counted_as_exported() -> None:
    spans = await published([[begun(tool(1))], [tool(2)]])
    assert [(span.name, span.unfinished, span.end_unix_nano - span.start_unix_nano) for span in spans] == [
        ("tool 1", True, 0), ("tool 2", False, END - spans[1].start_unix_nano),
    ]  # fmt: skip
    evidence = evidence_of([*spans, an_end(span_count=2)])
    assert evidence.exported_spans == 1
    assert settle(an_end(span_count=2), evidence) is None


async def test_in_one_batch_the_beginning_is_not_published() -> None:
    [only] = await published([[begun(tool(1)), tool(1, error="gone"), begun(tool(1))]])
    assert (only.status, only.unfinished) == ("error", False)


async def test_an_agent_is_known_from_the_finished_span_in_credit() -> None:
    agent = otlp_span({"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "planner"}, "agent", TRACE)
    early = begun(agent)
    del early.attributes[:]
    call = a_call(1, 0, trace_id=TRACE, parent_span_id=agent.span_id.hex())
    for batches in ([[agent], [early]], [[early], [agent]]):
        spans = await published(batches)
        assert len(spans) == 2
        end = an_end([call], span_count=1)
        settled = settle(end, evidence_of([call, *spans, end]))
        attempt = assemble([Evidence(e, "t/0/0") for e in (call, *spans, end, settled) if e], needs_spans=True)
        assert [recorded.agent.name for recorded in attempt.settled_calls()] == ["planner"]
