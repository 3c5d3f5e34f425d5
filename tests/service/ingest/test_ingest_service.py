"""Raw OTLP records through the handler, with a publisher that remembers."""

import itertools
import math
from collections.abc import Sequence
from datetime import UTC, datetime

import hypothesis
import pytest
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from prometheus_client import REGISTRY

from fakes import FakePublisher
from leyden.clock import ManualClock
from leyden.events import JsonObject, SpanKind, SpanRecorded
from leyden.events.base import MAX_REWARD
from leyden.events.codec import SPANS, decode
from leyden.events.otlp import ATTEMPT_BY_HEADER, ATTEMPT_HEADER, PROJECT_HEADER, SIGNAL_HEADER
from leyden.ids import derive
from leyden.ingest.core.dialect import Meaning
from leyden.ingest.core.limits import Limits
from leyden.ingest.core.raw import RawSpan
from leyden.ingest.core.values import MAX_COUNT
from leyden.ingest.dialects import DIALECTS
from leyden.ingest.handlers import IngestHandlers
from leyden.kafka.delivered import Delivered
from unit.ingest.otlp_builders import (
    ATTEMPT,
    END,
    FOREIGN_TRACE,
    ROLLOUT,
    START,
    key_values,
    otlp_event,
    otlp_request,
    otlp_span,
)

NOW = datetime.fromtimestamp(END / 1e9 + 1, UTC)


def published_spans(publisher: FakePublisher) -> list[SpanRecorded]:
    found = [decode(SPANS, value) for value in publisher.values]
    return [span for span in found if isinstance(span, SpanRecorded)]


def record(value: bytes, offset: int = 0, headers: dict[str, str] | None = None) -> Delivered[bytes]:
    return Delivered(value, "otlp.v1", "k", 0, offset, f"otlp.v1/0/{offset}", headers or {})


def metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"leyden_ingest_{name}_total", labels) or 0.0


@pytest.fixture
def publisher() -> FakePublisher:
    return FakePublisher()


@pytest.fixture
def handlers(publisher: FakePublisher) -> IngestHandlers:
    return IngestHandlers(publisher, DIALECTS, ManualClock(NOW), Limits(value_chars=50_000, span_chars=100_000))


async def test_spans_are_keyed_by_rollout_else_by_trace(handlers: IngestHandlers, publisher: FakePublisher) -> None:
    request = otlp_request(otlp_span(), otlp_span(trace_id=FOREIGN_TRACE))
    await handlers.on_otlp([record(request.SerializeToString())])
    assert [(o.topic, o.key) for o in publisher.published] == [("spans.v1", ROLLOUT), ("spans.v1", FOREIGN_TRACE)]


async def test_a_span_sent_twice_in_a_batch_is_published_once(
    handlers: IngestHandlers, publisher: FakePublisher
) -> None:
    value = otlp_request(otlp_span()).SerializeToString()
    before = metric("duplicate_spans")
    await handlers.on_otlp([record(value), record(value, 1)])
    assert len(publisher.published) == 1
    assert metric("duplicate_spans") == before + 1


async def test_a_span_sent_again_later_is_the_same_event_and_counted(
    handlers: IngestHandlers, publisher: FakePublisher
) -> None:
    value = otlp_request(otlp_span(), otlp_span(span_id="00000000000000a2")).SerializeToString()
    before = metric("duplicate_spans")
    await handlers.on_otlp([record(value)])
    assert metric("duplicate_spans") == before
    await handlers.on_otlp([record(value, 1)])
    assert metric("duplicate_spans") == before + 2
    assert publisher.published[:2] == publisher.published[2:]


@pytest.mark.parametrize("sizes", [[3, 3], [1, 1, 1, 1, 1, 3]])
async def test_of_the_spans_that_came_a_bounded_number_is_remembered(
    sizes: list[int], publisher: FakePublisher
) -> None:
    few = IngestHandlers(publisher, DIALECTS, ManualClock(NOW), Limits(), remembered=3)
    numbers = iter(range(1, 100))

    async def duplicates(spans: list[int]) -> float:
        """How many of the spans are counted as having come before."""
        request = otlp_request(*(otlp_span(span_id=f"{number:016x}") for number in spans))
        before = metric("duplicate_spans")
        await few.on_otlp([record(request.SerializeToString())])
        return metric("duplicate_spans") - before

    for size in sizes:
        spans = [next(numbers) for _ in range(size)]
        assert await duplicates(spans) == 0
        assert await duplicates(spans) == size
    assert await duplicates([1]) == 0


