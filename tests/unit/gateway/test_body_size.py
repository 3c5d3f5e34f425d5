"""What the values of a JSON body take in memory is known before it is decoded."""

import json
import time
import tracemalloc

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyden.gateway.core.request import decoded_bytes

PIECES = (
    "[]", "{}", '""', "0", "1.5", "null", "9999999999999999", '"ab"', '{"":0}', '{"a":{}}', "[[]]", "[[[[0]]]]",
    '{"a":[{"b":[{}]}]}', '"é€"', '"\\ud83d\\ude00 and text"', '"a [list], {of: things}, \\" in text"',
    '{"role":"user","content":"hi, there"}',
)  # fmt: skip
PARSER_BYTES = 10_000
"""What the parser itself keeps, whatever the body."""
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.integers(-(2**63), 2**63 - 1)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def taken(body: bytes) -> int:
    """Bytes that the decoded body takes."""
    tracemalloc.start()
    try:
        value = orjson.loads(body)
        return tracemalloc.get_traced_memory()[0] if value is not None else 0
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("count", [100, 30_000])
def test_no_body_takes_more_than_estimated(piece: str, count: int) -> None:
    body = f"[{','.join([piece] * count)}]".encode()
    assert taken(body) <= decoded_bytes(body) + PARSER_BYTES


@given(st.lists(VALUES, min_size=1, max_size=3), st.integers(1, 200), st.booleans())
@settings(deadline=None, max_examples=40)
def test_any_values_take_no_more_than_estimated(values: list[object], times: int, escaped: bool) -> None:
    body = json.dumps(values * times).encode() if escaped else orjson.dumps(values * times)
    assert taken(body) <= decoded_bytes(body) + PARSER_BYTES


def test_names_that_differ_take_no_more_than_estimated() -> None:
    body = orjson.dumps([{f"name-{row}-{column}": row for column in range(6)} for row in range(5000)])
    assert taken(body) <= decoded_bytes(body)


def test_text_counts_about_once_whatever_is_in_it() -> None:
    text = 'def f(x): return [{"a": 1}, x]  # so, "quoted"\n' * 100_000
    body = orjson.dumps({"messages": [{"role": "user", "content": text}]})
    assert len(body) <= decoded_bytes(body) <= 1.01 * len(body)


@pytest.mark.parametrize(("sign", "times"), [("é", 2), ("—", 2), ("\\u2014", 2), ("😀", 4), ("\\ud83d\\ude00", 4)])
def test_only_a_string_with_wider_characters_counts_more(sign: str, times: int) -> None:
    row = '"' + "words " * 10_000 + '"'
    wide = f'"{sign}' + "words " * 1000 + '"'
    body = f"[{','.join([row] * 10 + [wide])}]".encode()
    assert taken(body) <= decoded_bytes(body) <= len(body) + (times - 1) * 6100 + 2000


@pytest.mark.parametrize(
    "body", [b'"' * 4_000_001, b'\\"' * 4_000_000, b'"' + b'\\"' * 4_000_000, b'["a\\', b"[" * 9_000_000]
)
def test_a_body_that_is_not_json_is_read_once(body: bytes) -> None:
    """A search that starts again at every quote would take days."""
    started = time.process_time()
    decoded_bytes(body)
    assert time.process_time() - started < 10
