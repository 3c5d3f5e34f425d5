"""Records of otlp.v1 read: both encodings, both signals, and one item that cannot be read beside others that can."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from leyden.events import Json
from leyden.events.otlp import JSON, PROTOBUF, AttemptBy, Signal
from leyden.ids import AttemptRef
from leyden.ingest.core.decode import UnreadableError, decode
from leyden.ingest.core.raw import plain_attributes
from unit.ingest.otlp_builders import ATTEMPT, any_value, otlp_request, otlp_span

EXTREMES = [
    "1e999", "-1e999", "9" * 400, "-9" * 1, "1e308", "18446744073709551616", "NaN", "null", "true", "7", '"x"', '""',
    "[]",
    "{}", "[1]", '{"a": 1}', '"\\ud83d"', "[" * 150 + "]" * 150,
]  # fmt: skip
VECTORS = Path(__file__).parents[2] / "golden" / "otlp"
IN_JSON = {"content-type": JSON, "leyden-signal": "traces"}
LOGS = {"content-type": PROTOBUF, "leyden-signal": "logs"}
TRACE, SPAN = "1e7de" + "b" * 23 + "0001", "00f067aa0ba902b7"


def vector(name: str) -> Span:
    decoded = decode((VECTORS / f"{name}_traces.json").read_bytes(), IN_JSON)
    assert decoded.bad == []
    return decoded.traces.resource_spans[0].scope_spans[0].spans[0]


@pytest.mark.parametrize("exporter", ["javascript", "python"])
def test_spans_of_the_official_json_exporters(exporter: str) -> None:
    span = vector(exporter)
    assert (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()) == (TRACE, SPAN, "00f067aa0ba902b8")
    assert (span.name, span.kind, span.status.code, span.status.message) == ("chat policy", 3, 2, "it broke")
    assert (span.start_time_unix_nano, span.end_time_unix_nano) == (
        1_700_000_000_123_456_789,
        1_700_000_001_987_654_321,
    )
    assert [(e.name, e.time_unix_nano) for e in span.events] == [("gen_ai.choice", 1_700_000_000_200_000_000)]
    assert {a.key: a.value for a in span.attributes} == {
        key: any_value(value)
        for key, value in {
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": "policy",
            "gen_ai.usage.input_tokens": 12,
            "big": 9007199254740991,
            "share": 0.5,
            "yes": True,
            "list": ["a", "b"],
            "unicode": "Grüße, 世界",
        }.items()
    }


@pytest.mark.parametrize("exporter", ["javascript", "python"])
def test_log_records_of_the_official_json_exporters(exporter: str) -> None:
    decoded = decode((VECTORS / f"{exporter}_logs.json").read_bytes(), {"content-type": JSON, "leyden-signal": "logs"})
    record = decoded.logs.resource_logs[0].scope_logs[0].log_records[0]
    assert (record.event_name, record.trace_id.hex(), record.span_id.hex()) == ("gen_ai.evaluation.result", TRACE, SPAN)
    assert {a.key: a.value for a in record.attributes}["gen_ai.evaluation.score.value"] == any_value(0.75)
    assert record.body == any_value({"why": "good"})


def test_a_record_without_headers_is_a_protobuf_trace_request() -> None:
    request = otlp_request(otlp_span())
    decoded = decode(request.SerializeToString(), {})
    assert (decoded.signal, decoded.traces, decoded.project, decoded.attempt) == (Signal.TRACES, request, None, None)


def test_the_headers_say_project_and_attempt() -> None:
    headers = {"leyden-project": "search", "leyden-attempt": ATTEMPT.trace_id, "leyden-attempt-by": "key"}
    decoded = decode(b"", headers)
    assert (decoded.project, decoded.attempt, decoded.attempt_by) == ("search", AttemptRef(*ATTEMPT), AttemptBy.KEY)


def test_log_records_in_protobuf() -> None:
    request = ExportLogsServiceRequest()
    request.resource_logs.add().scope_logs.add().log_records.add(event_name="e")
    decoded = decode(request.SerializeToString(), LOGS)
    assert (decoded.logs, decoded.traces) == (request, ExportTraceServiceRequest())


def test_one_unreadable_span_in_protobuf_is_set_apart() -> None:
    good = otlp_span(name="good")
    whole = otlp_request(otlp_span(name="ab"), good, resource={"service.name": "s"}).SerializeToString()
    decoded = decode(whole.replace(b"\x2a\x02ab", b"\x2f\x02ab", 1), {})  # a wire type that does not exist
    scope = decoded.traces.resource_spans[0].scope_spans[0]
    assert [span.name for span in scope.spans] == ["good"]
    assert (scope.scope.name, decoded.traces.resource_spans[0].resource.attributes[0].key) == ("tests", "service.name")
    [bad] = decoded.bad
    again = decode(bad.request, {})
    assert [one.request for one in again.bad] == [bad.request]
    assert not again.traces.resource_spans[0].scope_spans[0].spans


HALF, CUT = "go \ud83d", "go �"


def three_texts(request: ExportTraceServiceRequest) -> list[list[str]]:
    """Every text of each span, with those of its resource and scope."""
    group = request.resource_spans[0]
    around = [group.resource.attributes[0].value.string_value, group.scope_spans[0].scope.name]
    return [
        [*around, s.name, s.status.message, s.attributes[0].key, s.attributes[0].value.string_value, s.events[0].name]
        for s in group.scope_spans[0].spans
    ]


@pytest.mark.parametrize("where", range(7))
@pytest.mark.parametrize("in_json", [True, False])
def test_half_an_emoji_costs_one_character_and_the_neighbours_are_kept(where: int, in_json: bool) -> None:
    marks = [f"<text {number}>" for number in range(7)]
    scope = {"name": marks[1]}
    spans = [
        {"traceId": "ab" * 16, "spanId": f"{number:016x}", "name": text[2], "status": {"message": text[3], "code": 2},
         "attributes": [{"key": text[4], "value": {"stringValue": text[5]}}], "events": [{"name": text[6]}]}
        for number, text in enumerate([["first"] * 7, marks, ["third"] * 7], 1)
    ]  # fmt: skip
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": marks[0]}}]}
    group = {"resource": resource, "scopeSpans": [{"scope": scope, "spans": spans}]}
    whole = json.dumps({"resourceSpans": [group]}).encode()
    expected = three_texts(decode(whole.replace(marks[where].encode(), CUT.encode()), IN_JSON).traces)
    if in_json:
        broken = decode(whole.replace(marks[where].encode(), HALF.encode("ascii", "backslashreplace")), IN_JSON)
    else:
        proto = decode(whole, IN_JSON).traces.SerializeToString()
        raw = HALF.encode("utf-8", "surrogatepass").ljust(len(marks[where]))
        expected = [[CUT + " " * (len(raw) - 6) if text == CUT else text for text in texts] for texts in expected]
        broken = decode(proto.replace(marks[where].encode(), raw), {})
    assert broken.bad == []
    assert three_texts(broken.traces) == expected


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"traceId": "not hex"}, "not hex"),
        ({"spanId": 12}, "not hex"),
        ({"traceId": "W47/95gDgQPSabYzgT/GDA=="}, "not hex"),
        ({"attributes": "none"}, "attributes"),
        ({"startTimeUnixNano": "soon"}, "startTimeUnixNano"),
        (7, "int"),
    ],
)
def test_one_unreadable_span_in_json_is_set_apart(wrong: Any, why: str) -> None:
    good = {"traceId": "AB" * 16, "spanId": SPAN, "name": "good", "parentSpanId": "", "new": {"field": 1}}
    bad = wrong if isinstance(wrong, int) else good | {"name": "bad"} | wrong
    group = {"resource": {"attributes": []}, "scopeSpans": [{"scope": {"name": "s"}, "spans": [good, bad]}]}
    decoded = decode(orjson.dumps({"resourceSpans": [group]}), IN_JSON)
    [span] = decoded.traces.resource_spans[0].scope_spans[0].spans
    assert (span.name, span.trace_id, span.parent_span_id) == ("good", b"\xab" * 16, b"")
    [apart] = decoded.bad
    assert why in apart.reason
    scopes = [{"scope": {"name": "s"}, "spans": [bad]}]
    assert orjson.loads(apart.request) == {"resourceSpans": [group | {"scopeSpans": scopes}]}


def test_enums_are_numbers_and_64_bit_numbers_may_be_text() -> None:
    links = [{"traceId": "cd" * 16, "spanId": SPAN}]
    span = {"traceId": "ab" * 16, "spanId": SPAN, "kind": 3, "status": {"code": 2}, "endTimeUnixNano": 5}
    attributes = [
        {"key": "n", "value": {"intValue": "-9223372036854775808"}},
        {"key": "nan", "value": {"doubleValue": "NaN"}},
        {"key": "raw", "value": {"bytesValue": "AAE="}},
    ]
    body = orjson.dumps(
        {"resourceSpans": [{"scopeSpans": [{"spans": [span | {"attributes": attributes, "links": links}]}]}]}
    )
    [read] = decode(body, IN_JSON).traces.resource_spans[0].scope_spans[0].spans
    assert (read.kind, read.status.code, read.end_time_unix_nano) == (3, 2, 5)
    assert (read.links[0].trace_id, read.links[0].span_id.hex()) == (b"\xcd" * 16, SPAN)
    values = {a.key: a.value for a in read.attributes}
    assert (values["n"].int_value, values["raw"].bytes_value) == (-(2**63), b"\x00\x01")
    assert values["nan"].double_value != values["nan"].double_value


GOOD_SPAN = {"traceId": "ab" * 16, "spanId": SPAN, "name": "good"}
BAD_HEADS: dict[str, str] = {
    "a scope's name is a number": '{"resourceSpans":[{"scopeSpans":[{"scope":{"name":7},"spans":[SPAN]}]}]}',
    "a scope's version is true": '{"resourceSpans":[{"scopeSpans":[{"scope":{"version":true},"spans":[SPAN]}]}]}',
    "a scope is a text": '{"resourceSpans":[{"scopeSpans":[{"scope":"s","spans":[SPAN]}]}]}',
    "a scope's attributes are a text":
        '{"resourceSpans":[{"scopeSpans":[{"scope":{"name":"s","attributes":"a"},"spans":[SPAN]}]}]}',
    "a resource is a number": '{"resourceSpans":[{"resource":1,"scopeSpans":[{"spans":[SPAN]}]}]}',
    "a resource's attribute is beyond a double":
        '{"resourceSpans":[{"resource":{"attributes":[{"key":"n","value":{"doubleValue":1e999}}]},'
        '"scopeSpans":[{"spans":[SPAN]}]}]}',
    "a resource's attribute has the wrong type":
        '{"resourceSpans":[{"resource":{"attributes":[{"key":"n","value":{"intValue":"x"}}]},'
        '"scopeSpans":[{"spans":[SPAN]}]}]}',
    "a resource's attribute is no object":
        '{"resourceSpans":[{"resource":{"attributes":["x"]},"scopeSpans":[{"spans":[SPAN]}]}]}',
    "a resource's count is negative":
        '{"resourceSpans":[{"resource":{"droppedAttributesCount":-1},"scopeSpans":[{"spans":[SPAN]}]}]}',
    "a schema's address is a number":
        '{"resourceSpans":[{"schemaUrl":7,"scopeSpans":[{"schemaUrl":{},"spans":[SPAN]}]}]}',
    "another group is a number": '{"resourceSpans":[1,{"scopeSpans":[{"spans":[SPAN]}]}]}',
    "another scope is a number": '{"resourceSpans":[{"scopeSpans":[1,{"spans":[SPAN]}]}]}',
    "another group's scopes are an object": '{"resourceSpans":[{"scopeSpans":{}},{"scopeSpans":[{"spans":[SPAN]}]}]}',
    "an unknown field is beyond a double": '{"resourceSpans":[{"new":1e999,"scopeSpans":[{"spans":[SPAN]}]}]}',
    "an attribute is nested deeply":
        '{"resourceSpans":[{"resource":{"attributes":[{"key":"n","value":' + '{"arrayValue":{"values":[' * 200 + "{}"
        + "]}}" * 200 + '}]},"scopeSpans":[{"spans":[SPAN]}]}]}',
}  # fmt: skip


@pytest.mark.parametrize("wrong", BAD_HEADS)
def test_what_is_wrong_around_a_span_does_not_cost_it(wrong: str) -> None:
    decoded = decode(BAD_HEADS[wrong].replace("SPAN", json.dumps(GOOD_SPAN)).encode(), IN_JSON)
    spans = [s for group in decoded.traces.resource_spans for scope in group.scope_spans for s in scope.spans]
    assert [span.name for span in spans] == ["good"]
    for bad in decoded.bad:
        assert "SPAN" not in bad.request.decode()
        assert json.dumps(GOOD_SPAN)[:20].encode() not in bad.request


def test_a_wrong_type_costs_as_little_as_it_can() -> None:
    attributes = [
        {"key": "right", "value": {"intValue": "7"}},
        {"key": "wrong", "value": {"intValue": "seven"}},
        {"key": "beyond", "value": {"doubleValue": 1}},
        {"key": "list", "value": {"arrayValue": {"values": [{"intValue": "x"}, {"stringValue": "kept"}]}}},
        {"key": 9, "value": {"stringValue": 5}},
        "no attribute",
    ]
    span = GOOD_SPAN | {"name": 12, "attributes": attributes, "events": [{"name": 3, "attributes": attributes}]}
    scope = {"name": 7, "version": "1", "attributes": attributes}
    group = {"resource": {"attributes": attributes}, "scopeSpans": [{"scope": scope, "spans": [span]}]}
    body = json.dumps({"resourceSpans": [group]}).replace('"doubleValue": 1}', '"doubleValue": 1e999}')
    decoded = decode(body.encode(), IN_JSON)
    assert (decoded.bad, decoded.salvaged) == ([], 3)
    [found] = decoded.traces.resource_spans
    [read] = found.scope_spans[0].spans
    assert (found.scope_spans[0].scope.name, read.name, read.events[0].name) == ("7", "12", "3")
    expected: Json = {
        "right": 7, "wrong": "seven", "beyond": "inf", "list": ["x", "kept"], "9": "5",
    }  # fmt: skip
    for holder in (found.resource, found.scope_spans[0].scope, read, read.events[0]):
        assert plain_attributes(holder.attributes) == expected


@settings(max_examples=150, deadline=None)
@given(data=st.data(), extreme=st.sampled_from(EXTREMES))
def test_a_wrong_value_at_any_place_costs_no_neighbour(data: st.DataObject, extreme: str) -> None:
    """One value of a whole request, at any depth, is replaced; spans in other places than its own are all there."""

    def span(number: int) -> dict[str, Any]:
        value = {"key": "k", "value": {"kvlistValue": {"values": [{"key": "n", "value": {"intValue": "1"}}]}}}
        return {
            "traceId": "ab" * 16, "spanId": f"{number:016x}", "name": "n", "kind": 1, "startTimeUnixNano": "1",
            "endTimeUnixNano": 2, "attributes": [value], "events": [{"name": "e", "attributes": [value]}],
            "status": {"code": 1, "message": "m"}, "links": [{"traceId": "cd" * 16, "spanId": SPAN}],
        }  # fmt: skip

    attributes = [{"key": "a", "value": {"doubleValue": 1.5}}, {"key": "b", "value": {"boolValue": True}}]
    group = {
        "resource": {"attributes": attributes, "droppedAttributesCount": 1}, "schemaUrl": "u",
        "scopeSpans": [{"scope": {"name": "s", "version": "1", "attributes": attributes}, "spans": [span(1), span(2)]}],
    }  # fmt: skip
    request = {"resourceSpans": [group, {**group, "scopeSpans": [{"spans": [span(3)]}]}]}
    request = json.loads(json.dumps(request))
    paths = list(paths_of(request))
    path = data.draw(st.sampled_from([one for one in paths if len(one) > 1]))
    holder = request
    for step in path[:-1]:
        holder = holder[step]
    holder[path[-1]] = "MARK"
    decoded = decode(json.dumps(request).replace('"MARK"', extreme).encode(), IN_JSON)
    found = [s.span_id for g in decoded.traces.resource_spans for c in g.scope_spans for s in c.spans]
    own = set[int]()
    if path[2:3] in ((), ("scopeSpans",)) and (len(path) <= 4 or path[4:] == ("spans",)):
        own = {1, 2} if path[1] == 0 else {3}  # the list of spans itself
    elif path[2] == "scopeSpans" and path[4] == "spans":
        own = {3 if path[1] == 1 else 1 + path[5]}
    assert {int(id_.hex(), 16) for id_ in found if id_} >= {1, 2, 3} - own


def paths_of(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in `value`."""
    if path:
        yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from paths_of(inner, (*path, key))