async def test_a_redelivered_batch_publishes_the_same_bytes(handlers: IngestHandlers, publisher: FakePublisher) -> None:
    batch = [record(otlp_request(otlp_span(), otlp_span(span_id="00000000000000a2")).SerializeToString())]
    await handlers.on_otlp(batch)
    first = list(publisher.published)
    await handlers.on_otlp(batch)
    assert publisher.published == first + first


async def test_one_span_of_two_projects_is_two_and_without_a_project_keeps_its_id(
    handlers: IngestHandlers, publisher: FakePublisher
) -> None:
    value = otlp_request(otlp_span()).SerializeToString()
    doors = [{}, {PROJECT_HEADER: "a"}, {PROJECT_HEADER: "b"}, {PROJECT_HEADER: "a"}]
    await handlers.on_otlp([record(value, n, headers) for n, headers in enumerate(doors)])
    ids = {span.project: span.event_id for span in published_spans(publisher)}
    assert len(published_spans(publisher)) == len(set(ids.values())) == 3
    assert ids[None] == derive("span", ATTEMPT.trace_id, "00000000000000a1")


async def test_a_key_of_one_attempt_binds_what_it_sends_and_a_url_what_says_nothing(
    handlers: IngestHandlers, publisher: FakePublisher
) -> None:
    mine, other = "1e7de" + "b" * 23, otlp_span(span_id="00000000000000a2", trace_id=FOREIGN_TRACE)
    value = otlp_request(otlp_span(), other).SerializeToString()
    for by in ("key", "url"):
        headers = {ATTEMPT_HEADER: mine + "0001", ATTEMPT_BY_HEADER: by}
        await handlers.on_otlp([record(value, 0, headers)])
    bound = [(span.rollout_id, span.attempt) for span in published_spans(publisher)]
    assert bound == [(mine, 1), (mine, 1), (ROLLOUT, 2), (mine, 1)]


async def test_bytes_that_are_no_otlp_go_to_the_dead_letters_and_stop_nothing(
    handlers: IngestHandlers, publisher: FakePublisher
) -> None:
    good = record(otlp_request(otlp_span()).SerializeToString())
    await handlers.on_otlp([record(b"\xff\xff\xff not protobuf", 1), good])
    assert len(publisher.published) == 1
    [(topic, _, value)], [told] = publisher.raw, publisher.raw_headers
    assert (topic, value) == ("otlp.v1.dlq", b"\xff\xff\xff not protobuf")
    assert "not a valid OTLP" in told["leyden-error"]


async def test_one_bad_span_goes_to_the_dead_letters_without_its_neighbours(
    handlers: IngestHandlers, publisher: FakePublisher
) -> None:
    bad = otlp_span(span_id="00")
    headers = {PROJECT_HEADER: "a"}
    await handlers.on_otlp([record(otlp_request(bad, otlp_span()).SerializeToString(), 7, headers)])
    [good] = published_spans(publisher)
    assert good.trace_id == ATTEMPT.trace_id
    [(topic, key, value)], [told] = publisher.raw, publisher.raw_headers
    assert (topic, key, told["leyden-origin"], told[PROJECT_HEADER]) == ("otlp.v1.dlq", "k", "otlp.v1/0/7", "a")
    assert "span id" in told["leyden-error"]
    assert value == otlp_request(bad).SerializeToString()


async def test_an_empty_request_is_nothing(handlers: IngestHandlers, publisher: FakePublisher) -> None:
    await handlers.on_otlp([record(b"")])
    assert (publisher.published, publisher.raw) == ([], [])


