"""Half characters, bytes that are no text and bare NaN: what is replaced, and that nothing else changes."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from leyden.events.wellformed import well_formed_json, well_formed_protobuf, well_formed_text
from leyden.events.wire import MalformedError

BROKEN_TEXTS = st.text(st.characters(codec=None, categories=["L", "Cs", "Cc", "So"]), max_size=8)
"""Texts with halves of surrogate pairs, which Python's `json` writes as it finds them."""
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | BROKEN_TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(BROKEN_TEXTS, inner, max_size=3),
)


def replaced(value: Any) -> Any:
    """`value` with U+FFFD for each half of a character, by UTF-16's own rules."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [replaced(item) for item in value]
    return {replaced(k): replaced(v) for k, v in value.items()} if isinstance(value, dict) else value


@given(VALUES)
def test_json_of_broken_texts_becomes_json_of_the_texts_with_the_characters_replaced(value: Any) -> None:
    assert orjson.loads(well_formed_json(json.dumps(value).encode())) == replaced(value)


@given(VALUES)
def test_json_that_can_be_read_keeps_its_bytes(value: Any) -> None:
    for body in (orjson.dumps(replaced(value)), json.dumps(replaced(value)).encode()):
        assert well_formed_json(body) == body


@pytest.mark.parametrize(
    ("body", "means"),
    [
        (rb'["a\ud83d"]', ["a�"]),
        (rb'["\ud83d\u0041"]', ["�A"]),
        (rb'["\uDE00\uD83D\uDE00"]', ["�😀"]),
        (rb'["\\ud83d", "\\\ud83d"]', ["\\ud83d", "\\�"]),
        (b'["a\xffb"]', ["a�b"]),
        (b'["\xed\xa0\xbd\xed\xb8\x80"]', ["😀"]),
        (b'["a\nb\x00"]', ["a\nb\x00"]),
        (b'[NaN, -Infinity, "NaN", "\\"NaN"]', ["NaN", "-Infinity", "NaN", '"NaN']),
    ],
)
def test_what_clients_send_that_json_does_not_know(body: bytes, means: Any) -> None:
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(body)
    assert orjson.loads(well_formed_json(body)) == means


@given(st.binary(max_size=12))
def test_any_bytes_become_text_and_text_stays(raw: bytes) -> None:
    text = well_formed_text(raw)
    text.encode()
    assert well_formed_text(text.encode()) == text


@given(st.lists(st.binary(max_size=6), min_size=1, max_size=4), st.integers(0, 2**64 - 1))
def test_every_text_of_a_message_is_repaired_and_the_rest_kept(raws: list[bytes], start: int) -> None:
    span = Span(trace_id=b"\xff" * 16, start_time_unix_nano=start, name="text0")
    for number in range(1, len(raws)):
        inner = span.attributes.add(key=f"key{number}").value.kvlist_value.values.add(key="k").value
        inner.array_value.values.add(string_value=f"text{number}")
    expected = Span.FromString(span.SerializeToString())
    message = span.SerializeToString()
    wanted = [raw.ljust(5, b".")[:5] for raw in raws]
    for number, raw in enumerate(wanted):
        message = message.replace(f"text{number}".encode(), raw)
    expected.name = well_formed_text(wanted[0])
    for number, attribute in enumerate(expected.attributes, 1):
        attribute.value.kvlist_value.values[0].value.array_value.values[0].string_value = well_formed_text(
            wanted[number]
        )
    assert Span.FromString(well_formed_protobuf(message, Span.DESCRIPTOR)) == expected


def test_a_message_that_is_cut_off_is_not_repaired() -> None:
    with pytest.raises(MalformedError):
        well_formed_protobuf(Span(name="cut").SerializeToString()[:-1], Span.DESCRIPTOR)