def test_a_schemas_address_that_is_not_utf8_costs_nothing_in_protobuf() -> None:
    request = otlp_request(otlp_span(name="good"))
    request.resource_spans[0].schema_url = "group's"
    request.resource_spans[0].scope_spans[0].schema_url = "scope's"
    whole = request.SerializeToString()
    for mark in (b"group's", b"scope's"):
        decoded = decode(whole.replace(mark, b"\xff" * 7), {})
        assert (decoded.bad, decoded.traces.resource_spans[0].scope_spans[0].spans[0].name) == ([], "good")


def test_a_resource_or_group_that_is_no_message_costs_no_other_in_protobuf() -> None:
    good, other = (otlp_request(otlp_span(name=name), resource={"k": "value"}) for name in ("good", "other"))
    broken = other.SerializeToString().replace(b"\x0a\x01k", b"\x0f\x01k", 1)  # a wire type that does not exist
    for whole in (broken + good.SerializeToString(), good.SerializeToString() + broken):
        decoded = decode(whole, {})
        names = [s.name for g in decoded.traces.resource_spans for s in g.scope_spans[0].spans]
        assert sorted(names) == ["good", "other"]
        assert decoded.salvaged == 1
    no_group = b"\x0a\x02\x0f\x0f"
    decoded = decode(no_group + good.SerializeToString(), {})
    assert [g.scope_spans[0].spans[0].name for g in decoded.traces.resource_spans] == ["good"]
    assert [bad.request for bad in decoded.bad] == [no_group]
    cut = decode(good.SerializeToString() + other.SerializeToString()[:-9], {})
    assert [g.scope_spans[0].spans[0].name for g in cut.traces.resource_spans] == ["good"]


@pytest.mark.parametrize(
    ("value", "headers"),
    [
        (b"\xff\xff\xff not protobuf", {}),
        (b"no json", IN_JSON),
        (b"[]", IN_JSON),
        (b'{"resourceSpans":{}}', IN_JSON),
        (b'{"resourceSpans":[{"resource":1}]}', IN_JSON),
        (b"", {"leyden-signal": "metrics"}),
        (b"", {"leyden-signal": "?"}),
    ],
)
def test_what_is_no_request_is_said_to_be_unreadable(value: bytes, headers: dict[str, str]) -> None:
    with pytest.raises(UnreadableError):
        decode(value, headers)