async def test_a_span_that_comes_before_its_parent_or_late_is_the_same_event(
    handlers: IngestHandlers, publisher: FakePublisher
) -> None:
    """Ingest keeps no state: what came before, and whether the rollout is over, changes nothing."""
    spans = [otlp_span({"gen_ai.tool.name": "t"}, span_id=f"00000000000000a{n}") for n in range(3)]
    for parent, child in itertools.pairwise(spans):
        child.parent_span_id = parent.span_id
    before = metric("spans_before_parent")
    await handlers.on_otlp([record(otlp_request(*spans).SerializeToString())])
    in_order = {span.event_id: span for span in published_spans(publisher)}
    publisher.published.clear()
    assert metric("spans_before_parent") == before
    await handlers.on_otlp([record(otlp_request(*reversed(spans)).SerializeToString())])
    assert {span.event_id: span for span in published_spans(publisher)} == in_order
    assert metric("spans_before_parent") == before + 2


async def test_how_late_a_span_comes_is_seen_in_the_age_of_its_request(
    handlers: IngestHandlers, publisher: FakePublisher
) -> None:
    def sum_of_ages() -> float:
        return REGISTRY.get_sample_value("leyden_ingest_request_age_seconds_sum") or 0.0

    late, before = otlp_span(), sum_of_ages()
    late.start_time_unix_nano = late.end_time_unix_nano = END - 3600 * 10**9
    await handlers.on_otlp([record(otlp_request(late).SerializeToString())])
    assert sum_of_ages() - before == pytest.approx(3601)
    assert len(published_spans(publisher)) == 1


async def test_an_end_before_the_start_is_set_to_the_start_and_told(
    handlers: IngestHandlers, publisher: FakePublisher
) -> None:
    skewed = otlp_span()
    skewed.end_time_unix_nano = START - 5
    before = metric("anomalous_spans", what="end_before_start")
    await handlers.on_otlp([record(otlp_request(skewed).SerializeToString())])
    [span] = published_spans(publisher)
    assert (span.start_unix_nano, span.end_unix_nano) == (START, START)
    assert span.attributes["otel.clock"] == {"end_unix_nano": START - 5}
    assert metric("anomalous_spans", what="end_before_start") == before + 1


async def test_a_span_of_the_future_is_kept_as_it_is_and_counted(
    handlers: IngestHandlers, publisher: FakePublisher
) -> None:
    future = otlp_span()
    future.start_time_unix_nano = future.end_time_unix_nano = 2**64 - 1
    before = metric("anomalous_spans", what="in_the_future")
    await handlers.on_otlp([record(otlp_request(future).SerializeToString())])
    [span] = published_spans(publisher)
    assert span.end_unix_nano == 2**64 - 1
    assert span.event_time.year == 2554
    assert metric("anomalous_spans", what="in_the_future") == before + 1


async def test_ten_megabytes_of_attributes_are_cut_with_a_mark(
    handlers: IngestHandlers, publisher: FakePublisher
) -> None:
    big = otlp_span({"gen_ai.tool.name": "t", "gen_ai.tool.call.result": "x" * 10_000_000, "after": "kept"})
    many = otlp_span({f"name {n}": "y" * 100 for n in range(40_000)}, span_id="00000000000000a2")
    before = metric("anomalous_spans", what="cut")
    await handlers.on_otlp([record(otlp_request(big, many).SerializeToString())])
    one, two = published_spans(publisher)
    assert one.tool is not None
    assert one.tool.result == "x" * 50_000
    assert one.attributes["otel.cut"] == {"gen_ai.tool.call.result": 10_000_000}
    assert one.attributes["after"] == "kept"
    kept = [name for name in two.attributes if name.startswith("name ")]
    assert two.attributes["otel.dropped"] == 40_000 - len(kept)
    assert max(len(o.event) for o in publisher.published if isinstance(o.event, bytes)) < 200_000
    assert metric("anomalous_spans", what="cut") == before + 2


def log_record(attributes: dict[str, object], **fields: object) -> LogRecord:
    traced = {"trace_id": bytes.fromhex(ATTEMPT.trace_id), "span_id": bytes.fromhex("00000000000000a1")}
    return LogRecord(**{"time_unix_nano": END, **traced, **fields}, attributes=key_values(attributes))  # type: ignore[arg-type]


