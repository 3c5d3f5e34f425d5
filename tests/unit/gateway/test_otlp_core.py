"""OTLP from the outside: unpacking within a limit, looking, cutting to size. Laws over real and over broken bytes."""

import gzip
import zlib
from collections.abc import Callable

import cramjam
import orjson
import pytest
from google.protobuf.json_format import MessageToJson, Parse
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from leyden.events.otlp import JSON, PROTOBUF, Signal
from leyden.gateway.core.otlp import split as split_module
from leyden.gateway.core.otlp.look import look
from leyden.gateway.core.otlp.split import split
from leyden.gateway.core.otlp.unpack import unpack
from leyden.gateway.core.refusals import Refusal

TRACE = "1e7de" + "c" * 27
ENCODERS = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": lambda body: bytes(cramjam.zstd.compress(body)),
}


def traces(*groups: list[int]) -> ExportTraceServiceRequest:
    """A request with a group for each list, and in it a scope for each number: of so many spans."""
    request = ExportTraceServiceRequest()
    for index, scopes in enumerate(groups):
        group = request.resource_spans.add(schema_url=f"url {index}")
        group.resource.attributes.add(key="r").value.int_value = index
        for place, spans in enumerate(scopes):
            scope = group.scope_spans.add(schema_url="s")
            scope.scope.name = f"scope {place}"
            for number in range(spans):
                scope.spans.add(name=f"{index}.{place}.{number}", trace_id=bytes.fromhex(TRACE), span_id=bytes(8))
    return request


def flat(request: ExportTraceServiceRequest) -> list[tuple[int, str, str, str]]:
    return [
        (group.resource.attributes[0].value.int_value, group.schema_url, scope.scope.name, span.name)
        for group in request.resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    ]


def as_json(request: ExportTraceServiceRequest) -> bytes:
    body: bytes = MessageToJson(request, indent=None).encode()
    return body


def refused(act: Callable[[], object]) -> int | None:
    """With which status; None when it was not. Anything else that is raised goes through."""
    try:
        act()
    except Refusal as refusal:
        return refusal.status
    return None


@pytest.mark.parametrize("encoding", sorted(ENCODERS))
@given(body=st.binary(max_size=2000), times=st.integers(1, 50))
@settings(max_examples=30)
def test_what_was_packed_is_unpacked(encoding: str, body: bytes, times: int) -> None:
    packed = ENCODERS[encoding](body * times)
    assert unpack(encoding.upper(), packed, 100_000, lambda _: None) == body * times


@pytest.mark.parametrize("encoding", sorted(ENCODERS))
def test_a_bomb_is_refused_before_it_is_unpacked(encoding: str) -> None:
    reserved = 0

    def reserve(size: int) -> None:
        nonlocal reserved
        reserved += size

    bomb = ENCODERS[encoding](bytes(50_000_000))
    with pytest.raises(Refusal) as caught:
        unpack(encoding, bomb, 1_000_000, reserve)
    assert caught.value.status == 413
    assert reserved <= 1_000_000


@pytest.mark.parametrize("encoding", sorted(ENCODERS))
def test_the_limit_itself_fits_and_one_byte_more_does_not(encoding: str) -> None:
    assert len(unpack(encoding, ENCODERS[encoding](bytes(1000)), 1000, lambda _: None)) == 1000
    with pytest.raises(Refusal):
        unpack(encoding, ENCODERS[encoding](bytes(1001)), 1000, lambda _: None)


def test_several_gzip_members_and_zstd_frames_are_one_body() -> None:
    for name in ("gzip", "zstd"):
        two = ENCODERS[name](b"one ") + ENCODERS[name](b"two")
        assert unpack(name, two, 100, lambda _: None) == b"one two"


@pytest.mark.parametrize("encoding", [*sorted(ENCODERS), "identity", "br"])
@given(data=st.data())
@settings(max_examples=60)
def test_broken_bodies_are_refused_and_nothing_else(encoding: str, data: st.DataObject) -> None:
    body = data.draw(st.binary(max_size=60))
    if encoding in ENCODERS and data.draw(st.booleans()):
        whole = ENCODERS[encoding](body)
        body = whole[: data.draw(st.integers(0, len(whole) - 1))]
    assert refused(lambda: unpack(encoding, body, 1000, lambda _: None)) in (None, 400, 413, 415)