async def logged(handlers: IngestHandlers, *records: LogRecord) -> None:
    scope = ScopeLogs(log_records=records)
    request = ExportLogsServiceRequest(resource_logs=[ResourceLogs(scope_logs=[scope])])
    await handlers.on_otlp([record(request.SerializeToString(), 0, {SIGNAL_HEADER: "logs"})])


async def test_an_evaluation_in_a_log_is_a_score_under_its_span(
    handlers: IngestHandlers, publisher: FakePublisher
) -> None:
    score = {"gen_ai.evaluation.name": "helpful", "gen_ai.evaluation.score.value": 0.5}
    one = log_record(score, event_name="gen_ai.evaluation.result")
    await logged(handlers, one, one, log_record({**score, "event.name": "gen_ai.evaluation.result"}))
    assert len(published_spans(publisher)) == 2
    for span in published_spans(publisher):
        assert (span.kind, span.derived, span.rollout_id) == (SpanKind.EVALUATION, True, ROLLOUT)
        assert (span.parent_span_id, span.end_unix_nano) == ("00000000000000a1", END)
        assert span.evaluation is not None
        assert (span.evaluation.name, span.evaluation.value) == ("helpful", 0.5)


async def test_messages_in_logs_are_kept_under_their_call_and_are_no_call(
    handlers: IngestHandlers, publisher: FakePublisher
) -> None:
    body = AnyValue(string_value='{"content": "hello"}')
    await logged(handlers, log_record({"gen_ai.system": "openai"}, event_name="gen_ai.user.message", body=body))
    [span] = published_spans(publisher)
    assert (span.kind, span.derived) == (SpanKind.OTHER, True)
    assert span.llm is not None
    assert span.llm.input_messages == [{"role": "user", "content": "hello"}]


async def test_other_logs_are_let_go_and_counted_but_for_errors(
    handlers: IngestHandlers, publisher: FakePublisher
) -> None:
    before = [metric("log_records_skipped", why=why) for why in ("not_evidence", "no_trace")]
    failed = log_record({"exception.type": "ValueError", "exception.message": "no"}, severity_number=17)
    await logged(handlers, log_record({}, severity_number=9), log_record({}, trace_id=b""), failed)
    [span] = published_spans(publisher)
    assert (span.kind, span.status, span.error_type) == (SpanKind.OTHER, "error", "ValueError")
    after = [metric("log_records_skipped", why=why) for why in ("not_evidence", "no_trace")]
    assert after == [count + 1 for count in before]


class Raising:
    """A dialect of a package that raises for some spans."""

    name = "raising"

    def recognises(self, span: RawSpan) -> bool:
        return span.name == "poison"

    def meaning(self, span: RawSpan) -> Meaning:
        raise KeyError("no such attribute")

    def evaluations(self, span: RawSpan) -> Sequence[tuple[int, JsonObject]]:
        return ()


async def test_a_span_on_which_a_dialect_raises_is_set_apart_and_the_others_go_on(publisher: FakePublisher) -> None:
    handlers = IngestHandlers(publisher, (Raising(), *DIALECTS), ManualClock(NOW), Limits())
    spans = [otlp_span(name=name, span_id=f"{n:016x}") for n, name in enumerate(("good", "poison", "other"), 1)]
    request = otlp_request(*spans)
    before = metric("bad_spans")
    await handlers.on_otlp([record(request.SerializeToString()), record(otlp_request(spans[0]).SerializeToString(), 1)])
    assert [span.name for span in published_spans(publisher)] == ["good", "other"]
    assert metric("bad_spans") == before + 1
    [(topic, _, value)] = publisher.raw
    [headers] = publisher.raw_headers
    assert (topic, headers["leyden-error"]) == ("otlp.v1.dlq", "bad span: KeyError: 'no such attribute'")
    [group] = ExportTraceServiceRequest.FromString(value).resource_spans
    assert [span.name for span in group.scope_spans[0].spans] == ["poison"]