def test_items_are_counted_and_the_first_trace_id_found() -> None:
    request = traces([2, 3], [1])
    assert (look(Signal.TRACES, PROTOBUF, request.SerializeToString()).items) == 6
    assert look(Signal.TRACES, PROTOBUF, request.SerializeToString()).trace_id == TRACE
    hexed = orjson.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": TRACE.upper()}]}]}]})
    assert look(Signal.TRACES, JSON, hexed).trace_id == TRACE
    logs = ExportLogsServiceRequest()
    logs.resource_logs.add().scope_logs.add().log_records.add(time_unix_nano=1, trace_id=bytes.fromhex(TRACE))
    assert look(Signal.LOGS, PROTOBUF, logs.SerializeToString()).trace_id == TRACE


def test_unknown_fields_are_ignored() -> None:
    assert look(Signal.TRACES, JSON, b'{"resourceSpans":[{"new":1,"scopeSpans":null}],"more":{"a":[]}}').items == 0
    assert look(Signal.TRACES, PROTOBUF, traces([1]).SerializeToString() + b"\xfa\x3e\x03abc").items == 1


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"nothing", b'{"resourceSpans":{}}', b'{"resourceSpans":[1]}', b'{"resourceLogs":[{}]}', b"{" * 99999],
)
def test_what_is_no_json_request_is_refused(body: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        look(Signal.TRACES, JSON, body)
    assert caught.value.status == 400


@pytest.mark.parametrize("content_type", [PROTOBUF, JSON])
@given(groups=st.lists(st.lists(st.integers(0, 12), max_size=4), min_size=1, max_size=4), limit=st.integers(120, 800))
@settings(max_examples=60)
def test_the_parts_of_a_request_are_the_request(content_type: str, groups: list[list[int]], limit: int) -> None:
    whole = traces(*groups)
    body = as_json(whole) if content_type == JSON else whole.SerializeToString()
    parts = split(Signal.TRACES, content_type, body, limit)
    again = ExportTraceServiceRequest()
    for part in parts:
        if content_type == JSON:
            Parse(part, one := ExportTraceServiceRequest())
            again.MergeFrom(one)
        else:
            again.MergeFromString(part)
    assert flat(again) == flat(whole)


def test_parts_are_near_the_limit_and_an_item_is_never_cut() -> None:
    body = traces([200, 200], [300]).SerializeToString()
    parts = split(Signal.TRACES, PROTOBUF, body, 4000)
    assert max(map(len, parts)) < 4400
    assert len(parts) < 2 * len(body) / 4000
    big = traces([3])
    big.resource_spans[0].scope_spans[0].spans[1].name = "x" * 10_000
    sizes = [
        look(Signal.TRACES, PROTOBUF, part).items
        for part in split(Signal.TRACES, PROTOBUF, big.SerializeToString(), 4000)
    ]
    assert sizes == [1, 1, 1]


def test_a_request_that_is_mostly_resource_stays_whole() -> None:
    request = traces([50])
    request.resource_spans[0].resource.attributes.add(key="x").value.string_value = "y" * 5000
    body = request.SerializeToString()
    assert split(Signal.TRACES, PROTOBUF, body, 4000) == [body]


@pytest.mark.parametrize("empty", [b"\x0a\x00", b"\x0a\x02\x12\x00", b"\x0a\x06\x12\x04\x12\x00\x12\x00"])
def test_a_request_of_nothing_but_empty_messages_is_refused(empty: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split_module, "MAX_ITEMS", 1000)
    with pytest.raises(Refusal) as caught:
        split(Signal.TRACES, PROTOBUF, empty * 3000, 1000)
    assert caught.value.status == 413


@given(
    body=st.binary(max_size=200),
    signal=st.sampled_from([Signal.TRACES, Signal.LOGS]),
    kind=st.sampled_from([PROTOBUF, JSON]),
)
def test_any_bytes_are_taken_or_refused(body: bytes, signal: Signal, kind: str) -> None:
    assert refused(lambda: look(signal, kind, body)) in (None, 400)
    assert refused(lambda: split(signal, kind, body, 10)) in (None, 400)


@given(at=st.integers(0, 10_000), byte=st.integers(0, 255), cut=st.booleans(), in_json=st.booleans())
def test_damaged_requests_are_taken_or_refused(at: int, byte: int, cut: bool, in_json: bool) -> None:
    kind = JSON if in_json else PROTOBUF
    body = bytearray(as_json(traces([2], [1, 1])) if in_json else traces([2], [1, 1]).SerializeToString())
    at %= len(body)
    body[at] = byte
    damaged = bytes(body[:at] if cut else body)
    status = refused(lambda: look(Signal.TRACES, kind, damaged))
    assert status in (None, 400)
    if status is None:
        parts = split(Signal.TRACES, kind, damaged, 60)
        seen = look(Signal.TRACES, kind, damaged)
        assert sum(look(Signal.TRACES, kind, part).items for part in parts) == seen.items