async def test_a_hundred_requests_with_a_wrong_value_around_their_spans_lose_none(
    handlers: IngestHandlers, publisher: FakePublisher
) -> None:
    before = metric("anomalous_spans", what="salvaged")
    records = []
    for number in range(1, 101):
        request = otlp_request(otlp_span(span_id=f"{number:016x}"), resource={"k": "value"})
        request.resource_spans[0].schema_url = "MARK"
        records.append(record(request.SerializeToString().replace(b"MARK", b"\xff\xfe\xff\xfe"), number))
    body = '{"resourceSpans":[{"scopeSpans":[{"scope":{"name":7},"spans":[{"traceId":"%s","spanId":"%016x"}]}]}]}'
    records += [
        record((body % ("ab" * 16, number)).encode(), number, {"content-type": "application/json"})
        for number in range(101, 201)
    ]
    await handlers.on_otlp(records)
    assert len(published_spans(publisher)) == 200
    assert publisher.raw == []
    assert metric("anomalous_spans", what="salvaged") == before + 100


NUMBERS = [
    "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens", "gen_ai.usage.cache_read.input_tokens",
    "gen_ai.usage.cache_creation.input_tokens", "gen_ai.evaluation.score.value", "http.response.status_code",
    "process.exit.code", "db.response.returned_rows", "llm.token_count.prompt", "ai.usage.promptTokens",
    "rpc.jsonrpc.error_code", "leyden.attempt", "gen_ai.request.temperature",
]  # fmt: skip
MARKS: list[JsonObject] = [
    {"gen_ai.operation.name": "chat"}, {"gen_ai.evaluation.name": "helpful"}, {"openinference.span.kind": "LLM"},
    {"ai.operationId": "ai.generateText.doGenerate"}, {"http.method": "GET"}, {"mcp.method.name": "tools/call"},
    {"leyden.rollout_id": ROLLOUT},
]  # fmt: skip
EXTREMES = [
    0, -1, 1, 2**31, 2**53 + 1, 2**63 - 1, -(2**63), 1e308, -1e308, 5e-324, 1e19, math.inf, -math.inf, math.nan, 0.1,
    "9" * 5000, "-0", "1e308", "Infinity", "", True, b"\xff",
]  # fmt: skip
TIMES = [0, 1, 2**63, 2**64 - 1]


@hypothesis.settings(max_examples=200, deadline=None)
@hypothesis.given(
    st.sampled_from(MARKS), st.dictionaries(st.sampled_from(NUMBERS), st.sampled_from(EXTREMES)),
    st.tuples(st.sampled_from(TIMES), st.sampled_from(TIMES), st.sampled_from(TIMES)),
)  # fmt: skip
async def test_no_number_stops_ingest_and_what_it_publishes_is_in_range(
    mark: JsonObject, numbers: dict[str, object], times: tuple[int, int, int]
) -> None:
    publisher = FakePublisher()
    handlers = IngestHandlers(publisher, DIALECTS, ManualClock(NOW), Limits())
    events = [otlp_event("gen_ai.evaluation.result", {"gen_ai.evaluation.name": "e", **numbers}, times[2])]
    span = otlp_span({**mark, **numbers}, events=events)
    span.start_time_unix_nano, span.end_time_unix_nano = times[:2]
    neighbour = otlp_span(span_id="00000000000000ff")
    log = LogRecord(trace_id=span.trace_id, time_unix_nano=times[2], attributes=key_values(numbers), event_name="x")
    log.attributes.extend(key_values({"gen_ai.evaluation.name": "e"}))
    logs = ExportLogsServiceRequest(resource_logs=[ResourceLogs(scope_logs=[ScopeLogs(log_records=[log])])])
    await handlers.on_otlp(
        [
            record(otlp_request(span, neighbour).SerializeToString()),
            record(logs.SerializeToString(), 1, {SIGNAL_HEADER: "logs"}),
        ]
    )
    spans = published_spans(publisher)
    assert publisher.raw == []
    assert len(spans) == 4
    for one in spans:
        assert one.evaluation is None or abs(one.evaluation.value or 0) <= MAX_REWARD
        for value in (one.llm.input_tokens, one.llm.output_tokens, one.llm.cached_tokens) if one.llm else ():
            assert value is None or 0 <= value <= MAX_COUNT
